//! The policy evaluator and the compiled ruleset agree, whatever the cluster.
//!
//! Each case is a random cluster; of each ordered pair of addresses in it (pods, nodes, outsiders, addresses that nobody
//! has or that pods share) some protocols and ports are drawn. `SELVEDGE_SOAK=1` does ten times as many.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use selvedge::arbitrary::{NODES, PORTS, PROBES, World, world};
use selvedge::cluster::Text;
use selvedge::cluster::object::{Object, Pod};
use selvedge::cluster::port::Protocol;
use selvedge::compile::{Closing, Host, compile};
use selvedge::index::Index;
use selvedge::policy::Direction;
use selvedge::verdict::endpoint::addresses as addresses_of;
use selvedge::verdict::journey::{Journey, NodeRules, journey};
use selvedge::verdict::packet::{Packet, TransportHeader};
use selvedge::verdict::reach::Reach;
use selvedge::verdict::{Connection, Decision, Owner, Transport, Verdict, evaluate};
use selvedge_nft::{IfName, Ruleset, TcpFlags, ct_state};

const SHARDS: u32 = 4;

fn config() -> ProptestConfig {
    let cases = match std::env::var_os("SELVEDGE_SOAK") {
        Some(_) => 50_000,
        None => 5_000,
    };
    ProptestConfig {
        cases: cases / SHARDS,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn interface(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

/// A cluster with the rulesets of its nodes, and what stands in for these where others wipe them.
struct Compiled {
    index: Index,
    rulesets: BTreeMap<Text, Ruleset>,
    closing: BTreeMap<Text, Ruleset>,
}

impl Compiled {
    fn new(world: &World) -> Self {
        let index = world.index();
        let host = Host::new(interface("cni0"), [interface("veth0")]);
        let rulesets = NODES.iter().map(|name| {
            let node = Text::from(*name);
            let ruleset = compile(&index, &node, &host);
            (node, ruleset)
        });
        let rulesets: BTreeMap<Text, Ruleset> = rulesets.collect();
        let closing = rulesets.iter().map(|(node, ruleset)| {
            let mut closing = Closing::default();
            (node.clone(), closing.follow(ruleset).unwrap().clone())
        });
        Self {
            closing: closing.collect(),
            rulesets,
            index,
        }
    }
}

fn nodes(rulesets: &BTreeMap<Text, Ruleset>) -> BTreeMap<Text, NodeRules<'_>> {
    let rules = rulesets.iter().map(|(node, ruleset)| {
        let rules = NodeRules {
            ruleset,
            bridge: interface("cni0"),
            port: Some(interface("veth0")),
            overlay: interface("flannel.1"),
            uplink: interface("eth0"),
        };
        (node.clone(), rules)
    });
    rules.collect()
}

/// The addresses of the world's pods and nodes, and others, of one family.
fn addresses(world: &World, v4: bool) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for object in &world.objects {
        match object {
            Object::Pod(pod) => all.extend(pod.addresses.iter()),
            Object::Node(node) => {
                all.extend(&node.addresses);
                for net in &node.pod_cidrs {
                    let mut hosts = net.iter();
                    all.extend(hosts.next());
                    all.extend(hosts.next());
                }
            }
            Object::Namespace(_) | Object::Policy(_) => {}
        }
    }
    let others = [
        "192.168.50.200",
        "10.244.1.99",
        "224.0.0.251",
        "255.255.255.255",
        "10.244.1.255",
        "fd50::200",
        "fd00:10:244:1::99",
        "fe80::7",
        "ff02::1",
    ];
    all.extend(others.map(|text| text.parse::<IpAddr>().unwrap()));
    all.retain(|address| address.is_ipv4() == v4);
    all.sort_unstable();
    all.dedup();
    all
}

/// A number that depends on nothing but its arguments, so that a smaller cluster draws the same for a pair it still has.
fn draw(seed: u64, pair: impl Hash, n: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, pair, n).hash(&mut hasher);
    hasher.finish()
}

/// Mostly TCP, and every other time a port that rules and pods are about.
fn transport(number: u64) -> Transport {
    use Protocol::{Sctp, Tcp, Udp};
    let pick = |count: usize, shift: u32| (number >> shift) as usize % count;
    let protocol = [Tcp, Tcp, Tcp, Udp, Udp, Sctp][pick(6, 0)];
    let port = match pick(2, 8) {
        0 => PORTS[pick(PORTS.len(), 16)],
        _ => PROBES[pick(PROBES.len(), 16)],
    };
    match pick(16, 48) {
        0 => Transport::Icmp,
        1 => Transport::Other(47),
        _ => Transport::new(protocol, port),
    }
}

fn explain(world: &World, verdict: &Verdict, journey: &Journey) -> String {
    let policies: Vec<String> = world
        .policies
        .iter()
        .map(|policy| format!("{:?}\n{:?}", policy.metadata.name, policy.spec))
        .collect();
    format!(
        "by policy: {verdict:#?}\nby ruleset: {journey}\n{}\n{:#?}",
        policies.join("\n"),
        world.objects
    )
}

/// Whether the owner of an address is a pod on a node that has rules.
fn enforced(owner: &Owner) -> Option<&Text> {
    match owner {
        Owner::Pod { node, .. } => node.as_ref(),
        Owner::Node { .. } | Owner::Outside => None,
    }
}

/// Compares the two answers to one connection, as a whole and node by node.
fn compare(
    world: &World,
    compiled: &Compiled,
    nodes: &BTreeMap<Text, NodeRules<'_>>,
    connection: &Connection,
    bytes: u16,
) -> Result<(), TestCaseError> {
    let verdict = evaluate(&compiled.index, connection);
    let packet = Packet::opening(connection, bytes).unwrap();
    let journey = journey(&compiled.index, nodes, &packet)
        .map_err(|error| TestCaseError::fail(format!("{connection:?}: {error}")))?;
    let (source, destination) = (enforced(&verdict.from.owner), enforced(&verdict.to.owner));
    // Nothing is enforced for a pod that is on no node yet.
    let egress = source.is_none() || verdict.egress.allowed();
    let ingress = destination.is_none() || verdict.ingress.allowed();
    let by_node = |node: &Text| {
        (source != Some(node) || verdict.egress.allowed())
            && (destination != Some(node) || verdict.ingress.allowed())
    };
    let agree = journey.accepted() == (egress && ingress)
        && journey
            .hops
            .iter()
            .all(|hop| hop.accepted() == by_node(&hop.node));
    if agree {
        return Ok(());
    }
    let text = explain(world, &verdict, &journey);
    Err(TestCaseError::fail(format!("{connection:?}\n{text}")))
}

/// Whatever the policies say, what belongs to a connection that is known passes, except on the detours over addresses
/// that pods share; and a TCP segment in the middle of one that is not known does not pass to or from an isolated pod.
fn compare_later_packets(
    compiled: &Compiled,
    nodes: &BTreeMap<Text, NodeRules<'_>>,
    connection: &Connection,
) -> Result<(), TestCaseError> {
    let fail = |text: String| TestCaseError::fail(format!("{connection:?}: {text}"));
    let send = |header, state| {
        let packet = Packet::new(connection.from(), connection.to(), header, state).unwrap();
        journey(&compiled.index, nodes, &packet).map_err(|error| fail(error.to_string()))
    };
    let verdict = evaluate(&compiled.index, connection);
    let closed = [&verdict.egress, &verdict.ingress]
        .into_iter()
        .any(|decision| matches!(decision, Decision::Shared { .. }) && !decision.allowed());
    let segment = TransportHeader::ports(Protocol::Tcp, 8080, 40000, TcpFlags::ACK);
    let error = TransportHeader::icmpv6(1, 0);
    for (header, state) in [(segment, ct_state::ESTABLISHED), (error, ct_state::RELATED)] {
        let later = send(header, state)?;
        if later.accepted() == closed {
            let text = if closed { "passes" } else { "is dropped" };
            return Err(fail(format!("a later packet {text}\n{later}")));
        }
    }
    let midstream = send(segment, ct_state::NEW)?;
    let isolated = |address: IpAddr| {
        let pod = compiled.index.owner(address);
        pod.is_some_and(|pod| {
            let policies = compiled.index.policies_of(pod);
            policies
                .iter()
                .any(|p| p.ingress.is_some() || p.egress.is_some())
        })
    };
    for hop in &midstream.hops {
        let here = |address: IpAddr| {
            let pod = compiled.index.owner(address);
            pod.is_some_and(|pod| pod.node.as_ref() == Some(&hop.node)) && isolated(address)
        };
        if (here(connection.from()) || here(connection.to())) && hop.accepted() {
            return Err(fail(format!(
                "a segment of no connection passes\n{midstream}"
            )));
        }
    }
    Ok(())
}

/// What stands in for wiped rules lets nothing through that these would not, and everything where no end is isolated.
fn compare_closing(
    compiled: &Compiled,
    nodes: &BTreeMap<Text, NodeRules<'_>>,
    closing: &BTreeMap<Text, NodeRules<'_>>,
    connection: &Connection,
    bytes: u16,
) -> Result<(), TestCaseError> {
    let packet = Packet::opening(connection, bytes).unwrap();
    let [by_rules, closed] = [nodes, closing].map(|nodes| {
        let journey = journey(&compiled.index, nodes, &packet);
        journey.map_err(|error| TestCaseError::fail(format!("{connection:?}: {error}")))
    });
    let (by_rules, closed) = (by_rules?, closed?);
    let isolated = |address: IpAddr, direction: Direction| {
        let pod = compiled.index.owner(address);
        let policies = pod.map(|pod| compiled.index.policies_of(pod));
        let mut policies = policies.into_iter().flatten();
        policies.any(|policy| policy.rules(direction).is_some())
    };
    let isolated = isolated(connection.from(), Direction::Egress)
        || isolated(connection.to(), Direction::Ingress);
    if closed.accepted() && !by_rules.accepted()
        || !isolated && closed.accepted() != by_rules.accepted()
    {
        let text = format!("{connection:?}\nby ruleset: {by_rules}\nclosed: {closed}");
        return Err(TestCaseError::fail(text));
    }
    Ok(())
}

/// All ports of a pair at once are those that are allowed one by one, on any address.
fn compare_reach(index: &Index, seed: u64) -> Result<(), TestCaseError> {
    let mut reach = Reach::new(index);
    let members: Vec<_> = index.pods().map(|pod| reach.member(pod)).collect();
    for from in &members {
        for to in members.iter().filter(|to| !std::ptr::eq(from.pod, to.pod)) {
            let ports = reach.allowed(from, to);
            for n in 0..3 {
                let name = |pod: &Pod| format!("{}/{}", pod.namespace, pod.name);
                let names = (name(from.pod), name(to.pod));
                let transport = transport(draw(seed, &names, n));
                let Some((protocol, port)) = transport.port() else {
                    continue;
                };
                let mut allowed = false;
                for from in addresses_of(index, from.pod).iter() {
                    for to in addresses_of(index, to.pod).iter() {
                        let connection = Connection::new(from, to, transport);
                        allowed |= connection.is_ok_and(|c| evaluate(index, &c).allowed());
                    }
                }
                prop_assert_eq!(
                    ports.contains(protocol, port),
                    allowed,
                    "{:?} {}: {}\n{:#?}",
                    names,
                    transport,
                    ports,
                    index.policies().collect::<Vec<_>>()
                );
            }
        }
    }
    Ok(())
}

fn check(world: &World, seed: u64) -> Result<(), TestCaseError> {
    let compiled = Compiled::new(world);
    let (nodes, closing) = (nodes(&compiled.rulesets), nodes(&compiled.closing));
    compare_reach(&compiled.index, seed)?;
    for v4 in [true, false] {
        let addresses = addresses(world, v4);
        for from in &addresses {
            for to in &addresses {
                let pods = [from, to].map(|address| compiled.index.owner(*address).is_some());
                // Pairs of pods are what policies are about.
                let draws = match pods {
                    [true, true] => 6,
                    [false, false] => 1,
                    _ => 3,
                };
                for n in 0..draws {
                    let number = draw(seed, (*from, *to), n);
                    let connection = Connection::new(*from, *to, transport(number)).unwrap();
                    // What has no ports may carry any bytes in their place, those of an allowed port too.
                    let bytes = PROBES[(number >> 32) as usize % PROBES.len()];
                    compare(world, &compiled, &nodes, &connection, bytes)?;
                    compare_closing(&compiled, &nodes, &closing, &connection, bytes)?;
                }
                let connection = Connection::new(*from, *to, Transport::Icmp).unwrap();
                compare_later_packets(&compiled, &nodes, &connection)?;
                compare_later_packets(&compiled, &closing, &connection)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_pair_gets_one_answer_1((world, seed) in (world(7, 6), any::<u64>())) {
        check(&world, seed)?;
    }

    #[test]
    fn every_pair_gets_one_answer_2((world, seed) in (world(5, 3), any::<u64>())) {
        check(&world, seed)?;
    }

    #[test]
    fn every_pair_gets_one_answer_3((world, seed) in (world(4, 8), any::<u64>())) {
        check(&world, seed)?;
    }

    #[test]
    fn every_pair_gets_one_answer_4((world, seed) in (world(8, 2), any::<u64>())) {
        check(&world, seed)?;
    }
}
