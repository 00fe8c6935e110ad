//! The policy evaluator: which policies and rules decide on a connection, in each direction.
//!
//! The API's own text decides what a policy means. Egress is decided for the source pod and enforced on its node, ingress
//! for the destination pod and on its; a connection passes when both allow.

use std::fmt;

use serde::{Serialize, Serializer};

use super::connection::{Connection, Transport};
use super::endpoint::{End, Endpoint, is_shared, is_shared_source, text};
use crate::cluster::Text;
use crate::cluster::object::Pod;
use crate::index::Index;
use crate::policy::{
    Action, Direction, Peer, Peers, Policy, PolicyKey, Port, PortMatch, Ports, Rule, Tier,
};

/// The answer for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Who connects.
    pub from: Endpoint,
    /// To whom.
    pub to: Endpoint,
    /// By what.
    pub transport: Transport,
    /// What the source's end says.
    pub egress: Decision,
    /// What the destination's end says.
    pub ingress: Decision,
}

impl Verdict {
    /// Whether the connection passes.
    pub fn allowed(&self) -> bool {
        self.egress.allowed() && self.ingress.allowed()
    }

    /// What one end says.
    pub fn decision(&self, direction: Direction) -> &Decision {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// What one end says to a connection, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Decision {
    /// Allowed: the end is no pod that policies can select.
    NotAPod,
    /// Allowed: a pod and its own node always reach each other.
    OwnNode {
        /// The node.
        #[serde(serialize_with = "text")]
        node: Text,
    },
    /// Allowed: the other end is the pod itself.
    Itself,
    /// The other end is an address that pods of the node share on its bridge (link-local, multicast, broadcast): denied
    /// while any pod of the node is isolated, as nothing tells whom it reaches.
    Shared {
        /// The node.
        #[serde(serialize_with = "text")]
        node: Text,
        /// Whether any of its pods is isolated.
        isolating: bool,
    },
    /// Allowed: no policy isolates the pod in this direction.
    NotIsolated,
    /// Allowed by a rule.
    Accepted {
        /// The rule.
        by: RuleRef,
    },
    /// Denied by a rule that says so, which NetworkPolicies cannot.
    Refused {
        /// The rule.
        by: RuleRef,
    },
    /// Denied: policies isolate the pod in this direction, and no rule of theirs matches.
    Isolated {
        /// The policies.
        #[serde(serialize_with = "keys")]
        by: Vec<PolicyKey>,
    },
}

impl Decision {
    /// Whether this end lets the connection pass.
    pub fn allowed(&self) -> bool {
        match self {
            Self::NotAPod
            | Self::OwnNode { .. }
            | Self::Itself
            | Self::NotIsolated
            | Self::Accepted { .. } => true,
            Self::Shared { isolating, .. } => !isolating,
            Self::Refused { .. } | Self::Isolated { .. } => false,
        }
    }
}

fn keys<S: Serializer>(keys: &[PolicyKey], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(ToString::to_string))
}

/// A rule of a policy, and what of it matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyKey,
    /// The direction.
    pub direction: Direction,
    /// The rule's index in the policy.
    pub rule: usize,
    /// The peer that matched; `None` where the rule is for everyone.
    pub peer: Option<String>,
    /// The ports that matched; `None` where the rule is for all.
    pub port: Option<String>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spec.{}[{}]", self.policy, self.direction, self.rule)
    }
}

impl Serialize for RuleRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("RuleRef", 4)?;
        fields.serialize_field("policy", &self.policy.to_string())?;
        let rule = format!("spec.{}[{}]", self.direction, self.rule);
        fields.serialize_field("rule", &rule)?;
        fields.serialize_field("peer", &self.peer)?;
        fields.serialize_field("ports", &self.port)?;
        fields.end()
    }
}

/// Evaluates a connection against the cluster's policies.
pub fn evaluate(index: &Index, connection: &Connection) -> Verdict {
    let from = End::of(index, connection.from());
    let to = End::of(index, connection.to());
    let transport = connection.transport();
    Verdict {
        egress: decide(index, Direction::Egress, &from, &to, transport),
        ingress: decide(index, Direction::Ingress, &to, &from, transport),
        from: from.endpoint(index),
        to: to.endpoint(index),
        transport,
    }
}

/// What the end `own` says to a connection with `other`.
fn decide(
    index: &Index,
    direction: Direction,
    own: &End<'_>,
    other: &End<'_>,
    transport: Transport,
) -> Decision {
    let Some(pod) = own.pod else {
        return Decision::NotAPod;
    };
    if let Some(decision) = exempt(index, direction, own, other) {
        return decision;
    }
    let subject = Subject::of(index, pod, direction);
    let by = |(policy, n, rule): (&Policy, usize, &Rule)| {
        let (peer, port) = subject.matching(index, rule, other, transport)?;
        Some((
            rule.action,
            RuleRef {
                policy: policy.key.clone(),
                direction,
                rule: n,
                peer: peer.one().map(describe_peer),
                port: port.one().map(describe_port),
            },
        ))
    };
    match subject.rules(Stage::Admin).find_map(by) {
        Some((Action::Accept, by)) => return Decision::Accepted { by },
        Some((Action::Deny, by)) => return Decision::Refused { by },
        Some((Action::Pass, _)) | None => {}
    }
    if subject.isolated() {
        return match subject.rules(Stage::NetworkPolicy).find_map(by) {
            Some((_, by)) => Decision::Accepted { by },
            None => Decision::Isolated {
                by: subject.isolating().map(|p| p.key.clone()).collect(),
            },
        };
    }
    match subject.rules(Stage::Baseline).find_map(by) {
        Some((Action::Accept, by)) => Decision::Accepted { by },
        Some((Action::Deny, by)) => Decision::Refused { by },
        Some((Action::Pass, _)) | None => Decision::NotIsolated,
    }
}

/// What is decided before any policy is asked.
pub(super) fn exempt(
    index: &Index,
    direction: Direction,
    own: &End<'_>,
    other: &End<'_>,
) -> Option<Decision> {
    if let Some(node) = own.own_node(index, other) {
        let node = node.clone();
        return Some(Decision::OwnNode { node });
    }
    if let Some(name) = own.node()
        && match direction {
            Direction::Egress => is_shared(index.node(name), other.address),
            Direction::Ingress => is_shared_source(other.address),
        }
    {
        return Some(Decision::Shared {
            node: name.clone(),
            isolating: isolates(index, name),
        });
    }
    own.is(other).then_some(Decision::Itself)
}

/// Whether any pod of the node is isolated in any direction, on an address that it has.
fn isolates(index: &Index, node: &Text) -> bool {
    let mut pods = index.pods().filter(|pod| pod.node.as_ref() == Some(node));
    pods.any(|pod| {
        let isolated = |direction| !Subject::of(index, pod, direction).policies.is_empty();
        index.addresses(pod).iter().next().is_some() && Direction::ALL.into_iter().any(isolated)
    })
}

/// The order in which policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Admin,
    NetworkPolicy,
    Baseline,
}

impl Stage {
    const fn of(tier: Tier) -> Self {
        match tier {
            Tier::Admin { .. } => Self::Admin,
            Tier::NetworkPolicy => Self::NetworkPolicy,
            Tier::Baseline => Self::Baseline,
        }
    }
}

/// What of a rule matched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hit<'a, T> {
    /// The rule does not care.
    All,
    /// This part of it.
    One(&'a T),
}

impl<'a, T> Hit<'a, T> {
    fn one(self) -> Option<&'a T> {
        match self {
            Self::All => None,
            Self::One(part) => Some(part),
        }
    }
}

/// A pod in one direction, with the policies that have a say in it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub pod: &'a Pod,
    pub direction: Direction,
    /// In the order in which they are asked.
    pub policies: Vec<&'a Policy>,
}

impl<'a> Subject<'a> {
    pub fn of(index: &'a Index, pod: &'a Pod, direction: Direction) -> Self {
        let labels = index.namespace_labels(&pod.namespace);
        let selects = |policy: &&'a Policy| {
            pod.selectable()
                && policy.rules(direction).is_some()
                && policy.subject.matches(&pod.namespace, &labels, &pod.labels)
        };
        let all = index.policies().map(|policy| &**policy);
        let mut policies: Vec<&Policy> = all.filter(selects).collect();
        // A stable sort: of equal priorities, the order of the names decides.
        policies.sort_by_key(|policy| policy.tier);
        Self {
            pod,
            direction,
            policies,
        }
    }

    /// The NetworkPolicies that isolate the pod.
    pub fn isolating(&self) -> impl Iterator<Item = &'a Policy> {
        let policies = self.policies.iter().copied();
        policies.filter(|policy| policy.tier == Tier::NetworkPolicy)
    }

    /// Whether there are any.
    pub fn isolated(&self) -> bool {
        self.isolating().next().is_some()
    }

    /// The rules of a stage in order, each with its policy and its index in it.
    pub fn rules(&self, stage: Stage) -> impl Iterator<Item = (&'a Policy, usize, &'a Rule)> {
        let policies = self.policies.iter().copied();
        let policies = policies.filter(move |policy| Stage::of(policy.tier) == stage);
        policies.flat_map(|policy| {
            let rules = policy.rules(self.direction).unwrap_or_default();
            rules
                .iter()
                .enumerate()
                .map(move |(n, rule)| (policy, n, rule))
        })
    }

    /// What of the rule matches the other end and the transport; `None` when not all of it does.
    pub fn matching(
        &self,
        index: &Index,
        rule: &'a Rule,
        other: &End<'_>,
        transport: Transport,
    ) -> Option<(Hit<'a, Peer>, Hit<'a, Port>)> {
        let peer = self.matching_peer(index, rule, other)?;
        let port = self.matching_port(rule, other, transport)?;
        Some((peer, port))
    }

    pub fn matching_peer(
        &self,
        index: &Index,
        rule: &'a Rule,
        other: &End<'_>,
    ) -> Option<Hit<'a, Peer>> {
        match &rule.peers {
            Peers::Any => Some(Hit::All),
            Peers::Of(peers) => {
                let mut peers = peers.iter();
                peers.find(|peer| is_peer(index, peer, other)).map(Hit::One)
            }
        }
    }

    pub fn matching_port(
        &self,
        rule: &'a Rule,
        other: &End<'_>,
        transport: Transport,
    ) -> Option<Hit<'a, Port>> {
        let ports = match &rule.ports {
            Ports::Any => return Some(Hit::All),
            Ports::Of(ports) => ports,
        };
        // What has no ports, only a rule without ports can mean.
        let (protocol, number) = transport.port()?;
        let fits = |port: &&Port| {
            port.protocol == protocol
                && self
                    .numbers(port, other)
                    .any(|(first, last)| first <= number && number <= last)
        };
        ports.iter().find(fits).map(Hit::One)
    }

    /// The numbers of a rule's port, as ranges: a name means what the pod at the receiving end calls so.
    pub fn numbers<'b>(
        &'b self,
        port: &'b Port,
        other: &End<'b>,
    ) -> impl Iterator<Item = (u16, u16)> + use<'a, 'b> {
        let receiver = match self.direction {
            Direction::Ingress => Some(self.pod),
            Direction::Egress => other.pod,
        };
        let (range, name) = match &port.port {
            PortMatch::Any => (Some((1, u16::MAX)), None),
            PortMatch::Range(first, last) => (Some((*first, *last)), None),
            PortMatch::Named(name) => (None, Some(name)),
        };
        let named = receiver.into_iter().flat_map(|pod| pod.ports.iter());
        let named = named
            .filter(move |own| Some(&own.name) == name && own.protocol == port.protocol)
            .map(|own| (own.number, own.number));
        range.into_iter().chain(named)
    }
}

/// Whether an end is one of a peer's. Pods are known by their labels; blocks match pods' addresses too.
fn is_peer(index: &Index, peer: &Peer, end: &End<'_>) -> bool {
    match peer {
        Peer::Block(block) => block.contains(end.address),
        Peer::Pods(selector) => end.pod.is_some_and(|pod| {
            let labels = index.namespace_labels(&pod.namespace);
            selector.matches(&pod.namespace, &labels, &pod.labels)
        }),
    }
}

/// A peer in words: `app=web in ns shop`, `10.0.0.0/8 except 10.1.0.0/16`.
pub(super) fn describe_peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(selector) => selector.to_string(),
        Peer::Block(block) => block.to_string(),
    }
}

/// A port in words: `TCP 8080`, `TCP 8000-8100`, `UDP dns`, `all of SCTP`.
pub(super) fn describe_port(port: &Port) -> String {
    let protocol = port.protocol;
    match &port.port {
        PortMatch::Any => format!("all of {protocol}"),
        PortMatch::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortMatch::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortMatch::Named(name) => format!("{protocol} {name}"),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
