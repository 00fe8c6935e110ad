//! A policy's chain in one direction: one kernel rule for each way its rules can be met.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;

use selvedge_nft::{Field, Operand, Operator, Rule, Statement, Value, Verdict};

use super::names;
use super::sets::{IpFamily, SetSpec, value_of};
use crate::cluster::Text;
use crate::cluster::cidr::{self, IpRange};
use crate::cluster::port::Protocol;
use crate::cluster::selector::PodSelector;
use crate::policy::{self, Action, Direction, Peer, Peers, Policy, PortMatch, Ports};

/// A compiled policy chain: its rules, and the sets they name.
pub struct PolicyRules {
    /// The rules, in the order of the policy's own.
    pub rules: Vec<Rule>,
    /// The sets.
    pub sets: BTreeSet<SetSpec>,
}

/// Compiles the rules of one direction for a node whose pods have addresses of these families.
pub fn compile(policy: &Policy, direction: Direction, families: &[IpFamily]) -> PolicyRules {
    let mut chain = ChainBuilder {
        subject: Arc::new(policy.subject.clone()),
        direction,
        families,
        sets: BTreeSet::new(),
    };
    let mut rules = Vec::new();
    for (n, rule) in policy
        .rules(direction)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        // NetworkPolicy only allows; the other tiers' actions get their chains with their dialects.
        if rule.action != Action::Accept {
            continue;
        }
        for mut statements in chain.rule(rule) {
            statements.push(Verdict::Accept.into());
            rules.push(Rule {
                statements,
                comment: names::comment(&format!("spec.{direction}[{n}]")),
            });
        }
    }
    PolicyRules {
        rules,
        sets: chain.sets,
    }
}

struct ChainBuilder<'a> {
    subject: Arc<PodSelector>,
    direction: Direction,
    families: &'a [IpFamily],
    sets: BTreeSet<SetSpec>,
}

/// One way to match the other end: the pods of a selector, some addresses, or anyone.
enum PeerMatch {
    Anyone,
    Pods(Arc<PodSelector>, IpFamily),
    Blocks(Vec<IpRange>, IpFamily),
}

impl ChainBuilder<'_> {
    /// The statements, without the verdict, of each kernel rule that a policy's rule becomes.
    fn rule(&mut self, rule: &policy::Rule) -> Vec<Vec<Statement>> {
        let peers = self.peers(&rule.peers);
        let mut alternatives = Vec::new();
        let Ports::Of(ports) = &rule.ports else {
            let peers = peers.iter();
            return peers
                .map(|peer| self.peer(peer).into_iter().collect())
                .collect();
        };
        let numeric = self.numeric_ports(ports);
        let named = named_ports(ports);
        for peer in &peers {
            // Not where nothing asks for it: a set that no rule names would be made for nobody.
            let mut matched = None;
            for port in &numeric {
                // The port first: most packets fail it, and it costs less than to look up an address.
                let peer = matched.get_or_insert_with(|| self.peer(peer)).clone();
                alternatives.push(iter::once(port.clone()).chain(peer).collect());
            }
            for port in &named {
                self.named(peer, &mut matched, *port, &mut alternatives);
            }
        }
        alternatives
    }

    fn peers(&self, peers: &Peers) -> Vec<PeerMatch> {
        let Peers::Of(peers) = peers else {
            return vec![PeerMatch::Anyone];
        };
        let selectors: BTreeSet<&PodSelector> = peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Pods(selector) => Some(selector),
                Peer::Block(_) => None,
            })
            .collect();
        let mut matches = Vec::new();
        for selector in selectors {
            let selector = Arc::new(selector.clone());
            let families = self.families.iter();
            matches.extend(families.map(|family| PeerMatch::Pods(selector.clone(), *family)));
        }
        let ranges = peers.iter().flat_map(|peer| match peer {
            Peer::Pods(_) => Vec::new(),
            Peer::Block(block) => block.ranges(),
        });
        let ranges = cidr::union(ranges);
        for family in self.families {
            let of_family = |range: &&IpRange| IpFamily::of(range.first()) == *family;
            let ranges: Vec<IpRange> = ranges.iter().filter(of_family).copied().collect();
            if !ranges.is_empty() {
                matches.push(PeerMatch::Blocks(ranges, *family));
            }
        }
        matches
    }

    /// The field with the other end's address.
    fn address_field(&self, family: IpFamily) -> Field {
        match (self.direction, family) {
            (Direction::Ingress, IpFamily::V4) => Field::IpSaddr,
            (Direction::Ingress, IpFamily::V6) => Field::Ip6Saddr,
            (Direction::Egress, IpFamily::V4) => Field::IpDaddr,
            (Direction::Egress, IpFamily::V6) => Field::Ip6Daddr,
        }
    }

    /// The statement that matches the peer; none for everyone.
    fn peer(&mut self, peer: &PeerMatch) -> Option<Statement> {
        match peer {
            PeerMatch::Anyone => None,
            PeerMatch::Pods(selector, family) => {
                let spec = SetSpec::Pods {
                    selector: selector.clone(),
                    family: *family,
                };
                Some(self.lookup(vec![self.address_field(*family)], spec))
            }
            PeerMatch::Blocks(ranges, family) => Some(self.blocks(ranges, *family)),
        }
    }

    /// One network or range is a comparison; several are a set, and so is a whole family, which no comparison can say.
    fn blocks(&mut self, ranges: &[IpRange], family: IpFamily) -> Statement {
        let field = self.address_field(family);
        let operand = match ranges {
            [range] => match range.prefix() {
                Some(0) => None,
                _ if range.first() == range.last() => Some(Operand::Value(value_of(range.first()))),
                Some(len) => Some(Operand::Prefix(value_of(range.first()), len)),
                None => Some(Operand::Range(
                    value_of(range.first()),
                    value_of(range.last()),
                )),
            },
            _ => None,
        };
        match operand {
            Some(operand) => Statement::Match {
                field,
                op: Operator::Eq,
                operand,
            },
            None => {
                let spec = SetSpec::Blocks {
                    ranges: ranges.to_vec(),
                    family,
                };
                self.lookup(vec![field], spec)
            }
        }
    }

    /// One statement a protocol for the ports that have numbers.
    fn numeric_ports(&mut self, ports: &[policy::Port]) -> Vec<Statement> {
        let mut statements = Vec::new();
        for protocol in Protocol::ALL {
            let ports = ports.iter().filter(|port| port.protocol == protocol);
            let mut ranges = Vec::new();
            let mut all = false;
            for port in ports {
                match port.port {
                    PortMatch::Any => all = true,
                    PortMatch::Range(first, last) => ranges.push((first, last)),
                    PortMatch::Named(_) => {}
                }
            }
            let field = match protocol {
                Protocol::Tcp => Field::TcpDport,
                Protocol::Udp => Field::UdpDport,
                Protocol::Sctp => Field::SctpDport,
            };
            let ranges = port_union(ranges);
            let operand = match ranges.as_slice() {
                _ if all => {
                    let number = Value::Proto(protocol.number());
                    statements.push(Statement::eq(Field::MetaL4proto, number));
                    continue;
                }
                [] => continue,
                [(first, last)] if first == last => Operand::Value(Value::Service(*first)),
                [(first, last)] => Operand::Range(Value::Service(*first), Value::Service(*last)),
                _ => {
                    statements.push(self.lookup(vec![field], SetSpec::Ports(ranges)));
                    continue;
                }
            };
            statements.push(Statement::Match {
                field,
                op: Operator::Eq,
                operand,
            });
        }
        statements
    }

    /// A named port is what the pod at the receiving end calls so: the selected pod itself for ingress, each
    /// destination for egress. `matched` is the peer's statement, once it was asked for.
    fn named(
        &mut self,
        peer: &PeerMatch,
        matched: &mut Option<Option<Statement>>,
        (name, protocol): (&Text, Protocol),
        alternatives: &mut Vec<Vec<Statement>>,
    ) {
        let families = match peer {
            PeerMatch::Anyone => self.families.to_vec(),
            PeerMatch::Pods(_, family) | PeerMatch::Blocks(_, family) => vec![*family],
        };
        for family in families {
            let (selector, says_all) = match (self.direction, peer) {
                (Direction::Ingress, _) => (self.subject.clone(), false),
                // The set holds the peer's own pods: being in it says all.
                (Direction::Egress, PeerMatch::Pods(selector, _)) => (selector.clone(), true),
                (Direction::Egress, _) => (Arc::new(PodSelector::everything()), false),
            };
            let peer = match says_all {
                true => None,
                false => matched.get_or_insert_with(|| self.peer(peer)).clone(),
            };
            let spec = SetSpec::NamedPort {
                selector,
                local: self.direction == Direction::Ingress,
                name: name.clone(),
                protocol,
                family,
            };
            let address = match family {
                IpFamily::V4 => Field::IpDaddr,
                IpFamily::V6 => Field::Ip6Daddr,
            };
            let key = vec![address, Field::MetaL4proto, Field::ThDport];
            let port = self.lookup(key, spec);
            alternatives.push(peer.into_iter().chain([port]).collect());
        }
    }

    fn lookup(&mut self, key: Vec<Field>, spec: SetSpec) -> Statement {
        let statement = Statement::lookup(key, names::set(&spec));
        self.sets.insert(spec);
        statement
    }
}

/// The names among the ports, with their protocols, each once.
fn named_ports(ports: &[policy::Port]) -> Vec<(&Text, Protocol)> {
    let mut seen = BTreeSet::new();
    let named = ports.iter().filter_map(|port| match &port.port {
        PortMatch::Named(name) => Some((name, port.protocol)),
        PortMatch::Any | PortMatch::Range(..) => None,
    });
    named.filter(|port| seen.insert(*port)).collect()
}

/// The same ports as disjoint ranges in order, none touching the next.
fn port_union(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_touch_are_one_range() {
        let ports = vec![
            (80, 80),
            (8000, 8100),
            (81, 90),
            (8050, 9000),
            (65535, 65535),
        ];
        assert_eq!(port_union(ports), [(80, 90), (8000, 9000), (65535, 65535)]);
    }
}
