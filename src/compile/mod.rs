//! From the index to the nftables ruleset of one node. Pure, and deterministic to the byte: the same cluster gives the
//! same ruleset, whatever came before.
//!
//! - `state`: what was made, and what of it depends on what · `uses`: who uses which policy chain and set
//! - `local`: the node's pods · `base`: the chains the kernel calls, and a pod's own · `bridge`: table `bridge selvedge`
//! - `denied`: addresses that nobody may use, or known pods alone
//! - `closing`: what stands in for a ruleset that others have wiped, until it is back
//! - `policy`: a policy's rules · `sets`: what they look up · `names`: what all of it is called
//!
//! [`Compiler`] keeps what it made and how often each policy chain and set is used, so that a change costs what it
//! touches; [`compile`] is the same from nothing.

mod base;
mod bridge;
mod closing;
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
use selvedge_nft::{Elements, Family, IfName, Name, Ruleset, TableId, Value};

use crate::cluster::Text;
use crate::index::{Index, PodKey};
use crate::policy::{Direction, PolicyKey};

pub use closing::Closing;
use sets::IpFamily;
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

/// Pods that are closed in a direction: nothing passes there but what is established, whatever the policies say. The
/// dispatch map itself drops what is theirs, and they have no chain of their own.
pub type Closed = BTreeSet<(PodKey, Direction)>;

/// The tables that are Selvedge's: no other one is ever touched.
pub fn tables() -> Vec<TableId> {
    vec![inet_table(), bridge_table()]
}

/// Whether a set of table `inet selvedge` names addresses that are denied because they are in it.
pub fn is_withheld(set: &Name) -> bool {
    let mut families = IpFamily::ALL.into_iter();
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
    State::new(index, node, &Arc::new(host.clone()), Closed::new()).ruleset()
}

/// The addresses that a ruleset isolates in a direction.
pub fn isolated(ruleset: &Ruleset) -> BTreeSet<(IpAddr, Direction)> {
    let table = ruleset.tables.get(&inet_table());
    let maps = Direction::ALL
        .into_iter()
        .flat_map(|direction| IpFamily::ALL.map(|family| (direction, family)));
    let mut isolated = BTreeSet::new();
    for (direction, family) in maps {
        let map = table.and_then(|table| table.sets.get(&base::dispatch_map(direction, family)));
        let Some(Elements::Verdicts(entries)) = map.map(|map| &map.elements) else {
            continue;
        };
        let addresses =
            entries
                .keys()
                .filter_map(|key| match key.values(&[family.datatype()])?.first()? {
                    Value::Ipv4(address) => Some(IpAddr::from(*address)),
                    Value::Ipv6(address) => Some(IpAddr::from(*address)),
                    _ => None,
                });
        isolated.extend(addresses.map(|address| (address, direction)));
    }
    isolated
}

/// Compiles one node's ruleset and keeps it up to date.
#[derive(Debug)]
pub struct Compiler {
    node: Text,
    host: Arc<Host>,
    closed: Closed,
    state: Option<State>,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: Text, host: Host) -> Self {
        Self {
            node,
            host: Arc::new(host),
            closed: Closed::new(),
            state: None,
        }
    }

    /// Takes note of the host's bridge and its ports.
    pub fn set_host(&mut self, host: Host) {
        self.host = Arc::new(host);
    }

    /// Closes these pods from the next update on, and no others.
    pub fn set_closed(&mut self, closed: Closed) {
        self.closed = closed;
    }

    /// How many pods are closed, in any direction.
    pub fn closed(&self) -> usize {
        let pods: BTreeSet<&PodKey> = self.closed.iter().map(|(pod, _)| pod).collect();
        pods.len()
    }

    /// Brings the ruleset up to date with the index, by what changed in it since the last call, and gives it. A clone
    /// costs nothing.
    pub fn update(&mut self, index: &mut Index) -> Ruleset {
        let mut changes = index.take_changes();
        let state = match self.state.take() {
            Some(mut state)
                if state.has_families_of(index, &self.node) && state.is_closed_as(&self.host) =>
            {
                changes.pods.extend(state.close(&self.closed));
                state.update(index, &self.node, &self.host, &changes);
                state
            }
            _ => State::new(index, &self.node, &self.host, self.closed.clone()),
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

    /// The pod, and the direction, that a chain of the ruleset is the own one of.
    pub fn pod_of(&self, name: &Name) -> Option<(PodKey, Direction)> {
        self.state.as_ref()?.pod_of(name)
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
