//! What others do to our tables is heard, with the name of who did it; what we do ourselves is not.

use std::sync::Arc;

use selvedge_nft::{
    Dataplane, Datatype, Interference, Kernel, Ruleset, Set, SetHeader, Table, diff,
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
        Interference::Changed { tables, by } => {
            let by = by.expect("the kernel names the process");
            assert!(by.id > 0);
            (
                tables.iter().map(ToString::to_string).collect(),
                by.name == "nft",
            )
        }
        Interference::Unheard => panic!("something went unheard"),
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
        let elements: Vec<String> = (0..60_000u32)
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
