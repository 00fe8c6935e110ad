//! The compiled ruleset, and what in it depends on what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use selvedge_nft::{Elements, Name, Ruleset, Set, Table};

use super::bridge::{self, Attached};
use super::denied::{self, Known};
use super::local::{LocalPod, families};
use super::sets::IpFamily;
use super::uses::{PolicyChain, Unmet, UsedSet};
use super::{Closed, Host, base, bridge_table, inet_table, names, sets};
use crate::cluster::Text;
use crate::cluster::object::{Addresses, Node, Pod};
use crate::cluster::selector::PodSelector;
use crate::index::{Changes, Index, PodKey};
use crate::policy::{Direction, PolicyKey};
use crate::work::{Visited, visit};

/// The compiled ruleset, and what in it depends on what.
#[derive(Debug)]
pub(super) struct State {
    pub(super) families: Vec<IpFamily>,
    host: Arc<Host>,
    node: Option<Node>,
    isolating: bool,
    known: Known,
    pods: BTreeMap<PodKey, LocalPod>,
    closed: Closed,
    /// How many of them are isolated in a direction.
    isolated: BTreeMap<Direction, usize>,
    pub(super) policies: BTreeMap<(PolicyKey, Direction), PolicyChain>,
    pub(super) sets: BTreeMap<Name, UsedSet>,
    pub(super) by_selector: BTreeMap<Arc<PodSelector>, BTreeSet<Name>>,
    pub(super) unmet: Unmet,
    pub(super) inet: Table,
    bridge: Table,
}

impl State {
    /// Everything, from nothing.
    pub fn new(index: &Index, node: &Text, host: &Arc<Host>, closed: Closed) -> Self {
        let mut state = Self {
            families: families(index, node),
            host: host.clone(),
            node: index.node(node).cloned(),
            isolating: false,
            known: Known::new(&host.closed),
            pods: BTreeMap::new(),
            closed,
            isolated: BTreeMap::new(),
            policies: BTreeMap::new(),
            sets: BTreeMap::new(),
            by_selector: BTreeMap::new(),
            unmet: Unmet {
                changed: true,
                ..Unmet::default()
            },
            inet: Table {
                comment: names::comment("Selvedge: NetworkPolicy on this node"),
                ..Table::default()
            },
            bridge: Table {
                comment: names::comment("Selvedge: the port guard of the pods' bridge"),
                ..Table::default()
            },
        };
        for family in IpFamily::ALL {
            for direction in Direction::ALL {
                let map = Arc::new(base::empty_map(direction, family));
                state
                    .inet
                    .sets
                    .insert(base::dispatch_map(direction, family), map);
            }
            let isolated = Arc::new(base::empty_isolated(family));
            state.inet.sets.insert(base::isolated_set(family), isolated);
        }
        for (name, set) in state.known.sets() {
            state.inet.sets.insert(name, Arc::new(set));
        }
        let pods: BTreeSet<PodKey> = index
            .pods_on(node)
            .map(|pod| (pod.namespace.clone(), pod.name.clone()))
            .collect();
        for key in pods {
            state.update_pod(index, node, &key);
        }
        state.isolating = state.isolates();
        state.write_frame(&Attached::new());
        state
    }

    /// Whether the node's pods can have addresses of the very families that this was made for.
    pub fn has_families_of(&self, index: &Index, node: &Text) -> bool {
        self.families == families(index, node)
    }

    /// Closes these pods and no others; the answer is whom an update has to look at for that.
    pub fn close(&mut self, closed: &Closed) -> BTreeSet<PodKey> {
        let differ = self.closed.symmetric_difference(closed);
        let pods = differ.map(|(pod, _)| pod.clone()).collect();
        self.closed.clone_from(closed);
        pods
    }

    /// The pod's own chain that has a name.
    pub fn pod_of(&self, name: &Name) -> Option<(PodKey, Direction)> {
        let directions = |pod| Direction::ALL.map(|direction| (pod, direction)).into_iter();
        let mut chains = self.pods.keys().flat_map(directions);
        let found = chains.find(|(pod, direction)| names::pod_chain(*direction, pod) == *name);
        found.map(|(pod, direction)| (pod.clone(), direction))
    }

    /// Whether the blocks that only known pods may use are the very ones that this was made for.
    pub fn is_closed_as(&self, host: &Host) -> bool {
        self.known.closed() == host.closed
    }

    /// Brings everything up to date by what changed.
    pub fn update(&mut self, index: &Index, node: &Text, host: &Arc<Host>, changes: &Changes) {
        let mut pods = changes.pods.clone();
        for key in &changes.policies {
            visit(Visited::Policies, 1);
            for direction in Direction::ALL {
                if let Some(chain) = self.policies.get(&(key.clone(), direction)) {
                    pods.extend(chain.users.iter().cloned());
                }
            }
            if let Some(policy) = index.policy(key) {
                let members = index.members_on(&policy.subject, node);
                pods.extend(members.map(|pod| (pod.namespace.clone(), pod.name.clone())));
            }
        }
        for key in &pods {
            self.update_pod(index, node, key);
        }
        for key in &changes.policies {
            for direction in Direction::ALL {
                if self.policies.contains_key(&(key.clone(), direction)) {
                    self.write_policy(index, node, key, direction);
                }
            }
        }
        for (selector, touched) in &changes.selectors {
            visit(Visited::Selectors, 1);
            self.refresh_sets(index, node, selector, touched);
        }
        let isolating = self.isolates();
        let this_node = index.node(node);
        if self.isolating != isolating || self.host != *host || self.node.as_ref() != this_node {
            self.isolating = isolating;
            let before = std::mem::replace(&mut self.host, host.clone());
            self.node = this_node.cloned();
            self.write_frame(&before.attached);
        }
    }

    /// The ruleset.
    pub fn ruleset(&self) -> Ruleset {
        let tables = [
            (inet_table(), Arc::new(self.inet.clone())),
            (bridge_table(), Arc::new(self.bridge.clone())),
        ];
        Ruleset {
            tables: tables.into_iter().collect(),
        }
    }

    /// See [`super::Compiler::isolated`].
    pub fn isolated(&self, direction: Direction) -> usize {
        self.isolated.get(&direction).copied().unwrap_or_default()
    }

    /// Whether any pod of the node is isolated and has an address to be protected on.
    fn isolates(&self) -> bool {
        IpFamily::ALL.into_iter().any(|family| {
            let set = self.inet.sets.get(&base::isolated_set(family));
            set.is_some_and(|set| !set.elements.is_empty())
        })
    }

    /// Writes the parts that depend on the host, the node, and on whether anything is isolated; `attached` is what was
    /// when they were written last.
    fn write_frame(&mut self, attached: &Attached) {
        let node = self.node.iter();
        let cidrs = node.flat_map(|node| node.pod_cidrs.iter().copied());
        for (name, set) in base::fixed_sets(cidrs.clone()) {
            put(&mut self.inet.sets, name, set);
        }
        for (name, set) in denied::withheld(&self.host) {
            match set.elements.is_empty() {
                true => drop(self.inet.sets.remove(&name)),
                false => put(&mut self.inet.sets, name, set),
            }
        }
        if !self.isolating {
            self.inet.chains.remove(&names::fixed("midstream"));
        }
        for (name, chain) in base::inet_chains(&self.host, self.isolating, cidrs) {
            put(&mut self.inet.chains, name, chain);
        }
        bridge::write(&mut self.bridge, &self.host, attached, self.isolating);
    }

    fn update_pod(&mut self, index: &Index, node: &Text, key: &PodKey) {
        visit(Visited::Pods, 1);
        let here = |pod: &&Pod| pod.node.as_ref() == Some(node) && pod.selectable();
        let pod = index.pod(&key.0, &key.1).filter(here);
        let addresses = pod.map(|pod| index.addresses(pod)).unwrap_or_default();
        self.write_known(index, node, key, addresses);
        let new = pod.map(|pod| LocalPod::of(index, pod, &self.closed));
        let new = new.filter(LocalPod::isolated).unwrap_or_default();
        let old = self.pods.get(key).cloned().unwrap_or_default();
        if new == old {
            return;
        }
        // New uses before old ones go, so that what both need is not made twice.
        for direction in Direction::ALL {
            for policy in new.policies(direction).unwrap_or_default() {
                self.use_policy(index, node, policy, direction, key);
            }
            self.write_pod_chain(key, direction, &new);
            self.write_dispatch(key, direction, &old, &new);
            let isolated = self.isolated.entry(direction).or_default();
            *isolated += usize::from(new.isolated_for(direction));
            *isolated -= usize::from(old.isolated_for(direction));
            for policy in old.policies(direction).unwrap_or_default() {
                let stays = new
                    .policies(direction)
                    .is_some_and(|now| now.contains(policy));
                if !stays {
                    self.disuse_policy(policy, direction, key);
                }
            }
        }
        self.write_isolated(&old, &new);
        if new.isolated() {
            self.pods.insert(key.clone(), new);
        } else {
            self.pods.remove(key);
        }
    }

    fn write_known(&mut self, index: &Index, node: &Text, key: &PodKey, addresses: Addresses) {
        let (lost, gained) = self.known.update(index, node, key, addresses);
        for family in IpFamily::ALL {
            let of_family = |address: &&IpAddr| IpFamily::of(**address) == family;
            let lost: Vec<&IpAddr> = lost.iter().filter(of_family).collect();
            let gained: Vec<&IpAddr> = gained.iter().filter(of_family).collect();
            if lost.is_empty() && gained.is_empty() {
                continue;
            }
            self.change_set(&denied::known_set(family), |elements| {
                let Elements::Keys(keys) = elements else {
                    return;
                };
                for address in lost {
                    keys.remove(&sets::key_of(*address));
                }
                for address in gained {
                    keys.insert(sets::key_of(*address));
                }
            });
        }
    }

    fn write_pod_chain(&mut self, key: &PodKey, direction: Direction, pod: &LocalPod) {
        let name = names::pod_chain(direction, key);
        match pod.policies(direction) {
            Some(policies) => {
                let jumps = policies
                    .iter()
                    .map(|key| names::policy_chain(key, direction));
                let chain = base::pod_chain(direction, pod.addresses.iter(), jumps);
                put(&mut self.inet.chains, name, chain);
            }
            None => drop(self.inet.chains.remove(&name)),
        }
    }

    fn write_dispatch(
        &mut self,
        key: &PodKey,
        direction: Direction,
        old: &LocalPod,
        new: &LocalPod,
    ) {
        for family in IpFamily::ALL {
            let entries = |pod: &LocalPod| {
                let address = pod.addresses.iter().find(|a| IpFamily::of(*a) == family);
                Some((sets::key_of(address?), pod.entry(key, direction)?))
            };
            let (before, after) = (entries(old), entries(new));
            if before == after {
                continue;
            }
            self.change_set(&base::dispatch_map(direction, family), |elements| {
                let Elements::Verdicts(map) = elements else {
                    return;
                };
                // The address may be another pod's by now, whose entry it is then.
                if let Some((address, entry)) = before
                    && map.get(&address) == Some(&entry)
                {
                    map.remove(&address);
                }
                if let Some((address, entry)) = after {
                    map.insert(address, entry);
                }
            });
        }
    }

    fn write_isolated(&mut self, old: &LocalPod, new: &LocalPod) {
        for family in IpFamily::ALL {
            let of_family = |address: &IpAddr| IpFamily::of(*address) == family;
            let before = old
                .addresses
                .iter()
                .filter(of_family)
                .map(sets::key_of)
                .next();
            let after = new
                .addresses
                .iter()
                .filter(of_family)
                .map(sets::key_of)
                .next();
            if before == after {
                continue;
            }
            // Another pod that has taken the address over, and is isolated too, keeps it in the set.
            let taken = Direction::ALL.into_iter().any(|direction| {
                let map = self.inet.sets.get(&base::dispatch_map(direction, family));
                let elements = map.map(|map| &map.elements);
                match (elements, before) {
                    (Some(Elements::Verdicts(map)), Some(before)) => map.contains_key(&before),
                    _ => false,
                }
            });
            self.change_set(&base::isolated_set(family), |elements| {
                let Elements::Keys(keys) = elements else {
                    return;
                };
                if let Some(before) = before.filter(|_| !taken) {
                    keys.remove(&before);
                }
                if let Some(after) = after {
                    keys.insert(after);
                }
            });
        }
    }

    fn change_set(&mut self, name: &Name, change: impl FnOnce(&mut Elements)) {
        visit(Visited::Sets, 1);
        if let Some(set) = self.inet.sets.get(name) {
            let mut set = Set::clone(set);
            change(&mut set.elements);
            put(&mut self.inet.sets, name.clone(), set);
        }
    }
}

/// Puts a value under its name; one that is equal to what is there stays the very same, so that a diff need not look.
pub(super) fn put<T: PartialEq>(map: &mut OrdMap<Name, Arc<T>>, name: Name, value: T) {
    if map.get(&name).is_none_or(|current| **current != value) {
        map.insert(name, Arc::new(value));
    }
}
