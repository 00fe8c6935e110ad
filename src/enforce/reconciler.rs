//! Events in, ruleset out.

use std::time::Instant;

use selvedge_nft::Dataplane;

use super::committer::{Committer, Outcome};
use super::standing::Standing;
use crate::cluster::Text;
use crate::cluster::object::Event;
use crate::compile::{Compiler, Host, tables};
use crate::index::Index;

/// One change that the ruleset may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of the cluster.
    Cluster(Event),
    /// Of the host's bridge and its ports.
    Host(Host),
}

/// Keeps a dataplane's ruleset as the cluster's policies ask for.
#[derive(Debug)]
pub struct Reconciler<D> {
    index: Index,
    compiler: Compiler,
    committer: Committer<D>,
    warnings: Standing,
}

impl<D: Dataplane> Reconciler<D> {
    /// A reconciler for the node of this name, with an empty cluster. Nothing is read or sent yet.
    pub fn new(dataplane: D, node: Text, host: Host) -> Self {
        Self {
            index: Index::new(),
            compiler: Compiler::new(node, host),
            committer: Committer::new(dataplane, tables()),
            warnings: Standing::default(),
        }
    }

    /// Takes changes in without acting on them: before everything is known that a first commit needs.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) -> bool {
        let mut any = false;
        for change in changes {
            any = true;
            match change {
                Change::Cluster(event) => self.index.apply(event),
                Change::Host(host) => self.compiler.set_host(host),
            }
        }
        any
    }

    /// Takes a burst of changes in, and makes the dataplane follow in at most one transaction. With no changes it
    /// is the retry of what failed.
    pub fn step(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) -> Outcome {
        let changed = self.take(changes);
        let desired = self.compiler.update(&mut self.index);
        if let Some(warnings) = self.compiler.new_warnings() {
            self.warnings.update(warnings);
        }
        self.committer.reconcile(&desired, changed, now)
    }
}

#[cfg(test)]
#[path = "reconciler_tests.rs"]
mod tests;
