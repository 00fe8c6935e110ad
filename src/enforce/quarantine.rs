//! Policies that the kernel refuses to take.
//!
//! One object that the kernel refuses would hold up the whole batch, and everything after it. So the policies that it is
//! there for are closed: their pods stay isolated in the directions that the policy isolates, with nothing allowed by it,
//! and all else goes on. They are tried again as they are when they change, and from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::cluster::object::{Event, Object, ObjectKey, ObjectKind};
use crate::index::Index;
use crate::policy::{Policy, PolicyKey, Problem};

/// How long a policy is closed before it is tried again; each further time is twice as long.
const FIRST_STAY: Duration = Duration::from_secs(60);

/// The longest time between two trials.
const LONGEST_STAY: Duration = Duration::from_secs(3600);

/// The policies that are closed.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    inside: BTreeMap<PolicyKey, Stay>,
}

#[derive(Debug)]
struct Stay {
    /// The policy as it is.
    policy: Arc<Policy>,
    length: Duration,
    /// When it is tried again; none while it is being tried.
    until: Option<Instant>,
}

impl Quarantine {
    /// How many policies are closed now.
    pub fn len(&self) -> usize {
        let stays = self.inside.values();
        stays.filter(|stay| stay.until.is_some()).count()
    }

    /// Closes a policy of the index; whether that was news.
    pub fn close(
        &mut self,
        index: &mut Index,
        key: &PolicyKey,
        reason: &str,
        now: Instant,
    ) -> bool {
        let Some(policy) = index.policy(key).cloned() else {
            return false;
        };
        let stay = self.inside.entry(key.clone()).or_insert_with(|| Stay {
            policy: policy.clone(),
            length: FIRST_STAY / 2,
            until: None,
        });
        if stay.until.is_some() {
            return false;
        }
        stay.length = (stay.length * 2).min(LONGEST_STAY);
        stay.until = Some(now + stay.length);
        error!(
            "{key} is closed: its pods are isolated and it allows nothing, since {reason}; all else is in force; it is tried again in {} s, or when it changes",
            stay.length.as_secs()
        );
        let closed = closed(&policy, reason);
        index.apply(Event::Apply(Object::Policy(Arc::new(closed))));
        true
    }

    /// What an event comes to: nothing, where it brings a closed policy as it was before.
    pub fn admit(&mut self, event: Event) -> Option<Event> {
        match &event {
            Event::Apply(Object::Policy(policy)) => {
                let known = self.inside.get(&policy.key);
                if known.is_some_and(|stay| stay.until.is_some() && stay.policy == *policy) {
                    return None;
                }
                self.inside.remove(&policy.key);
            }
            Event::Delete {
                key: ObjectKey::Policy(key),
                ..
            } => drop(self.inside.remove(key)),
            Event::Retain {
                kind: ObjectKind::NetworkPolicy,
                keys,
            } => self
                .inside
                .retain(|key, _| keys.contains(&ObjectKey::Policy(key.clone()))),
            _ => {}
        }
        Some(event)
    }

    /// Opens those whose time has come, for a trial; whether there are any.
    pub fn open_due(&mut self, index: &mut Index, now: Instant) -> bool {
        let mut any = false;
        for stay in self.inside.values_mut() {
            if stay.until.is_some_and(|until| until <= now) {
                any = true;
                stay.until = None;
                index.apply(Event::Apply(Object::Policy(stay.policy.clone())));
            }
        }
        any
    }

    /// All that is open has been taken by the kernel.
    pub fn accepted(&mut self) {
        self.inside.retain(|key, stay| {
            if stay.until.is_none() {
                info!("{key} is in force as it is: the kernel takes it now");
            }
            stay.until.is_some()
        });
    }

    /// When the next one is to be tried.
    pub fn next(&self) -> Option<Instant> {
        self.inside.values().filter_map(|stay| stay.until).min()
    }
}

/// A policy that isolates as this one does, and allows nothing.
fn closed(policy: &Policy, reason: &str) -> Policy {
    let mut closed = policy.clone();
    for rules in [&mut closed.ingress, &mut closed.egress]
        .into_iter()
        .flatten()
    {
        rules.clear();
    }
    closed.problems.push(Problem {
        location: "spec".to_owned(),
        reason: reason.to_owned(),
    });
    closed
}
