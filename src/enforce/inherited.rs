//! Pods that were isolated before the daemon started, in namespaces that are being deleted.
//!
//! While a daemon runs, policies that are deleted with their namespace stay in force ([`super::parting`]). One that starts
//! meanwhile never hears of them. But the kernel still holds who was isolated: such a pod stays so, and is closed, as what
//! the policies allowed can't be known any more. Its namespace has no other future than its end.
//!
//! Lists of policies and of namespaces are read one after the other, so here, too, a namespace's end may be heard a moment
//! after that of its policies.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use selvedge_nft::Ruleset;
use tracing::warn;

use crate::cluster::Text;
use crate::cluster::object::Pod;
use crate::compile::{Closed, isolated};
use crate::index::Index;
use crate::policy::Direction;

/// How much later than the first commit a namespace's end may be heard that was there before. An address may be another pod's
/// after that.
const LATE: Duration = Duration::from_secs(10);

/// What the kernel held at the start, and the pods that are closed for it.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Who was isolated, and when that was read; empty once namespaces are heard of in time.
    held: Option<(Instant, BTreeSet<(IpAddr, Direction)>)>,
    closed: Closed,
}

impl Inherited {
    /// Whether what the kernel held is still to be told.
    pub fn is_unknown(&self) -> bool {
        self.held.is_none()
    }

    /// Takes note of what the kernel holds before the first commit.
    pub fn take_up(&mut self, held: &Ruleset, now: Instant) {
        self.held = Some((now, isolated(held)));
    }

    /// The pods that are closed.
    pub fn closed(&self) -> &Closed {
        &self.closed
    }

    /// Closes those whose policies went before they could be heard of, and lets those go that are gone themselves. Once
    /// the start is over and nobody is closed it costs nothing.
    pub fn follow(&mut self, index: &Index, node: &Text, now: Instant) {
        self.closed.retain(|((namespace, name), _)| {
            let pod = index.pod(namespace, name);
            index.outlives_its_policies(namespace) && pod.is_some_and(Pod::selectable)
        });
        let Some((since, held)) = &mut self.held else {
            return;
        };
        if now.saturating_duration_since(*since) > LATE {
            held.clear();
        }
        if held.is_empty() {
            return;
        }
        for pod in index.pods_on(node) {
            if !pod.selectable() || !index.outlives_its_policies(&pod.namespace) {
                continue;
            }
            let addresses = index.addresses(pod);
            let policies = index.policies_of(pod);
            for direction in Direction::ALL {
                let was = addresses
                    .iter()
                    .any(|address| held.contains(&(address, direction)));
                let is = policies
                    .iter()
                    .any(|policy| policy.rules(direction).is_some());
                let key = (pod.namespace.clone(), pod.name.clone());
                if was && !is && self.closed.insert((key, direction)) {
                    warn!(
                        "Pod {}/{} is closed for {direction} until it is gone: its namespace is being deleted, it was isolated when the daemon started, and the policies that did so are gone",
                        pod.namespace, pod.name
                    );
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "inherited_tests.rs"]
mod tests;
