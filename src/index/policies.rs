//! Policies that come, change and go, and the selectors they bring.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::by_label::Place;
use super::selectors::SelectorId;
use super::{Index, PolicyEntry};
use crate::cluster::Text;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Scope};
use crate::policy::{Direction, Peer, Peers, Policy, PolicyKey, PortMatch, Ports};
use crate::work::{Visited, visit};

impl Index {
    pub(super) fn apply_policy(&mut self, policy: Arc<Policy>) {
        visit(Visited::Policies, 1);
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

    pub(super) fn delete_policy(&mut self, key: &PolicyKey) {
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
        let within = match &selector.scope {
            Scope::Namespace(name) => {
                let entry = self.namespaces.get(name);
                Some(entry.map(|e| e.selectable.clone()).unwrap_or_default())
            }
            Scope::Namespaces(namespaces) if namespaces.is_empty() => None,
            Scope::Namespaces(namespaces) => Some(self.pods_in(namespaces)),
        };
        let members = self.selected(&selector.pods, within);
        if let Some(own) = self.selectors.members_mut(id) {
            *own = members;
        }
        if let Some(selector) = self.selectors.selector(id) {
            self.changes.touch_all(selector);
        }
        id
    }

    /// The pods whose labels fulfil every requirement, of those given or else of all.
    pub(super) fn selected(
        &self,
        selector: &LabelSelector,
        within: Option<RoaringBitmap>,
    ) -> RoaringBitmap {
        let bitmap = |place: Place| self.by_label.at(&place);
        let mut pods = within
            .or_else(|| bitmap(Place::Anywhere).cloned())
            .unwrap_or_default();
        for requirement in selector.requirements() {
            let key = &requirement.key;
            let with_values = |values: &BTreeSet<Text>| {
                let values = values.iter();
                let bitmaps = values.filter_map(|v| bitmap(Place::Value(key.clone(), v.clone())));
                visit(Visited::Selectors, 1);
                bitmaps.fold(RoaringBitmap::new(), |all, one| all | one)
            };
            let with_key = || bitmap(Place::Key(key.clone())).cloned().unwrap_or_default();
            match &requirement.operator {
                Operator::In(values) => pods &= with_values(values),
                Operator::NotIn(values) => pods -= with_values(values),
                Operator::Exists => pods &= with_key(),
                Operator::DoesNotExist => pods -= with_key(),
            }
        }
        pods
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
