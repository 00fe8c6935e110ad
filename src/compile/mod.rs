//! From the index to the nftables ruleset of one node. Pure, and deterministic to the byte: the same cluster gives the
//! same ruleset, whatever came before.
//!
//! - `base`: the chains the kernel calls, and a pod's own
//! - `policy`: a policy's rules · `sets`: what they look up · `names`: what all of it is called
//!
//! [`Compiler`] keeps what it made and how often each policy chain and set is used, so that a change costs what it
//! touches; [`compile`] is the same from nothing.

mod base;
mod names;
mod policy;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_nft::{
    Chain, Elements, Family, IfName, MapEntry, Name, Ruleset, Set, Table, TableId, Verdict,
};

use crate::cluster::Text;
use crate::cluster::object::{Addresses, Node, Pod};
use crate::cluster::selector::PodSelector;
use crate::index::{Changes, Index, PodKey, Touched};
use crate::policy::{Direction, PolicyKey};

use sets::{IpFamily, SetSpec};

/// What of the host the ruleset depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The pods' bridge.
    pub bridge: IfName,
    /// The bridge's ports.
    pub ports: BTreeSet<IfName>,
}

/// The tables that are Selvedge's: no other one is ever touched.
pub fn tables() -> Vec<TableId> {
    vec![inet_table(), bridge_table()]
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
    State::new(index, node, host).ruleset()
}

/// Compiles one node's ruleset and keeps it up to date.
#[derive(Debug)]
pub struct Compiler {
    node: Text,
    host: Host,
    state: Option<State>,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: Text, host: Host) -> Self {
        Self {
            node,
            host,
            state: None,
        }
    }

    /// Takes note of the host's bridge and its ports.
    pub fn set_host(&mut self, host: Host) {
        self.host = host;
    }

    /// Brings the ruleset up to date with the index, by what changed in it since the last call, and gives it. A clone
    /// costs nothing.
    pub fn update(&mut self, index: &mut Index) -> Ruleset {
        let changes = index.take_changes();
        let families = families(index, &self.node);
        let state = match self.state.take() {
            Some(mut state) if state.families == families => {
                state.update(index, &self.node, &self.host, &changes);
                state
            }
            _ => State::new(index, &self.node, &self.host),
        };
        let ruleset = state.ruleset();
        self.state = Some(state);
        ruleset
    }

    /// What the node's policies ask for that nothing can fulfil, such as a port name that no pod has: one line each,
    /// sorted.
    pub fn warnings(&self) -> Vec<String> {
        self.state.as_ref().map(State::warnings).unwrap_or_default()
    }
}

/// The families that pods of the node can have addresses of. Rules and sets of another would match nothing.
fn families(index: &Index, node: &Text) -> Vec<IpFamily> {
    let cidrs = index
        .node(node)
        .map(|node| node.pod_cidrs.as_slice())
        .unwrap_or_default();
    let mut families: BTreeSet<IpFamily> = cidrs.iter().map(|net| IpFamily::of(net.ip())).collect();
    for pod in index.pods_on(node).filter(|pod| pod.selectable()) {
        families.extend(pod.addresses.iter().map(IpFamily::of));
    }
    families.into_iter().collect()
}

/// A pod of the node that policies select.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LocalPod {
    addresses: Addresses,
    egress: Option<Vec<PolicyKey>>,
    ingress: Option<Vec<PolicyKey>>,
}

impl LocalPod {
    /// The policies that isolate the pod in a direction; `None` where it is not isolated.
    fn policies(&self, direction: Direction) -> Option<&[PolicyKey]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    fn isolated(&self) -> bool {
        self.egress.is_some() || self.ingress.is_some()
    }

    fn of(index: &Index, pod: &Pod) -> Self {
        let policies = index.policies_of(pod);
        let isolating = |direction| {
            let keys: Vec<PolicyKey> = policies
                .iter()
                .filter(|policy| policy.rules(direction).is_some())
                .map(|policy| policy.key.clone())
                .collect();
            (!keys.is_empty()).then_some(keys)
        };
        Self {
            addresses: index.addresses(pod),
            egress: isolating(Direction::Egress),
            ingress: isolating(Direction::Ingress),
        }
    }
}

/// A policy chain in the ruleset: the pods that jump to it, and the sets its rules name.
#[derive(Debug, Default)]
struct PolicyChain {
    users: BTreeSet<PodKey>,
    sets: BTreeSet<SetSpec>,
}

/// A set in the ruleset: what it stands for, and how many policy chains name it.
#[derive(Debug)]
struct UsedSet {
    spec: SetSpec,
    users: usize,
}

/// The compiled ruleset, and what in it depends on what.
#[derive(Debug)]
struct State {
    families: Vec<IpFamily>,
    host: Host,
    node: Option<Node>,
    isolating: bool,
    pods: BTreeMap<PodKey, LocalPod>,
    policies: BTreeMap<(PolicyKey, Direction), PolicyChain>,
    sets: BTreeMap<Name, UsedSet>,
    by_selector: BTreeMap<Arc<PodSelector>, BTreeSet<Name>>,
    inet: Table,
    bridge: Table,
}

impl State {
    fn new(index: &Index, node: &Text, host: &Host) -> Self {
        let mut state = Self {
            families: families(index, node),
            host: host.clone(),
            node: index.node(node).cloned(),
            isolating: false,
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            sets: BTreeMap::new(),
            by_selector: BTreeMap::new(),
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
        let pods: BTreeSet<PodKey> = index
            .pods_on(node)
            .map(|pod| (pod.namespace.clone(), pod.name.clone()))
            .collect();
        for key in pods {
            state.update_pod(index, node, &key);
        }
        state.isolating = state.isolates();
        state.write_frame();
        state
    }

    fn update(&mut self, index: &Index, node: &Text, host: &Host, changes: &Changes) {
        let mut pods = changes.pods.clone();
        for key in &changes.policies {
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
            self.refresh_sets(index, node, selector, touched);
        }
        let isolating = self.isolates();
        let this_node = index.node(node);
        if self.isolating != isolating || self.host != *host || self.node.as_ref() != this_node {
            self.isolating = isolating;
            self.host = host.clone();
            self.node = this_node.cloned();
            self.write_frame();
        }
    }

    fn ruleset(&self) -> Ruleset {
        let tables = [
            (inet_table(), Arc::new(self.inet.clone())),
            (bridge_table(), Arc::new(self.bridge.clone())),
        ];
        Ruleset {
            tables: tables.into_iter().collect(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let named = self.sets.iter().filter(|(name, used)| {
            let empty = |set: &Arc<Set>| set.elements.is_empty();
            matches!(used.spec, SetSpec::NamedPort { .. })
                && self.inet.sets.get(*name).is_some_and(empty)
        });
        let lines: BTreeSet<String> = named
            .flat_map(|(_, used)| {
                let users = self
                    .policies
                    .iter()
                    .filter(|(_, c)| c.sets.contains(&used.spec));
                users.map(|((key, direction), _)| {
                    format!(
                        "{key}: no pod has {}: its {direction} rule matches nothing",
                        used.spec
                    )
                })
            })
            .collect();
        lines.into_iter().collect()
    }

    /// Whether any pod of the node is isolated and has an address to be protected on.
    fn isolates(&self) -> bool {
        IpFamily::ALL.into_iter().any(|family| {
            let set = self.inet.sets.get(&base::isolated_set(family));
            set.is_some_and(|set| !set.elements.is_empty())
        })
    }

    /// Writes the parts that depend on the host, the node, and on whether anything is isolated.
    fn write_frame(&mut self) {
        let cidrs = self
            .node
            .iter()
            .flat_map(|node| node.pod_cidrs.iter().copied());
        for (name, set) in base::fixed_sets(cidrs) {
            put(&mut self.inet.sets, name, set);
        }
        if !self.isolating {
            self.inet.chains.remove(&names::fixed("midstream"));
        }
        for (name, chain) in base::inet_chains(self.host.bridge, self.isolating) {
            put(&mut self.inet.chains, name, chain);
        }
        let guard = base::guard(&self.host, self.isolating);
        put(&mut self.bridge.sets, guard.ports.0, guard.ports.1);
        put(&mut self.bridge.chains, guard.chain.0, guard.chain.1);
    }

    fn update_pod(&mut self, index: &Index, node: &Text, key: &PodKey) {
        let here = |pod: &&Pod| pod.node.as_ref() == Some(node) && pod.selectable();
        let new = index
            .pod(&key.0, &key.1)
            .filter(here)
            .map(|pod| LocalPod::of(index, pod));
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
        let chain = names::pod_chain(direction, key);
        for family in IpFamily::ALL {
            let entries = |pod: &LocalPod| {
                let isolated = pod.policies(direction).is_some();
                let address = pod.addresses.iter().find(|a| IpFamily::of(*a) == family);
                address.filter(|_| isolated).map(sets::key_of)
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
                let goes_here = |entry: &MapEntry| entry.verdict.chain() == Some(&chain);
                if let Some(before) = before
                    && map.get(&before).is_some_and(goes_here)
                {
                    map.remove(&before);
                }
                if let Some(after) = after {
                    let entry = MapEntry {
                        verdict: Verdict::Goto(chain.clone()),
                        comment: None,
                    };
                    map.insert(after, entry);
                }
            });
        }
    }

    fn write_isolated(&mut self, old: &LocalPod, new: &LocalPod) {
        for family in IpFamily::ALL {
            let of_family = |address: &std::net::IpAddr| IpFamily::of(*address) == family;
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
        if let Some(set) = self.inet.sets.get(name) {
            let mut set = Set::clone(set);
            change(&mut set.elements);
            put(&mut self.inet.sets, name.clone(), set);
        }
    }

    fn use_policy(
        &mut self,
        index: &Index,
        node: &Text,
        key: &PolicyKey,
        direction: Direction,
        pod: &PodKey,
    ) {
        let chain = self.policies.entry((key.clone(), direction)).or_default();
        let new = chain.users.is_empty();
        chain.users.insert(pod.clone());
        if new {
            self.write_policy(index, node, key, direction);
        }
    }

    fn disuse_policy(&mut self, key: &PolicyKey, direction: Direction, pod: &PodKey) {
        let Some(chain) = self.policies.get_mut(&(key.clone(), direction)) else {
            return;
        };
        chain.users.remove(pod);
        if !chain.users.is_empty() {
            return;
        }
        if let Some(chain) = self.policies.remove(&(key.clone(), direction)) {
            self.inet
                .chains
                .remove(&names::policy_chain(key, direction));
            for spec in &chain.sets {
                self.disuse_set(spec);
            }
        }
    }

    fn write_policy(&mut self, index: &Index, node: &Text, key: &PolicyKey, direction: Direction) {
        let Some(policy) = index.policy(key) else {
            return;
        };
        let compiled = policy::compile(policy, direction, &self.families);
        for spec in &compiled.sets {
            self.use_set(index, node, spec);
        }
        let chain = Chain {
            base: None,
            comment: names::comment(&policy.subject.to_string()),
            rules: compiled.rules,
        };
        put(
            &mut self.inet.chains,
            names::policy_chain(key, direction),
            chain,
        );
        let entry = self.policies.entry((key.clone(), direction)).or_default();
        let before = std::mem::replace(&mut entry.sets, compiled.sets);
        for spec in &before {
            self.disuse_set(spec);
        }
    }

    fn use_set(&mut self, index: &Index, node: &Text, spec: &SetSpec) {
        let name = names::set(spec);
        if let Some(used) = self.sets.get_mut(&name) {
            used.users += 1;
            return;
        }
        self.inet
            .sets
            .insert(name.clone(), Arc::new(spec.build(index, node)));
        if let Some(selector) = spec.selector() {
            self.by_selector
                .entry(selector.clone())
                .or_default()
                .insert(name.clone());
        }
        let used = UsedSet {
            spec: spec.clone(),
            users: 1,
        };
        self.sets.insert(name, used);
    }

    fn disuse_set(&mut self, spec: &SetSpec) {
        let name = names::set(spec);
        let Some(used) = self.sets.get_mut(&name) else {
            return;
        };
        used.users -= 1;
        if used.users > 0 {
            return;
        }
        self.sets.remove(&name);
        self.inet.sets.remove(&name);
        if let Some(selector) = spec.selector()
            && let Some(names) = self.by_selector.get_mut(selector)
        {
            names.remove(&name);
            if names.is_empty() {
                self.by_selector.remove(selector);
            }
        }
    }

    fn refresh_sets(
        &mut self,
        index: &Index,
        node: &Text,
        selector: &Arc<PodSelector>,
        touched: &Touched,
    ) {
        for name in self.by_selector.get(selector).into_iter().flatten() {
            let (Some(used), Some(set)) = (self.sets.get(name), self.inet.sets.get(name)) else {
                continue;
            };
            let set = match touched {
                Touched::All => used.spec.build(index, node),
                Touched::Addresses(addresses) => {
                    let mut set = Set::clone(set);
                    used.spec.refresh(&mut set, index, node, addresses);
                    set
                }
            };
            put(&mut self.inet.sets, name.clone(), set);
        }
    }
}

/// Puts a value under its name; one that is equal to what is there stays the very same, so that a diff need not look.
fn put<T: PartialEq>(map: &mut imbl::OrdMap<Name, Arc<T>>, name: Name, value: T) {
    if map.get(&name).is_none_or(|current| **current != value) {
        map.insert(name, Arc::new(value));
    }
}
