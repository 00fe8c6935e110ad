//! The smallest transaction that turns one ruleset into another.
//!
//! The kernel checks every operation of a batch against the state that the ones before it have left, and refuses to
//! delete what is still named and to name what isn't there. So a table's changes go in this order:
//!
//! 1. delete the map entries and set elements that go or change: an entry goes before the chain it names;
//! 2. flush the chains whose rules change: from here on they name nothing;
//! 3. delete chains, sets and maps, each before what it names (a chain goes with its rules, a map with its entries);
//! 4. delete counters;
//! 5. add counters, sets, maps and chains, all empty;
//! 6. add the elements of sets, then the rules, then the entries of maps.
//!
//! Some things can't be changed in place: a chain's comment and where it is attached, a set's header and kind, a
//! counter's comment. Such an object is deleted and made anew; rules and map entries that name it step aside in
//! between, even where they don't change themselves. So it is with a set that is full. A table's comment can't be
//! changed either, nor who may change it, but for an orphan, which is adopted before all else: the table is made anew.
//!
//! The work grows with what differs, not with the rulesets, where one comes from the other: maps that share nodes are
//! compared by what they don't share.

#[cfg(test)]
mod cost;
mod deletions;
mod elements;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use self::elements::ElementChange;
use crate::name::Name;
use crate::refs::Reference;
use crate::ruleset::{Chain, Ownership, Ruleset, Set, Table, TableId};
use crate::transaction::{Op, Transaction};

/// The transaction that turns `current` into `desired`; empty when they are equal.
///
/// Its operations are in an order that the kernel accepts, provided that `desired` names nothing that it doesn't have.
/// The same two rulesets always give the same transaction. Tables that only `current` has are deleted.
pub fn diff(current: &Ruleset, desired: &Ruleset) -> Transaction {
    diff_with_room(current, desired, &BTreeSet::new())
}

/// As [`diff`]; but of the sets that change, those that are `full` are made anew with room for more.
pub fn diff_with_room(
    current: &Ruleset,
    desired: &Ruleset,
    full: &BTreeSet<(TableId, Name)>,
) -> Transaction {
    let mut ops = Vec::new();
    for item in current.tables.diff(&desired.tables) {
        match item {
            DiffItem::Remove(id, _) => ops.push(Op::DeleteTable { table: id.clone() }),
            DiffItem::Add(id, table) => add_table(id, table, &mut ops),
            DiffItem::Update {
                old: (_, old),
                new: (id, new),
            } => {
                let adopts = (old.ownership, new.ownership) == (Ownership::Orphan, Ownership::Own);
                if old.comment == new.comment && (adopts || old.ownership == new.ownership) {
                    ops.extend(adopts.then(|| Op::AdoptTable { table: id.clone() }));
                    let full = full.iter().filter(|(table, _)| table == id);
                    let full = full.map(|(_, set)| set).collect();
                    TableChange::between(old, new, &full).write(id, &mut ops);
                } else {
                    ops.push(Op::DeleteTable { table: id.clone() });
                    add_table(id, new, &mut ops);
                }
            }
        }
    }
    Transaction { ops }
}

fn add_table(id: &TableId, table: &Table, ops: &mut Vec<Op>) {
    ops.push(Op::AddTable {
        table: id.clone(),
        comment: table.comment.clone(),
        owned: table.ownership == Ownership::Own,
    });
    TableChange::between(&Table::default(), table, &BTreeSet::new()).write(id, ops);
}

/// What happens to an object that one of two tables has, or both have but not the same.
struct Change<'a, T> {
    old: Option<&'a Arc<T>>,
    new: Option<&'a Arc<T>>,
}

impl<T> Change<'_, T> {
    /// Whether both have it.
    fn stays(&self) -> bool {
        self.old.is_some() && self.new.is_some()
    }
}

fn changes<'a, T: PartialEq>(
    old: &'a OrdMap<Name, Arc<T>>,
    new: &'a OrdMap<Name, Arc<T>>,
) -> BTreeMap<&'a Name, Change<'a, T>> {
    old.diff(new)
        .map(|item| match item {
            DiffItem::Remove(name, old) => (
                name,
                Change {
                    old: Some(old),
                    new: None,
                },
            ),
            DiffItem::Add(name, new) => (
                name,
                Change {
                    old: None,
                    new: Some(new),
                },
            ),
            DiffItem::Update {
                old: (_, old),
                new: (name, new),
            } => (
                name,
                Change {
                    old: Some(old),
                    new: Some(new),
                },
            ),
        })
        .collect()
}

/// Everything that has to happen in one table, by kind. All maps are ordered: so is the transaction.
#[derive(Default)]
struct TableChange<'a> {
    /// Counters to delete.
    gone_counters: BTreeSet<&'a Name>,
    /// Counters to add.
    new_counters: BTreeSet<&'a Name>,
    /// Sets to delete, with their current form.
    gone_sets: BTreeMap<&'a Name, &'a Set>,
    /// Sets to add.
    new_sets: BTreeMap<&'a Name, &'a Set>,
    /// Elements that come and go in sets that stay.
    elements: BTreeMap<&'a Name, ElementChange>,
    /// Chains to delete, with their current form.
    gone_chains: BTreeMap<&'a Name, &'a Chain>,
    /// Chains to add.
    new_chains: BTreeMap<&'a Name, &'a Chain>,
    /// Chains that stay, to flush and write again: their current and their desired form.
    rewritten: BTreeMap<&'a Name, (&'a Chain, &'a Chain)>,
    /// The desired table.
    desired: Option<&'a Table>,
}

impl<'a> TableChange<'a> {
    fn between(current: &'a Table, desired: &'a Table, full: &BTreeSet<&Name>) -> Self {
        let mut this = Self {
            desired: Some(desired),
            ..Self::default()
        };
        // What both have but has to be made anew: whatever names it must let go of it in between.
        let mut anew = BTreeSet::new();

        for (name, change) in changes(&current.counters, &desired.counters) {
            if change.old.is_some() {
                this.gone_counters.insert(name);
            }
            if change.new.is_some() {
                this.new_counters.insert(name);
            }
            if change.stays() {
                anew.insert(Reference::Counter(name));
            }
        }

        let mut sets_staying = Vec::new();
        for (name, change) in changes(&current.sets, &desired.sets) {
            if let (Some(old), Some(new)) = (change.old, change.new) {
                let fits = elements::same_kind(&old.elements, &new.elements);
                if old.header == new.header && fits && !full.contains(name) {
                    sets_staying.push((name, old, new));
                    continue;
                }
                anew.insert(Reference::Set(name));
            }
            if let Some(old) = change.old {
                this.gone_sets.insert(name, old);
            }
            if let Some(new) = change.new {
                this.new_sets.insert(name, new);
            }
        }

        for (name, change) in changes(&current.chains, &desired.chains) {
            if let (Some(old), Some(new)) = (change.old, change.new) {
                if old.base == new.base && old.comment == new.comment {
                    this.rewritten.insert(name, (old, new));
                    continue;
                }
                anew.insert(Reference::Chain(name));
            }
            if let Some(old) = change.old {
                this.gone_chains.insert(name, old);
            }
            if let Some(new) = change.new {
                this.new_chains.insert(name, new);
            }
        }

        for (name, old, new) in sets_staying {
            this.elements
                .insert(name, ElementChange::between(&old.elements, &new.elements));
        }
        if !anew.is_empty() {
            this.step_aside(current, &anew);
        }
        this
    }

    /// Takes in the unchanged rules and map entries that name what is made anew. This looks at the whole table, which
    /// a header or comment that changes is rare enough for.
    fn step_aside(&mut self, current: &'a Table, anew: &BTreeSet<Reference<'a>>) {
        for (name, chain) in &current.chains {
            if !self.gone_chains.contains_key(name)
                && !self.rewritten.contains_key(name)
                && chain
                    .references()
                    .any(|reference| anew.contains(&reference))
            {
                self.rewritten.insert(name, (chain, chain));
            }
        }
        for (name, set) in &current.sets {
            if !self.gone_sets.contains_key(name)
                && set.references().any(|reference| anew.contains(&reference))
            {
                self.elements
                    .entry(name)
                    .or_insert_with(|| ElementChange::none(&set.elements))
                    .step_aside(&set.elements, |verdict| {
                        verdict
                            .chain()
                            .is_some_and(|chain| anew.contains(&Reference::Chain(chain)))
                    });
            }
        }
    }

    fn write(self, table: &TableId, ops: &mut Vec<Op>) {
        let Some(desired) = self.desired else { return };
        for (name, change) in &self.elements {
            if let (false, Some(set)) = (change.gone.is_empty(), desired.sets.get(*name)) {
                ops.push(Op::DeleteElements {
                    table: table.clone(),
                    name: (*name).clone(),
                    header: set.header.clone(),
                    elements: change.gone.clone(),
                });
            }
        }
        for (name, (old, _)) in &self.rewritten {
            if !old.rules.is_empty() {
                ops.push(Op::FlushChain {
                    table: table.clone(),
                    name: (*name).clone(),
                });
            }
        }
        deletions::write(table, &self.gone_chains, &self.gone_sets, ops);
        ops.extend(self.gone_counters.iter().map(|name| Op::DeleteCounter {
            table: table.clone(),
            name: (*name).clone(),
        }));
        self.write_additions(table, desired, ops);
    }

    fn write_additions(&self, table: &TableId, desired: &Table, ops: &mut Vec<Op>) {
        for name in &self.new_counters {
            if let Some(counter) = desired.counters.get(*name) {
                ops.push(Op::AddCounter {
                    table: table.clone(),
                    name: (*name).clone(),
                    counter: counter.clone(),
                });
            }
        }
        ops.extend(self.new_sets.iter().map(|(name, set)| Op::AddSet {
            table: table.clone(),
            name: (*name).clone(),
            header: set.header.clone(),
            kind: set.elements.none(),
            size: elements::room(&set.elements),
        }));
        ops.extend(self.new_chains.iter().map(|(name, chain)| Op::AddChain {
            table: table.clone(),
            name: (*name).clone(),
            base: chain.base,
            comment: chain.comment.clone(),
        }));
        self.write_elements(table, desired, false, ops);
        let rewritten = self.rewritten.iter().map(|(name, (_, new))| (*name, *new));
        let new = self.new_chains.iter().map(|(name, new)| (*name, *new));
        // In the order of their names, new or not.
        let written: BTreeMap<_, _> = rewritten.chain(new).collect();
        for (name, chain) in written {
            ops.extend(chain.rules.iter().map(|rule| Op::AddRule {
                table: table.clone(),
                chain: name.clone(),
                rule: rule.clone(),
            }));
        }
        self.write_elements(table, desired, true, ops);
    }

    /// Adds the elements of all sets, or the entries of all maps.
    fn write_elements(&self, table: &TableId, desired: &Table, maps: bool, ops: &mut Vec<Op>) {
        let new = self
            .new_sets
            .iter()
            .map(|(name, set)| (*name, &set.elements));
        let changed = self
            .elements
            .iter()
            .map(|(name, change)| (*name, &change.new));
        let written: BTreeMap<_, _> = new.chain(changed).collect();
        for (name, elements) in written {
            if elements.is_empty() || elements::is_map(elements) != maps {
                continue;
            }
            if let Some(set) = desired.sets.get(name) {
                ops.push(Op::AddElements {
                    table: table.clone(),
                    name: name.clone(),
                    header: set.header.clone(),
                    elements: elements.clone(),
                });
            }
        }
    }
}
