//! What a difference costs, by counting how often keys and values are compared.

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use imbl::OrdMap;

use super::{changes, elements};
use crate::diff;
use crate::name::Name;
use crate::ruleset::{Elements, Family, Ruleset, Set, Table};
use crate::testing::{key, keys, name, table_id, v4};
use crate::value::{Datatype, Value};

thread_local! {
    static COMPARED: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug, Clone, Eq)]
struct Counted(u32);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        COMPARED.set(COMPARED.get() + 1);
        self.0.cmp(&other.0)
    }
}

fn comparisons(work: impl FnOnce()) -> usize {
    COMPARED.set(0);
    work();
    COMPARED.get()
}

/// What changes in one spot may cost: to walk one node of 32 at each of four levels.
const A_SPOT: usize = 128;

#[test]
fn elements_cost_what_changes() {
    let all: OrdMap<_, _> = (0..200_000).map(|n| (Counted(2 * n), Counted(n))).collect();
    for spots in [0, 1, 10, 50] {
        let mut other = all.clone();
        for spot in 0..spots {
            let near = spot * 3_001;
            other.remove(&Counted(2 * near));
            other.insert(Counted(2 * near + 1), Counted(7));
            other.insert(Counted(2 * near + 80), Counted(8));
        }
        let (mut gone, mut new) = (OrdMap::new(), OrdMap::new());
        let count = comparisons(|| elements::split(&all, &other, &mut gone, &mut new));
        assert_eq!(
            (gone.len(), new.len()),
            (2 * spots as usize, 2 * spots as usize)
        );
        assert!(count <= A_SPOT * spots as usize, "{spots} spots: {count}");
    }
}

#[test]
fn objects_cost_what_changes() {
    let object = |n: u32| (Name::new(&format!("c{n}")).unwrap(), Arc::new(Counted(n)));
    let all: OrdMap<_, _> = (0..10_000).map(object).collect();
    let mut other = all.clone();
    other.insert(name("c77"), Arc::new(Counted(0)));
    let count = comparisons(|| assert_eq!(changes(&all, &other).len(), 1));
    assert_eq!(count, 1, "objects that are shared are not looked into");
}

#[test]
fn a_small_change_of_a_large_set_is_small() {
    let id = table_id(Family::Inet, "t");
    let with = |set: &Set| {
        let mut table = Table::default();
        table.sets.insert(name("s"), Arc::new(set.clone()));
        let mut ruleset = Ruleset::default();
        ruleset.tables.insert(id.clone(), Arc::new(table));
        ruleset
    };
    let addresses = (0..100_000u32).map(|n| key(&[Value::Ipv4(n.into())]));
    let mut set = keys(&[Datatype::Ipv4Addr], addresses);
    let current = with(&set);
    if let Elements::Keys(keys) = &mut set.elements {
        keys.insert(key(&[v4("10.0.0.1")]));
    }
    let ops = diff(&current, &with(&set)).ops;
    let words: Vec<_> = ops.iter().map(|op| op.to_string()).collect();
    assert_eq!(words, ["add 1 element to set inet t s"]);
}
