//! The node's pods, as the ruleset sees them.

use super::sets::IpFamily;
use crate::cluster::Text;
use crate::cluster::object::{Addresses, Pod};
use crate::index::Index;
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

/// A pod of the node that policies select.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LocalPod {
    pub addresses: Addresses,
    pub egress: Option<Vec<PolicyKey>>,
    pub ingress: Option<Vec<PolicyKey>>,
}

impl LocalPod {
    /// The policies that isolate the pod in a direction; `None` where it is not isolated.
    pub fn policies(&self, direction: Direction) -> Option<&[PolicyKey]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    pub fn isolated(&self) -> bool {
        self.egress.is_some() || self.ingress.is_some()
    }

    pub fn of(index: &Index, pod: &Pod) -> Self {
        let policies = index.policies_of(pod);
        let isolating = |direction| {
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
        }
    }
}
