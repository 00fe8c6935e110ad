//! Interval sets: ranges that touch, come and go one by one, and reach the ends of the space.

use std::net::Ipv4Addr;

use imbl::OrdMap;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use selvedge_nft::{Dataplane, Datatype, Elements, Kernel, Key, SetHeader, Table, Transaction};

use crate::lab::*;

fn header() -> SetHeader {
    SetHeader {
        key: vec![Datatype::Ipv4Addr],
        comment: None,
    }
}

/// A table with one set of these ranges.
fn with(elements: Elements) -> selvedge_nft::Ruleset {
    let cidr = (name("cidr"), set(&[Datatype::Ipv4Addr], elements));
    let table = Table {
        sets: [cidr].into_iter().collect(),
        ..Table::default()
    };
    ruleset([(inet(), table)])
}

fn change(kernel: &mut Kernel, deleted: Elements, added: Elements) {
    let cidr = name("cidr");
    let mut ops = Vec::new();
    if !deleted.is_empty() {
        ops.push(delete(&inet(), &cidr, &header(), deleted));
    }
    if !added.is_empty() {
        ops.push(add(&inet(), &cidr, &header(), added));
    }
    kernel.commit(&Transaction { ops }).unwrap();
}

/// The addresses from one to another, by their last byte.
fn last_bytes(first: u8, last: u8) -> (Key, Key) {
    let key = |byte| Key::from(Ipv4Addr::new(10, 0, 0, byte));
    (key(first), key(last))
}

/// Whether the kernel finds the address in the set.
fn has(address: &str) -> bool {
    let script = format!("get element inet selvedge cidr {{ {address} }}");
    std::process::Command::new("nft")
        .arg(script)
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn a_range_comes_and_goes_between_two_that_touch_it() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        in_namespace(|| {
            let thirds = [
                last_bytes(0, 99),
                last_bytes(100, 199),
                last_bytes(200, 255),
            ];
            let mut kernel = kernel_with(&with(ranges([])));
            for (count, index) in order.iter().enumerate() {
                change(&mut kernel, ranges([]), ranges([thirds[*index]]));
                let there = order[..=count].iter().map(|index| thirds[*index]);
                assert_eq!(read(&mut kernel), with(ranges(there)), "{order:?}");
            }
            for (count, index) in order.iter().enumerate() {
                change(&mut kernel, ranges([thirds[*index]]), ranges([]));
                let there = order[count + 1..].iter().map(|index| thirds[*index]);
                assert_eq!(read(&mut kernel), with(ranges(there)), "{order:?}");
            }
        });
    }
}

#[test]
fn ranges_that_touch_are_added_and_replaced_in_one_transaction() {
    in_namespace(|| {
        let halves = [last_bytes(0, 127), last_bytes(128, 255)];
        let mut kernel = kernel_with(&with(ranges(halves)));
        assert_eq!(read(&mut kernel), with(ranges(halves)));
        // One goes, the other is not disturbed.
        change(&mut kernel, ranges([halves[0]]), ranges([]));
        assert_eq!(read(&mut kernel), with(ranges([halves[1]])));
        assert!(!has("10.0.0.127") && has("10.0.0.128") && has("10.0.0.255"));
        // What begins or ends where another did takes its place.
        let whole = [last_bytes(0, 255)];
        change(&mut kernel, ranges([halves[1]]), ranges(whole));
        assert_eq!(read(&mut kernel), with(ranges(whole)));
        change(&mut kernel, ranges(whole), ranges(halves));
        assert_eq!(read(&mut kernel), with(ranges(halves)));
    });
}

#[test]
fn ranges_at_the_ends_of_the_space_come_and_go() {
    in_namespace(|| {
        let bottom = (k4("0.0.0.0"), k4("0.0.0.0"));
        let top = (k4("255.255.255.255"), k4("255.255.255.255"));
        let below = (k4("255.255.255.0"), k4("255.255.255.254"));
        let mut kernel = kernel_with(&with(ranges([bottom, below, top])));
        assert_eq!(read(&mut kernel), with(ranges([bottom, below, top])));
        assert!(has("255.255.255.255"));
        change(&mut kernel, ranges([top]), ranges([]));
        assert_eq!(read(&mut kernel), with(ranges([bottom, below])));
        assert!(!has("255.255.255.255"));
        change(&mut kernel, ranges([bottom, below]), ranges([top]));
        assert_eq!(read(&mut kernel), with(ranges([top])));
        let all = (k4("0.0.0.0"), k4("255.255.255.255"));
        change(&mut kernel, ranges([top]), ranges([all]));
        assert_eq!(read(&mut kernel), with(ranges([all])));
        assert!(has("1.2.3.4"));
    });
}

/// Disjoint ranges of one byte, at the top of the space for many a seed, from bits that say where one begins.
fn random_ranges() -> impl Strategy<Value = OrdMap<Key, Key>> {
    let cuts = prop::collection::btree_set(any::<u8>(), 0..12);
    (cuts, any::<u32>()).prop_map(|(cuts, wanted)| {
        let cuts: Vec<u8> = cuts.into_iter().collect();
        let mut ranges = OrdMap::new();
        for (index, first) in cuts.iter().enumerate() {
            let last = cuts.get(index + 1).map_or(255, |next| next - 1);
            if wanted >> index & 1 == 1 {
                let key = |byte| Key::from(Ipv4Addr::new(255, 255, 255, byte));
                ranges.insert(key(*first), key(last));
            }
        }
        ranges
    })
}

#[test]
fn any_ranges_change_into_any_others() {
    in_namespace(|| {
        let mut kernel = kernel_with(&with(ranges([])));
        let mut there = OrdMap::new();
        let mut runner = TestRunner::new(Config::with_cases(300));
        let steps = prop::collection::vec(random_ranges(), 1..4);
        let state = std::cell::RefCell::new((&mut kernel, &mut there));
        runner
            .run(&steps, |steps| {
                let (kernel, there) = &mut *state.borrow_mut();
                for wanted in steps {
                    let gone = |(first, last): &(&Key, &Key)| wanted.get(*first) != Some(*last);
                    let new = |(first, last): &(&Key, &Key)| there.get(*first) != Some(*last);
                    let copy = |(first, last): (&Key, &Key)| (*first, *last);
                    let deleted = ranges(there.iter().filter(gone).map(copy));
                    let added = ranges(wanted.iter().filter(new).map(copy));
                    change(kernel, deleted, added);
                    **there = wanted;
                    let found = kernel.read(&[inet()]).unwrap();
                    prop_assert_eq!(&found, &with(Elements::Ranges(there.clone())));
                }
                Ok(())
            })
            .unwrap();
    });
}
