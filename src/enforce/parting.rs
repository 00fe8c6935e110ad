//! Policies that are gone before the pods of their namespace.
//!
//! When a namespace is deleted, the API server may delete its policies while its pods still run, and what they forbade
//! would be open for the rest of the pods' lives (CVE-2024-7598). Such policies stay in force until the namespace's
//! last pod is gone.
//!
//! Namespaces and policies are heard of on two streams, so the end of a policy may be heard before that of its
//! namespace: what was deleted in the last minutes comes back into force then. What was there before a daemon started is
//! [`super::inherited`]'s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::cluster::Text;
use crate::cluster::object::{Event, Object, ObjectKey, ObjectKind};
use crate::index::Index;
use crate::policy::{Policy, PolicyKey};

/// How much later than a policy's deletion its namespace's may be heard: a stream that broke off is asked for again after up
/// to half a minute, one that has fallen silent is given up after two.
const LATE: Duration = Duration::from_secs(180);

/// The policies that are in the index though the source has them no more, and those that lately went from both.
#[derive(Debug, Default)]
pub(super) struct Parting {
    held: BTreeMap<Text, BTreeSet<PolicyKey>>,
    /// With when they went, and as they were last.
    lately: BTreeMap<PolicyKey, (Instant, Arc<Policy>)>,
    /// When each of those went, the first one first; some have come and gone again since.
    order: VecDeque<(Instant, PolicyKey)>,
}

impl Parting {
    /// Takes an event into the index, but for the end of policies that must stay; `now` never goes back.
    pub fn apply(&mut self, index: &mut Index, event: Event, now: Instant) {
        while let Some((at, key)) = self.order.front()
            && now - *at > LATE
        {
            if self.lately.get(key).is_some_and(|(last, _)| last == at) {
                self.lately.remove(key);
            }
            self.order.pop_front();
        }
        match event {
            Event::Delete {
                key: ObjectKey::Policy(key),
                ..
            } => self.part(index, &key, now),
            Event::Retain {
                kind: ObjectKind::NetworkPolicy,
                keys,
            } => {
                let known = index.policies().map(|policy| policy.key.clone());
                let gone = known.filter(|key| !keys.contains(&ObjectKey::Policy(key.clone())));
                for key in gone.collect::<Vec<_>>() {
                    self.part(index, &key, now);
                }
            }
            Event::Apply(Object::Policy(policy)) => {
                if let Some(held) = self.held.get_mut(&policy.key.namespace) {
                    held.remove(&policy.key);
                }
                index.apply(Event::Apply(Object::Policy(policy)));
            }
            Event::Apply(Object::Namespace(namespace)) => {
                let name = namespace.name.clone();
                index.apply(Event::Apply(Object::Namespace(namespace)));
                if index.outlives_its_policies(&name) {
                    self.bring_back(index, &name);
                }
            }
            event => index.apply(event),
        }
        self.release(index);
    }

    /// A policy is gone from the source: from the index too, or held.
    fn part(&mut self, index: &mut Index, key: &PolicyKey, now: Instant) {
        let Some(policy) = index.policy(key).cloned() else {
            return;
        };
        if index.outlives_its_policies(&key.namespace) {
            self.hold(key);
            return;
        }
        remove(index, key);
        self.order.push_back((now, key.clone()));
        self.lately.insert(key.clone(), (now, policy));
    }

    fn hold(&mut self, key: &PolicyKey) {
        let held = self.held.entry(key.namespace.clone()).or_default();
        if held.insert(key.clone()) {
            info!(
                "{key} is deleted with its namespace; it stays in force until the namespace's last pod is gone"
            );
        }
    }

    /// A namespace turns out to terminate: so that is why its policies went.
    fn bring_back(&mut self, index: &mut Index, namespace: &Text) {
        let (back, others) = std::mem::take(&mut self.lately)
            .into_iter()
            .partition(|(key, _)| key.namespace == *namespace);
        self.lately = others;
        let back: BTreeMap<PolicyKey, (Instant, Arc<Policy>)> = back;
        for (key, (_, policy)) in back {
            if index.policy(&key).is_none() {
                self.hold(&key);
                index.apply(Event::Apply(Object::Policy(policy)));
            }
        }
    }

    /// Lets those go that nothing is left for.
    fn release(&mut self, index: &mut Index) {
        self.held.retain(|namespace, policies| {
            let stay = index.outlives_its_policies(namespace);
            if !stay {
                policies.iter().for_each(|key| remove(index, key));
            }
            stay
        });
    }
}

fn remove(index: &mut Index, key: &PolicyKey) {
    let key = ObjectKey::Policy(key.clone());
    index.apply(Event::Delete { key, uid: None });
}

#[cfg(test)]
#[path = "parting_tests.rs"]
mod tests;
