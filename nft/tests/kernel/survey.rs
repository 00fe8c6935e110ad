//! Everyone's tables are seen as they are, of every family.

use selvedge_nft::{Kernel, Survey, SurveyedChain};

use crate::lab::*;

fn survey_of(script: &str) -> Survey {
    in_namespace(|| {
        load(script);
        Kernel::open().unwrap().survey().unwrap()
    })
}

fn chain<'a>(survey: &'a Survey, family: &str, table: &str, name: &str) -> &'a SurveyedChain {
    let table = survey.table(family, table).unwrap();
    let found = table.chains.iter().find(|chain| chain.name == name);
    found.unwrap()
}

#[test]
fn an_empty_namespace_has_nothing() {
    assert_eq!(survey_of("flush ruleset"), Survey::default());
}

#[test]
fn tables_chains_and_sets_are_seen_with_what_they_do() {
    let survey = survey_of(
        "table ip filter {
            set KUBE-SRC-A { type ipv4_addr; elements = { 10.0.0.1 }; }
            chain FORWARD { type filter hook forward priority -5; policy drop; counter jump A; }
            chain A { ip saddr @KUBE-SRC-A accept; ip saddr { 10.0.0.2, 10.0.0.3 } drop; tcp dport 80 reject; }
            chain LEFT { drop; }
        }
        table ip6 filter { }
        table inet maps {
            map m { type ipv4_addr : verdict; }
            map n { type ipv4_addr : ipv4_addr; }
            chain in { type filter hook input priority 0; ip saddr vmap @m; }
            chain out { type nat hook postrouting priority 100; snat ip to ip saddr map @n; }
        }
        table bridge guard { chain pre { type filter hook prerouting priority -300; ether type vlan drop; }; }
        table arp a { chain in { type filter hook input priority 0; }; }",
    );
    let tables: Vec<String> = survey
        .tables
        .iter()
        .map(|table| format!("{} {}", table.family, table.name))
        .collect();
    assert_eq!(
        tables,
        [
            "ip filter",
            "ip6 filter",
            "inet maps",
            "bridge guard",
            "arp a"
        ]
    );
    let filter = survey.table("ip", "filter").unwrap();
    assert_eq!(filter.sets, ["KUBE-SRC-A"]);
    assert_eq!(filter.called(), ["A", "FORWARD"].into());
    let forward = chain(&survey, "ip", "filter", "FORWARD");
    let base = forward.base.as_ref().unwrap();
    assert_eq!((base.kind.as_str(), base.hook), ("filter", "forward"));
    assert_eq!((base.priority, base.drops), (-5, true));
    assert_eq!((forward.rules, forward.drops), (1, 0));
    let a = chain(&survey, "ip", "filter", "A");
    assert_eq!((a.rules, a.drops, a.maps), (3, 2, false));
    assert!(chain(&survey, "inet", "maps", "in").maps);
    let out = chain(&survey, "inet", "maps", "out");
    assert!(!out.maps);
    assert_eq!(out.base.as_ref().unwrap().kind, "nat");
    assert!(!out.base.as_ref().unwrap().drops);
    assert_eq!(chain(&survey, "bridge", "guard", "pre").drops, 1);
    let arp = chain(&survey, "arp", "a", "in");
    assert_eq!(arp.base.as_ref().unwrap().hook, "other");
}
