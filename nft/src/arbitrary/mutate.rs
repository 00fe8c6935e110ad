//! From one ruleset to another: what changes, and what the two share.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::TableSeed;
use crate::ruleset::{Elements, Ruleset, Set, Table, TableId};

/// The seeds of `first` with some objects as `other` has them, or without. The greater `share`, the more of them.
pub(super) fn mix(
    first: &BTreeMap<TableId, TableSeed>,
    other: &BTreeMap<TableId, TableSeed>,
    share: u8,
    choices: &[u8],
) -> BTreeMap<TableId, TableSeed> {
    let mut choices = choices.iter().cycle().copied();
    let mut other_wins = || choices.next().is_some_and(|choice| choice < share);
    let tables = mix_map(first, other, &mut other_wins);
    let mut mixed = BTreeMap::new();
    for (id, table) in tables {
        let (Some(first), Some(other)) = (first.get(&id), other.get(&id)) else {
            mixed.insert(id, table);
            continue;
        };
        let table = TableSeed {
            comment: table.comment,
            counters: mix_map(&first.counters, &other.counters, &mut other_wins),
            sets: mix_map(&first.sets, &other.sets, &mut other_wins),
            chains: mix_map(&first.chains, &other.chains, &mut other_wins),
            order: table.order,
        };
        mixed.insert(id, table);
    }
    mixed
}

fn mix_map<K: Ord + Clone, V: Clone>(
    first: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
    other_wins: &mut impl FnMut() -> bool,
) -> BTreeMap<K, V> {
    let mut mixed = BTreeMap::new();
    let mut names: Vec<_> = first.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (a, b) = (first.get(name), other.get(name));
        let chosen = if other_wins() { b } else { a };
        if let Some(value) = chosen {
            mixed.insert(name.clone(), value.clone());
        }
    }
    mixed
}

/// `second`, made from `first` by changing what differs.
pub(super) fn share(first: &Ruleset, second: &Ruleset) -> Ruleset {
    Ruleset {
        tables: share_map(&first.tables, &second.tables, share_table),
    }
}

fn share_table(first: &Table, second: &Table) -> Table {
    Table {
        ownership: second.ownership,
        comment: second.comment.clone(),
        counters: share_map(&first.counters, &second.counters, |_, new| new.clone()),
        sets: share_map(&first.sets, &second.sets, share_set),
        chains: share_map(&first.chains, &second.chains, |_, new| new.clone()),
    }
}

fn share_set(first: &Set, second: &Set) -> Set {
    let elements = match (&first.elements, &second.elements) {
        (Elements::Keys(old), Elements::Keys(new)) => {
            let mut shared = old.clone();
            for key in old.iter().filter(|key| !new.contains(*key)) {
                shared.remove(key);
            }
            for key in new.iter().filter(|key| !old.contains(*key)) {
                shared.insert(*key);
            }
            Elements::Keys(shared)
        }
        (Elements::Ranges(old), Elements::Ranges(new)) => {
            Elements::Ranges(share_values(old, new, |_, new| *new))
        }
        (Elements::Verdicts(old), Elements::Verdicts(new)) => {
            Elements::Verdicts(share_values(old, new, |_, new| new.clone()))
        }
        (_, other) => other.clone(),
    };
    Set {
        header: second.header.clone(),
        elements,
    }
}

fn share_map<K: Ord + Clone, V: PartialEq>(
    first: &OrdMap<K, Arc<V>>,
    second: &OrdMap<K, Arc<V>>,
    share: impl Fn(&V, &V) -> V,
) -> OrdMap<K, Arc<V>> {
    share_values(first, second, |old, new| Arc::new(share(old, new)))
}

fn share_values<K: Ord + Clone, V: PartialEq + Clone>(
    first: &OrdMap<K, V>,
    second: &OrdMap<K, V>,
    share: impl Fn(&V, &V) -> V,
) -> OrdMap<K, V> {
    let mut shared = first.clone();
    for key in first.keys().filter(|key| !second.contains_key(*key)) {
        shared.remove(key);
    }
    for (key, new) in second {
        match first.get(key) {
            Some(old) if old == new => {}
            Some(old) => drop(shared.insert(key.clone(), share(old, new))),
            None => drop(shared.insert(key.clone(), new.clone())),
        }
    }
    shared
}
