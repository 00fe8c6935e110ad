//! Every distinct selector of the cluster's policies, with the pods it selects.
//!
//! A pod's labels lead to the selectors that may match it through *anchors*: each selector is filed under one
//! requirement that a matching pod must carry (a label, or a key), or under none where it has only negative ones.
//! So a change of a pod looks at the selectors filed under its own labels, not at all of them.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::NAMESPACE_NAME_LABEL;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};

/// What a selector is filed under: a namespace where it names one, and a label that it demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Anchor {
    namespace: Option<Text>,
    label: Option<LabelPlace>,
}

/// A label's key and, where it matters, its value.
type LabelPlace = (Text, Option<Text>);

#[derive(Debug)]
struct Entry {
    selector: Arc<PodSelector>,
    members: RoaringBitmap,
    users: usize,
}

/// A selector's number in the table; never used twice.
pub(super) type SelectorId = u64;

/// The table of selectors.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    entries: HashMap<SelectorId, Entry>,
    ids: HashMap<Arc<PodSelector>, SelectorId>,
    anchors: HashMap<Anchor, Vec<SelectorId>>,
    next: SelectorId,
}

impl Selectors {
    /// Takes one more use of `selector` into account; `true` when it is new and its members are to be filled in.
    pub fn acquire(&mut self, selector: &PodSelector) -> (SelectorId, bool) {
        if let Some(id) = self.ids.get(selector) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.users += 1;
            }
            return (*id, false);
        }
        let id = self.next;
        self.next += 1;
        let selector = Arc::new(selector.clone());
        for anchor in anchors(&selector) {
            self.anchors.entry(anchor).or_default().push(id);
        }
        self.ids.insert(selector.clone(), id);
        let entry = Entry {
            selector,
            members: RoaringBitmap::new(),
            users: 1,
        };
        self.entries.insert(id, entry);
        (id, true)
    }

    /// Takes one use back; with the last one the selector is gone.
    pub fn release(&mut self, id: SelectorId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        if let Some(entry) = self.entries.remove(&id) {
            self.ids.remove(&entry.selector);
            for anchor in anchors(&entry.selector) {
                if let Some(filed) = self.anchors.get_mut(&anchor) {
                    filed.retain(|other| *other != id);
                    if filed.is_empty() {
                        self.anchors.remove(&anchor);
                    }
                }
            }
        }
    }

    /// The selectors that select a pod with these labels in that namespace, in order.
    pub fn matching(
        &self,
        namespace: &Text,
        namespace_labels: &Labels,
        labels: &Labels,
    ) -> Vec<SelectorId> {
        let mut found = Vec::new();
        for scope in [None, Some(namespace.clone())] {
            let mut look = |label| {
                let anchor = Anchor {
                    namespace: scope.clone(),
                    label,
                };
                for id in self.anchors.get(&anchor).into_iter().flatten() {
                    let selector = self.entries.get(id).map(|entry| &entry.selector);
                    if selector.is_some_and(|s| s.matches(namespace, namespace_labels, labels)) {
                        found.push(*id);
                    }
                }
            };
            look(None);
            for (key, value) in labels.iter() {
                look(Some((key.clone(), None)));
                look(Some((key.clone(), Some(value.clone()))));
            }
        }
        found.sort_unstable();
        found
    }

    /// The selector's value.
    pub fn selector(&self, id: SelectorId) -> Option<&Arc<PodSelector>> {
        self.entries.get(&id).map(|entry| &entry.selector)
    }

    /// The members of a selector, by its value.
    pub fn members(&self, selector: &PodSelector) -> Option<&RoaringBitmap> {
        let id = self.ids.get(selector)?;
        self.entries.get(id).map(|entry| &entry.members)
    }

    /// The members of a selector, to be changed.
    pub fn members_mut(&mut self, id: SelectorId) -> Option<&mut RoaringBitmap> {
        self.entries.get_mut(&id).map(|entry| &mut entry.members)
    }

    /// How many distinct selectors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The anchors a selector is filed under: one, or one a value of the requirement it is filed by.
fn anchors(selector: &PodSelector) -> Vec<Anchor> {
    let namespace = match &selector.scope {
        Scope::Namespace(name) => Some(name.clone()),
        Scope::Namespaces(namespaces) => the_one_name(namespaces),
    };
    filing_places(&selector.pods)
        .into_iter()
        .map(|label| Anchor {
            namespace: namespace.clone(),
            label,
        })
        .collect()
}

/// The namespace's name, where the selector demands just one.
fn the_one_name(namespaces: &LabelSelector) -> Option<Text> {
    namespaces
        .requirements()
        .find_map(|requirement| match &requirement.operator {
            Operator::In(names) if &*requirement.key == NAMESPACE_NAME_LABEL => {
                (names.len() == 1).then(|| names.first().cloned()).flatten()
            }
            _ => None,
        })
}

/// The places for the requirement that files the selector in the fewest of them.
fn filing_places(pods: &LabelSelector) -> Vec<Option<LabelPlace>> {
    let places = |requirement: &Requirement| -> Option<Vec<Option<LabelPlace>>> {
        let key = &requirement.key;
        match &requirement.operator {
            Operator::In(values) => {
                let places = values.iter().map(|v| Some((key.clone(), Some(v.clone()))));
                Some(places.collect())
            }
            Operator::Exists => Some(vec![Some((key.clone(), None))]),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        }
    };
    // A key that many pods have is the last resort.
    let cost = |requirement: &&Requirement| match &requirement.operator {
        Operator::In(values) => values.len(),
        _ => usize::MAX,
    };
    let positive = pods.requirements().filter(|r| places(r).is_some());
    positive
        .min_by_key(cost)
        .and_then(places)
        .unwrap_or_else(|| vec![None])
}
