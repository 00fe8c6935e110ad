//! Random clusters on real kernels: every packet does what the policies say.
//!
//! Each case builds the cluster's nodes and pods as a lab, programs each node with the ruleset compiled for it, and
//! sends real TCP, UDP, SCTP and ICMP between pods, nodes and a host outside. `SELVEDGE_SOAK=1` does ten times as many.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use selvedge::arbitrary::{PROBES, World, world};
use selvedge::index::Index;
use selvedge::verdict::{Connection, Transport, Verdict, evaluate};
use selvedge_lab::stage::{enforce, lab_of};
use selvedge_lab::{Host, Lab, Outcome, Probe, Protocol, probe_all};

/// Labs at a time: they wait for silence most of the time.
const AT_ONCE: usize = 4;
/// Connections tried in each cluster.
const DRAWS: usize = 160;

fn config() -> ProptestConfig {
    let clusters = match std::env::var_os("SELVEDGE_SOAK") {
        Some(_) => 2_000,
        None => 200,
    };
    ProptestConfig {
        cases: clusters / AT_ONCE as u32,
        max_shrink_iters: 60,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// Someone who can send and be sent to, with one address a family.
struct End {
    host: Host,
    node: Option<String>,
    is_node: bool,
    addresses: Vec<IpAddr>,
}

impl End {
    /// The address it sends from: a node's traffic to its own pods leaves by the bridge, to others' by the overlay.
    fn source(&self, to: &End, v4: bool) -> Option<IpAddr> {
        if !self.is_node || to.is_node {
            return self.addresses.iter().find(|a| a.is_ipv4() == v4).copied();
        }
        let number: u8 = self.host.name().rsplit('-').next()?.parse().ok()?;
        let own = u8::from(self.node == to.node);
        match (v4, to.node.is_some()) {
            (true, true) => Some(IpAddr::from([10, 244, number, own])),
            (false, true) => format!("fd00:10:244:{number}::{own}").parse().ok(),
            (_, false) => self.addresses.iter().find(|a| a.is_ipv4() == v4).copied(),
        }
    }
}

fn ends(lab: &Lab) -> Vec<End> {
    let pods = lab.pods();
    let pods = pods.iter().map(|pod| End {
        host: Host::clone(pod),
        node: Some(pod.node().name().to_owned()),
        is_node: false,
        addresses: pod.addresses().to_vec(),
    });
    let nodes = lab.nodes().iter().map(|node| End {
        host: Host::clone(node),
        node: Some(node.name().to_owned()),
        is_node: true,
        addresses: node.addresses().to_vec(),
    });
    let outsiders = lab.outsiders().iter().map(|host| End {
        host: host.clone(),
        node: None,
        is_node: false,
        addresses: host.addresses().to_vec(),
    });
    pods.chain(nodes).chain(outsiders).collect()
}

/// A sequence of numbers that depends on the seed alone.
struct Draws(u64);

impl Draws {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % below as u64) as usize
    }
}

fn transport(draws: &mut Draws) -> Transport {
    let port = PROBES[draws.next(PROBES.len())];
    match draws.next(8) {
        0..4 => Transport::Tcp(port),
        4 | 5 => Transport::Udp(port),
        6 => Transport::Sctp(port),
        _ => Transport::Icmp,
    }
}

fn listening(transport: Transport) -> Option<(Protocol, u16)> {
    match transport {
        Transport::Tcp(port) => Some((Protocol::Tcp, port)),
        Transport::Udp(port) => Some((Protocol::Udp, port)),
        Transport::Sctp(port) => Some((Protocol::Sctp, port)),
        Transport::Icmp | Transport::Other(_) => None,
    }
}

fn probe(to: IpAddr, transport: Transport) -> Option<Probe> {
    Some(match transport {
        Transport::Tcp(port) => Probe::tcp(to, port),
        Transport::Udp(port) => Probe::udp(to, port),
        Transport::Sctp(port) => Probe::sctp(to, port),
        Transport::Icmp => Probe::icmp(to),
        Transport::Other(_) => return None,
    })
}

/// Tries connections in the cluster; the answer is where packets and policies differ.
fn differences(world: &World, seed: u64) -> Vec<String> {
    let index: Index = world.index();
    let lab = lab_of(&index).outsider("outside", []).build().unwrap();
    enforce(&lab, &index).unwrap();
    let ends = ends(&lab);
    let mut draws = Draws(seed);
    let mut asked: BTreeMap<String, (Host, Probe, Verdict)> = BTreeMap::new();
    for _ in 0..DRAWS {
        let (from, to) = (&ends[draws.next(ends.len())], &ends[draws.next(ends.len())]);
        let (v4, transport) = (draws.next(2) == 0, transport(&mut draws));
        let destination = to.addresses.iter().find(|a| a.is_ipv4() == v4);
        let (Some(source), Some(destination)) = (from.source(to, v4), destination) else {
            continue;
        };
        let connection = Connection::new(source, *destination, transport).unwrap();
        let verdict = evaluate(&index, &connection);
        // A refusal would do for TCP, but ICMP errors are rate-limited.
        if let Some((protocol, port)) = listening(transport) {
            to.host.listen(protocol, port).unwrap();
        }
        let probe = probe(*destination, transport).unwrap().from_address(source);
        let text = format!("{source} -> {destination} {transport}");
        asked.insert(text, (from.host.clone(), probe, verdict));
    }
    let probes: Vec<(Host, Probe)> = asked
        .values()
        .map(|(host, probe, _)| (host.clone(), probe.clone()))
        .collect();
    let outcomes = probe_all(&probes).unwrap();
    let compared = asked.iter().zip(outcomes);
    compared
        .filter(|((_, (_, _, verdict)), outcome)| match outcome {
            Outcome::Connected { .. } | Outcome::Refused => !verdict.allowed(),
            Outcome::Denied => verdict.allowed(),
            Outcome::Failed { .. } => true,
        })
        .map(|((text, (_, _, verdict)), outcome)| {
            format!("{text}: the packets say {outcome:?}, the policies {verdict:#?}")
        })
        .collect()
}

fn explain(world: &World) -> String {
    let policies: Vec<String> = world
        .policies
        .iter()
        .map(|policy| format!("{:?} {:?}", policy.metadata, policy.spec))
        .collect();
    format!("{}\n{:?}", policies.join("\n"), world.objects)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn packets_do_what_the_policies_say(
        clusters in prop::collection::vec((world(7, 5), any::<u64>()), AT_ONCE),
    ) {
        let results: Vec<Vec<String>> = thread::scope(|scope| {
            let runs: Vec<_> = clusters
                .iter()
                .map(|(world, seed)| scope.spawn(|| differences(world, *seed)))
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for ((world, _), differences) in clusters.iter().zip(results) {
            prop_assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), explain(world));
        }
    }
}
