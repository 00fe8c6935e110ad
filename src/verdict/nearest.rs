//! What a denied connection lacks: the rule that comes closest to allowing it, in words.

use std::fmt;

use serde::{Serialize, Serializer};

use super::connection::{Connection, Transport};
use super::endpoint::{End, Owner};
use super::policy::{Stage, Subject, describe_port};
use crate::cluster::Text;
use crate::cluster::cidr::IpBlock;
use crate::cluster::labels::Labels;
use crate::cluster::object::{NAMESPACE_NAME_LABEL, Pod};
use crate::cluster::port::Protocol;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use crate::index::Index;
use crate::policy::{Direction, Peer, Peers, PolicyKey, Port, PortMatch, Ports, Rule};

/// The rule that comes closest to allowing a connection in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its policy.
    #[serde(serialize_with = "key")]
    pub policy: PolicyKey,
    /// Where it stands in the policy: `spec.ingress[0]`.
    pub rule: String,
    /// What it lacks, each in a few words: `needs app=api, source has app=web`.
    pub lacks: Vec<String>,
}

fn key<S: Serializer>(key: &PolicyKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks = self.lacks.join("; ");
        write!(f, "{} {}: {lacks}", self.policy, self.rule)
    }
}

/// The nearest of the NetworkPolicy rules that isolate the pod of one end; `None` where it is not isolated, or its
/// policies have no rules. Of two equally near the first in the order of the policies' names counts.
pub fn nearest(index: &Index, connection: &Connection, direction: Direction) -> Option<Nearest> {
    let from = End::of(index, connection.from());
    let to = End::of(index, connection.to());
    let (own, other) = match direction {
        Direction::Egress => (from, to),
        Direction::Ingress => (to, from),
    };
    let subject = Subject::of(index, own.pod?, direction);
    let asked = Asked {
        index,
        subject: &subject,
        other,
        transport: connection.transport(),
    };
    let rules = subject.rules(Stage::NetworkPolicy);
    let judged = rules.map(|(policy, n, rule)| (policy, n, asked.rule(rule)));
    let (policy, n, miss) = judged.min_by_key(|(_, _, miss)| miss.distance)?;
    Some(Nearest {
        policy: policy.key.clone(),
        rule: format!("spec.{direction}[{n}]"),
        lacks: miss.lacks,
    })
}

/// How far a rule, or a part of it, is from matching.
#[derive(Debug, Default)]
struct Miss {
    /// 0 where it matches; otherwise about the number of changes that would make it.
    distance: usize,
    lacks: Vec<String>,
}

impl Miss {
    fn by(distance: usize, lack: String) -> Self {
        Self {
            distance,
            lacks: vec![lack],
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.distance += other.distance;
        self.lacks.extend(other.lacks);
        self
    }
}

/// What is asked of a rule.
struct Asked<'a> {
    index: &'a Index,
    subject: &'a Subject<'a>,
    other: End<'a>,
    transport: Transport,
}

impl Asked<'_> {
    fn rule(&self, rule: &Rule) -> Miss {
        self.peers(&rule.peers).and(self.ports(&rule.ports))
    }

    /// What the other end is called.
    fn who(&self) -> &'static str {
        match self.subject.direction {
            Direction::Egress => "destination",
            Direction::Ingress => "source",
        }
    }

    fn peers(&self, peers: &Peers) -> Miss {
        let Peers::Of(peers) = peers else {
            return Miss::default();
        };
        let misses = peers.iter().map(|peer| match peer {
            Peer::Pods(selector) => self.selector(selector),
            Peer::Block(block) => self.block(block),
        });
        misses
            .min_by_key(|miss| miss.distance)
            .unwrap_or_else(|| Miss::by(9, "matches nobody: its peers can't be read".to_owned()))
    }

    fn selector(&self, selector: &PodSelector) -> Miss {
        let who = self.who();
        let Some(pod) = self.other.pod else {
            let address = self.other.address;
            let what = match self.other.endpoint(self.index).owner {
                Owner::Node { name } => format!("{who} {address} is node {name}"),
                Owner::Pod { .. } | Owner::Outside => format!("{who} {address} is no pod"),
            };
            return Miss::by(4, format!("needs a pod ({selector}), {what}"));
        };
        self.scope(&selector.scope, pod)
            .and(labels_miss(&selector.pods, &pod.labels, who))
    }

    fn scope(&self, scope: &Scope, pod: &Pod) -> Miss {
        let (who, namespace) = (self.who(), &pod.namespace);
        match scope {
            Scope::Namespace(name) if name == namespace => Miss::default(),
            Scope::Namespace(name) => Miss::by(
                2,
                format!("needs namespace {name}, {who} is in {namespace}"),
            ),
            Scope::Namespaces(selector) => {
                let labels = self.index.namespace_labels(namespace);
                if let Some(name) = one_name(selector)
                    && name != namespace
                {
                    return Miss::by(
                        2,
                        format!("needs namespace {name}, {who} is in {namespace}"),
                    );
                }
                let mut miss = labels_miss(selector, &labels, &format!("namespace {namespace}"));
                // A namespace's label concerns more than one pod.
                miss.distance *= 2;
                miss
            }
        }
    }

    fn block(&self, block: &IpBlock) -> Miss {
        let (who, address) = (self.who(), self.other.address);
        if block.contains(address) {
            return Miss::default();
        }
        if block.net.ip().is_ipv4() != address.is_ipv4() {
            let family = if address.is_ipv4() { "IPv6" } else { "IPv4" };
            return Miss::by(
                5,
                format!("allows {block}, which is {family} only, {who} is {address}"),
            );
        }
        match block.except.iter().find(|net| net.contains(address)) {
            Some(except) if block.net.contains(address) => Miss::by(
                2,
                format!("allows {} except {except}, {who} is {address}", block.net),
            ),
            _ => Miss::by(3, format!("allows {block}, {who} is {address}")),
        }
    }

    fn ports(&self, ports: &Ports) -> Miss {
        let Ports::Of(ports) = ports else {
            return Miss::default();
        };
        if ports.is_empty() {
            return Miss::by(9, "allows no port: its ports can't be read".to_owned());
        }
        let allowed = || {
            let texts: Vec<String> = ports.iter().map(|port| self.port(port)).collect();
            texts.join(", ")
        };
        let Some((protocol, number)) = self.transport.port() else {
            let asked = match self.transport {
                Transport::Icmp => "ICMP".to_owned(),
                other => other.to_string(),
            };
            let text = format!(
                "allows {}, asked {asked}, which only a rule without ports allows",
                allowed()
            );
            return Miss::by(2, text);
        };
        let fits = |port: &Port| {
            let mut numbers = self.subject.numbers(port, &self.other);
            port.protocol == protocol
                && numbers.any(|(first, last)| first <= number && number <= last)
        };
        if ports.iter().any(fits) {
            return Miss::default();
        }
        let same_protocol = ports.iter().any(|port| port.protocol == protocol);
        let asked = match same_protocol && only(protocol, ports) {
            true => number.to_string(),
            false => format!("{protocol} {number}"),
        };
        Miss::by(
            if same_protocol { 1 } else { 2 },
            format!("allows {}, asked {asked}", allowed()),
        )
    }

    /// A port in words; a name with what the receiving pod makes of it.
    fn port(&self, port: &Port) -> String {
        let text = describe_port(port);
        let PortMatch::Named(_) = port.port else {
            return text;
        };
        let mut numbers = self.subject.numbers(port, &self.other);
        match numbers.next() {
            Some((number, _)) => format!("{text} (destination's {number})"),
            None => format!(
                "{text} (destination has no {} port of that name)",
                port.protocol
            ),
        }
    }
}

fn only(protocol: Protocol, ports: &[Port]) -> bool {
    ports.iter().all(|port| port.protocol == protocol)
}

/// The namespace's name, where the selector is nothing but that.
fn one_name(selector: &LabelSelector) -> Option<&Text> {
    let mut requirements = selector.requirements();
    let (first, second) = (requirements.next()?, requirements.next());
    match &first.operator {
        Operator::In(names) if &*first.key == NAMESPACE_NAME_LABEL && second.is_none() => {
            names.first().filter(|_| names.len() == 1)
        }
        _ => None,
    }
}

/// The requirements that labels don't meet, and the labels in their place.
fn labels_miss(selector: &LabelSelector, labels: &Labels, who: &str) -> Miss {
    let failed: Vec<&Requirement> = selector
        .requirements()
        .filter(|requirement| !requirement.matches(labels))
        .collect();
    if failed.is_empty() {
        return Miss::default();
    }
    let needs: Vec<String> = failed.iter().map(|r| needed(r)).collect();
    let mut has: Vec<String> = failed
        .iter()
        .map(|requirement| match labels.get(&requirement.key) {
            Some(value) if value.is_empty() => format!("an empty {}", requirement.key),
            Some(value) => format!("{}={value}", requirement.key),
            None if labels.are_partial() => "labels not told of yet".to_owned(),
            None => format!("no {}", requirement.key),
        })
        .collect();
    has.dedup();
    Miss::by(
        failed.len(),
        format!("needs {}, {who} has {}", needs.join(","), has.join(",")),
    )
}

fn needed(requirement: &Requirement) -> String {
    match &requirement.operator {
        Operator::DoesNotExist => format!("no {}", requirement.key),
        Operator::Exists => format!("any {}", requirement.key),
        Operator::In(values) if values.iter().all(|value| value.is_empty()) => {
            format!("an empty {}", requirement.key)
        }
        Operator::In(_) | Operator::NotIn(_) => requirement.to_string(),
    }
}
