//! A transaction in one line.

use std::fmt;

use selvedge_nft::{Op, Transaction};

/// How many of each thing a transaction touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tables made.
    pub tables_added: usize,
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
    /// Counts.
    pub fn of(transaction: &Transaction) -> Self {
        let mut sum = Self::default();
        for op in &transaction.ops {
            match op {
                Op::AddTable { .. } => sum.tables_added += 1,
                Op::DeleteTable { .. } => sum.tables_deleted += 1,
                Op::AddChain { .. } => sum.chains_added += 1,
                Op::FlushChain { .. } => sum.chains_rewritten += 1,
                Op::DeleteChain { .. } => sum.chains_deleted += 1,
                Op::AddRule { .. } => sum.rules_added += 1,
                Op::AddSet { .. } => sum.sets_added += 1,
                Op::DeleteSet { .. } => sum.sets_deleted += 1,
                Op::AddElements { elements, .. } => sum.elements_added += elements.len(),
                Op::DeleteElements { elements, .. } => sum.elements_deleted += elements.len(),
                Op::AddCounter { .. } | Op::DeleteCounter { .. } => {}
            }
        }
        sum
    }
}

impl fmt::Display for Summary {
    /// `tables +2, chains +3 ~1 -1, rules +12, sets +1, elements +40 -2`; what is zero is left out.
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
