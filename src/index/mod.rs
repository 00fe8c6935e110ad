//! Who selects whom, kept as events come.
//!
//! The index holds the cluster's objects, every distinct selector with its members, and who has which address. Each
//! event costs what it changes. [`Index::take_changes`] says what that was; the answers to all other questions depend
//! on the objects alone, not on the order they came in.

mod addresses;
mod answers;
mod changes;
mod selectors;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use roaring::RoaringBitmap;
use slab::Slab;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{
    Event, NAMESPACE_NAME_LABEL, Node, Object, ObjectKey, ObjectKind, Pod,
};
use crate::cluster::selector::PodSelector;
use crate::policy::{Direction, Peer, Peers, Policy, PolicyKey, PortMatch, Ports};

use addresses::{AddressBook, Claim};
pub use changes::{Changes, PodKey, Touched};
use selectors::{SelectorId, Selectors};

/// The cluster as policy sees it.
#[derive(Debug, Default)]
pub struct Index {
    pods: Slab<Pod>,
    namespaces: BTreeMap<Text, NamespaceEntry>,
    nodes: BTreeMap<Text, Node>,
    by_node: HashMap<Text, RoaringBitmap>,
    addresses: AddressBook,
    policies: BTreeMap<PolicyKey, PolicyEntry>,
    /// How many problems they have together.
    policy_problems: usize,
    selectors: Selectors,
    subjects: HashMap<SelectorId, BTreeSet<PolicyKey>>,
    changes: Changes,
}

/// A namespace: its labels, once its object is known, and its pods by name.
#[derive(Debug, Default)]
struct NamespaceEntry {
    labels: Option<Labels>,
    pods: BTreeMap<Text, u32>,
}

#[derive(Debug)]
struct PolicyEntry {
    policy: Arc<Policy>,
    subject: SelectorId,
    others: Vec<SelectorId>,
}

impl Index {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Apply(Object::Pod(pod)) => self.apply_pod(pod),
            Event::Apply(Object::Namespace(namespace)) => {
                self.set_namespace_labels(&namespace.name, Some(namespace.labels));
            }
            Event::Apply(Object::Node(node)) => self.apply_node(node),
            Event::Apply(Object::Policy(policy)) => self.apply_policy(policy),
            Event::Delete { key, uid } => self.delete(&key, uid.as_ref()),
            Event::Retain { kind, keys } => {
                let gone = self
                    .keys(kind)
                    .into_iter()
                    .filter(|key| !keys.contains(key));
                for key in gone.collect::<Vec<_>>() {
                    self.delete(&key, None);
                }
            }
        }
    }

    fn delete(&mut self, key: &ObjectKey, uid: Option<&Text>) {
        match key {
            ObjectKey::Pod(namespace, name) => self.delete_pod(namespace, name, uid),
            ObjectKey::Namespace(name) => self.set_namespace_labels(name, None),
            ObjectKey::Node(name) => {
                if self.nodes.remove(name).is_some() {
                    self.changes.nodes.insert(name.clone());
                }
            }
            ObjectKey::Policy(key) => self.delete_policy(key),
        }
    }

    /// The keys of all objects of a kind.
    fn keys(&self, kind: ObjectKind) -> Vec<ObjectKey> {
        match kind {
            ObjectKind::Pod => {
                let pods = self.pods.iter().map(|(_, pod)| pod);
                pods.map(|pod| ObjectKey::Pod(pod.namespace.clone(), pod.name.clone()))
                    .collect()
            }
            ObjectKind::Namespace => {
                let known = self
                    .namespaces
                    .iter()
                    .filter(|(_, entry)| entry.labels.is_some());
                known
                    .map(|(name, _)| ObjectKey::Namespace(name.clone()))
                    .collect()
            }
            ObjectKind::Node => self.nodes.keys().cloned().map(ObjectKey::Node).collect(),
            ObjectKind::NetworkPolicy => self
                .policies
                .keys()
                .cloned()
                .map(ObjectKey::Policy)
                .collect(),
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    // --- pods ---

    fn apply_pod(&mut self, pod: Pod) {
        match self.pod_id(&pod.namespace, &pod.name) {
            Some(id) => self.replace_pod(id, pod),
            None => {
                let Ok(id) = u32::try_from(self.pods.vacant_key()) else {
                    return; // more than four thousand million pods
                };
                let entry = self.namespaces.entry(pod.namespace.clone()).or_default();
                entry.pods.insert(pod.name.clone(), id);
                self.pods.insert(pod);
                self.enter(id);
            }
        }
    }

    fn replace_pod(&mut self, id: u32, pod: Pod) {
        let Some(current) = self.pods.get_mut(id as usize) else {
            return;
        };
        if *current == pod {
            return;
        }
        let same_place = current.selectable() == pod.selectable()
            && current.addresses == pod.addresses
            && current.ports == pod.ports
            && current.node == pod.node
            && current.uid == pod.uid
            && current.created == pod.created;
        if same_place {
            let before = self.matching(id);
            if let Some(current) = self.pods.get_mut(id as usize) {
                *current = pod;
            }
            self.rematch(id, &before);
        } else {
            self.leave(id);
            if let Some(current) = self.pods.get_mut(id as usize) {
                *current = pod;
            }
            self.enter(id);
        }
    }

    fn delete_pod(&mut self, namespace: &Text, name: &Text, uid: Option<&Text>) {
        let Some(id) = self.pod_id(namespace, name) else {
            return;
        };
        let current = self.pods.get(id as usize);
        let other = |uid: &Text| current.is_some_and(|pod| !pod.uid.is_empty() && pod.uid != *uid);
        if uid.is_some_and(|uid| !uid.is_empty() && other(uid)) {
            return; // a late word about a predecessor
        }
        self.leave(id);
        self.pods.try_remove(id as usize);
        if let Some(entry) = self.namespaces.get_mut(namespace) {
            entry.pods.remove(name);
        }
        self.forget_empty_namespace(namespace);
    }

    /// Puts a pod that is in the slab wherever it belongs.
    fn enter(&mut self, id: u32) {
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        let key = (pod.namespace.clone(), pod.name.clone());
        if let Some(node) = &pod.node {
            self.by_node.entry(node.clone()).or_default().insert(id);
        }
        self.changes.pods.insert(key);
        if !pod.selectable() {
            return;
        }
        let claim = Claim {
            created: pod.created,
            identity: format!("{} {}/{}", pod.uid, pod.namespace, pod.name),
            pod: id,
        };
        let addresses: Vec<IpAddr> = pod.addresses.iter().collect();
        for address in &addresses {
            let before = self.addresses.owner(*address);
            self.addresses.claim(*address, claim.clone());
            self.owner_changed(*address, before);
        }
        for selector in self.matching(id) {
            if let Some(members) = self.selectors.members_mut(selector) {
                members.insert(id);
            }
            self.touch(selector, &addresses);
        }
    }

    /// Takes a pod that stays in the slab out of everything.
    fn leave(&mut self, id: u32) {
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        let key = (pod.namespace.clone(), pod.name.clone());
        if let Some(node) = &pod.node
            && let Some(pods) = self.by_node.get_mut(node)
        {
            pods.remove(id);
            if pods.is_empty() {
                self.by_node.remove(node);
            }
        }
        self.changes.pods.insert(key);
        if !pod.selectable() {
            return;
        }
        let addresses: Vec<IpAddr> = pod.addresses.iter().collect();
        for selector in self.matching(id) {
            if let Some(members) = self.selectors.members_mut(selector) {
                members.remove(id);
            }
            self.touch(selector, &addresses);
        }
        for address in addresses {
            let before = self.addresses.owner(address);
            self.addresses.release(address, id);
            self.owner_changed(address, before);
        }
    }

    /// Brings a pod's memberships up to date after its own or its namespace's labels changed.
    fn rematch(&mut self, id: u32, before: &[SelectorId]) {
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        if !pod.selectable() {
            return;
        }
        let key = (pod.namespace.clone(), pod.name.clone());
        let addresses: Vec<IpAddr> = pod.addresses.iter().collect();
        let after = self.matching(id);
        if after == before {
            return;
        }
        self.changes.pods.insert(key);
        for selector in before.iter().filter(|s| after.binary_search(s).is_err()) {
            if let Some(members) = self.selectors.members_mut(*selector) {
                members.remove(id);
            }
            self.touch(*selector, &addresses);
        }
        for selector in after.iter().filter(|s| before.binary_search(s).is_err()) {
            if let Some(members) = self.selectors.members_mut(*selector) {
                members.insert(id);
            }
            self.touch(*selector, &addresses);
        }
    }

    fn owner_changed(&mut self, address: IpAddr, before: Option<u32>) {
        let after = self.addresses.owner(address);
        if before == after {
            return;
        }
        for id in [before, after].into_iter().flatten() {
            if let Some(pod) = self.pods.get(id as usize) {
                let key = (pod.namespace.clone(), pod.name.clone());
                self.changes.pods.insert(key);
            }
            for selector in self.matching(id) {
                self.touch(selector, &[address]);
            }
        }
    }

    fn touch(&mut self, selector: SelectorId, addresses: &[IpAddr]) {
        if let Some(selector) = self.selectors.selector(selector) {
            self.changes.touch(selector, addresses);
        }
    }

    /// The selectors that select the pod, whether or not it is a member of them already.
    fn matching(&self, id: u32) -> Vec<SelectorId> {
        let Some(pod) = self.pods.get(id as usize) else {
            return Vec::new();
        };
        let labels = self.namespace_labels(&pod.namespace);
        self.selectors
            .matching(&pod.namespace, &labels, &pod.labels)
    }

    fn pod_id(&self, namespace: &str, name: &str) -> Option<u32> {
        let entry = self.namespaces.get(&Text::from(namespace))?;
        entry.pods.get(&Text::from(name)).copied()
    }

    // --- namespaces and nodes ---

    fn set_namespace_labels(&mut self, name: &Text, labels: Option<Labels>) {
        let entry = self.namespaces.entry(name.clone()).or_default();
        if entry.labels == labels {
            self.forget_empty_namespace(name);
            return;
        }
        let pods: Vec<u32> = entry.pods.values().copied().collect();
        let before: Vec<(u32, Vec<SelectorId>)> =
            pods.into_iter().map(|id| (id, self.matching(id))).collect();
        if let Some(entry) = self.namespaces.get_mut(name) {
            entry.labels = labels;
        }
        for (id, before) in before {
            self.rematch(id, &before);
        }
        self.forget_empty_namespace(name);
    }

    fn forget_empty_namespace(&mut self, name: &Text) {
        let empty = |entry: &NamespaceEntry| entry.labels.is_none() && entry.pods.is_empty();
        if self.namespaces.get(name).is_some_and(empty) {
            self.namespaces.remove(name);
        }
    }

    fn apply_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) != Some(&node) {
            self.changes.nodes.insert(node.name.clone());
            self.nodes.insert(node.name.clone(), node);
        }
    }

    // --- policies ---

    fn apply_policy(&mut self, policy: Arc<Policy>) {
        if self
            .policies
            .get(&policy.key)
            .is_some_and(|entry| entry.policy == policy)
        {
            return;
        }
        // The new policy's selectors first, so that those that stay keep their members.
        let subject = self.acquire(&policy.subject);
        let others = other_selectors(&policy);
        let others: Vec<SelectorId> = others.iter().map(|s| self.acquire(s)).collect();
        self.delete_policy(&policy.key);
        self.policy_problems += policy.problems.len();
        let key = policy.key.clone();
        self.subjects
            .entry(subject)
            .or_default()
            .insert(key.clone());
        let entry = PolicyEntry {
            policy,
            subject,
            others,
        };
        self.policies.insert(key.clone(), entry);
        self.changes.policies.insert(key);
    }

    fn delete_policy(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.remove(key) else {
            return;
        };
        self.policy_problems -= entry.policy.problems.len();
        if let Some(policies) = self.subjects.get_mut(&entry.subject) {
            policies.remove(key);
            if policies.is_empty() {
                self.subjects.remove(&entry.subject);
            }
        }
        self.selectors.release(entry.subject);
        for selector in entry.others {
            self.selectors.release(selector);
        }
        self.changes.policies.insert(key.clone());
    }

    fn acquire(&mut self, selector: &PodSelector) -> SelectorId {
        let (id, new) = self.selectors.acquire(selector);
        if !new {
            return id;
        }
        let mut members = RoaringBitmap::new();
        let candidates: Vec<&NamespaceEntry> = match &selector.scope {
            crate::cluster::selector::Scope::Namespace(name) => {
                self.namespaces.get(name).into_iter().collect()
            }
            crate::cluster::selector::Scope::Namespaces(_) => self.namespaces.values().collect(),
        };
        for pod_id in candidates.iter().flat_map(|entry| entry.pods.values()) {
            let Some(pod) = self.pods.get(*pod_id as usize) else {
                continue;
            };
            let labels = self.namespace_labels(&pod.namespace);
            if pod.selectable() && selector.matches(&pod.namespace, &labels, &pod.labels) {
                members.insert(*pod_id);
            }
        }
        if let Some(own) = self.selectors.members_mut(id) {
            *own = members;
        }
        if let Some(selector) = self.selectors.selector(id) {
            self.changes.touch_all(selector);
        }
        id
    }
}

/// The selectors, beside its subject, whose members a policy's rules ask for: its peers and, where an egress rule names
/// a port for peers that are no pods, every pod.
fn other_selectors(policy: &Policy) -> BTreeSet<PodSelector> {
    let mut selectors = BTreeSet::new();
    for direction in Direction::ALL {
        for rule in policy.rules(direction).unwrap_or_default() {
            let named = match &rule.ports {
                Ports::Any => false,
                Ports::Of(ports) => ports.iter().any(|p| matches!(p.port, PortMatch::Named(_))),
            };
            let mut everyone = matches!(rule.peers, Peers::Any);
            if let Peers::Of(peers) = &rule.peers {
                for peer in peers {
                    match peer {
                        Peer::Pods(selector) => drop(selectors.insert(selector.clone())),
                        Peer::Block(_) => everyone = true,
                    }
                }
            }
            if named && everyone && direction == Direction::Egress {
                selectors.insert(PodSelector::everything());
            }
        }
    }
    selectors
}
