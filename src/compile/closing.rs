//! What closes a node at once where others have wiped its rules, until these are back.

use std::sync::Arc;

use selvedge_nft::{Name, Ruleset, Set, TableId, Verdict};

use super::{base, bridge, inet_table};
use crate::policy::Direction;

/// What closes a node whose rules are gone: as if each pod that is isolated were closed. A connection that is established
/// goes on, and what no policy is about passes as ever. It is small, whatever the policies, so that it can be kept ready.
///
/// Table `bridge selvedge` keeps its guard, and nothing of the ports' own chains, which may be many: what a pod sends with the
/// address of one that is not isolated passes until the rules are back.
#[derive(Debug, Default)]
pub struct Closing {
    /// What it was made of.
    of: Ruleset,
    ruleset: Ruleset,
}

impl Closing {
    /// Makes it follow the ruleset in force; it, where it has changed. That costs little where no pod's isolation has.
    pub fn follow(&mut self, in_force: &Ruleset) -> Option<&Ruleset> {
        let tables = in_force.tables.iter().map(|(id, table)| {
            let outline = table.outline(&base_chains(), |name, map| {
                let same = |of: &Ruleset| Some(of.tables.get(id)?.sets.get(name)?.clone());
                match (same(&self.of), same(&self.ruleset)) {
                    (Some(before), Some(closed)) if Arc::ptr_eq(&before, map) => closed,
                    _ => Arc::new(closed(id, map)),
                }
            });
            (id.clone(), Arc::new(outline))
        });
        let ruleset = Ruleset {
            tables: tables.collect(),
        };
        self.of = in_force.clone();
        if ruleset == self.ruleset {
            return None;
        }
        self.ruleset = ruleset;
        Some(&self.ruleset)
    }
}

/// The chains that the kernel calls, of both tables.
fn base_chains() -> [Name; 3] {
    let [egress, ingress] = Direction::ALL.map(base::chain);
    [egress, ingress, bridge::chain()]
}

fn closed(table: &TableId, map: &Set) -> Set {
    let drop = (*table == inet_table()).then_some(Verdict::Drop);
    map.without_chains(drop.as_ref())
}
