//! All ports that one pod reaches another on, in one go.
//!
//! Many pods are alike to every policy: those of one workload. [`Reach`] puts such pods into one class and answers for
//! pairs of classes, so that a thousand pods cost what their workloads do.

use std::collections::HashMap;
use std::sync::Arc;

use super::endpoint::{End, addresses};
use super::policy::{Decision, Stage, Subject, exempt};
use super::ports::PortSet;
use crate::cluster::Text;
use crate::cluster::cidr::IpBlock;
use crate::cluster::labels::Labels;
use crate::cluster::object::Pod;
use crate::cluster::port::NamedPort;
use crate::index::Index;
use crate::policy::{Action, Direction, Peer, Peers, Ports, Rule};

/// Who reaches whom, of one state of a cluster.
#[derive(Debug)]
pub struct Reach<'a> {
    index: &'a Index,
    /// Every block that a policy names.
    blocks: Vec<&'a IpBlock>,
    ids: HashMap<Traits, ClassId>,
    classes: Vec<Class<'a>>,
    pairs: HashMap<(ClassId, ClassId), Arc<PortSet>>,
}

/// The number of a class of pods that no policy tells apart.
type ClassId = usize;

/// Everything of a pod and its address that a policy can ask for.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Traits {
    namespace: Text,
    labels: Vec<(Text, Text)>,
    ports: Vec<NamedPort>,
    /// The blocks that the address is in, by their numbers.
    blocks: Vec<usize>,
}

/// What the policies say of a class, with a pod of it.
#[derive(Debug)]
struct Class<'a> {
    end: End<'a>,
    egress: Subject<'a>,
    ingress: Subject<'a>,
}

/// A pod to ask about.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// The pod.
    pub pod: &'a Pod,
    ends: Vec<(End<'a>, Option<ClassId>)>,
}

impl Member<'_> {
    /// Whether the pod has any address. One that has none reaches nobody.
    pub fn has_address(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Whether no policy can tell the two pods apart, whoever is at the other end.
    pub fn is_like(&self, other: &Self) -> bool {
        let classes = |member: &Self| -> Option<Vec<(ClassId, bool)>> {
            let ends = member.ends.iter();
            ends.map(|(end, class)| Some(((*class)?, end.address.is_ipv4())))
                .collect()
        };
        classes(self).is_some_and(|own| classes(other) == Some(own))
    }
}

impl<'a> Reach<'a> {
    /// Prepares to answer for a cluster.
    pub fn new(index: &'a Index) -> Self {
        let rules = index.policies().flat_map(|policy| {
            let directions = Direction::ALL.into_iter();
            directions.flat_map(|direction| policy.rules(direction).unwrap_or_default())
        });
        let peers = rules.flat_map(|rule| match &rule.peers {
            Peers::Any => &[],
            Peers::Of(peers) => peers.as_slice(),
        });
        let mut blocks: Vec<&IpBlock> = peers
            .filter_map(|peer| match peer {
                Peer::Block(block) => Some(block),
                Peer::Pods(_) => None,
            })
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        Self {
            index,
            blocks,
            ids: HashMap::new(),
            classes: Vec::new(),
            pairs: HashMap::new(),
        }
    }

    /// Takes a pod of the cluster in.
    pub fn member(&mut self, pod: &'a Pod) -> Member<'a> {
        let addresses = addresses(self.index, pod);
        let ends = addresses
            .iter()
            .map(|address| {
                let end = End::of(self.index, address);
                let class = end.pod.map(|pod| self.class(pod, end));
                (end, class)
            })
            .collect();
        Member { pod, ends }
    }

    fn class(&mut self, pod: &'a Pod, end: End<'a>) -> ClassId {
        let blocks = self.blocks.iter().enumerate();
        let traits = Traits {
            namespace: pod.namespace.clone(),
            labels: owned(&pod.labels),
            ports: pod.ports.to_vec(),
            blocks: blocks
                .filter(|(_, block)| block.contains(end.address))
                .map(|(n, _)| n)
                .collect(),
        };
        if let Some(id) = self.ids.get(&traits) {
            return *id;
        }
        let id = self.classes.len();
        self.ids.insert(traits, id);
        self.classes.push(Class {
            end,
            egress: Subject::of(self.index, pod, Direction::Egress),
            ingress: Subject::of(self.index, pod, Direction::Ingress),
        });
        id
    }

    /// The ports that the one pod reaches the other on: on any of its addresses, of the families that both have.
    pub fn allowed(&mut self, from: &Member<'a>, to: &Member<'a>) -> Arc<PortSet> {
        let mut all: Option<Arc<PortSet>> = None;
        for (from, from_class) in &from.ends {
            for (to, to_class) in &to.ends {
                if from.address.is_ipv4() != to.address.is_ipv4() {
                    continue;
                }
                let ports = self.between(from, *from_class, to, *to_class);
                all = Some(match all {
                    Some(before) if before != ports => Arc::new(before.union(&ports)),
                    _ => ports,
                });
            }
        }
        all.unwrap_or_default()
    }

    fn between(
        &mut self,
        from: &End<'a>,
        from_class: Option<ClassId>,
        to: &End<'a>,
        to_class: Option<ClassId>,
    ) -> Arc<PortSet> {
        let egress = exempt(self.index, Direction::Egress, from, to);
        let ingress = exempt(self.index, Direction::Ingress, to, from);
        if let (Some(from_class), Some(to_class), None, None) =
            (from_class, to_class, &egress, &ingress)
        {
            if let Some(known) = self.pairs.get(&(from_class, to_class)) {
                return known.clone();
            }
            let one = |id: ClassId| self.classes.get(id).map(|class| class.end);
            let (Some(from), Some(to)) = (one(from_class), one(to_class)) else {
                return Arc::default();
            };
            let egress = self.side(Direction::Egress, Some(from_class), &to, None);
            let ingress = self.side(Direction::Ingress, Some(to_class), &from, None);
            let ports = Arc::new(egress.intersection(&ingress));
            self.pairs.insert((from_class, to_class), ports.clone());
            return ports;
        }
        let egress = self.side(Direction::Egress, from_class, to, egress);
        let ingress = self.side(Direction::Ingress, to_class, from, ingress);
        Arc::new(egress.intersection(&ingress))
    }

    /// The ports that one end allows.
    fn side(
        &self,
        direction: Direction,
        own: Option<ClassId>,
        other: &End<'_>,
        exempt: Option<Decision>,
    ) -> PortSet {
        let Some(class) = own.and_then(|own| self.classes.get(own)) else {
            return PortSet::all();
        };
        match exempt {
            Some(decision) if decision.allowed() => return PortSet::all(),
            Some(_) => return PortSet::none(),
            None => {}
        }
        let subject = match direction {
            Direction::Egress => &class.egress,
            Direction::Ingress => &class.ingress,
        };
        // Most clusters have but one tier, and most pairs no rule: what follows does nothing then.
        let (admin, left) = self.first_match(subject, Stage::Admin, other, None);
        let rest = if subject.isolated() {
            let rules = subject.rules(Stage::NetworkPolicy).map(|(_, _, rule)| rule);
            let union = self.union(subject, rules, other);
            match left {
                Some(left) => union.intersection(&left),
                None => union,
            }
        } else {
            let (accepted, undecided) = self.first_match(subject, Stage::Baseline, other, left);
            match undecided {
                Some(undecided) => accepted.union(&undecided),
                None => PortSet::all(),
            }
        };
        if admin.is_empty() {
            rest
        } else {
            admin.union(&rest)
        }
    }

    /// What the rules of a tier accept of some ports, and what they leave to the next tier: the first rule that matches
    /// a port decides on it. `None` is all ports.
    fn first_match(
        &self,
        subject: &Subject<'_>,
        stage: Stage,
        other: &End<'_>,
        left: Option<PortSet>,
    ) -> (PortSet, Option<PortSet>) {
        let mut rules = subject.rules(stage).peekable();
        if rules.peek().is_none() {
            return (PortSet::none(), left);
        }
        let mut left = left.unwrap_or_else(PortSet::all);
        let mut accepted = PortSet::none();
        let mut passed = PortSet::none();
        for (_, _, rule) in rules {
            let hit = self.union(subject, [rule], other).intersection(&left);
            left = left.difference(&hit);
            match rule.action {
                Action::Accept => accepted = accepted.union(&hit),
                Action::Deny => {}
                Action::Pass => passed = passed.union(&hit),
            }
        }
        (accepted, Some(left.union(&passed)))
    }

    /// The ports that any of the rules matches for the other end.
    fn union<'r>(
        &self,
        subject: &Subject<'r>,
        rules: impl IntoIterator<Item = &'r Rule>,
        other: &End<'_>,
    ) -> PortSet {
        let mut ranges = Vec::new();
        for rule in rules {
            if subject.matching_peer(self.index, rule, other).is_none() {
                continue;
            }
            match &rule.ports {
                Ports::Any => return PortSet::all(),
                Ports::Of(ports) => ranges.extend(ports.iter().flat_map(|port| {
                    let numbers = subject.numbers(port, other);
                    numbers.map(|(first, last)| (port.protocol, first, last))
                })),
            }
        }
        PortSet::of(ranges)
    }
}

fn owned(labels: &Labels) -> Vec<(Text, Text)> {
    let labels = labels.iter();
    labels
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
