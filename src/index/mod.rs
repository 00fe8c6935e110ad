//! Who selects whom, kept as events come.
//!
//! The index holds the cluster's objects, every distinct selector with its members, and who has which address. Each
//! event costs what it changes. [`Index::take_changes`] says what that was; the answers to all other questions depend
//! on the objects alone, not on the order they came in.

mod addresses;
mod answers;
mod by_label;
mod changes;
mod namespaces;
mod pods;
mod policies;
mod selectors;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;
use slab::Slab;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{
    Event, NAMESPACE_NAME_LABEL, Node, Object, ObjectKey, ObjectKind, Pod,
};
use crate::policy::{Policy, PolicyKey};

use addresses::AddressBook;
use by_label::ByLabel;
pub use changes::{Changes, PodKey, Touched};
use selectors::{SelectorId, Selectors};

/// The cluster as policy sees it.
#[derive(Debug, Default)]
pub struct Index {
    pods: Slab<Pod>,
    /// The selectable pods by their labels.
    by_label: ByLabel<RoaringBitmap>,
    namespaces: BTreeMap<Text, NamespaceEntry>,
    /// The namespaces by their labels.
    namespaces_by_label: ByLabel<BTreeSet<Text>>,
    /// Whether the source tells of every namespace: then one whose object isn't known yet has labels not known yet.
    namespaces_are_told: bool,
    nodes: BTreeMap<Text, Node>,
    by_node: HashMap<Text, NodePods>,
    addresses: AddressBook,
    policies: BTreeMap<PolicyKey, PolicyEntry>,
    /// How many problems they have together.
    policy_problems: usize,
    selectors: Selectors,
    subjects: BTreeMap<SelectorId, BTreeSet<PolicyKey>>,
    changes: Changes,
}

/// A namespace: its labels, as far as they are known, and its pods by name.
#[derive(Debug, Default)]
struct NamespaceEntry {
    labels: Labels,
    /// Whether its object is known.
    exists: bool,
    terminating: bool,
    pods: BTreeMap<Text, u32>,
    /// Those of them that can be selected.
    selectable: RoaringBitmap,
}

/// The pods of a node, and how many of them have a network of their own in each family.
#[derive(Debug, Default)]
struct NodePods {
    pods: RoaringBitmap,
    with_v4: usize,
    with_v6: usize,
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
                self.set_namespace(
                    &namespace.name,
                    Some(namespace.labels),
                    namespace.terminating,
                );
            }
            Event::Apply(Object::Node(node)) => self.apply_node(node),
            Event::Apply(Object::Policy(policy)) => self.apply_policy(policy),
            Event::Delete { key, uid } => self.delete(&key, uid.as_deref()),
            Event::Retain { kind, keys } => {
                let gone = self
                    .keys(kind)
                    .into_iter()
                    .filter(|key| !keys.contains(key));
                for key in gone.collect::<Vec<_>>() {
                    self.delete(&key, None);
                }
                if kind == ObjectKind::Namespace && !self.namespaces_are_told {
                    self.expect_namespaces();
                }
            }
        }
    }

    fn delete(&mut self, key: &ObjectKey, uid: Option<&str>) {
        match key {
            ObjectKey::Pod(namespace, name) => self.delete_pod(namespace, name, uid),
            ObjectKey::Namespace(name) => self.set_namespace(name, None, false),
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
                let known = self.namespaces.iter().filter(|(_, entry)| entry.exists);
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
}
