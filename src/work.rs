//! How much a step looks at, in objects and not in time: for the tests that hold the work of one change against the
//! size of the cluster. It is counted in tests and with the feature `synthetic`; otherwise counting is nothing.
//!
//! A lookup in a map, a tree or a bitmap counts as one, whatever its depth; a bitmap of the pods is one object.

use std::cell::Cell;
use std::fmt;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visited {
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// Selectors, matched against labels or asked for their members.
    Selectors,
    /// Policies, and their chains.
    Policies,
    /// Sets of the ruleset.
    Sets,
    /// Elements of sets.
    Elements,
    /// Warnings.
    Warnings,
}

/// The kinds, in order.
const KINDS: [Visited; 7] = [
    Visited::Pods,
    Visited::Namespaces,
    Visited::Selectors,
    Visited::Policies,
    Visited::Sets,
    Visited::Elements,
    Visited::Warnings,
];

/// How many objects of each kind were looked at.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Work([u64; KINDS.len()]);

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work([0; KINDS.len()])) };
}

/// Counts `objects` of a kind that were looked at.
#[inline]
pub(crate) fn visit(what: Visited, objects: usize) {
    if cfg!(any(test, feature = "synthetic")) {
        let mut work = WORK.get();
        if let Some(count) = work.0.get_mut(what as usize) {
            *count += objects as u64;
        }
        WORK.set(work);
    }
}

impl Work {
    /// What this thread has looked at since the last call.
    pub fn take() -> Self {
        WORK.take()
    }

    /// How many of one kind.
    pub fn of(&self, what: Visited) -> u64 {
        self.0.get(what as usize).copied().unwrap_or_default()
    }

    /// How many of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = KINDS.iter().zip(self.0).filter(|(_, count)| *count > 0);
        f.debug_map().entries(kinds).finish()
    }
}
