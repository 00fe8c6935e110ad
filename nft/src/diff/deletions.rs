//! The order in which chains and sets go: each before what it names.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::Name;
use crate::refs::Reference;
use crate::ruleset::{Chain, Set, TableId};
use crate::transaction::Op;

/// Writes the deletion of `chains` and `sets`, which name each other in any way, and which nothing else names.
pub(super) fn write(
    table: &TableId,
    chains: &BTreeMap<&Name, &Chain>,
    sets: &BTreeMap<&Name, &Set>,
    ops: &mut Vec<Op>,
) {
    let flush = |name: &Name| Op::FlushChain {
        table: table.clone(),
        name: name.clone(),
    };
    let delete = |object: Reference<'_>| match object {
        Reference::Chain(name) => Some(Op::DeleteChain {
            table: table.clone(),
            name: name.clone(),
        }),
        Reference::Set(name) => Some(Op::DeleteSet {
            table: table.clone(),
            name: name.clone(),
        }),
        Reference::Counter(_) => None,
    };

    // A rule that could not be read may name any of them.
    for (name, chain) in chains {
        if chain.has_foreign() {
            ops.push(flush(name));
        }
    }

    // Kahn's algorithm, the least name first: what nothing names any more goes, and lets go of what it names.
    let going = |object: Reference<'_>| match object {
        Reference::Chain(name) => chains.contains_key(name),
        Reference::Set(name) => sets.contains_key(name),
        Reference::Counter(_) => false,
    };
    let names = |object: Reference<'_>| -> Vec<Reference<'_>> {
        let mut named: Vec<_> = match object {
            Reference::Chain(name) => match chains.get(name) {
                Some(chain) => chain.references().collect(),
                None => Vec::new(),
            },
            Reference::Set(name) => match sets.get(name) {
                Some(set) => set.references().collect(),
                None => Vec::new(),
            },
            Reference::Counter(_) => Vec::new(),
        };
        named.retain(|object| going(*object));
        named
    };
    let objects: Vec<_> = chains
        .keys()
        .map(|name| Reference::Chain(name))
        .chain(sets.keys().map(|name| Reference::Set(name)))
        .collect();
    let mut uses: BTreeMap<Reference<'_>, usize> = objects.iter().map(|o| (*o, 0)).collect();
    for object in &objects {
        for named in names(*object) {
            *uses.entry(named).or_default() += 1;
        }
    }
    let is_free = |object: &Reference<'_>| uses.get(object) == Some(&0);
    // A map that could not be read may name any of the chains, so they all wait for it.
    let mut free: BTreeSet<_> = match sets.values().any(|set| set.is_foreign()) {
        true => BTreeSet::new(),
        false => objects.iter().copied().filter(is_free).collect(),
    };
    while let Some(object) = free.pop_first() {
        ops.extend(delete(object));
        uses.remove(&object);
        for named in names(object) {
            if let Some(count) = uses.get_mut(&named) {
                *count -= 1;
                if *count == 0 {
                    free.insert(named);
                }
            }
        }
    }

    // What is left goes round in circles, as the kernel allows for chains that no base chain reaches, or may do so. Without
    // their rules the chains name nothing, so the maps can go, and after them the chains.
    let left: Vec<_> = uses.into_keys().collect();
    for object in &left {
        if let Reference::Chain(name) = object
            && chains.get(name).is_some_and(|chain| !chain.has_foreign())
        {
            ops.push(flush(name));
        }
    }
    let is_set = |object: &&Reference<'_>| matches!(object, Reference::Set(_));
    ops.extend(left.iter().filter(is_set).filter_map(|o| delete(*o)));
    ops.extend(
        left.iter()
            .filter(|o| !is_set(o))
            .filter_map(|o| delete(*o)),
    );
}
