//! The one policy form that everything behind it works on, and the dialects that lower into it.
//!
//! The form has tiers: Admin (by priority; Accept, Deny, Pass) → NetworkPolicy (allow-only, isolates) → Baseline
//! (Accept, Deny, Pass) → accept. [`network_policy`] is the first dialect.

pub mod network_policy;

use std::fmt;

use crate::cluster::Text;
use crate::cluster::cidr::IpBlock;
use crate::cluster::port::Protocol;
use crate::cluster::selector::PodSelector;

/// What tells policies apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The API kind it was written as.
    pub dialect: Dialect,
    /// The namespace.
    pub namespace: Text,
    /// The name.
    pub name: Text,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}/{}",
            self.dialect.kind(),
            self.namespace,
            self.name
        )
    }
}

/// The API kind a policy was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
}

impl Dialect {
    /// The API's kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }
}

/// Where a policy stands among the others. Tiers are evaluated in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before the cluster's NetworkPolicies; lower priorities first (0–1000).
    Admin {
        /// The priority.
        priority: u16,
    },
    /// NetworkPolicies: any that allows is enough, and a pod that one selects is isolated.
    NetworkPolicy,
    /// After them, for pods that none of them selects.
    Baseline,
}

/// What a rule that matches does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The connection is allowed in this direction.
    Accept,
    /// The connection is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Which way a connection goes, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the pod.
    Egress,
    /// To the pod.
    Ingress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy of any dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it is.
    pub key: PolicyKey,
    /// Where it stands.
    pub tier: Tier,
    /// The pods it is about.
    pub subject: PodSelector,
    /// The rules for connections to those pods; `None` where the policy says nothing of them. In the NetworkPolicy
    /// tier `Some` isolates, whatever it holds.
    pub ingress: Option<Vec<Rule>>,
    /// The rules for connections from those pods, likewise.
    pub egress: Option<Vec<Rule>>,
    /// What in the policy could not be read, and is closed.
    pub problems: Vec<Problem>,
}

impl Policy {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

/// One rule: who, on which ports, and what then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What happens to what matches.
    pub action: Action,
    /// The other end.
    pub peers: Peers,
    /// The ports.
    pub ports: Ports,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Everyone, inside the cluster and out.
    Any,
    /// Any of these; none of them, nobody.
    Of(Vec<Peer>),
}

/// One kind of other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods(PodSelector),
    /// Addresses, of pods too.
    Block(IpBlock),
}

/// The ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every protocol and port.
    Any,
    /// Any of these; none of them, nothing.
    Of(Vec<Port>),
}

/// A protocol and its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub port: PortMatch,
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// All of them.
    Any,
    /// From the first to the second, both included; a single port is a range of one.
    Range(u16, u16),
    /// What the pod at the receiving end calls so.
    Named(Text),
}

/// A part of an object that could not be read. What it concerns is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {reason}")]
pub struct Problem {
    /// Where in the object: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub location: String,
    /// What is wrong, and what that closes.
    pub reason: String,
}
