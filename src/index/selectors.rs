//! Every distinct selector of the cluster's policies, with the pods it selects.
//!
//! A pod's labels lead to the selectors that may match it: each selector is *filed* under a label that its namespaces
//! must carry, or the namespace's name, and there under a label that its pods must carry. Of several it is the one that
//! the fewest are filed under; a selector that demands none is filed under none. So a change of a pod looks at the
//! selectors filed under its own labels, not at all of them.
//!
//! Likewise a namespace's change looks at the selectors that *watch* the very labels that it gains and loses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::by_label::{
    ByLabel, MOST_PLACES, Place, Shelf, changed_places, fewest, keys, turning_points,
};
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::selector::{PodSelector, Scope};
use crate::work::{Visited, visit};

#[derive(Debug)]
struct Entry {
    selector: Arc<PodSelector>,
    members: RoaringBitmap,
    users: usize,
    filed: Vec<Filed>,
}

/// Where a selector is filed.
#[derive(Debug)]
struct Filed {
    scope: ScopePlace,
    label: Place,
}

#[derive(Debug, Clone)]
enum ScopePlace {
    Name(Text),
    Label(Place),
}

/// A selector's number in the table; never used twice.
pub(super) type SelectorId = u64;

type Ids = BTreeSet<SelectorId>;

/// The table of selectors.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    entries: BTreeMap<SelectorId, Entry>,
    ids: BTreeMap<Arc<PodSelector>, SelectorId>,
    of_namespace: HashMap<Text, ByLabel<Ids>>,
    of_namespaces: ByLabel<ByLabel<Ids>>,
    watching: ByLabel<Ids>,
    next: SelectorId,
}

impl Selectors {
    /// Takes one more use of `selector` into account; `true` when it is new and its members are to be filled in.
    pub fn acquire(&mut self, selector: &PodSelector) -> (SelectorId, bool) {
        visit(Visited::Selectors, 1);
        if let Some(id) = self.ids.get(selector) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.users += 1;
            }
            return (*id, false);
        }
        let id = self.next;
        self.next += 1;
        let selector = Arc::new(selector.clone());
        let filed = self.filing(&selector);
        for filed in &filed {
            self.file(filed, |ids| {
                ids.insert(id);
            });
        }
        if let Scope::Namespaces(namespaces) = &selector.scope {
            for point in turning_points(namespaces) {
                self.watching.change(&point, |ids| {
                    ids.insert(id);
                });
            }
        }
        self.ids.insert(selector.clone(), id);
        let entry = Entry {
            selector,
            members: RoaringBitmap::new(),
            users: 1,
            filed,
        };
        self.entries.insert(id, entry);
        (id, true)
    }

    /// Takes one use back; with the last one the selector is gone.
    pub fn release(&mut self, id: SelectorId) {
        visit(Visited::Selectors, 1);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        if let Some(entry) = self.entries.remove(&id) {
            self.ids.remove(&entry.selector);
            for filed in &entry.filed {
                self.file(filed, |ids| {
                    ids.remove(&id);
                });
            }
            if let Scope::Namespaces(namespaces) = &entry.selector.scope {
                for point in turning_points(namespaces) {
                    self.watching.change(&point, |ids| {
                        ids.remove(&id);
                    });
                }
            }
        }
    }

    /// Where to file a selector.
    fn filing(&self, selector: &PodSelector) -> Vec<Filed> {
        let scopes = match &selector.scope {
            Scope::Namespace(name) => vec![ScopePlace::Name(name.clone())],
            Scope::Namespaces(namespaces) => {
                let load = |place: &Place| self.of_namespaces.at(place).map_or(0, ByLabel::load);
                let places = fewest(namespaces, load).into_iter();
                places.map(ScopePlace::Label).collect()
            }
        };
        let load = |place: &Place| {
            let shelves = scopes.iter().filter_map(|scope| match scope {
                ScopePlace::Name(name) => self.of_namespace.get(name),
                ScopePlace::Label(label) => self.of_namespaces.at(label),
            });
            let ids = shelves.filter_map(|shelf| shelf.at(place));
            ids.map(BTreeSet::len).sum()
        };
        let mut labels = fewest(&selector.pods, load);
        if scopes.len() * labels.len() > MOST_PLACES {
            labels = keys(labels);
        }
        let filed = scopes.iter().flat_map(|scope| {
            labels.iter().map(|label| Filed {
                scope: scope.clone(),
                label: label.clone(),
            })
        });
        filed.collect()
    }

    fn file(&mut self, filed: &Filed, change: impl FnOnce(&mut Ids)) {
        match &filed.scope {
            ScopePlace::Name(name) => {
                let shelf = self.of_namespace.entry(name.clone()).or_default();
                shelf.change(&filed.label, change);
                if shelf.is_bare() {
                    self.of_namespace.remove(name);
                }
            }
            ScopePlace::Label(label) => {
                let change = |shelf: &mut ByLabel<Ids>| shelf.change(&filed.label, change);
                self.of_namespaces.change(label, change);
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
        let named = self.of_namespace.get(namespace);
        let shelves = named
            .into_iter()
            .chain(self.of_namespaces.found(namespace_labels));
        let mut found = Vec::new();
        for id in shelves.flat_map(|shelf| shelf.found(labels)).flatten() {
            visit(Visited::Selectors, 1);
            let selector = self.selector(*id);
            if selector.is_some_and(|s| s.matches(namespace, namespace_labels, labels)) {
                found.push(*id);
            }
        }
        found.sort_unstable();
        found
    }

    /// The selectors that look into a namespace with one of these label sets but not with the other.
    pub fn turned(&self, before: &Labels, after: &Labels) -> BTreeSet<SelectorId> {
        let places = changed_places(before, after);
        let watching = places.iter().filter_map(|place| self.watching.at(place));
        let turned = watching.flatten().filter(|id| {
            visit(Visited::Selectors, 1);
            self.selector(**id).is_some_and(|s| match &s.scope {
                Scope::Namespace(_) => false,
                Scope::Namespaces(s) => s.matches(before) != s.matches(after),
            })
        });
        turned.copied().collect()
    }

    /// The selector's value.
    pub fn selector(&self, id: SelectorId) -> Option<&Arc<PodSelector>> {
        self.entries.get(&id).map(|entry| &entry.selector)
    }

    /// The members of a selector, by its value.
    pub fn members(&self, selector: &PodSelector) -> Option<&RoaringBitmap> {
        visit(Visited::Selectors, 1);
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
