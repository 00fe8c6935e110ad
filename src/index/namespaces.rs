//! Namespaces and nodes that come, change and go.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::by_label::{Place, fewest, places_of};
use super::{Index, NamespaceEntry};
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::Node;
use crate::cluster::selector::{LabelSelector, Scope};
use crate::work::{Visited, visit};

impl Index {
    /// Makes an entry for a namespace that has none yet.
    pub(super) fn know_namespace(&mut self, name: &Text) {
        if !self.namespaces.contains_key(name) {
            let entry = NamespaceEntry {
                labels: self.labels_untold(name),
                ..NamespaceEntry::default()
            };
            self.namespaces.insert(name.clone(), entry);
            self.file_namespace(name, true);
        }
    }

    /// Sets what is known of a namespace's object: its labels, or that there is none.
    pub(super) fn set_namespace(&mut self, name: &Text, labels: Option<Labels>, terminating: bool) {
        visit(Visited::Namespaces, 1);
        self.know_namespace(name);
        let before = self.namespace_labels(name);
        self.file_namespace(name, false);
        let exists = labels.is_some();
        let after = labels.unwrap_or_else(|| self.labels_untold(name));
        if let Some(entry) = self.namespaces.get_mut(name) {
            entry.labels = after.clone();
            entry.exists = exists;
            entry.terminating = terminating;
        }
        self.file_namespace(name, true);
        for id in self.selectors.turned(&before, &after) {
            let Some(selector) = self.selectors.selector(id).cloned() else {
                continue;
            };
            let Some(entry) = self.namespaces.get(name) else {
                continue;
            };
            let comes = match &selector.scope {
                Scope::Namespace(_) => continue,
                Scope::Namespaces(namespaces) => namespaces.matches(&after),
            };
            for pod in self.selected(&selector.pods, Some(entry.selectable.clone())) {
                visit(Visited::Pods, 1);
                self.set_member(id, pod, comes);
            }
        }
        self.forget_empty_namespace(name);
    }

    /// From now on a namespace whose object is not known is one that is yet to be told of.
    pub(super) fn expect_namespaces(&mut self) {
        self.namespaces_are_told = true;
        let entries = self.namespaces.iter();
        let untold = entries.filter(|(_, entry)| !entry.exists);
        let untold: Vec<Text> = untold.map(|(name, _)| name.clone()).collect();
        for name in untold {
            self.set_namespace(&name, None, false);
        }
    }

    pub(super) fn forget_empty_namespace(&mut self, name: &Text) {
        let empty = |entry: &NamespaceEntry| !entry.exists && entry.pods.is_empty();
        if self.namespaces.get(name).is_some_and(empty) {
            self.file_namespace(name, false);
            self.namespaces.remove(name);
        }
    }

    /// Files a namespace under its labels, or takes it out there.
    fn file_namespace(&mut self, name: &Text, comes: bool) {
        for place in places_of(&self.namespace_labels(name)) {
            self.namespaces_by_label
                .change(&place, |names| match comes {
                    true => {
                        names.insert(name.clone());
                    }
                    false => {
                        names.remove(name);
                    }
                });
        }
    }

    /// The pods that can be selected in the namespaces that a selector selects.
    pub(super) fn pods_in(&self, namespaces: &LabelSelector) -> RoaringBitmap {
        let shelves = &self.namespaces_by_label;
        let load = |place: &Place| shelves.at(place).map_or(0, BTreeSet::len);
        let places = fewest(namespaces, load);
        let mut pods = RoaringBitmap::new();
        for name in places
            .iter()
            .filter_map(|place| shelves.at(place))
            .flatten()
        {
            visit(Visited::Namespaces, 1);
            if namespaces.matches(&self.namespace_labels(name))
                && let Some(entry) = self.namespaces.get(name)
            {
                pods |= &entry.selectable;
            }
        }
        pods
    }

    pub(super) fn apply_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) != Some(&node) {
            self.changes.nodes.insert(node.name.clone());
            self.nodes.insert(node.name.clone(), node);
        }
    }
}
