//! Policies and pods that the kernel refuses objects of.
//!
//! One object that the kernel refuses would hold up the whole batch, and everything after it. So the policies that it is
//! there for are closed: their pods stay isolated in the directions that the policy isolates, with nothing allowed by it,
//! and all else goes on. They are tried again as they are when they change, and from time to time.
//!
//! Where it is a pod's own chain, the pod is closed in that direction: nothing of it passes, for which no chain is needed. It
//! is tried again from time to time.
//!
//! What is neither a policy's nor a pod's is the frame that all of it hangs in: without that there is nothing to enforce with,
//! so the old rules stay in force as they are, and the node is not ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::cluster::object::{Event, Object, ObjectKey, ObjectKind};
use crate::compile::Closed;
use crate::index::{Index, PodKey};
use crate::policy::{Direction, Policy, PolicyKey, Problem};
use crate::source::{Notice, Standing};

/// How long a policy is closed before it is tried again; each further time is twice as long.
const FIRST_STAY: Duration = Duration::from_secs(60);

/// The longest time between two trials.
const LONGEST_STAY: Duration = Duration::from_secs(3600);

/// The policies and pods that are closed.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// With the policy as it is.
    inside: BTreeMap<PolicyKey, (Arc<Policy>, Stay)>,
    pods: BTreeMap<(PodKey, Direction), Stay>,
    notices: Vec<Notice>,
}

/// How long something is closed.
#[derive(Debug)]
struct Stay {
    length: Duration,
    /// When it is tried again; none while it is being tried.
    until: Option<Instant>,
}

impl Default for Stay {
    fn default() -> Self {
        Self {
            length: FIRST_STAY / 2,
            until: None,
        }
    }
}

impl Stay {
    fn is_closed(&self) -> bool {
        self.until.is_some()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Begins, or begins again and lasts twice as long.
    fn begin(&mut self, now: Instant) {
        self.length = (self.length * 2).min(LONGEST_STAY);
        self.until = Some(now + self.length);
    }
}

impl Quarantine {
    /// How many policies are closed now.
    pub fn policies(&self) -> usize {
        let stays = self.inside.values();
        stays.filter(|(_, stay)| stay.is_closed()).count()
    }

    /// The pods that are closed now.
    pub fn pods(&self) -> Closed {
        let closed = self.pods.iter().filter(|(_, stay)| stay.is_closed());
        closed.map(|(key, _)| key.clone()).collect()
    }

    /// What there is to be told of them since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
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
        let (_, stay) = self
            .inside
            .entry(key.clone())
            .or_insert_with(|| (policy.clone(), Stay::default()));
        if stay.is_closed() {
            return false;
        }
        stay.begin(now);
        let effect = format!(
            "its pods are isolated and it allows nothing, since {reason}; all else is in force"
        );
        error!(
            "{key} is closed: {effect}; it is tried again in {} s, or when it changes",
            stay.length.as_secs()
        );
        self.notices.push(Notice {
            about: ObjectKey::Policy(key.clone()),
            standing: Standing::Refused,
            message: effect,
        });
        let closed = closed(&policy, reason);
        index.apply(Event::Apply(Object::Policy(Arc::new(closed))));
        true
    }

    /// Closes a pod in a direction; whether that was news.
    pub fn close_pod(&mut self, key: (PodKey, Direction), reason: &str, now: Instant) -> bool {
        let ((namespace, name), direction) = key.clone();
        let stay = self.pods.entry(key).or_default();
        if stay.is_closed() {
            return false;
        }
        stay.begin(now);
        let effect = format!(
            "nothing passes for {direction}, whatever the policies allow, since {reason}; all else is in force"
        );
        error!(
            "Pod {namespace}/{name} is closed: {effect}; it is tried again in {} s",
            stay.length.as_secs()
        );
        self.notices.push(Notice {
            about: ObjectKey::Pod(namespace, name),
            standing: Standing::Refused,
            message: effect,
        });
        true
    }

    /// Forgets pods that are gone, and policies that went without an event of their own: with their namespace.
    pub fn forget_gone(&mut self, index: &Index) {
        self.inside.retain(|key, _| index.policy(key).is_some());
        self.pods
            .retain(|((namespace, name), _), _| index.pod(namespace, name).is_some());
    }

    /// What an event comes to: nothing, where it brings a closed policy as it was before.
    pub fn admit(&mut self, event: Event) -> Option<Event> {
        match &event {
            Event::Apply(Object::Policy(policy)) => {
                if let Some((known, stay)) = self.inside.get_mut(&policy.key) {
                    if stay.is_closed() && known == policy {
                        return None;
                    }
                    // It is another one, and tried at once; whether it is taken is to be told all the same.
                    (*known, *stay) = (policy.clone(), Stay::default());
                }
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
        for (policy, stay) in self.inside.values_mut() {
            if stay.is_over(now) {
                any = true;
                stay.until = None;
                index.apply(Event::Apply(Object::Policy(policy.clone())));
            }
        }
        for stay in self.pods.values_mut().filter(|stay| stay.is_over(now)) {
            any = true;
            stay.until = None;
        }
        any
    }

    /// All that is open has been taken by the kernel.
    pub fn accepted(&mut self) {
        let mut healed = Vec::new();
        self.inside.retain(|key, (_, stay)| {
            if !stay.is_closed() {
                healed.push(ObjectKey::Policy(key.clone()));
            }
            stay.is_closed()
        });
        self.pods.retain(|((namespace, name), _), stay| {
            if !stay.is_closed() {
                healed.push(ObjectKey::Pod(namespace.clone(), name.clone()));
            }
            stay.is_closed()
        });
        for about in healed {
            info!("{about} is in force as it is: the kernel takes it now");
            self.notices.push(Notice {
                about,
                standing: Standing::Taken,
                message: "it is in force as it is: the kernel takes it now".to_owned(),
            });
        }
    }

    /// When the next one is to be tried.
    pub fn next(&self) -> Option<Instant> {
        let policies = self.inside.values().map(|(_, stay)| stay);
        policies
            .chain(self.pods.values())
            .filter_map(|stay| stay.until)
            .min()
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
