//! Against the real nft, in network namespaces of their own; and what only we print.

use std::sync::Arc;

use crate::diff;
use crate::rule::{Operator, Rule, Statement, TcpFlags, Verdict};
use crate::ruleset::{BaseChain, Chain, ChainPolicy, Family, Hook, Ownership, Ruleset, Table};
use crate::testing::{accepted, chain, handmade, jump, name, namespace, sorted_listing, table_id};
use crate::text::names::RESERVED;
use crate::text::{list, script};
use crate::transaction::Op;

#[test]
fn nft_lists_what_the_script_loads() {
    let ruleset = handmade();
    let listed = namespace(&[&script(&ruleset)]).unwrap();
    assert_eq!(listed, list(&ruleset));
}

#[test]
fn loading_a_script_replaces_what_is_there() {
    let ruleset = handmade();
    let script = script(&ruleset);
    let other = "table inet selvedge { chain other { type filter hook input priority 0; }; }";
    assert_eq!(
        namespace(&[other, &script, &script]).unwrap(),
        list(&ruleset)
    );
}

#[test]
fn a_transaction_is_a_script_too() {
    let ruleset = handmade();
    let transaction = diff(&Ruleset::default(), &ruleset).to_string();
    assert_eq!(
        transaction.lines().count(),
        diff(&Ruleset::default(), &ruleset).len()
    );
    let listed = namespace(&[&transaction]).unwrap();
    assert_eq!(sorted_listing(&listed), sorted_listing(&list(&ruleset)));
    let back = diff(&ruleset, &Ruleset::default()).to_string();
    assert_eq!(namespace(&[&transaction, &back]).unwrap(), "");
}

fn of(family: Family, table: Table) -> Ruleset {
    let mut ruleset = Ruleset::default();
    ruleset
        .tables
        .insert(table_id(family, "t"), Arc::new(table));
    ruleset
}

fn with_chain(chain: Chain) -> Ruleset {
    let mut table = Table::default();
    table.chains.insert(name("c"), Arc::new(chain));
    of(Family::Inet, table)
}

#[test]
fn tcp_flags_read_as_nft_prints_them() {
    let values = [0, 1, 2, 3, 0x12, 0x17, 0x40, 0x80, 0xc0, 0xff];
    let masks = (1..=0x1f).chain([0x40, 0x7f, 0x80, 0xc0, 0xfe, 0xff]);
    let mut rules = Vec::new();
    for mask in masks {
        for value in values {
            for op in [Operator::Eq, Operator::Neq] {
                let (mask, value) = (TcpFlags(mask), TcpFlags(value));
                rules.push(Rule::new([Statement::TcpFlags { mask, op, value }]));
            }
        }
    }
    let ruleset = with_chain(chain(rules));
    assert_eq!(namespace(&[&script(&ruleset)]).unwrap(), list(&ruleset));
}

#[test]
fn priorities_read_as_nft_prints_them() {
    for family in [Family::Inet, Family::Bridge] {
        let mut table = Table::default();
        for hook in [
            Hook::Prerouting,
            Hook::Input,
            Hook::Forward,
            Hook::Output,
            Hook::Postrouting,
        ] {
            let near = [-300, -200, -150, -100, 0, 50, 100, 300];
            let near = near
                .into_iter()
                .flat_map(|p| [p - 11, p - 10, p, p + 1, p + 11]);
            for priority in near.chain([i32::MIN, i32::MAX]) {
                let attached = Chain {
                    base: Some(BaseChain {
                        hook,
                        priority,
                        policy: ChainPolicy::Accept,
                    }),
                    ..Chain::default()
                };
                let text = format!("{hook:?}.{priority}");
                table.chains.insert(name(&text), Arc::new(attached));
            }
        }
        let ruleset = of(family, table);
        assert_eq!(namespace(&[&script(&ruleset)]).unwrap(), list(&ruleset));
    }
}

#[test]
fn reserved_names_are_those_that_nft_does_not_take() {
    let tried = |word: &str| {
        format!(
            "table inet t {{
                counter {word} {{ comment \"c\"; }}
                set {word} {{ type ipv4_addr; }}
                map map.{word} {{ type ipv4_addr : verdict; elements = {{ 1.1.1.1 : goto {word} }}; }}
                chain {word} {{ }}
                chain chain.{word} {{ ip saddr @{word} counter name \"{word}\" jump {word}; }}
            }}
            table inet {word} {{ }}"
        )
    };
    let reserved: Vec<_> = RESERVED.iter().map(|word| tried(word)).collect();
    let taken = accepted(&reserved);
    let wrong: Vec<_> = RESERVED
        .iter()
        .zip(taken)
        .filter(|(_, taken)| *taken)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let free = [
        "egress", "ingress", "drop/web", "policy.x", "set-1", "ip6.x", "saddr", "state",
    ];
    let taken = accepted(&free.map(tried));
    assert_eq!(taken, [true; 8]);
}

#[test]
fn a_rule_that_was_not_understood_is_a_comment() {
    let foreign = Rule::new([
        Statement::Foreign("xt match\nflush ruleset".to_owned()),
        Verdict::Drop.into(),
    ]);
    let ruleset = with_chain(chain([foreign, jump("c2")]));
    let text = list(&ruleset);
    assert!(
        text.contains("\t\t# not understood: xt match flush ruleset drop\n\t\tjump c2\n"),
        "{text}"
    );
    let mut loadable = ruleset.clone();
    loadable.tables =
        with_chain(chain([Rule::new([Statement::Foreign("x { y".to_owned())])])).tables;
    assert_eq!(
        namespace(&[&script(&loadable)]).unwrap(),
        "table inet t {\n\tchain c {\n\t}\n}\n"
    );
}

#[test]
fn operations_read_as_sentences() {
    let ruleset = handmade();
    let ops = diff(&Ruleset::default(), &ruleset).ops;
    let words: Vec<_> = ops.iter().map(Op::to_string).collect();
    for expected in [
        "add table inet selvedge",
        "add counter inet selvedge denied",
        "add set inet selvedge pods-3f2a9c1e-4",
        "add map inet selvedge egress4",
        "add chain inet selvedge egress/shop/api-0",
        "add 9 elements to set inet selvedge pods-3f2a9c1e-4",
        "add 4 elements to map inet selvedge egress4",
        "add rule \"counter drop\" to chain inet selvedge egress/shop/api-0",
    ] {
        assert!(
            words.iter().any(|w| w == expected),
            "{expected} in {words:#?}"
        );
    }
}

#[test]
fn a_listing_says_who_owns_a_table_and_a_script_does_not() {
    let plain = of(Family::Inet, Table::default());
    for (ownership, line) in [
        (Ownership::Anyone, ""),
        (Ownership::Own, "\tflags owner,persist\n"),
        (Ownership::Other(7), "\tflags owner,persist\n"),
        (Ownership::Orphan, "\tflags persist\n"),
    ] {
        let ruleset = plain.with_ownership(ownership);
        assert_eq!(list(&ruleset), format!("table inet t {{\n{line}}}\n"));
        assert_eq!(script(&ruleset), script(&plain));
    }
    let owned = plain.with_ownership(Ownership::Own);
    let transaction = diff(&Ruleset::default(), &owned).to_string();
    assert_eq!(transaction, "create table inet t\n");
    let orphan = plain.with_ownership(Ownership::Orphan);
    namespace(&[&transaction, &diff(&orphan, &owned).to_string()]).unwrap();
}
