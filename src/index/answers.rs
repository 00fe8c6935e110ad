//! What the index answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Index, NAMESPACE_NAME_LABEL};
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Addresses, Namespace, Node, Pod};
use crate::cluster::selector::PodSelector;
use crate::policy::{Policy, PolicyKey};
use crate::work::{Visited, visit};

impl Index {
    /// The pod of this name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(self.pod_id(namespace, name)? as usize)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        let ids = self
            .namespaces
            .values()
            .flat_map(|entry| entry.pods.values());
        counted(ids.filter_map(|id| self.pods.get(*id as usize)))
    }

    /// The pods that are scheduled to a node, in no particular order.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let local = self.by_node.get(&Text::from(node));
        let ids = local.into_iter().flat_map(|local| &local.pods);
        counted(ids.filter_map(|id| self.pods.get(id as usize)))
    }

    /// Whether any selectable pod on a node has an IPv4 address, and whether any has an IPv6 one.
    pub fn families_on(&self, node: &str) -> (bool, bool) {
        let local = self.by_node.get(&Text::from(node));
        local.map_or((false, false), |local| {
            (local.with_v4 > 0, local.with_v6 > 0)
        })
    }

    /// The selectable pod that has an address.
    pub fn owner(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.get(self.addresses.owner(address)? as usize)
    }

    /// The addresses that a pod of this index has: those it claims and no younger pod does; none for one that is not
    /// selectable.
    pub fn addresses(&self, pod: &Pod) -> Addresses {
        if !pod.selectable() {
            return Addresses::default();
        }
        let own = |address: &IpAddr| {
            // It claims all of them: only where others do too must it be asked whose they are.
            !self.addresses.is_contested(*address)
                || self
                    .owner(*address)
                    .is_some_and(|o| o.namespace == pod.namespace && o.name == pod.name)
        };
        pod.addresses.iter().filter(own).collect()
    }

    /// A namespace's labels; of one whose object is not known, its name alone: partial labels where the source tells
    /// of every namespace, as the API does, and so will of this one.
    pub fn namespace_labels(&self, name: &Text) -> Labels {
        match self.namespaces.get(name) {
            Some(entry) => entry.labels.clone(),
            None => self.labels_untold(name),
        }
    }

    /// The labels of a namespace whose object is not known.
    pub(super) fn labels_untold(&self, name: &Text) -> Labels {
        let labels = Labels::from_iter([(NAMESPACE_NAME_LABEL, &**name)]);
        match self.namespaces_are_told {
            true => labels.partial(),
            false => labels,
        }
    }

    /// Whether a namespace is being deleted and still has pods that policies can select.
    pub fn outlives_its_policies(&self, name: &Text) -> bool {
        let entry = self.namespaces.get(name);
        entry.is_some_and(|entry| entry.terminating && !entry.selectable.is_empty())
    }

    /// The namespaces whose objects are known.
    pub fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.namespaces.iter().filter_map(|(name, entry)| {
            visit(Visited::Namespaces, 1);
            entry.exists.then(|| Namespace {
                name: name.clone(),
                labels: entry.labels.clone(),
                terminating: entry.terminating,
            })
        })
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&Text::from(name))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The policy of this key.
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key).map(|entry| &entry.policy)
    }

    /// All policies, by key.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let entries = self.policies.values();
        entries.map(|entry| {
            visit(Visited::Policies, 1);
            &entry.policy
        })
    }

    /// The policies that select a pod, by key.
    pub fn policies_of(&self, pod: &Pod) -> Vec<&Arc<Policy>> {
        if !pod.selectable() {
            return Vec::new();
        }
        let labels = self.namespace_labels(&pod.namespace);
        let selectors = self
            .selectors
            .matching(&pod.namespace, &labels, &pod.labels);
        visit(Visited::Pods, 1);
        let keys: BTreeSet<&PolicyKey> = selectors
            .iter()
            .filter_map(|id| self.subjects.get(id))
            .flatten()
            .collect();
        keys.into_iter()
            .filter_map(|key| self.policy(key))
            .collect()
    }

    /// The pods that a policy's selector selects, in no particular order; none for a selector that no policy uses.
    pub fn members(&self, selector: &PodSelector) -> impl Iterator<Item = &Pod> {
        let ids = self.selectors.members(selector).into_iter().flatten();
        counted(ids.filter_map(|id| self.pods.get(id as usize)))
    }

    /// The pods on a node that a policy's selector selects, in no particular order.
    pub fn members_on(&self, selector: &PodSelector, node: &str) -> impl Iterator<Item = &Pod> {
        let local = self.by_node.get(&Text::from(node));
        let members = self.selectors.members(selector);
        let both = local
            .zip(members)
            .map(|(local, members)| &local.pods & members);
        let ids = both.into_iter().flatten();
        counted(ids.filter_map(|id| self.pods.get(id as usize)))
    }

    /// The selected pod that has an address, if a policy's selector selects it.
    pub fn member_at(&self, selector: &PodSelector, address: IpAddr) -> Option<&Pod> {
        let id = self.addresses.owner(address)?;
        let members = self.selectors.members(selector)?;
        members.contains(id).then(|| self.pods.get(id as usize))?
    }

    /// How many pods there are.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// How many pods are scheduled to a node.
    pub fn pod_count_on(&self, node: &Text) -> usize {
        let pods = self.by_node.get(node).map_or(0, |local| local.pods.len());
        usize::try_from(pods).unwrap_or(usize::MAX)
    }

    /// How many namespaces there are, known by their objects or by their pods.
    pub fn namespace_count(&self) -> usize {
        self.namespaces.len()
    }

    /// How many policies there are.
    pub fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// How much is wrong with them: all their problems.
    pub fn policy_problem_count(&self) -> usize {
        self.policy_problems
    }

    /// How many distinct selectors the policies use.
    pub fn selector_count(&self) -> usize {
        self.selectors.len()
    }
}

/// The same pods, each of which is looked at.
fn counted<'a>(pods: impl Iterator<Item = &'a Pod>) -> impl Iterator<Item = &'a Pod> {
    pods.inspect(|_| visit(Visited::Pods, 1))
}
