//! What others do to our tables is heard, with the name of who did it; what we do ourselves is not.

use std::sync::Arc;

use selvedge_nft::{
    Dataplane, Datatype, Interference, Kernel, Parts, Ruleset, Set, SetHeader, Table, Touched, diff,
};

use crate::lab::*;

/// A kernel that listens, with a small table of ours in it.
fn listening() -> (Kernel, Ruleset) {
    let mut kernel = Kernel::open().unwrap();
    kernel.listen(vec![inet(), bridge()]).unwrap();
    let ours = ruleset(small());
    kernel.commit(&diff(&Ruleset::default(), &ours)).unwrap();
    (kernel, ours)
}

fn small() -> Table {
    Table {
        sets: [(
            name("pods"),
            set(&[Datatype::Ipv4Addr], keys([k4("10.0.0.1")])),
        )]
        .into_iter()
        .collect(),
        ..Table::default()
    }
}

fn ruleset(table: Table) -> Ruleset {
    Ruleset {
        tables: [(inet(), Arc::new(table))].into_iter().collect(),
    }
}

/// The tables that were changed, and whether nft did each.
fn heard(kernel: &mut Kernel) -> Vec<(Vec<String>, bool)> {
    let heard = kernel.interference().into_iter().map(|heard| match heard {
        Interference::Changed { touched, by } => {
            let by = by.expect("the kernel names the process");
            assert!(by.id > 0);
            (
                touched.tables.keys().map(ToString::to_string).collect(),
                by.name == "nft",
            )
        }
        other => panic!("{other:?}"),
    });
    heard.collect()
}

#[test]
fn our_own_changes_and_others_tables_are_no_interference() {
    in_namespace(|| {
        let (mut kernel, _) = listening();
        load("add table inet other; add chain inet other c");
        load("add table ip selvedge; add chain ip selvedge c");
        assert!(heard(&mut kernel).is_empty());
    });
}

#[test]
fn each_kind_of_foreign_change_is_heard_once() {
    for script in [
        "flush ruleset",
        "delete table inet selvedge",
        "delete element inet selvedge pods { 10.0.0.1 }",
        "add element inet selvedge pods { 10.0.0.2, 10.0.0.3 }",
        "add chain inet selvedge c; add rule inet selvedge c accept",
        "add counter inet selvedge c",
        "add table inet selvedge { flags dormant; }",
    ] {
        in_namespace(|| {
            let (mut kernel, _) = listening();
            load(script);
            let expected = vec![(vec!["inet selvedge".to_owned()], true)];
            assert_eq!(heard(&mut kernel), expected, "{script}");
            assert!(heard(&mut kernel).is_empty(), "{script}");
        });
    }
}

#[test]
fn two_tables_in_one_transaction_are_one_interference() {
    in_namespace(|| {
        let (mut kernel, _) = listening();
        load("add chain inet selvedge c; add table bridge selvedge; add table inet other;");
        let both = vec!["bridge selvedge".to_owned(), "inet selvedge".to_owned()];
        let mut found = heard(&mut kernel);
        found[0].0.sort();
        assert_eq!(found, [(both, true)]);
    });
}

/// What stands by is there as soon as it is heard that its table is gone, each alone or both, and only then.
#[test]
fn what_stands_by_steps_in_for_tables_that_are_gone() {
    for (script, gone) in [
        ("delete table inet selvedge", vec![inet()]),
        ("delete table bridge selvedge", vec![bridge()]),
        ("flush ruleset", vec![inet(), bridge()]),
        ("flush ruleset; add table inet selvedge", vec![bridge()]),
        ("delete element inet selvedge pods { 10.0.0.1 }", vec![]),
        ("delete set inet selvedge pods", vec![]),
        ("flush table inet selvedge", vec![]),
        ("delete table inet other", vec![]),
    ] {
        in_namespace(|| {
            let (mut kernel, before) = listening();
            let (mut ours, mut standby) = (before.clone(), before.clone());
            ours.tables.insert(bridge(), Arc::default());
            standby.tables.insert(bridge(), Arc::default());
            kernel.commit(&diff(&before, &ours)).unwrap();
            let rule = selvedge_nft::Rule::new([selvedge_nft::Verdict::Drop.into()]);
            let mut table = small();
            table.chains.insert(name("closed"), chain([rule]));
            standby.tables.insert(inet(), Arc::new(table));
            kernel.stand_by(&standby).unwrap();
            load("add table inet other; add set inet other s { type ipv4_addr; }");
            load(script);
            let heard = kernel.interference();
            let replaced: Vec<_> = heard
                .iter()
                .filter_map(|heard| match heard {
                    Interference::Replaced { tables } => Some(tables.clone()),
                    _ => None,
                })
                .collect();
            let expected: Vec<_> = (!gone.is_empty())
                .then(|| gone.clone())
                .into_iter()
                .collect();
            assert_eq!(replaced, expected, "{script}");
            let held = kernel.read(&[inet(), bridge()]).unwrap();
            for table in &gone {
                assert_eq!(
                    held.tables.get(table),
                    standby.tables.get(table),
                    "{script}"
                );
            }
            assert_eq!(held.tables.len(), 2, "{script}");
            // What it did itself is no interference.
            assert!(kernel.interference().is_empty(), "{script}");
        });
    }
}

/// Be it before anything of the first time was heard, or while nobody listened.
#[test]
fn what_stands_by_steps_in_a_second_time() {
    in_namespace(|| {
        let (mut kernel, ours) = listening();
        kernel.stand_by(&ours).unwrap();
        let wipe = || load("flush ruleset");
        wipe();
        kernel.interference();
        assert!(kernel.read(&[inet()]).unwrap() == ours);
        load("flush ruleset; add table inet selvedge");
        wipe();
        let heard = kernel.interference();
        let tables = vec![inet()];
        assert!(
            heard.contains(&Interference::Replaced { tables }),
            "{heard:?}"
        );
        assert!(kernel.read(&[inet()]).unwrap() == ours);
        // A large batch fails for a table that went while nobody listened.
        let change = diff(&ours, &many(20_000));
        wipe();
        assert!(kernel.commit(&change).is_err());
        kernel.interference();
        assert!(kernel.read(&[inet()]).unwrap() == ours);
    });
}

/// Elements of a batch large enough to be carried out unheard.
fn many(count: u32) -> Ruleset {
    let all = (0..count).map(|n| k4(&std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()));
    let header = SetHeader {
        key: vec![Datatype::Ipv4Addr],
        comment: None,
    };
    let set = Set {
        header,
        elements: keys(all),
    };
    let sets = [(name("pods"), Arc::new(set))].into_iter().collect();
    ruleset(Table {
        sets,
        ..Table::default()
    })
}

/// Be it told and read, or carried out unheard: in between there is no size that is told and finds no room.
#[test]
fn nothing_of_our_own_goes_unheard_whatever_its_size() {
    in_namespace(|| {
        let (mut kernel, mut ours) = listening();
        for count in [10, 100, 500, 1_000, 2_000, 5_000, 12_000, 20_000, 3] {
            let next = many(count);
            kernel.commit(&diff(&ours, &next)).unwrap();
            assert!(heard(&mut kernel).is_empty(), "{count} elements");
            ours = next;
        }
    });
}

#[test]
fn around_a_large_batch_nothing_is_missed() {
    in_namespace(|| {
        let (mut kernel, ours) = listening();
        let large = many(50_000);
        let committed = kernel.commit(&diff(&ours, &large)).unwrap();
        assert!(committed.bytes > 256 * 1024, "{committed:?}");
        assert!(heard(&mut kernel).is_empty(), "it was our own");
        // What came before it is still heard, and so is what comes after.
        load("add element inet selvedge pods { 192.0.2.1 }");
        let smaller = many(10);
        kernel.commit(&diff(&large, &smaller)).unwrap();
        load("add element inet selvedge pods { 192.0.2.2 }");
        assert_eq!(heard(&mut kernel).len(), 2);
    });
}

#[test]
fn more_than_the_buffer_holds_is_told_as_such() {
    in_namespace(|| {
        let (mut kernel, _) = listening();
        let elements: Vec<String> = (0..200_000u32)
            .map(|n| std::net::Ipv4Addr::from(0x0a10_0000 + n).to_string())
            .collect();
        load(&format!(
            "add element inet selvedge pods {{ {} }}",
            elements.join(", ")
        ));
        assert!(kernel.interference().contains(&Interference::Unheard));
        load("add element inet selvedge pods { 192.0.2.2 }");
        assert_eq!(heard(&mut kernel).len(), 1, "and it goes on");
    });
}

/// What is heard of a table's parts is enough to know the whole again, and the rest of it is not read.
#[test]
fn what_was_touched_is_read_again_and_the_rest_is_as_known() {
    let chains = |names: &[&str]| names.iter().map(|n| name(n)).collect();
    let these = |in_chains: &[&str], in_sets: &[&str]| Parts::These {
        chains: chains(in_chains),
        sets: chains(in_sets),
    };
    for (script, parts) in [
        (
            "delete element inet selvedge pods { 10.0.0.1 }",
            these(&[], &["pods"]),
        ),
        (
            "add element inet selvedge pods { 10.0.0.2 }",
            these(&[], &["pods"]),
        ),
        ("insert rule inet selvedge c accept", these(&["c"], &[])),
        ("flush chain inet selvedge c", these(&["c"], &[])),
        (
            "flush chain inet selvedge c; delete chain inet selvedge c",
            these(&["c"], &[]),
        ),
        (
            "add chain inet selvedge d; add rule inet selvedge d jump c",
            Parts::All,
        ),
        ("rename chain inet selvedge c d", Parts::All),
        (
            "add chain inet selvedge d; delete chain inet selvedge d; rename chain inet selvedge c d",
            Parts::All,
        ),
        (
            "add set inet selvedge s { type ipv4_addr; elements = { 10.0.0.9 }; }",
            these(&[], &["s"]),
        ),
        ("delete set inet selvedge pods", these(&[], &["pods"])),
        (
            "insert rule inet selvedge c ip saddr { 10.0.0.1, 10.0.0.2 } accept",
            Parts::All,
        ),
        ("add counter inet selvedge n", Parts::All),
        ("add chain inet selvedge _odd", Parts::All),
        ("delete table inet selvedge", Parts::All),
        ("flush ruleset; add table inet selvedge", Parts::All),
        ("flush ruleset", Parts::All),
    ] {
        in_namespace(|| {
            let (mut kernel, before) = listening();
            let mut table = small();
            for each in ["c", "e"] {
                let rule = selvedge_nft::Rule::new([selvedge_nft::Verdict::Drop.into()]);
                table.chains.insert(name(each), chain([rule]));
            }
            let ours = ruleset(table);
            kernel.commit(&diff(&before, &ours)).unwrap();
            load(script);
            let mut touched = Touched::default();
            for heard in kernel.interference() {
                match heard {
                    Interference::Changed { touched: more, .. } => touched.join(more),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(touched.tables.get(&inet()), Some(&parts), "{script}");
            let reread = kernel.reread(&ours, &touched).unwrap();
            let all = kernel.read(&[inet()]).unwrap();
            assert!(reread == all, "{script}: {reread:?}\n{all:?}");
            // What it says was not touched is not looked at.
            let nothing = kernel.reread(&ours, &Touched::default()).unwrap();
            assert!(nothing == ours, "{script}");
        });
    }
}

/// Parts that are gone with their table, which was not told yet, are no reason to fail.
#[test]
fn what_goes_while_it_is_read_again_is_gone() {
    in_namespace(|| {
        let (mut kernel, ours) = listening();
        load("delete table inet selvedge");
        let sets = [name("pods")].into();
        let parts = Parts::These {
            chains: [name("c")].into(),
            sets,
        };
        let touched = Touched {
            tables: [(inet(), parts.clone())].into(),
        };
        let read = kernel.reread(&ours, &touched).unwrap();
        assert!(read.tables.is_empty());
        load("add table inet selvedge");
        let read = kernel.reread(&ours, &touched).unwrap();
        assert!(read == ruleset(Table::default()), "{read:?}");
    });
}
