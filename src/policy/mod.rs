//! The one policy form that everything behind it works on, and the dialects that lower into it.
//!
//! The form has tiers: Admin (by priority; Accept, Deny, Pass) → NetworkPolicy (allow-only, isolates) → Baseline
//! (Accept, Deny, Pass) → accept. [`network_policy`] is the first dialect.

pub mod network_policy;

use std::collections::BTreeSet;
use std::fmt;

use crate::cluster::Text;
use crate::cluster::cidr::IpBlock;
use crate::cluster::port::Protocol;
use crate::cluster::selector::PodSelector;
use crate::limits;

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

impl Rule {
    /// One that allows nothing, in the place of one that can't be what it says.
    pub(crate) fn nothing() -> Self {
        Self {
            action: Action::Accept,
            peers: Peers::Of(Vec::new()),
            ports: Ports::Of(Vec::new()),
        }
    }

    /// In how many ways a connection can meet it: each of its selectors, and all its blocks as one, times each of its
    /// protocols and named ports. See [`crate::limits::WAYS`].
    pub fn ways(&self) -> usize {
        let peers = match &self.peers {
            Peers::Any => 1,
            Peers::Of(peers) => {
                let selectors = peers.iter().filter_map(|peer| match peer {
                    Peer::Pods(selector) => Some(selector),
                    Peer::Block(_) => None,
                });
                let selectors: BTreeSet<&PodSelector> = selectors.collect();
                let is_block = |peer: &Peer| matches!(peer, Peer::Block(_));
                selectors.len() + usize::from(peers.iter().any(is_block))
            }
        };
        let ports = match &self.ports {
            Ports::Any => 1,
            Ports::Of(ports) => {
                let kinds = ports.iter().map(|port| match &port.port {
                    PortMatch::Named(name) => (port.protocol, Some(name)),
                    PortMatch::Any | PortMatch::Range(..) => (port.protocol, None),
                });
                kinds.collect::<BTreeSet<_>>().len()
            }
        };
        peers.saturating_mul(ports)
    }

    /// The values in its selectors and its policy's subject, times its named ports. See [`crate::limits::NAMED`].
    pub fn named_values(&self, subject: &PodSelector) -> usize {
        let Ports::Of(ports) = &self.ports else {
            return 0;
        };
        let is_named = |port: &&Port| matches!(port.port, PortMatch::Named(_));
        let peers = match &self.peers {
            Peers::Any => &[],
            Peers::Of(peers) => peers.as_slice(),
        };
        let peers = peers.iter().map(|peer| match peer {
            Peer::Pods(selector) => selector.values(),
            Peer::Block(_) => 0,
        });
        let values = peers.sum::<usize>().saturating_add(subject.values());
        values.saturating_mul(ports.iter().filter(is_named).count())
    }
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

/// The problems of one object: so many as are told, and how many more there are.
#[derive(Debug, Default)]
pub struct Problems {
    told: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        match self.told.len() < limits::PROBLEMS {
            true => self.told.push(problem),
            false => self.more += 1,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Those that are told; where there are more, the last says so.
    pub fn into_vec(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.told.push(Problem {
                location: "the object".to_owned(),
                reason: format!("{} more like these, closed like them", self.more),
            });
        }
        self.told
    }
}
