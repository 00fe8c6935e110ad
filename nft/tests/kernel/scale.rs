//! A million elements in one commit.

use std::net::Ipv4Addr;
use std::time::Instant;

use selvedge_nft::{Datatype, Key, Table};

use crate::lab::*;

/// Elements in all; fewer without optimisation, where the test is there for the messages' limits and not for time.
const ELEMENTS: u32 = if cfg!(debug_assertions) {
    300_000
} else {
    1_000_000
};
const SETS: u32 = 6;

#[test]
fn a_million_elements_commit_at_once_and_read_back() {
    in_namespace(|| {
        let address = |n: u32| Key::from(Ipv4Addr::from(0x0a00_0000 + n));
        let each = ELEMENTS / SETS;
        let mut table = Table::default();
        for number in 0..SETS {
            let all = (0..each).map(|n| address(number * each + n));
            let elements = match number % 3 {
                0 | 1 => keys(all),
                // Every other address, so that none touch.
                _ => ranges((0..each).map(|n| (address(n * 2), address(n * 2)))),
            };
            let name = name(&format!("pods-{number}"));
            table
                .sets
                .insert(name, set(&[Datatype::Ipv4Addr], elements));
        }
        let desired = ruleset([(inet(), table)]);
        let start = Instant::now();
        let mut kernel = kernel_with(&desired);
        let committed = start.elapsed();
        let found = read(&mut kernel);
        println!(
            "{ELEMENTS} elements: committed in {committed:?}, read back in {:?}",
            start.elapsed() - committed
        );
        assert!(found == desired, "the elements differ");
    });
}
