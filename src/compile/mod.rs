//! From the index to the nftables ruleset of one node. Pure, and deterministic to the byte: the same cluster gives the
//! same ruleset, whatever came before.
//!
//! - `state`: what was made, and what of it depends on what · `uses`: who uses which policy chain and set
//! - `local`: the node's pods · `base`: the chains the kernel calls, and a pod's own · `bridge`: table `bridge selvedge`
//! - `denied`: addresses that nobody may use, or known pods alone
//! - `policy`: a policy's rules · `sets`: what they look up · `names`: what all of it is called
//!
//! [`Compiler`] keeps what it made and how often each policy chain and set is used, so that a change costs what it
//! touches; [`compile`] is the same from nothing.

mod base;
mod bridge;
mod denied;
mod local;
mod names;
mod policy;
mod sets;
mod state;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use selvedge_nft::{Family, IfName, Name, Ruleset, TableId};

use crate::cluster::Text;
use crate::index::Index;
use crate::policy::{Direction, PolicyKey};

use state::State;

/// What of the host the ruleset depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The pods' bridge.
    pub bridge: IfName,
    /// The bridge's ports.
    pub ports: BTreeSet<IfName>,
    /// The addresses of the pod behind a port of the bridge, where the CNI plugin has said so. Ports that are not
    /// named are left alone.
    pub attached: BTreeMap<IfName, BTreeSet<IpAddr>>,
    /// Addresses that nobody may use now: their pods are gone (CNI DEL), and no other has them yet.
    pub withheld: BTreeSet<IpAddr>,
    /// The blocks whose addresses only known pods may use (`--new-pods block`); without any, unknown ones are left
    /// alone.
    pub closed: Vec<IpNetwork>,
}

impl Host {
    /// A host of which no more is known than its bridge and the bridge's ports.
    pub fn new(bridge: IfName, ports: impl IntoIterator<Item = IfName>) -> Self {
        Self {
            bridge,
            ports: ports.into_iter().collect(),
            attached: BTreeMap::new(),
            withheld: BTreeSet::new(),
            closed: Vec::new(),
        }
    }
}

/// The tables that are Selvedge's: no other one is ever touched.
pub fn tables() -> Vec<TableId> {
    vec![inet_table(), bridge_table()]
}

/// Whether a set of table `inet selvedge` names addresses that are denied because they are in it.
pub fn is_withheld(set: &Name) -> bool {
    let mut families = sets::IpFamily::ALL.into_iter();
    families.any(|family| denied::withheld_set(family) == *set)
}

fn inet_table() -> TableId {
    TableId {
        family: Family::Inet,
        name: names::fixed("selvedge"),
    }
}

fn bridge_table() -> TableId {
    TableId {
        family: Family::Bridge,
        name: names::fixed("selvedge"),
    }
}

/// The ruleset of a node, from nothing.
pub fn compile(index: &Index, node: &Text, host: &Host) -> Ruleset {
    State::new(index, node, &Arc::new(host.clone())).ruleset()
}

/// Compiles one node's ruleset and keeps it up to date.
#[derive(Debug)]
pub struct Compiler {
    node: Text,
    host: Arc<Host>,
    state: Option<State>,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: Text, host: Host) -> Self {
        Self {
            node,
            host: Arc::new(host),
            state: None,
        }
    }

    /// Takes note of the host's bridge and its ports.
    pub fn set_host(&mut self, host: Host) {
        self.host = Arc::new(host);
    }

    /// Brings the ruleset up to date with the index, by what changed in it since the last call, and gives it. A clone
    /// costs nothing.
    pub fn update(&mut self, index: &mut Index) -> Ruleset {
        let changes = index.take_changes();
        let state = match self.state.take() {
            Some(mut state)
                if state.has_families_of(index, &self.node) && state.is_closed_as(&self.host) =>
            {
                state.update(index, &self.node, &self.host, &changes);
                state
            }
            _ => State::new(index, &self.node, &self.host),
        };
        let ruleset = state.ruleset();
        self.state = Some(state);
        ruleset
    }

    /// How many pods of the node are isolated in a direction.
    pub fn isolated(&self, direction: Direction) -> usize {
        let isolated = |state: &State| state.isolated(direction);
        self.state.as_ref().map_or(0, isolated)
    }

    /// The policies that a chain or set of the ruleset is there for; none for those that are there in any case, and for
    /// pods' own chains.
    pub fn owners(&self, name: &Name) -> BTreeSet<PolicyKey> {
        let state = self.state.as_ref();
        state.map(|state| state.owners(name)).unwrap_or_default()
    }

    /// What the node's policies ask for that nothing can fulfil, such as a port name that no pod has: one line each,
    /// sorted.
    pub fn warnings(&self) -> Vec<String> {
        self.state.as_ref().map(State::warnings).unwrap_or_default()
    }

    /// The warnings where they may be others than at the last call, and `None` where they are the same: asking costs
    /// nothing then.
    pub fn new_warnings(&mut self) -> Option<Vec<String>> {
        let state = self.state.as_mut()?;
        std::mem::take(&mut state.unmet.changed).then(|| state.warnings())
    }
}
