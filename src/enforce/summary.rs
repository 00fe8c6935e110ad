//! A transaction in one line.

use std::fmt;

use selvedge_nft::{Op, Ruleset, Transaction};

use crate::observe::Held;

/// How many of each thing a transaction touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tables made.
    pub tables_added: usize,
    /// Tables adopted: nothing in them changes.
    pub tables_adopted: usize,
    /// Tables deleted.
    pub tables_deleted: usize,
    /// Chains made.
    pub chains_added: usize,
    /// Chains whose rules were written anew.
    pub chains_rewritten: usize,
    /// Chains deleted.
    pub chains_deleted: usize,
    /// Rules written.
    pub rules_added: usize,
    /// Sets and maps made.
    pub sets_added: usize,
    /// Sets and maps deleted.
    pub sets_deleted: usize,
    /// Elements added.
    pub elements_added: usize,
    /// Elements deleted.
    pub elements_deleted: usize,
}

impl Summary {
    /// Counts what a transaction does to `current`. What goes with its table or its set counts as deleted.
    pub fn of(transaction: &Transaction, current: &Ruleset) -> Self {
        let mut sum = Self::default();
        for op in &transaction.ops {
            match op {
                Op::AddTable { .. } => sum.tables_added += 1,
                Op::AdoptTable { .. } => sum.tables_adopted += 1,
                Op::DeleteTable { table } => {
                    sum.tables_deleted += 1;
                    let held = current.tables.get(table).map(|t| Held::by_table(t));
                    let held = held.unwrap_or_default();
                    sum.chains_deleted += held.chains;
                    sum.sets_deleted += held.sets;
                    sum.elements_deleted += held.elements;
                }
                Op::AddChain { .. } => sum.chains_added += 1,
                Op::FlushChain { .. } => sum.chains_rewritten += 1,
                Op::DeleteChain { .. } => sum.chains_deleted += 1,
                Op::AddRule { .. } => sum.rules_added += 1,
                Op::AddSet { .. } => sum.sets_added += 1,
                Op::DeleteSet { table, name } => {
                    sum.sets_deleted += 1;
                    let table = current.tables.get(table);
                    let set = table.and_then(|table| table.sets.get(name));
                    sum.elements_deleted += set.map_or(0, |set| set.elements.len());
                }
                Op::AddElements { elements, .. } => sum.elements_added += elements.len(),
                Op::DeleteElements { elements, .. } => sum.elements_deleted += elements.len(),
                Op::AddCounter { .. } | Op::DeleteCounter { .. } => {}
            }
        }
        sum
    }

    /// Whether it changes no more than who may change the tables.
    pub fn only_adopts(&self) -> bool {
        let tables_adopted = self.tables_adopted;
        let adopts = Self {
            tables_adopted,
            ..Self::default()
        };
        tables_adopted > 0 && *self == adopts
    }

    /// How much is held after the transaction, of what was held before it.
    pub fn applied_to(&self, held: Held) -> Held {
        let after = |held: usize, added: usize, deleted| (held + added).saturating_sub(deleted);
        Held {
            chains: after(held.chains, self.chains_added, self.chains_deleted),
            sets: after(held.sets, self.sets_added, self.sets_deleted),
            elements: after(held.elements, self.elements_added, self.elements_deleted),
        }
    }
}

impl fmt::Display for Summary {
    /// `tables +2, chains +3 ~1 -1, rules +12, sets +1, elements +40 -2`, or `2 tables taken over, chains +3`; what is
    /// zero is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("tables", self.tables_added, 0, self.tables_deleted),
            (
                "chains",
                self.chains_added,
                self.chains_rewritten,
                self.chains_deleted,
            ),
            ("rules", self.rules_added, 0, 0),
            ("sets", self.sets_added, 0, self.sets_deleted),
            ("elements", self.elements_added, 0, self.elements_deleted),
        ];
        let mut separator = "";
        if self.tables_adopted > 0 {
            write!(f, "{} tables taken over", self.tables_adopted)?;
            separator = ", ";
        }
        for (what, added, rewritten, deleted) in parts {
            if added + rewritten + deleted == 0 {
                continue;
            }
            write!(f, "{separator}{what}")?;
            separator = ", ";
            for (sign, count) in [('+', added), ('~', rewritten), ('-', deleted)] {
                if count > 0 {
                    write!(f, " {sign}{count}")?;
                }
            }
        }
        Ok(())
    }
}
