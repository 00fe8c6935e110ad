//! What is committed reads back equal: every kind of object, statement and comment.

use std::sync::Arc;

use selvedge_nft::{
    Chain, Comment, Counter, Dataplane, Datatype, Elements, Family, Field, Kernel, MapEntry, Name,
    Op, Ownership, Rule, Set, Statement, Table, TableId, Transaction, Verdict,
};

use crate::lab::*;
use crate::samples::*;

/// Our two tables with all sample rules.
fn all() -> selvedge_nft::Ruleset {
    let inet_rules = inet_rules().into_iter().map(|(_, rule)| rule);
    let bridge_rules = bridge_rules().into_iter().map(|(_, rule)| rule);
    let inet_rules = inet_rules.chain(odd_inet_rules()).map(Rule::new);
    let bridge_rules = bridge_rules.chain(odd_bridge_rules()).map(Rule::new);
    ruleset([
        (inet(), inet_table(inet_rules)),
        (bridge(), bridge_table(bridge_rules)),
    ])
}

#[test]
fn everything_reads_back_as_it_was_committed() {
    in_namespace(|| {
        let desired = all();
        let mut kernel = kernel_with(&desired);
        let found = read(&mut kernel);
        for (id, table) in &desired.tables {
            let found = &found.tables[id];
            for (name, chain) in &table.chains {
                for (rule, found) in chain.rules.iter().zip(&found.chains[name].rules) {
                    assert_eq!(found, rule, "chain {name}");
                }
                assert_eq!(&found.chains[name], chain, "chain {name}");
            }
            for (name, set) in &table.sets {
                assert_eq!(&found.sets[name], set, "set {name}");
            }
        }
        assert_eq!(found, desired);
    });
}

#[test]
fn what_is_not_there_is_absent() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        assert_eq!(read(&mut kernel), ruleset([]));
        load("table inet other {\n chain c {\n counter\n }\n}");
        assert_eq!(read(&mut kernel), ruleset([]));
        let only = ruleset([(bridge(), Table::default())]);
        kernel.commit(&make(&only)).unwrap();
        assert_eq!(read(&mut kernel), only);
    });
}

#[test]
fn another_thread_may_take_it_over_and_stays_in_its_namespace() {
    in_namespace(|| {
        let only = ruleset([(inet(), Table::default())]);
        let mut kernel = kernel_with(&only);
        assert_ne!(kernel.port_id(), 0);
        let found = in_namespace(move || read(&mut kernel));
        assert_eq!(found, only);
    });
}

#[test]
fn an_empty_transaction_sends_nothing() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        let before = kernel.generation().unwrap();
        let done = kernel.commit(&Transaction::default()).unwrap();
        assert_eq!((done.messages, done.bytes), (0, 0));
        assert_eq!(kernel.generation().unwrap(), before);
    });
}

#[test]
fn the_longest_names_and_comments_fit() {
    in_namespace(|| {
        let long = |first: &str| name(&format!("{first}{}", "x".repeat(Name::MAX - first.len())));
        let text = comment(&"c".repeat(Comment::MAX));
        let goto = Verdict::Goto(long("chain"));
        let entry = MapEntry {
            verdict: goto.clone(),
            comment: Some(text.clone()),
        };
        // About as large as a rule can be that the kernel gives back.
        let mut statements: Vec<Statement> = vec![Statement::NamedCounter(long("counter")); 50];
        statements.push(Statement::lookup([Field::Iifname], long("set")));
        statements.push(Verdict::Accept.into());
        let big = Rule::new(statements).with_comment(text.clone());
        let head = Arc::new(Chain {
            base: None,
            comment: Some(text.clone()),
            rules: vec![big],
        });
        let entries = [(k4("10.0.0.1"), entry)].into_iter().collect();
        let table = Table {
            ownership: Ownership::Anyone,
            comment: Some(text.clone()),
            counters: [(
                long("counter"),
                Arc::new(Counter {
                    comment: Some(text.clone()),
                }),
            )]
            .into_iter()
            .collect(),
            sets: [
                (
                    long("set"),
                    commented(&[Datatype::IfName], text.as_str(), keys([])),
                ),
                (
                    long("map"),
                    commented(
                        &[Datatype::Ipv4Addr],
                        text.as_str(),
                        Elements::Verdicts(entries),
                    ),
                ),
            ]
            .into_iter()
            .collect(),
            chains: [(long("chain"), chain([])), (long("head"), head)]
                .into_iter()
                .collect(),
        };
        let id = TableId {
            family: Family::Inet,
            name: long("table"),
        };
        let desired = ruleset([(id.clone(), table)]);
        let mut kernel = kernel_with(&desired);
        assert_eq!(kernel.read(&[id]).unwrap(), desired);
    });
}

#[test]
fn each_kind_of_object_can_be_deleted_again() {
    in_namespace(|| {
        let rules = inet_rules().into_iter().map(|(_, rule)| Rule::new(rule));
        let table = inet_table(rules);
        let mut kernel = kernel_with(&ruleset([(inet(), table.clone())]));
        let mut ops = Vec::new();
        for chain in table.chains.keys() {
            ops.push(Op::FlushChain {
                table: inet(),
                name: chain.clone(),
            });
        }
        for (name, set) in &table.sets {
            ops.push(delete(&inet(), name, &set.header, set.elements.clone()));
        }
        kernel.commit(&Transaction { ops }).unwrap();
        let mut bare = table.clone();
        let without_rules = |chain: &Chain| Chain {
            rules: Vec::new(),
            ..chain.clone()
        };
        let without_elements = |set: &Set| Set {
            elements: set.elements.none(),
            ..set.clone()
        };
        bare.chains = table
            .chains
            .iter()
            .map(|(name, chain)| (name.clone(), Arc::new(without_rules(chain))))
            .collect();
        bare.sets = table
            .sets
            .iter()
            .map(|(name, set)| (name.clone(), Arc::new(without_elements(set))))
            .collect();
        assert_eq!(read(&mut kernel), ruleset([(inet(), bare)]));

        let mut ops = Vec::new();
        ops.extend(table.chains.keys().map(|name| Op::DeleteChain {
            table: inet(),
            name: name.clone(),
        }));
        ops.extend(table.sets.keys().map(|name| Op::DeleteSet {
            table: inet(),
            name: name.clone(),
        }));
        ops.extend(table.counters.keys().map(|name| Op::DeleteCounter {
            table: inet(),
            name: name.clone(),
        }));
        kernel.commit(&Transaction { ops }).unwrap();
        let empty = Table {
            comment: table.comment,
            ..Table::default()
        };
        assert_eq!(read(&mut kernel), ruleset([(inet(), empty)]));

        kernel
            .commit(&Transaction {
                ops: vec![Op::DeleteTable { table: inet() }],
            })
            .unwrap();
        assert_eq!(read(&mut kernel), ruleset([]));
    });
}
