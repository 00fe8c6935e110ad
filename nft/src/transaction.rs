//! A transaction: an ordered list of operations that the kernel carries out together or not at all.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::name::{Comment, Name};
use crate::rule::Rule;
use crate::ruleset::{BaseChain, Counter, Elements, SetHeader, TableId};

/// How many elements at least, but for the last, a part of [`Transaction::large_sets_last`] has. What the kernel does for
/// fewer when it commits them is still in the processor's cache: a million elements are loaded some 10 % sooner than in one
/// transaction.
const PART: usize = 10_000;

/// One operation on one object of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Make the table; it must not exist.
    AddTable {
        /// The table.
        table: TableId,
        /// Its comment.
        comment: Option<Comment>,
        /// Whether it is to be [`Ownership::Own`](crate::Ownership::Own).
        owned: bool,
    },
    /// Make an [`Ownership::Orphan`](crate::Ownership::Orphan) one's own. Nothing that is in it changes.
    AdoptTable {
        /// The table.
        table: TableId,
    },
    /// Delete the table and all that is in it; it must exist.
    DeleteTable {
        /// The table.
        table: TableId,
    },
    /// Make a named counter.
    AddCounter {
        /// The table.
        table: TableId,
        /// The counter's name.
        name: Name,
        /// The counter.
        counter: Arc<Counter>,
    },
    /// Delete a named counter that no rule names.
    DeleteCounter {
        /// The table.
        table: TableId,
        /// The counter's name.
        name: Name,
    },
    /// Make an empty set or verdict map.
    AddSet {
        /// The table.
        table: TableId,
        /// The set's name.
        name: Name,
        /// What it is.
        header: SetHeader,
        /// Empty; its kind tells the set's flags.
        kind: Elements,
        /// The most elements that it takes; `None` for as many as come.
        size: Option<u32>,
    },
    /// Delete a set that no rule names.
    DeleteSet {
        /// The table.
        table: TableId,
        /// The set's name.
        name: Name,
    },
    /// Add elements, none of which is in the set.
    AddElements {
        /// The table.
        table: TableId,
        /// The set's name.
        name: Name,
        /// The key's type.
        header: SetHeader,
        /// The elements.
        elements: Elements,
    },
    /// Delete elements, all of which are in the set.
    DeleteElements {
        /// The table.
        table: TableId,
        /// The set's name.
        name: Name,
        /// The key's type.
        header: SetHeader,
        /// The elements; of a map the keys alone count.
        elements: Elements,
    },
    /// Make a chain without rules.
    AddChain {
        /// The table.
        table: TableId,
        /// The chain's name.
        name: Name,
        /// Where it is attached.
        base: Option<BaseChain>,
        /// Its comment.
        comment: Option<Comment>,
    },
    /// Delete a chain that nothing names, with its rules.
    DeleteChain {
        /// The table.
        table: TableId,
        /// The chain's name.
        name: Name,
    },
    /// Delete all rules of a chain.
    FlushChain {
        /// The table.
        table: TableId,
        /// The chain's name.
        name: Name,
    },
    /// Append a rule to a chain.
    AddRule {
        /// The table.
        table: TableId,
        /// The chain's name.
        chain: Name,
        /// The rule.
        rule: Rule,
    },
}

impl Op {
    /// The table that it changes.
    pub fn table(&self) -> &TableId {
        match self {
            Self::AddTable { table, .. }
            | Self::AdoptTable { table }
            | Self::DeleteTable { table }
            | Self::AddCounter { table, .. }
            | Self::DeleteCounter { table, .. }
            | Self::AddSet { table, .. }
            | Self::DeleteSet { table, .. }
            | Self::AddElements { table, .. }
            | Self::DeleteElements { table, .. }
            | Self::AddChain { table, .. }
            | Self::DeleteChain { table, .. }
            | Self::FlushChain { table, .. }
            | Self::AddRule { table, .. } => table,
        }
    }

    /// The name of the chain, set or counter that it is about; of a table none.
    pub fn object(&self) -> Option<&Name> {
        match self {
            Self::AddTable { .. } | Self::AdoptTable { .. } | Self::DeleteTable { .. } => None,
            Self::AddCounter { name, .. }
            | Self::DeleteCounter { name, .. }
            | Self::AddSet { name, .. }
            | Self::DeleteSet { name, .. }
            | Self::AddElements { name, .. }
            | Self::DeleteElements { name, .. }
            | Self::AddChain { name, .. }
            | Self::DeleteChain { name, .. }
            | Self::FlushChain { name, .. }
            | Self::AddRule { chain: name, .. } => Some(name),
        }
    }
}

/// What [`crate::diff`] computes and a dataplane commits: all or nothing, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The operations.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The same as two transactions, to be carried out one after the other: first the interval sets that come, with what
    /// is in them, which nothing names yet; then all else. Either may be empty.
    ///
    /// A batch's new rules would find its new interval sets empty for some microseconds, and judge packets so: rules and
    /// hashed sets change at the instant of the new generation, but an interval set shows its elements only when it is
    /// published, after that (`nft_set_commit_update` in `nf_tables_commit`; for the rbtree since Linux 7.0, and in stable
    /// kernels before).
    pub fn stages(&self) -> (Self, Cow<'_, Self>) {
        let ahead = self.coming(|kind, _| matches!(kind, Elements::Ranges(_)));
        if ahead.is_empty() {
            return (Self::default(), Cow::Borrowed(self));
        }
        let goes_ahead = |op: &Op| match op {
            Op::AddTable { table, .. } | Op::AdoptTable { table } => {
                ahead.iter().any(|(of, _)| *of == table)
            }
            Op::AddSet { table, name, .. } | Op::AddElements { table, name, .. } => {
                ahead.contains(&(table, name))
            }
            _ => false,
        };
        let (ahead, rest) = self.ops.iter().cloned().partition(goes_ahead);
        (Self { ops: ahead }, Cow::Owned(Self { ops: rest }))
    }

    /// The sets of a kind and size that come where there is none of that name, nor one that goes in the same transaction.
    fn coming(
        &self,
        wanted: impl Fn(&Elements, Option<u32>) -> bool,
    ) -> HashSet<(&TableId, &Name)> {
        let mut gone = HashSet::new();
        let mut coming = HashSet::new();
        for op in &self.ops {
            match op {
                Op::DeleteTable { table } => drop(gone.insert((table, None))),
                Op::DeleteSet { table, name } => drop(gone.insert((table, Some(name)))),
                Op::AddSet {
                    table,
                    name,
                    kind,
                    size,
                    ..
                } => {
                    // Where one of that name goes in the same transaction it can't be there before.
                    let taken = [(table, None), (table, Some(name))];
                    if wanted(kind, *size) && !taken.iter().any(|object| gone.contains(object)) {
                        coming.insert((table, name));
                    }
                }
                _ => {}
            }
        }
        coming
    }

    /// The same as several transactions, to be carried out one after the other: first all but the elements of large sets that
    /// come, those with a size, then these, some whole sets at a time. A set has nothing in it until its turn comes. What is
    /// there already, and made anew, changes at once as ever.
    pub fn large_sets_last(&self) -> Vec<Self> {
        let large = self.coming(|_, size| size.is_some());
        let fills = |op: &Op| match op {
            Op::AddElements { table, name, .. } => large.contains(&(table, name)),
            _ => false,
        };
        let (last, first): (Vec<Op>, _) = self.ops.iter().cloned().partition(fills);
        let mut parts = vec![Self { ops: first }];
        let mut part = Self::default();
        for op in last {
            part.ops.push(op);
            if part.elements_added() >= PART {
                parts.push(std::mem::take(&mut part));
            }
        }
        parts.extend((!part.is_empty()).then_some(part));
        parts
    }

    /// How many elements it adds to sets and maps.
    pub fn elements_added(&self) -> usize {
        let added = self.ops.iter().map(|op| match op {
            Op::AddElements { elements, .. } => elements.len(),
            _ => 0,
        });
        added.sum()
    }
}
