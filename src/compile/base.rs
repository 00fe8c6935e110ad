//! The chains the kernel calls: what every packet between pods meets before it comes to a pod's own chain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use imbl::{OrdMap, OrdSet};
use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Datatype, Elements, Field, Hook, Key, Name, Operand, Operator,
    Rule, Set, SetHeader, Statement, TcpFlags, Value, Verdict, ct_state,
};

use super::sets::{IpFamily, key_of};
use super::{Host, denied, names};
use crate::cluster::cidr::{IpRange, union};
use crate::policy::Direction;

/// Hook forward, after connection tracking and DNAT, before SNAT; just before anything at priority filter.
const EGRESS_PRIORITY: i32 = -6;
const INGRESS_PRIORITY: i32 = -5;

/// Neighbour discovery that bridged pods need: MLD, router solicitation, neighbour solicitation and advertisement.
const DISCOVERY: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];
/// What a pod must never send to another (CVE-2020-10749): router advertisement and redirect.
const IMPERSONATION: [u8; 2] = [134, 137];

/// What belongs to a connection that was let in.
const ESTABLISHED: Statement = Statement::CtState(ct_state::ESTABLISHED | ct_state::RELATED);

/// `fe80::`, where link-local addresses begin.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// The name of the chain that the kernel calls for a direction: `egress`.
pub fn chain(direction: Direction) -> Name {
    names::fixed(match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    })
}

/// The name of the map from a pod's address to its chain: `egress4`.
pub fn dispatch_map(direction: Direction, family: IpFamily) -> Name {
    names::fixed(match (direction, family) {
        (Direction::Egress, IpFamily::V4) => "egress4",
        (Direction::Egress, IpFamily::V6) => "egress6",
        (Direction::Ingress, IpFamily::V4) => "ingress4",
        (Direction::Ingress, IpFamily::V6) => "ingress6",
    })
}

/// The name of the set of the addresses of isolated pods: `isolated4`.
pub fn isolated_set(family: IpFamily) -> Name {
    names::fixed(match family {
        IpFamily::V4 => "isolated4",
        IpFamily::V6 => "isolated6",
    })
}

/// A dispatch map without elements.
pub fn empty_map(direction: Direction, family: IpFamily) -> Set {
    let text = match direction {
        Direction::Egress => "pods of this node isolated for egress",
        Direction::Ingress => "pods of this node isolated for ingress",
    };
    set(
        &[family.datatype()],
        text,
        Elements::Verdicts(OrdMap::new()),
    )
}

/// The set of isolated pods' addresses without elements.
pub fn empty_isolated(family: IpFamily) -> Set {
    let text = "pods of this node isolated in any direction";
    set(&[family.datatype()], text, Elements::Keys(OrdSet::new()))
}

/// A set or map that does not come from a policy.
pub fn set(key: &[Datatype], comment: &str, elements: Elements) -> Set {
    let header = SetHeader {
        key: key.to_vec(),
        comment: names::comment(comment),
    };
    Set { header, elements }
}

/// The sets of table `inet selvedge` that do not depend on policies. Blocks are the node's pod CIDRs, whose broadcast
/// addresses reach every pod.
pub fn fixed_sets(pod_cidrs: impl IntoIterator<Item = ipnetwork::IpNetwork>) -> Vec<(Name, Set)> {
    let v4 = |text: &str| text.parse().ok().map(IpRange::of);
    let broadcasts = broadcasts(pod_cidrs).map(|last| IpRange::V4(last.to_bits(), last.to_bits()));
    let nobody4 = ["0.0.0.0/32", "224.0.0.0/4", "255.255.255.255/32"].map(v4);
    let nobody4 = nobody4.into_iter().flatten().chain(broadcasts);
    let nobody6 = [
        IpRange::V6(
            LINK_LOCAL.to_bits(),
            Ipv6Addr::new(
                0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
            )
            .to_bits(),
        ),
        IpRange::V6(
            Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).to_bits(),
            u128::MAX,
        ),
    ];
    let ranges = |ranges: Vec<IpRange>| {
        let ranges = ranges
            .into_iter()
            .map(|r| (key_of(r.first()), key_of(r.last())));
        Elements::Ranges(ranges.collect())
    };
    let shared = "addresses that reach every pod on the bridge";
    vec![
        (
            names::fixed("shared4"),
            set(&[Datatype::Ipv4Addr], shared, ranges(union(nobody4))),
        ),
        (
            names::fixed("shared6"),
            set(&[Datatype::Ipv6Addr], shared, ranges(union(nobody6))),
        ),
        discovery_set(),
        (
            names::fixed("impersonation"),
            set(
                &[Datatype::Icmpv6Type],
                "router advertisement and redirect, CVE-2020-10749",
                icmpv6_types(&IMPERSONATION),
            ),
        ),
    ]
}

/// The set of what neighbour discovery is made of.
pub fn discovery_set() -> (Name, Set) {
    let text = "neighbour discovery that pods need";
    let types = icmpv6_types(&DISCOVERY);
    (
        names::fixed("discovery"),
        set(&[Datatype::Icmpv6Type], text, types),
    )
}

fn icmpv6_types(types: &[u8]) -> Elements {
    let keys = types
        .iter()
        .filter_map(|n| Key::new(&[Value::Icmpv6Type(*n)]).ok());
    Elements::Keys(keys.collect())
}

/// The broadcast addresses of the node's pod CIDRs.
fn broadcasts(
    pod_cidrs: impl IntoIterator<Item = ipnetwork::IpNetwork>,
) -> impl Iterator<Item = Ipv4Addr> {
    pod_cidrs.into_iter().filter_map(|net| match net {
        // A block of one or two addresses has no broadcast address.
        ipnetwork::IpNetwork::V4(net) if net.prefix() < 31 => Some(net.broadcast()),
        _ => None,
    })
}

/// An established IPv4 flow ends here, which is most of all traffic: at addresses that no detour leads by, it needs no
/// look at its bridge. Comparisons, since a look-up of `shared4` costs more than all of them; what they leave out by
/// being simple (240.0.0.0/4) takes the long way.
fn established4(pod_cidrs: impl IntoIterator<Item = ipnetwork::IpNetwork>) -> Rule {
    let daddr = |op, operand| Statement::Match {
        field: Field::IpDaddr,
        op,
        operand,
    };
    let v4 = |a, b, c, d| Value::Ipv4(Ipv4Addr::new(a, b, c, d));
    let unicast = Operand::Range(v4(0, 0, 0, 1), v4(223, 255, 255, 255));
    let broadcasts =
        broadcasts(pod_cidrs).map(|last| daddr(Operator::Neq, Operand::Value(Value::Ipv4(last))));
    rule(
        [ESTABLISHED]
            .into_iter()
            .chain(broadcasts)
            .chain([daddr(Operator::Eq, unicast)]),
        Verdict::Accept,
    )
}

/// Where a packet has the address of the pod that a direction is about.
pub fn pods_end(direction: Direction, family: IpFamily) -> Field {
    match (direction, family) {
        (Direction::Egress, IpFamily::V4) => Field::IpSaddr,
        (Direction::Egress, IpFamily::V6) => Field::Ip6Saddr,
        (Direction::Ingress, IpFamily::V4) => Field::IpDaddr,
        (Direction::Ingress, IpFamily::V6) => Field::Ip6Daddr,
    }
}

/// The chains of table `inet selvedge` that do not depend on policies. Blocks are the node's pod CIDRs.
///
/// `isolating` tells whether any pod of the node is isolated: without one there is nothing to protect from detours.
pub fn inet_chains(
    host: &Host,
    isolating: bool,
    pod_cidrs: impl IntoIterator<Item = ipnetwork::IpNetwork>,
) -> Vec<(Name, Chain)> {
    let established = rule([ESTABLISHED], Verdict::Accept);
    let on_bridge = || {
        [Field::Iifname, Field::Oifname]
            .map(|field| Statement::eq(field, Value::IfName(host.bridge)))
    };
    let dispatch = |direction, family| {
        Rule::new([Statement::VerdictMap {
            key: vec![pods_end(direction, family)],
            map: dispatch_map(direction, family),
        }])
    };
    let syn = TcpFlags::SYN;
    let handshake = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
    let midstream = Rule::new([
        Statement::TcpFlags {
            mask: handshake,
            op: Operator::Neq,
            value: syn,
        },
        Verdict::Jump(names::fixed("midstream")).into(),
    ]);

    let mut egress = vec![
        established4(pod_cidrs),
        rule(on_bridge(), Verdict::Jump(names::fixed("bridged"))),
        established.clone(),
    ];
    egress.extend(denied::rules(host, Direction::Egress));
    if isolating {
        egress.push(midstream);
    }
    egress.extend(IpFamily::ALL.map(|family| dispatch(Direction::Egress, family)));

    let discovery = Statement::lookup([Field::Icmpv6Type], names::fixed("discovery"));
    let mut ingress = Vec::from([established]);
    ingress.push(rule(
        on_bridge().into_iter().chain([discovery]),
        Verdict::Accept,
    ));
    ingress.extend(denied::rules(host, Direction::Ingress));
    ingress.extend(IpFamily::ALL.map(|family| dispatch(Direction::Ingress, family)));

    let base = |priority, rules, comment| Chain {
        base: Some(BaseChain {
            hook: Hook::Forward,
            priority,
            policy: ChainPolicy::Accept,
        }),
        comment: names::comment(comment),
        rules,
    };
    let mut chains = vec![
        (
            chain(Direction::Egress),
            base(EGRESS_PRIORITY, egress, "what pods may send"),
        ),
        (
            chain(Direction::Ingress),
            base(INGRESS_PRIORITY, ingress, "what pods may receive"),
        ),
        (names::fixed("bridged"), bridged(isolating)),
    ];
    if isolating {
        chains.push((names::fixed("midstream"), midstream_chain()));
    }
    chains
}

/// Between two ports of the pods' bridge, before the established rule.
fn bridged(isolating: bool) -> Chain {
    let icmpv6 = |set| Statement::lookup([Field::Icmpv6Type], names::fixed(set));
    let mut rules = Vec::new();
    if isolating {
        // IPv4 first: it is most of the traffic.
        rules.push(counted_drop([Statement::lookup(
            [Field::IpDaddr],
            names::fixed("shared4"),
        )]));
    }
    rules.push(rule([icmpv6("discovery")], Verdict::Accept));
    rules.push(counted_drop([icmpv6("impersonation")]));
    if isolating {
        let link_local = Operand::Prefix(Value::Ipv6(LINK_LOCAL), 10);
        rules.push(counted_drop([Statement::Match {
            field: Field::Ip6Saddr,
            op: Operator::Eq,
            operand: link_local,
        }]));
        rules.push(counted_drop([Statement::lookup(
            [Field::Ip6Daddr],
            names::fixed("shared6"),
        )]));
    }
    Chain {
        base: None,
        comment: names::comment("pod to pod on this node, by addresses no policy can name"),
        rules,
    }
}

/// A connection of an isolated pod that conntrack does not know can only start with SYN. Otherwise the other end's next
/// segment would revive a revoked connection, with its direction turned round.
fn midstream_chain() -> Chain {
    let fields = [
        (Field::IpSaddr, IpFamily::V4),
        (Field::IpDaddr, IpFamily::V4),
        (Field::Ip6Saddr, IpFamily::V6),
        (Field::Ip6Daddr, IpFamily::V6),
    ];
    let rules = fields
        .map(|(field, family)| counted_drop([Statement::lookup([field], isolated_set(family))]));
    Chain {
        base: None,
        comment: names::comment("TCP segments of no known connection that are no SYN"),
        rules: rules.into(),
    }
}

/// A rule with these matches and a verdict.
pub fn rule(matches: impl IntoIterator<Item = Statement>, verdict: Verdict) -> Rule {
    let statements: Vec<Statement> = matches.into_iter().chain([verdict.into()]).collect();
    Rule::new(statements)
}

/// A rule that drops what matches, and counts it.
pub fn counted_drop(matches: impl IntoIterator<Item = Statement>) -> Rule {
    rule(
        matches.into_iter().chain([Statement::Counter]),
        Verdict::Drop,
    )
}

/// A pod's own chain: itself, then the policies, then no.
pub fn pod_chain(
    direction: Direction,
    addresses: impl Iterator<Item = IpAddr>,
    policies: impl Iterator<Item = Name>,
) -> Chain {
    let own = addresses.map(|address| {
        let (field, value) = match (direction, address) {
            (Direction::Egress, IpAddr::V4(v4)) => (Field::IpDaddr, Value::Ipv4(v4)),
            (Direction::Egress, IpAddr::V6(v6)) => (Field::Ip6Daddr, Value::Ipv6(v6)),
            (Direction::Ingress, IpAddr::V4(v4)) => (Field::IpSaddr, Value::Ipv4(v4)),
            (Direction::Ingress, IpAddr::V6(v6)) => (Field::Ip6Saddr, Value::Ipv6(v6)),
        };
        rule([Statement::eq(field, value)], Verdict::Accept)
    });
    let jumps = policies.map(|policy| rule([], Verdict::Jump(policy)));
    let denied = Rule::new([Statement::Counter, Verdict::Drop.into()]);
    Chain {
        base: None,
        comment: None,
        rules: own.chain(jumps).chain([denied]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_shared_addresses_know_the_pod_cidrs_broadcast() {
        let sets = fixed_sets([
            "10.244.1.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ]);
        let Elements::Ranges(ranges) = &sets[0].1.elements else {
            panic!("not ranges")
        };
        let broadcast = Key::from(Ipv4Addr::new(10, 244, 1, 255));
        assert_eq!(ranges.get(&broadcast), Some(&broadcast));
        // 224.0.0.0/4 and 255.255.255.255 do not touch: 240.0.0.0/4 lies between.
        assert_eq!(ranges.len(), 4);
    }

    /// Whether a rule's comparisons of the destination hold for an address.
    fn meets(rule: &Rule, daddr: u32) -> bool {
        let bits = |value: &Value| match value {
            Value::Ipv4(address) => address.to_bits(),
            other => panic!("{other:?}"),
        };
        rule.statements.iter().all(|statement| match statement {
            Statement::Match { op, operand, .. } => {
                let within = match operand {
                    Operand::Value(value) => bits(value) == daddr,
                    Operand::Range(first, last) => (bits(first)..=bits(last)).contains(&daddr),
                    Operand::Prefix(..) => panic!("{operand:?}"),
                };
                within == (*op == Operator::Eq)
            }
            _ => true,
        })
    }

    #[test]
    fn no_shared_address_is_taken_for_an_established_flow_of_one_pod() {
        let cidrs = [
            "10.244.1.0/24".parse().unwrap(),
            "10.9.0.0/20".parse().unwrap(),
        ];
        let rule = established4(cidrs);
        let sets = fixed_sets(cidrs);
        let Elements::Ranges(shared) = &sets[0].1.elements else {
            panic!("not ranges")
        };
        let bits = |key: &Key| u32::from_be_bytes(key.as_bytes().try_into().unwrap());
        assert_eq!(shared.len(), 5);
        for (first, last) in shared {
            assert!(!meets(&rule, bits(first)), "{first:?}");
            assert!(!meets(&rule, bits(last)), "{last:?}");
        }
        for one in [[10, 244, 1, 254], [10, 9, 1, 255], [1, 1, 1, 1]] {
            assert!(meets(&rule, u32::from_be_bytes(one)), "{one:?}");
        }
    }
}
