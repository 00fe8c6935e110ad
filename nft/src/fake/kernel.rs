//! The kernel's rules: what each operation needs, and how it is refused (`net/netfilter/nf_tables_api.c`).

use std::sync::Arc;

use imbl::OrdMap;

use super::{loops, refused};
use crate::dataplane::DataplaneError;
use crate::name::Name;
use crate::refs::Reference;
use crate::rule::{Field, Rule, Statement};
use crate::ruleset::{Chain, Elements, Ownership, Ruleset, Set, SetHeader, Table, TableId};
use crate::transaction::Op;
use crate::value::{Datatype, Key};

/// The error numbers that the kernel answers with, as Linux has them on all but a few old architectures.
pub mod errno {
    /// No permission.
    pub const EPERM: i32 = 1;
    /// What is named does not exist.
    pub const ENOENT: i32 = 2;
    /// What is to be deleted is in use, or the element has another verdict.
    pub const EBUSY: i32 = 16;
    /// What is to be added exists, or overlaps what does.
    pub const EEXIST: i32 = 17;
    /// It makes no sense.
    pub const EINVAL: i32 = 22;
    /// The set takes no more elements.
    pub const ENFILE: i32 = 23;
    /// Chains call each other too deep.
    pub const EMLINK: i32 = 31;
    /// Chains call each other in a circle.
    pub const ELOOP: i32 = 40;
    /// A jump to a base chain, or a statement that nobody knows.
    pub const EOPNOTSUPP: i32 = 95;
    /// No room for the answers.
    pub const ENOBUFS: i32 = 105;
}

use errno::{EBUSY, EEXIST, EINVAL, ENFILE, ENOENT, EOPNOTSUPP, EPERM};

type Errno = i32;

/// Tables, and how often each of their objects is named.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) ruleset: Ruleset,
    uses: OrdMap<TableId, Uses>,
    /// The most elements of sets that don't take any number.
    sizes: OrdMap<(TableId, Name), u32>,
}

/// How often rules and map entries name an object; no entry for one that isn't named.
#[derive(Debug, Clone, Default)]
struct Uses {
    chains: OrdMap<Name, usize>,
    sets: OrdMap<Name, usize>,
    counters: OrdMap<Name, usize>,
}

impl Uses {
    fn of(table: &Table) -> Self {
        let mut uses = Self::default();
        for set in table.sets.values() {
            set.references().for_each(|object| uses.take(object));
        }
        for chain in table.chains.values() {
            chain.references().for_each(|object| uses.take(object));
        }
        uses
    }

    fn map(&mut self, object: Reference<'_>) -> &mut OrdMap<Name, usize> {
        match object {
            Reference::Chain(_) => &mut self.chains,
            Reference::Set(_) => &mut self.sets,
            Reference::Counter(_) => &mut self.counters,
        }
    }

    fn take(&mut self, object: Reference<'_>) {
        *self.map(object).entry(object.name().clone()).or_default() += 1;
    }

    fn release(&mut self, object: Reference<'_>) {
        let map = self.map(object);
        match map.get_mut(object.name()) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(map.remove(object.name())),
        }
    }

    fn free(&mut self, object: Reference<'_>) -> Result<(), Errno> {
        match self.map(object).contains_key(object.name()) {
            true => Err(EBUSY),
            false => Ok(()),
        }
    }
}

impl State {
    /// The state with these tables.
    pub(super) fn holding(ruleset: Ruleset) -> Self {
        let uses = ruleset
            .tables
            .iter()
            .map(|(id, table)| (id.clone(), Uses::of(table)))
            .collect();
        Self {
            ruleset,
            uses,
            sizes: OrdMap::new(),
        }
    }

    /// The state after all operations, or the first one that is refused.
    pub(super) fn after(&self, ops: &[Op]) -> Result<Self, DataplaneError> {
        let mut next = self.clone();
        for (index, op) in ops.iter().enumerate() {
            next.apply(op).map_err(|errno| refused(index, op, errno))?;
        }
        if loops::check(&next.ruleset).is_err() {
            // Find the culprit: the first one with which a loop or a chain of calls too deep is there.
            let mut next = self.clone();
            for (index, op) in ops.iter().enumerate() {
                next.apply(op).map_err(|errno| refused(index, op, errno))?;
                if matches!(op, Op::AddRule { .. } | Op::AddElements { .. }) {
                    loops::check(&next.ruleset).map_err(|errno| refused(index, op, errno))?;
                }
            }
        }
        Ok(next)
    }

    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::AddTable {
                table,
                comment,
                owned,
            } => {
                absent(&self.ruleset.tables, table)?;
                let new = Table {
                    ownership: match owned {
                        true => Ownership::Own,
                        false => Ownership::Anyone,
                    },
                    comment: comment.clone(),
                    ..Table::default()
                };
                self.ruleset.tables.insert(table.clone(), Arc::new(new));
                self.uses.insert(table.clone(), Uses::default());
            }
            Op::AdoptTable { table } => {
                let (table, _) = self.table(table)?;
                match table.ownership {
                    Ownership::Orphan | Ownership::Own => table.ownership = Ownership::Own,
                    Ownership::Anyone | Ownership::Other(_) => return Err(EOPNOTSUPP),
                }
            }
            Op::DeleteTable { table } => {
                self.table(table)?;
                self.ruleset.tables.remove(table).ok_or(ENOENT)?;
                self.uses.remove(table);
            }
            Op::AddCounter {
                table,
                name,
                counter,
            } => {
                let (table, _) = self.table(table)?;
                absent(&table.counters, name)?;
                table.counters.insert(name.clone(), counter.clone());
            }
            Op::DeleteCounter { table, name } => {
                let (table, uses) = self.table(table)?;
                present(&table.counters, name)?;
                uses.free(Reference::Counter(name))?;
                table.counters.remove(name);
            }
            Op::AddSet {
                table,
                name,
                header,
                kind,
                size,
            } => {
                let object = (table.clone(), name.clone());
                let (table, _) = self.table(table)?;
                absent(&table.sets, name)?;
                if !(1..=Key::MAX).contains(&key_len(&header.key)) {
                    return Err(EINVAL);
                }
                let set = Set {
                    header: header.clone(),
                    elements: kind.none(),
                };
                table.sets.insert(name.clone(), Arc::new(set));
                match size {
                    Some(size) => drop(self.sizes.insert(object, *size)),
                    None => drop(self.sizes.remove(&object)),
                }
            }
            Op::DeleteSet { table, name } => {
                let (table, uses) = self.table(table)?;
                let set = present(&table.sets, name)?;
                uses.free(Reference::Set(name))?;
                set.references().for_each(|object| uses.release(object));
                table.sets.remove(name);
            }
            Op::AddElements {
                table,
                name,
                elements,
                ..
            } => {
                let size = self.sizes.get(&(table.clone(), name.clone())).copied();
                let (table, uses) = self.table(table)?;
                for verdict in elements.verdicts() {
                    if let Some(chain) = verdict.chain() {
                        regular(table, chain)?;
                        uses.take(Reference::Chain(chain));
                    }
                }
                let set = table.sets.get_mut(name).ok_or(ENOENT)?;
                let set = Arc::make_mut(set);
                add_elements(&set.header, &mut set.elements, elements)?;
                if size.is_some_and(|size| set.elements.len() > size as usize) {
                    return Err(ENFILE);
                }
            }
            Op::DeleteElements {
                table,
                name,
                elements,
                ..
            } => {
                let (table, uses) = self.table(table)?;
                let set = table.sets.get_mut(name).ok_or(ENOENT)?;
                delete_elements(&mut Arc::make_mut(set).elements, elements, uses)?;
            }
            _ => self.apply_to_chain(op)?,
        }
        Ok(())
    }

    fn apply_to_chain(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::AddChain {
                table,
                name,
                base,
                comment,
            } => {
                let (table, _) = self.table(table)?;
                absent(&table.chains, name)?;
                let chain = Chain {
                    base: *base,
                    comment: comment.clone(),
                    rules: Vec::new(),
                };
                table.chains.insert(name.clone(), Arc::new(chain));
            }
            Op::DeleteChain { table, name } => {
                let (table, uses) = self.table(table)?;
                let chain = present(&table.chains, name)?;
                // Also a rule of its own that names the chain keeps it.
                uses.free(Reference::Chain(name))?;
                chain.references().for_each(|object| uses.release(object));
                table.chains.remove(name);
            }
            Op::FlushChain { table, name } => {
                let (table, uses) = self.table(table)?;
                let chain = table.chains.get_mut(name).ok_or(ENOENT)?;
                let chain = Arc::make_mut(chain);
                chain.references().for_each(|object| uses.release(object));
                chain.rules.clear();
            }
            Op::AddRule { table, chain, rule } => {
                let (table, uses) = self.table(table)?;
                present(&table.chains, chain)?;
                check_rule(table, rule)?;
                rule.references().for_each(|object| uses.take(object));
                let chain = table.chains.get_mut(chain).ok_or(ENOENT)?;
                Arc::make_mut(chain).rules.push(rule.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, id: &TableId) -> Result<(&mut Table, &mut Uses), Errno> {
        let table = self.ruleset.tables.get_mut(id).ok_or(ENOENT)?;
        if let Ownership::Other(_) = table.ownership {
            return Err(EPERM);
        }
        let uses = self.uses.get_mut(id).ok_or(ENOENT)?;
        Ok((Arc::make_mut(table), uses))
    }
}

fn absent<K: Ord, V>(map: &OrdMap<K, V>, name: &K) -> Result<(), Errno> {
    match map.contains_key(name) {
        true => Err(EEXIST),
        false => Ok(()),
    }
}

fn present<V: Clone>(map: &OrdMap<Name, V>, name: &Name) -> Result<V, Errno> {
    map.get(name).cloned().ok_or(ENOENT)
}

/// A chain that may be jumped to.
fn regular(table: &Table, chain: &Name) -> Result<(), Errno> {
    match present(&table.chains, chain)?.base {
        Some(_) => Err(EOPNOTSUPP),
        None => Ok(()),
    }
}

fn key_len(types: &[Datatype]) -> usize {
    match types {
        [single] => single.len(),
        several => several.iter().map(|t| t.padded_len()).sum(),
    }
}

fn check_rule(table: &Table, rule: &Rule) -> Result<(), Errno> {
    let check_key = |set: &Set, fields: &[Field]| {
        let types: Vec<_> = fields.iter().map(|field| field.datatype()).collect();
        match key_len(&types) == key_len(&set.header.key) {
            true => Ok(()),
            false => Err(EINVAL),
        }
    };
    for statement in &rule.statements {
        match statement {
            Statement::Lookup { key, set, .. } => {
                let set = present(&table.sets, set)?;
                check_key(&set, key)?;
                if let Elements::Verdicts(_) = set.elements {
                    return Err(EINVAL);
                }
            }
            Statement::VerdictMap { key, map } => {
                let map = present(&table.sets, map)?;
                check_key(&map, key)?;
                let Elements::Verdicts(_) = map.elements else {
                    return Err(EINVAL);
                };
            }
            Statement::NamedCounter(counter) => drop(present(&table.counters, counter)?),
            Statement::Verdict(verdict) => {
                if let Some(chain) = verdict.chain() {
                    regular(table, chain)?;
                }
            }
            Statement::Foreign(_) => return Err(EOPNOTSUPP),
            _ => {}
        }
    }
    Ok(())
}

fn add_elements(header: &SetHeader, to: &mut Elements, elements: &Elements) -> Result<(), Errno> {
    let width = key_len(&header.key);
    let fits = |key: &Key| match key.as_bytes().len() == width {
        true => Ok(()),
        false => Err(EINVAL),
    };
    match (to, elements) {
        (Elements::Keys(to), Elements::Keys(elements)) => {
            for key in elements {
                fits(key)?;
                if to.insert(*key).is_some() {
                    return Err(EEXIST);
                }
            }
        }
        (Elements::Ranges(to), Elements::Ranges(elements)) => {
            for (first, last) in elements {
                fits(first)?;
                fits(last)?;
                add_range(&header.key, to, first, last)?;
            }
        }
        (Elements::Verdicts(to), Elements::Verdicts(elements)) => {
            for (key, entry) in elements {
                fits(key)?;
                match to.insert(*key, entry.clone()) {
                    None => {}
                    Some(old) if old.verdict == entry.verdict => return Err(EEXIST),
                    Some(_) => return Err(EBUSY),
                }
            }
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}

fn add_range(
    types: &[Datatype],
    to: &mut OrdMap<Key, Key>,
    first: &Key,
    last: &Key,
) -> Result<(), Errno> {
    let fields = |key: &Key| -> Vec<Vec<u8>> {
        let mut rest = key.as_bytes();
        let take = |datatype: &Datatype| {
            let (field, after) = rest.split_at(datatype.padded_len().min(rest.len()));
            rest = after;
            field.to_vec()
        };
        types.iter().map(take).collect()
    };
    let (firsts, lasts) = (fields(first), fields(last));
    if firsts.iter().zip(&lasts).any(|(first, last)| first > last) {
        return Err(EINVAL);
    }
    let overlaps = match types {
        // Of disjoint ranges only the last one that begins at or before the new one's end can reach into it.
        [_] => to.get_prev(last).is_some_and(|(_, end)| end >= first),
        _ => to.iter().any(|(other_first, other_last)| {
            let (other_firsts, other_lasts) = (fields(other_first), fields(other_last));
            let other = other_firsts.iter().zip(&other_lasts);
            let mut pairs = firsts.iter().zip(&lasts).zip(other);
            pairs.all(|((first, last), (other_first, other_last))| {
                first <= other_last && other_first <= last
            })
        }),
    };
    if overlaps {
        return Err(EEXIST);
    }
    to.insert(*first, *last);
    Ok(())
}

fn delete_elements(from: &mut Elements, elements: &Elements, uses: &mut Uses) -> Result<(), Errno> {
    match (from, elements) {
        (Elements::Keys(from), Elements::Keys(elements)) => {
            for key in elements {
                from.remove(key).ok_or(ENOENT)?;
            }
        }
        (Elements::Ranges(from), Elements::Ranges(elements)) => {
            for (first, last) in elements {
                if from.remove(first) != Some(*last) {
                    return Err(ENOENT);
                }
            }
        }
        (Elements::Verdicts(from), Elements::Verdicts(elements)) => {
            for key in elements.keys() {
                let entry = from.remove(key).ok_or(ENOENT)?;
                if let Some(chain) = entry.verdict.chain() {
                    uses.release(Reference::Chain(chain));
                }
            }
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}
