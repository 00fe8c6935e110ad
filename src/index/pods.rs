//! Pods that come, change and go.

use std::net::IpAddr;

use super::Index;
use super::addresses::rank;
use super::by_label::places_of;
use super::selectors::SelectorId;
use crate::cluster::Text;
use crate::cluster::object::Pod;
use crate::work::{Visited, visit};

impl Index {
    pub(super) fn apply_pod(&mut self, pod: Pod) {
        match self.pod_id(&pod.namespace, &pod.name) {
            Some(id) => self.replace_pod(id, pod),
            None => {
                let Ok(id) = u32::try_from(self.pods.vacant_key()) else {
                    return; // more than four thousand million pods
                };
                self.know_namespace(&pod.namespace);
                if let Some(entry) = self.namespaces.get_mut(&pod.namespace) {
                    entry.pods.insert(pod.name.clone(), id);
                }
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
            self.file_pod(id, false);
            if let Some(current) = self.pods.get_mut(id as usize) {
                *current = pod;
            }
            self.file_pod(id, true);
            self.rematch(id, &before);
        } else {
            self.leave(id);
            if let Some(current) = self.pods.get_mut(id as usize) {
                *current = pod;
            }
            self.enter(id);
        }
    }

    pub(super) fn delete_pod(&mut self, namespace: &Text, name: &Text, uid: Option<&str>) {
        let Some(id) = self.pod_id(namespace, name) else {
            return;
        };
        let current = self.pods.get(id as usize);
        let other = |uid: &str| current.is_some_and(|pod| !pod.uid.is_empty() && *pod.uid != *uid);
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
        visit(Visited::Pods, 1);
        self.file_pod(id, true);
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        self.changes
            .pods
            .insert((pod.namespace.clone(), pod.name.clone()));
        if !pod.selectable() {
            return;
        }
        let addresses: Vec<IpAddr> = pod.addresses.iter().collect();
        for address in &addresses {
            let rank = |id: u32| self.pods.get(id as usize).map(rank);
            let other = self.addresses.claim(*address, id, rank);
            self.owner_changed(*address, other);
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
        visit(Visited::Pods, 1);
        self.file_pod(id, false);
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        self.changes
            .pods
            .insert((pod.namespace.clone(), pod.name.clone()));
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
            let rank = |id: u32| self.pods.get(id as usize).map(rank);
            let other = self.addresses.release(address, id, rank);
            self.owner_changed(address, other);
        }
    }

    /// Files a pod under its node, its namespace and its labels, or takes it out there.
    fn file_pod(&mut self, id: u32, comes: bool) {
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        let network = pod.selectable().then_some(pod.addresses);
        let with_v4 = usize::from(network.is_some_and(|addresses| addresses.v4.is_some()));
        let with_v6 = usize::from(network.is_some_and(|addresses| addresses.v6.is_some()));
        if let Some(node) = &pod.node {
            let on_node = self.by_node.entry(node.clone()).or_default();
            if comes {
                on_node.pods.insert(id);
                on_node.with_v4 += with_v4;
                on_node.with_v6 += with_v6;
            } else {
                on_node.pods.remove(id);
                on_node.with_v4 -= with_v4;
                on_node.with_v6 -= with_v6;
            }
            if on_node.pods.is_empty() {
                self.by_node.remove(node);
            }
        }
        if !pod.selectable() {
            return;
        }
        let change = |ids: &mut roaring::RoaringBitmap| match comes {
            true => {
                ids.insert(id);
            }
            false => {
                ids.remove(id);
            }
        };
        if let Some(entry) = self.namespaces.get_mut(&pod.namespace) {
            change(&mut entry.selectable);
        }
        for place in places_of(&pod.labels) {
            self.by_label.change(&place, change);
        }
    }

    /// Brings a pod's memberships up to date after its labels changed.
    fn rematch(&mut self, id: u32, before: &[SelectorId]) {
        visit(Visited::Pods, 1);
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        if !pod.selectable() {
            return;
        }
        let after = self.matching(id);
        for selector in before.iter().filter(|s| after.binary_search(s).is_err()) {
            self.set_member(*selector, id, false);
        }
        for selector in after.iter().filter(|s| before.binary_search(s).is_err()) {
            self.set_member(*selector, id, true);
        }
    }

    /// A pod comes to a selector's members, or leaves them.
    pub(super) fn set_member(&mut self, selector: SelectorId, id: u32, comes: bool) {
        let Some(pod) = self.pods.get(id as usize) else {
            return;
        };
        let addresses: Vec<IpAddr> = pod.addresses.iter().collect();
        if self.subjects.contains_key(&selector) {
            self.changes
                .pods
                .insert((pod.namespace.clone(), pod.name.clone()));
        }
        if let Some(members) = self.selectors.members_mut(selector) {
            match comes {
                true => members.insert(id),
                false => members.remove(id),
            };
        }
        self.touch(selector, &addresses);
    }

    /// An address has come to another pod, or has been taken from it.
    fn owner_changed(&mut self, address: IpAddr, other: Option<u32>) {
        let Some((id, pod)) = other.and_then(|id| Some((id, self.pods.get(id as usize)?))) else {
            return;
        };
        visit(Visited::Pods, 1);
        self.changes
            .pods
            .insert((pod.namespace.clone(), pod.name.clone()));
        for selector in self.matching(id) {
            self.touch(selector, &[address]);
        }
    }

    pub(super) fn touch(&mut self, selector: SelectorId, addresses: &[IpAddr]) {
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

    pub(super) fn pod_id(&self, namespace: &str, name: &str) -> Option<u32> {
        let entry = self.namespaces.get(&Text::from(namespace))?;
        entry.pods.get(&Text::from(name)).copied()
    }
}
