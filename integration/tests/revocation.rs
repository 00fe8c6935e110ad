//! Connections that are open when a change takes their permission away are dead within a second, whoever goes on sending;
//! all others live on.
//!
//! - [`flow`]: connections that are watched while policies change

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

#[path = "revocation/flow.rs"]
mod flow;

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flow::{Ends, Flow, Pusher, Talk, UNTIL_TIMEOUT};
use selvedge_lab::stage::{self, Manifests, PodManifest, committed, namespace, node, policy};
use selvedge_lab::{Daemon, Error, Lab, Node, Protocol, Service, Signal};

const PATIENCE: Duration = Duration::from_secs(20);

/// Servers echo on the one port and push on the other, over TCP and UDP.
const ECHO: u16 = 80;
const PUSH: u16 = 81;

/// How long a denied connection may live on.
const LIFE: Duration = Duration::from_secs(1);
/// How long it is watched from then on.
const WATCH: Duration = Duration::from_millis(500);
/// Where the thread that watches has to wait for so long until it runs again, the round doesn't count.
const STALL: Duration = Duration::from_millis(100);
/// How often a change is tried. The last round counts in any case.
const ROUNDS: usize = 5;

/// Connections that are open all the time, and rest.
const RESTING: usize = 1000;

const KEEPER: &str = "{podSelector: {matchLabels: {role: keeper}}}";
/// The client, by its own label and by its namespace's.
const CLIENT: &str =
    "{namespaceSelector: {matchLabels: {team: dev}}, podSelector: {matchLabels: {role: client}}}";

/// Isolates the servers in both directions, and lets these peers in: what a server sends of itself is denied, too.
fn only(peers: &str) -> String {
    let spec = "{podSelector: {matchLabels: {role: server}}, policyTypes: [Ingress, Egress], ingress: [{from: [PEERS]}]}";
    policy("shop/servers", &spec.replace("PEERS", peers))
}

fn both() -> String {
    only(&format!("{KEEPER}, {CLIENT}"))
}

fn client(labels: &str) -> PodManifest {
    PodManifest::new("dev/client", 1, 3, labels)
}

/// A keeper and a client on the first node, a server on each, each server behind ClusterIPs.
struct Stage {
    manifests: Manifests,
    daemons: Vec<Daemon>,
    revoke: &'static str,
    _pushers: Vec<Pusher>,
    lab: Lab,
}

impl Stage {
    fn new(revoke: &'static str) -> Result<Self, Error> {
        let manifests = Manifests::new()?;
        let fixed = node(1)
            + &node(2)
            + &namespace("shop", "team: shop")
            + &PodManifest::new("shop/keeper", 1, 2, "role: keeper").to_string()
            + &PodManifest::new("shop/api", 1, 4, "role: server").to_string()
            + &PodManifest::new("shop/db", 2, 5, "role: server").to_string();
        manifests.put("fixed.yaml", fixed)?;
        manifests.put("dev.yaml", namespace("dev", "team: dev"))?;
        manifests.put("client.yaml", client("role: client"))?;
        let lab = manifests.lab()?.build()?;
        let mut pushers = Vec::new();
        for (server, number) in [("shop/api", 4), ("shop/db", 5)] {
            let server = lab.pod(server)?;
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                server.listen(protocol, ECHO)?;
            }
            pushers.push(Pusher::start(&server, PUSH)?);
            for ip in cluster_ips(number) {
                let mut service = Service::new(&format!("{}-{ip}", server.name()), ip)
                    .backends(server.addresses().iter().copied());
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    service =
                        service
                            .port(protocol, 1000 + ECHO, ECHO)
                            .port(protocol, 1000 + PUSH, PUSH);
                }
                lab.add_service(service)?;
            }
        }
        let mut stage = Self {
            manifests,
            daemons: Vec::new(),
            revoke,
            _pushers: pushers,
            lab,
        };
        stage.start()?;
        Ok(stage)
    }

    /// Starts the daemons and waits until they enforce.
    fn start(&mut self) -> Result<(), Error> {
        let nodes = self.lab.nodes();
        let start = |node: &Node| {
            let command = stage::run_command(node, self.manifests.path())?;
            let command = command.args(["--http", "off", "--revoke", self.revoke]);
            // Drift is a cause, too.
            let command = command.args(["--own-table", "off"]);
            let daemon = command.daemon()?;
            daemon.wait_for_output("the policies are in force", PATIENCE)?;
            Ok(daemon)
        };
        self.daemons = nodes.iter().map(start).collect::<Result<_, Error>>()?;
        Ok(())
    }

    /// Every way from the client to the servers, by both families: on one node, across, and by their ClusterIPs.
    fn ways(&self) -> Result<Vec<(String, IpAddr, u16)>, Error> {
        let mut ways = Vec::new();
        for (name, number) in [("shop/api", 4), ("shop/db", 5)] {
            for address in self.lab.pod(name)?.addresses() {
                ways.push((format!("{name} at {address}"), *address, 0));
            }
            for ip in cluster_ips(number) {
                ways.push((format!("{name} behind {ip}"), ip, 1000));
            }
        }
        Ok(ways)
    }

    /// Opens connections from a pod to every server by every way; they are open when this returns.
    fn open(&self, from: &str) -> Result<Vec<Flow>, Error> {
        let from = self.lab.pod(from)?;
        let mut flows = Vec::new();
        for (name, to, offset) in self.ways()? {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let keeps_alive = (protocol == Protocol::Tcp).then_some((Talk::KeepsAlive, ECHO));
                let talks = [(Talk::Asks, ECHO), (Talk::Listens, PUSH)].into_iter();
                for (talk, port) in talks.chain(keeps_alive) {
                    let what = format!("{protocol} {} to {name}, client {talk:?}", from.name());
                    let ends = Ends {
                        to,
                        port: port + offset,
                        protocol,
                    };
                    flows.push(Flow::start(&from, what, ends, talk)?);
                }
            }
        }
        for flow in &flows {
            flow.wait_until_alive(PATIENCE)?;
        }
        Ok(flows)
    }

    /// Puts a file in force on both nodes.
    fn settle(&self, name: &str, text: &str) -> Result<(), Error> {
        let daemons: Vec<&Daemon> = self.daemons.iter().collect();
        committed(&daemons, || self.manifests.put(name, text))
    }

    /// Takes a file back, which concerns these nodes.
    fn take_back(&self, name: &str, nodes: &[usize]) -> Result<(), Error> {
        let daemons: Vec<&Daemon> = nodes.iter().map(|node| &self.daemons[*node]).collect();
        committed(&daemons, || self.manifests.remove(name))
    }
}

/// What the daemons said last tells why a test failed.
impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for daemon in &self.daemons {
            let said = daemon.stderr();
            let last: Vec<&str> = said.lines().rev().take(12).collect();
            for line in last.into_iter().rev() {
                println!("{}: {line}", daemon.pid());
            }
        }
    }
}

fn cluster_ips(number: u16) -> [IpAddr; 2] {
    let last = u8::try_from(number).unwrap();
    [
        [10, 96, 0, last].into(),
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, number].into(),
    ]
}

/// Makes a change that denies flows, and takes it back. Each must have seen its last byte, or the last answer to a keepalive,
/// within [`LIFE`].
///
/// Where the machine stands still, the daemons do too, and that is none of their doing: such a round is tried again.
fn die(
    stage: &mut Stage,
    what: &str,
    open: impl Fn(&mut Stage) -> Result<Vec<Flow>, Error>,
    change: impl Fn(&Stage) -> Result<(), Error>,
    undo: impl Fn(&Stage) -> Result<(), Error>,
) -> Result<(), Error> {
    for round in 1..=ROUNDS {
        let flows = open(stage)?;
        let started = Instant::now();
        change(stage)?;
        let stall = watch(&flows, started);
        let counts = stall <= STALL || round == ROUNDS;
        if counts {
            assert_dead(what, &flows, started);
        } else {
            println!("{what}: once more, for {stall:?} this thread did not run");
        }
        drop(flows);
        undo(stage)?;
        if counts {
            break;
        }
    }
    Ok(())
}

/// Waits until what becomes of flows after a change must have shown; the longest time that this thread had to wait meanwhile
/// until it ran again.
fn watch(flows: &[Flow], started: Instant) -> Duration {
    let given_up = || {
        flows
            .iter()
            .all(|f| !f.only_keeps_alive() || f.timed_out().is_some())
    };
    let (mut last, mut longest) = (started, Duration::ZERO);
    while started.elapsed() < LIFE + WATCH
        || (!given_up() && started.elapsed() < LIFE + UNTIL_TIMEOUT + WATCH)
    {
        sleep(Duration::from_millis(2));
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

fn assert_dead(what: &str, flows: &[Flow], started: Instant) {
    let end = |flow: &Flow| {
        if flow.only_keeps_alive() {
            let timed_out = flow.timed_out().unwrap_or_else(Instant::now);
            return (timed_out - started).saturating_sub(UNTIL_TIMEOUT);
        }
        let last = flow.last().unwrap_or(started);
        last.saturating_duration_since(started)
    };
    let seen: Vec<Duration> = flows.iter().map(end).collect();
    let alive = flows.iter().zip(&seen).filter(|(_, at)| **at > LIFE);
    let alive: Vec<&str> = alive.map(|(flow, _)| flow.name()).collect();
    let mut ends = seen.clone();
    ends.sort_unstable();
    println!(
        "{what}: {} connections dead after {:?} (median), {:?} (last)",
        flows.len(),
        ends[ends.len() / 2],
        ends[ends.len() - 1],
    );
    assert!(alive.is_empty(), "{what}: alive are {alive:#?}");
}

/// Asserts that every flow goes on.
fn live(flows: &[Flow]) -> Result<(), Error> {
    flows
        .iter()
        .try_for_each(|flow| flow.wait_until_alive(PATIENCE))
}

#[test]
fn what_is_denied_is_dead_within_a_second_and_all_else_lives() -> Result<(), Error> {
    let mut stage = Stage::new("on")?;
    let keepers = stage.open("shop/keeper")?;
    let resting = flow::resting(&stage.lab, "shop/keeper", ["shop/api", "shop/db"], RESTING)?;
    // A node reaches its own pods, whatever the policies.
    let first = stage.lab.node("node-1")?;
    let ends = Ends {
        to: stage.lab.pod("shop/api")?.addresses()[0],
        port: ECHO,
        protocol: Protocol::Tcp,
    };
    let kubelet = [Flow::start(
        &first,
        "the node itself".to_owned(),
        ends,
        Talk::Asks,
    )?];
    let from_client = |stage: &mut Stage| stage.open("dev/client");
    let put = |stage: &Stage, name: &str, text: &str| stage.manifests.put(name, text);
    let labelled = client("role: client").to_string();

    die(
        &mut stage,
        "a policy made",
        from_client,
        |stage| put(stage, "policy.yaml", &only(KEEPER)),
        |stage| stage.take_back("policy.yaml", &[0, 1]),
    )?;

    stage.settle("policy.yaml", &both())?;
    die(
        &mut stage,
        "a policy changed",
        from_client,
        |stage| put(stage, "policy.yaml", &only(KEEPER)),
        |stage| stage.settle("policy.yaml", &both()),
    )?;

    let other = client("role: other").to_string();
    die(
        &mut stage,
        "a pod relabelled",
        from_client,
        |stage| put(stage, "client.yaml", &other),
        |stage| stage.settle("client.yaml", &labelled),
    )?;

    let (dev, ops) = (namespace("dev", "team: dev"), namespace("dev", "team: ops"));
    die(
        &mut stage,
        "a namespace relabelled",
        from_client,
        |stage| put(stage, "dev.yaml", &ops),
        |stage| stage.settle("dev.yaml", &dev),
    )?;

    let heir = PodManifest::new("dev/heir", 1, 3, "role: heir").to_string();
    die(
        &mut stage,
        "an address reused",
        from_client,
        |stage| put(stage, "client.yaml", &heir),
        |stage| stage.settle("client.yaml", &labelled),
    )?;

    die(
        &mut stage,
        "a pod gone",
        from_client,
        |stage| stage.manifests.remove("client.yaml"),
        |stage| stage.settle("client.yaml", &labelled),
    )?;

    let closed = policy(
        "dev/closed",
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    );
    die(
        &mut stage,
        "the client's own policy",
        from_client,
        |stage| put(stage, "closed.yaml", &closed),
        |stage| stage.take_back("closed.yaml", &[0]),
    )?;

    stage.settle("policy.yaml", &only(KEEPER))?;
    let wiped = |stage: &mut Stage| {
        // What is looked for after the change before is looked for by then.
        sleep(LIFE);
        for daemon in &stage.daemons {
            daemon.signal(Signal::SIGSTOP)?;
        }
        for node in stage.lab.nodes() {
            node.netns().nft("delete table inet selvedge")?;
        }
        stage.open("dev/client")
    };
    die(
        &mut stage,
        "drift repaired",
        wiped,
        |stage| {
            let mut daemons = stage.daemons.iter();
            daemons.try_for_each(|daemon| daemon.signal(Signal::SIGCONT))
        },
        |_| Ok(()),
    )?;

    let said: String = stage.daemons.iter().map(Daemon::stderr).collect();
    for part in [
        "ended connections that are denied now: ",
        " (dev/client) to ",
        " (shop/db)",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let started_anew = |stage: &mut Stage| {
        for daemon in &stage.daemons {
            daemon.terminate(PATIENCE)?;
        }
        for node in stage.lab.nodes() {
            stage::selvedge(node)?.arg("cleanup").run()?;
        }
        let flows = stage.open("dev/client")?;
        let started = Instant::now();
        stage.start()?;
        println!("daemons started in {:?}", started.elapsed());
        Ok(flows)
    };
    die(
        &mut stage,
        "a first commit",
        started_anew,
        |_| Ok(()),
        |_| Ok(()),
    )?;

    live(&keepers)?;
    live(&kubelet)?;
    flow::answer(&resting)
}

#[test]
fn without_revocation_connections_go_on() -> Result<(), Error> {
    let stage = Stage::new("off")?;
    let flows = stage.open("dev/client")?;
    stage.settle("policy.yaml", &only(KEEPER))?;
    sleep(LIFE);
    live(&flows)
}
