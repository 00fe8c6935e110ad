//! Large sets are made for a size, and made anew when they are full.

use std::net::Ipv4Addr;
use std::sync::Arc;

use selvedge_nft::{
    Dataplane, Datatype, Field, Kernel, Key, Rule, Ruleset, Statement, Table, Transaction, Verdict,
    diff, diff_with_room,
};

use crate::lab::*;

/// A chain that looks up a set of so many addresses.
fn looking_up(peers: u32) -> Ruleset {
    let looked_up = Statement::lookup([Field::IpSaddr], name("peers"));
    let all = (0..peers).map(|n| Key::from(Ipv4Addr::from(0x0a00_0000 + n)));
    let table = Table {
        sets: [(name("peers"), set(&[Datatype::Ipv4Addr], keys(all)))]
            .into_iter()
            .collect(),
        chains: [(
            name("c"),
            chain([Rule::new([looked_up, Verdict::Accept.into()])]),
        )]
        .into_iter()
        .collect(),
        ..Table::default()
    };
    ruleset([(inet(), table)])
}

fn size() -> Option<String> {
    let listed = list();
    let line = listed
        .lines()
        .find_map(|line| line.trim().strip_prefix("size "));
    line.map(str::to_owned)
}

#[test]
fn a_set_takes_its_size_and_is_made_anew_for_more() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        kernel.listen(vec![inet()]).unwrap();
        kernel
            .commit(&diff(&Ruleset::default(), &looking_up(2000)))
            .unwrap();
        assert_eq!(size().as_deref(), Some("3072"));
        assert!(read(&mut kernel) == looking_up(2000), "it reads back");
        // It is used up to the last place, and a place that is given up is free in the same transaction.
        kernel
            .commit(&diff(&looking_up(2000), &looking_up(3072)))
            .unwrap();
        let mut others = looking_up(3072);
        let table = Arc::make_mut(others.tables.get_mut(&inet()).unwrap());
        let other = (0..3072).map(|n| Key::from(Ipv4Addr::from(0x0b00_0000 + n)));
        table
            .sets
            .insert(name("peers"), set(&[Datatype::Ipv4Addr], keys(other)));
        kernel.commit(&diff(&looking_up(3072), &others)).unwrap();
        kernel.commit(&diff(&others, &looking_up(3072))).unwrap();
        // A large change of which the kernel takes nothing is one more than there is room for; nothing went unheard.
        for peers in [3073, 7000] {
            let transaction = diff(&looking_up(3072), &looking_up(peers));
            let error = kernel.commit(&transaction).unwrap_err();
            let full = error.full_set(&transaction);
            assert_eq!(full, Some((inet(), name("peers"))), "{error}");
            assert!(read(&mut kernel) == looking_up(3072), "it is as it was");
        }
        let full = [(inet(), name("peers"))].into();
        let anew = diff_with_room(&looking_up(3072), &looking_up(3073), &full);
        kernel.commit(&anew).unwrap();
        assert_eq!(size().as_deref(), Some("6144"));
        assert!(read(&mut kernel) == looking_up(3073), "it has grown");
        assert_eq!(kernel.interference(), []);
    });
}

#[test]
fn small_sets_and_sets_of_ranges_take_what_comes() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        kernel
            .commit(&diff(&Ruleset::default(), &looking_up(1000)))
            .unwrap();
        assert_eq!(size(), None);
        kernel
            .commit(&diff(&looking_up(1000), &looking_up(20_000)))
            .unwrap();
        assert!(read(&mut kernel) == looking_up(20_000));
    });
}

/// So many sets of so many addresses each, and a chain that looks the first up.
fn sets_of(sets: u32, keys_each: u32) -> Ruleset {
    let mut all = looking_up(keys_each);
    let table = Arc::make_mut(all.tables.get_mut(&inet()).unwrap());
    for n in 1..sets {
        let many = (0..keys_each).map(|key| Key::from(Ipv4Addr::from((n << 24) + key)));
        let set = set(&[Datatype::Ipv4Addr], keys(many));
        table.sets.insert(name(&format!("peers-{n}")), set);
    }
    all
}

#[test]
fn in_parts_they_come_one_after_the_other_and_nothing_goes_unheard() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        kernel.listen(vec![inet()]).unwrap();
        let desired = sets_of(5, 8_000);
        let parts = diff(&Ruleset::default(), &desired).large_sets_last();
        let elements: Vec<_> = parts.iter().map(Transaction::elements_added).collect();
        assert_eq!(elements, [0, 16_000, 16_000, 8_000]);
        let before = kernel.generation().unwrap();
        let committed = kernel.commit_in_turn(&parts).unwrap();
        assert_eq!(committed.batches, 4);
        assert_eq!(kernel.generation().unwrap(), before + 4);
        assert!(read(&mut kernel) == desired, "all is there");
        assert_eq!(kernel.interference(), []);

        // The first that fails ends it; those before it are in force.
        let refused = kernel.commit_in_turn(&parts[1..]).unwrap_err();
        assert_eq!(refused.0, 0, "{}", refused.1);
        let more = sets_of(6, 8_000);
        let one_more = diff(&desired, &more).large_sets_last();
        let stages = [&one_more[..], &parts[1..]].concat();
        let refused = kernel.commit_in_turn(&stages).unwrap_err();
        assert_eq!(refused.0, one_more.len(), "{}", refused.1);
        assert!(read(&mut kernel) == more, "what came before it stays");
        assert_eq!(kernel.interference(), []);
    });
}
