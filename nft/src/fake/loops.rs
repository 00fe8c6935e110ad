//! No chain calls itself, and no chain of calls is too deep.

use std::collections::BTreeMap;

use super::kernel::errno::{ELOOP, EMLINK};
use crate::name::Name;
use crate::refs::Reference;
use crate::ruleset::{Ruleset, Table};

/// How many chains deep calls may go, the base chain included (`NFT_JUMP_STACK_SIZE`); a goto counts too.
const DEEPEST: usize = 16;

/// Refuses rulesets in which chains call each other in a circle, through maps or not, or base chains too deep.
pub(super) fn check(ruleset: &Ruleset) -> Result<(), i32> {
    ruleset.tables.values().try_for_each(|t| check_table(t))
}

fn check_table(table: &Table) -> Result<(), i32> {
    let mut depths = BTreeMap::new();
    for (name, chain) in &table.chains {
        let depth = depth(table, name, &mut depths)?;
        if chain.base.is_some() && depth > DEEPEST {
            return Err(EMLINK);
        }
    }
    Ok(())
}

/// What is known of a chain while the chains are walked.
#[derive(Clone, Copy)]
enum Seen {
    /// It is being walked: to meet it again is a loop.
    Open,
    /// So many chains deep it goes.
    Depth(usize),
}

/// How many chains deep a call of this one goes, itself included.
fn depth<'a>(
    table: &'a Table,
    start: &'a Name,
    seen: &mut BTreeMap<&'a Name, Seen>,
) -> Result<usize, i32> {
    // Walked with a stack of our own: what a test feeds in may be deep.
    let mut stack = vec![(start, callees(table, start))];
    if let Some(Seen::Depth(depth)) = seen.get(start) {
        return Ok(*depth);
    }
    seen.insert(start, Seen::Open);
    while let Some((name, rest)) = stack.last_mut() {
        match rest.pop() {
            Some(callee) => match seen.get(callee) {
                Some(Seen::Open) => return Err(ELOOP),
                Some(Seen::Depth(_)) => {}
                None => {
                    seen.insert(callee, Seen::Open);
                    stack.push((callee, callees(table, callee)));
                }
            },
            None => {
                let deepest = callees(table, name)
                    .into_iter()
                    .filter_map(|callee| match seen.get(callee) {
                        Some(Seen::Depth(depth)) => Some(*depth),
                        _ => None,
                    })
                    .max();
                seen.insert(name, Seen::Depth(deepest.unwrap_or_default() + 1));
                stack.pop();
            }
        }
    }
    match seen.get(start) {
        Some(Seen::Depth(depth)) => Ok(*depth),
        _ => Err(ELOOP),
    }
}

/// The chains that the chain's rules call, also through verdict maps.
fn callees<'a>(table: &'a Table, name: &Name) -> Vec<&'a Name> {
    let Some(chain) = table.chains.get(name) else {
        return Vec::new();
    };
    let mut callees = Vec::new();
    for object in chain.references() {
        match object {
            Reference::Chain(callee) => callees.push(callee),
            Reference::Set(set) => {
                let set = table.sets.get(set);
                callees.extend(set.into_iter().flat_map(|set| {
                    set.references().filter_map(|object| match object {
                        Reference::Chain(callee) => Some(callee),
                        _ => None,
                    })
                }));
            }
            Reference::Counter(_) => {}
        }
    }
    callees
}
