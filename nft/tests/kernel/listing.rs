//! What nft lists of what we commit, it lists of the same written as text, and both read back alike.

use selvedge_nft::{Kernel, Rule, Ruleset};

use crate::lab::*;
use crate::samples::*;

/// nft's listing of a ruleset committed over netlink, and of the text loaded by nft, with what each reads back as.
fn both_ways(desired: &Ruleset, text: &str) -> [(String, Ruleset); 2] {
    let committed = in_namespace(|| {
        let mut kernel = kernel_with(desired);
        (list(), read(&mut kernel))
    });
    let loaded = in_namespace(|| {
        load(text);
        (list(), read(&mut Kernel::open().unwrap()))
    });
    [committed, loaded]
}

fn split(samples: Vec<(&'static str, Vec<selvedge_nft::Statement>)>) -> (String, Vec<Rule>) {
    let (lines, rules): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    (lines.join("\n"), rules.into_iter().map(Rule::new).collect())
}

#[test]
fn our_netlink_and_nfts_text_are_the_same_ruleset() {
    let (inet_lines, inet_values) = split(inet_rules());
    let (bridge_lines, bridge_values) = split(bridge_rules());
    let desired = ruleset([
        (inet(), inet_table(inet_values)),
        (bridge(), bridge_table(bridge_values)),
    ]);
    let text = [
        INET_TEXT.replace("RULES", &inet_lines),
        BRIDGE_TEXT.replace("RULES", &bridge_lines),
    ];
    let [(committed, ours), (loaded, theirs)] = both_ways(&desired, &text.concat());
    for (ours, theirs) in committed.lines().zip(loaded.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(committed, loaded);
    assert_eq!(ours, desired);
    for (id, table) in &desired.tables {
        let theirs = &theirs.tables[id];
        for (name, chain) in &table.chains {
            for (rule, theirs) in chain.rules.iter().zip(&theirs.chains[name].rules) {
                assert_eq!(theirs, rule, "chain {name}");
            }
        }
        for (name, set) in &table.sets {
            assert_eq!(&theirs.sets[name], set, "set {name}");
        }
    }
    assert_eq!(theirs, desired);
}
