//! What the kernel said once reads the same when it is told again.

use std::fs;
use std::path::Path;

use selvedge_nft::{Kernel, Recording};

use crate::lab::*;
use crate::samples::*;

/// The seeds of the fuzz target `netlink`; `BLESS=1` writes them anew. The first byte says how a seed is read.
const SEEDS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../integration/fuzz/seeds/netlink"
);

fn bless(name: &str, choice: u8, recording: &Recording) {
    if std::env::var_os("BLESS").is_some() {
        let bytes = [vec![choice], recording.to_bytes()].concat();
        fs::write(Path::new(SEEDS).join(name), bytes).unwrap();
    }
}

#[test]
fn what_the_kernel_said_reads_the_same_again() {
    let (_, inet_values): (Vec<_>, Vec<_>) = inet_rules().into_iter().unzip();
    let (_, bridge_values): (Vec<_>, Vec<_>) = bridge_rules().into_iter().unzip();
    let rules = |values: Vec<_>| values.into_iter().map(selvedge_nft::Rule::new);
    let desired = ruleset([
        (inet(), inet_table(rules(inet_values))),
        (bridge(), bridge_table(rules(bridge_values))),
    ]);
    let tables = [inet(), bridge()];
    in_namespace(|| {
        let mut kernel = kernel_with(&desired);
        let (said, read) = Recording::of_tables(&mut kernel, &tables).unwrap();
        assert_eq!(read, desired);
        let told = Recording::from_bytes(&said.to_bytes());
        assert_eq!(told, said);
        assert_eq!(told.ruleset(&tables).unwrap(), desired);
        bless("ruleset", 0, &said);
        bless("notifications", 2, &said);

        let (said, surveyed) = Recording::of_survey(&mut kernel).unwrap();
        let told = Recording::from_bytes(&said.to_bytes());
        assert_eq!(told.survey().unwrap(), surveyed);
        bless("survey", 1, &said);
    });
    // What is none of ours is read, too.
    in_namespace(|| {
        load(
            "table inet selvedge {
                set s { type ipv4_addr; flags timeout, interval; elements = { 10.0.0.0/8 timeout 1h } }
                map m { type ipv4_addr : mark; elements = { 10.0.0.1 : 7 } }
                chain c { type nat hook postrouting priority 100; ip saddr { 10.0.0.1, 10.0.0.2 } masquerade; }
                chain d { ip saddr . tcp dport vmap { 10.0.0.1 . 80 : accept } log prefix \"x\" limit rate 5/second reject; }
            }",
        );
        let mut kernel = Kernel::open().unwrap();
        let (said, read) = Recording::of_tables(&mut kernel, &tables).unwrap();
        assert_eq!(said.ruleset(&tables).unwrap(), read);
        bless("foreign", 0, &said);
        let (said, surveyed) = Recording::of_survey(&mut kernel).unwrap();
        assert_eq!(said.survey().unwrap(), surveyed);
        bless("foreign-survey", 1, &said);
    });
}
