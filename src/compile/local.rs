//! The node's pods, as the ruleset sees them.

use std::collections::BTreeSet;

use selvedge_nft::{MapEntry, Verdict};

use super::sets::IpFamily;
use super::{Closed, names};
use crate::cluster::Text;
use crate::cluster::object::{Addresses, Pod};
use crate::index::{Index, PodKey};
use crate::policy::{Direction, PolicyKey};

/// The families that pods of the node can have addresses of. Rules and sets of another would match nothing.
pub(super) fn families(index: &Index, node: &Text) -> Vec<IpFamily> {
    let cidrs = index
        .node(node)
        .map(|node| node.pod_cidrs.as_slice())
        .unwrap_or_default();
    let with_cidr = |family| cidrs.iter().any(|net| IpFamily::of(net.ip()) == family);
    let with_pods = index.families_on(node);
    let present = IpFamily::ALL.into_iter().filter(|family| {
        let with_pods = match family {
            IpFamily::V4 => with_pods.0,
            IpFamily::V6 => with_pods.1,
        };
        with_pods || with_cidr(*family)
    });
    present.collect()
}

/// A pod of the node that policies select, or that is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LocalPod {
    pub addresses: Addresses,
    pub egress: Option<Vec<PolicyKey>>,
    pub ingress: Option<Vec<PolicyKey>>,
    /// The directions in which nothing passes, whatever the policies say.
    pub closed: BTreeSet<Direction>,
}

impl LocalPod {
    /// The policies that isolate the pod in a direction; `None` where it is not isolated by any, or closed.
    pub fn policies(&self, direction: Direction) -> Option<&[PolicyKey]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    /// Whether the pod is isolated in a direction.
    pub fn isolated_for(&self, direction: Direction) -> bool {
        self.policies(direction).is_some() || self.closed.contains(&direction)
    }

    pub fn isolated(&self) -> bool {
        Direction::ALL
            .into_iter()
            .any(|direction| self.isolated_for(direction))
    }

    /// What the dispatch map of a direction says of the pod. Of one that is closed it says whose entry it is: another pod's
    /// might be for the same address one day, and drop as well.
    pub fn entry(&self, key: &PodKey, direction: Direction) -> Option<MapEntry> {
        if self.closed.contains(&direction) {
            return Some(MapEntry {
                verdict: Verdict::Drop,
                comment: names::comment(&format!("{}/{} is closed", key.0, key.1)),
            });
        }
        self.policies(direction).map(|_| MapEntry {
            verdict: Verdict::Goto(names::pod_chain(direction, key)),
            comment: None,
        })
    }

    pub fn of(index: &Index, pod: &Pod, all_closed: &Closed) -> Self {
        let policies = index.policies_of(pod);
        let key = || (pod.namespace.clone(), pod.name.clone());
        let is_closed = |direction: &Direction| {
            !all_closed.is_empty() && all_closed.contains(&(key(), *direction))
        };
        let closed: BTreeSet<Direction> = Direction::ALL.into_iter().filter(is_closed).collect();
        let isolating = |direction| {
            if closed.contains(&direction) {
                return None;
            }
            let keys: Vec<PolicyKey> = policies
                .iter()
                .filter(|policy| policy.rules(direction).is_some())
                .map(|policy| policy.key.clone())
                .collect();
            (!keys.is_empty()).then_some(keys)
        };
        Self {
            addresses: index.addresses(pod),
            egress: isolating(Direction::Egress),
            ingress: isolating(Direction::Ingress),
            closed,
        }
    }
}
