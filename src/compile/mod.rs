//! From the index to the nftables ruleset of one node.

use std::collections::BTreeSet;

use selvedge_nft::{IfName, Ruleset, TableId};

use crate::cluster::Text;
use crate::index::Index;

/// What of the host the ruleset depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The pods' bridge.
    pub bridge: IfName,
    /// The bridge's ports.
    pub ports: BTreeSet<IfName>,
}

/// Compiles one node's ruleset and keeps it up to date.
#[derive(Debug)]
pub struct Compiler {
    node: Text,
    host: Host,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: Text, host: Host) -> Self {
        Self { node, host }
    }

    /// Takes note of the host's bridge and its ports.
    pub fn set_host(&mut self, host: Host) {
        self.host = host;
    }

    /// Brings the ruleset up to date with the index, by what changed in it since the last call, and gives it. A clone
    /// costs nothing.
    pub fn update(&mut self, index: &mut Index) -> Ruleset {
        let _ = (index, &self.node, &self.host);
        Ruleset::default()
    }

    /// What the node's policies ask for that nothing can fulfil, such as a port name that no pod has: one line each,
    /// sorted.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The tables that are Selvedge's: no other one is ever touched.
pub fn tables() -> Vec<TableId> {
    Vec::new()
}
