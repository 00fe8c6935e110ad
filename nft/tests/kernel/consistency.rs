//! A read is one state, also while others change the ruleset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use selvedge_nft::{
    Dataplane, DataplaneError, Datatype, Kernel, Key, Op, Rule, SetHeader, Statement, Table,
    Transaction, Verdict,
};

use crate::lab::*;

#[test]
fn a_read_never_mixes_two_states() {
    in_namespace(|| {
        let header = SetHeader {
            key: vec![Datatype::InetService],
            comment: None,
        };
        let ports: Vec<Key> = (0..200u16).map(Key::from).collect();
        let rules = || (0..20).map(|_| Rule::new([Verdict::Accept.into()]));
        let table = Table {
            sets: [
                (name("a"), set(&header.key, keys(ports.clone()))),
                (name("z"), set(&header.key, keys([]))),
            ]
            .into_iter()
            .collect(),
            chains: [(name("rules"), chain(rules()))].into_iter().collect(),
            ..Table::default()
        };
        let first = ruleset([(inet(), table)]);
        let mut reader = kernel_with(&first);
        let mut writer = Kernel::open().unwrap();

        // Each change moves one port from a set to the other and rewrites the chain with one rule for each port moved.
        let change = |port: u16, from: &str, to: &str, moved: u16| {
            let element = || keys([Key::from(port)]);
            let (table, chain) = (inet(), name("rules"));
            let mut ops = vec![
                delete(&inet(), &name(from), &header, element()),
                add(&inet(), &name(to), &header, element()),
                Op::FlushChain {
                    table: table.clone(),
                    name: chain.clone(),
                },
            ];
            ops.extend((0..20 + moved).map(|_| Op::AddRule {
                table: table.clone(),
                chain: chain.clone(),
                rule: Rule::new([Statement::Counter]),
            }));
            Transaction { ops }
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..3 {
                    for port in 0..200 {
                        let there = round % 2 == 0;
                        let (from, to) = if there { ("a", "z") } else { ("z", "a") };
                        let moved = if there { port + 1 } else { 199 - port };
                        writer.commit(&change(port, from, to, moved)).unwrap();
                        thread::sleep(std::time::Duration::from_millis(1));
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut read_any = false;
            while !done.load(Ordering::Relaxed) {
                let found = match reader.read(&[inet()]) {
                    Ok(found) => found,
                    Err(DataplaneError::Interrupted { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                read_any = true;
                let table = &found.tables[&inet()];
                let (a, z) = (&table.sets[&name("a")], &table.sets[&name("z")]);
                assert_eq!(a.elements.len() + z.elements.len(), 200);
                let rules = table.chains[&name("rules")].rules.len();
                assert_eq!(rules, 20 + z.elements.len());
            }
            assert!(read_any, "no read came to its end");
        });
        let found = reader.read(&[inet()]).unwrap();
        assert_eq!(found.tables[&inet()].sets[&name("z")].elements.len(), 200);
    });
}

#[test]
fn a_table_that_grows_right_before_is_read_whole() {
    in_namespace(|| {
        // The kernel resizes its hash tables behind a commit, and a dump across that may give an element twice and
        // leave another out.
        let header = SetHeader {
            key: vec![Datatype::Ipv4Addr],
            comment: None,
        };
        let address = |n: u32| Key::from(std::net::Ipv4Addr::from(n));
        let empty = Table {
            sets: [(name("s"), set(&header.key, keys([])))]
                .into_iter()
                .collect(),
            ..Table::default()
        };
        let mut kernel = kernel_with(&ruleset([(inet(), empty)]));
        let mut there = 0;
        for step in [10, 100, 1_000, 5_000, 20_000, 50_000] {
            let new = keys((there..there + step).map(address));
            let ops = vec![add(&inet(), &name("s"), &header, new)];
            kernel.commit(&Transaction { ops }).unwrap();
            there += step;
            let found = kernel.read(&[inet()]).unwrap();
            let expected = keys((0..there).map(address));
            assert!(
                found.tables[&inet()].sets[&name("s")].elements == expected,
                "after {there} elements"
            );
        }
    });
}
