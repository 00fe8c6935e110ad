//! A thousand policy edits in a row, under traffic: no allowed flow loses a packet to them, and no denied connection
//! gets through.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use selvedge::cluster::Text;
use selvedge::compile::{compile, tables};
use selvedge_lab::stage::{self, Manifests, PodManifest, committed, namespace, node, policy};
use selvedge_lab::{Connects, Error, Lab, Node, Pod, Probe, Protocol, TcpFlow, UdpStream};
use selvedge_nft::{Dataplane, DataplaneError, Kernel, Ownership};

const EDITS: usize = 1000;

/// Shorter than TCP's first retransmission (1 s): a handshake that lost a segment counts as denied.
const WINDOW: Duration = Duration::from_millis(900);
const PACE: Duration = Duration::from_millis(10);

/// The servers, by a label that two nodes' pods have: each edit concerns both nodes.
const SERVERS: &str = "podSelector: {matchLabels: {role: server}}";

/// What stays: everyone in shop is isolated, web and the servers are who they are.
fn fixed() -> String {
    let deny = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
    let tiers = ["a", "b"].map(|tier| {
        let spec = "{podSelector: {matchLabels: {tier: TIER}}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}";
        policy(&format!("shop/tier-{tier}"), &spec.replace("TIER", tier))
    });
    node(1)
        + &node(2)
        + &namespace("shop", "team: shop")
        + &namespace("dev", "team: dev")
        + &policy("shop/deny", deny)
        + &tiers.concat()
        + &PodManifest::new("shop/web", 1, 2, "app: web").to_string()
        + &PodManifest::new("dev/stranger", 1, 4, "app: web").to_string()
        + &PodManifest::new("dev/sink", 1, 5, "role: server").to_string()
        + &PodManifest::new("dev/other", 2, 3, "app: web").to_string()
}

/// The servers, whose tier changes which policies they have.
fn servers(edit: usize) -> String {
    let tier = if edit.is_multiple_of(2) { "a" } else { "b" };
    let pod = |name, node, host, app| {
        let labels = format!("role: server, app: {app}, tier: {tier}");
        PodManifest::new(name, node, host, &labels)
            .ports("{name: http, containerPort: 80}, {name: http-udp, containerPort: 80, protocol: UDP}")
            .to_string()
    };
    pod("shop/api", 1, 3, "api") + &pod("shop/db", 2, 2, "db")
}

/// Pods that come and go beside them, as peers and as subjects.
fn fleet(edit: usize) -> String {
    let pods = (0..12).map(|n| {
        let labels = if n % 3 == 0 {
            "app: web"
        } else {
            "role: server, tier: a"
        };
        // Another address at each edit, and so another pod.
        let host = 100 + (edit + n * 13) % 100;
        let node = if n % 2 == 0 { 1 } else { 2 };
        let name = format!("shop/fleet-{host}-{node}");
        let host = u8::try_from(host).unwrap_or(u8::MAX);
        PodManifest::new(&name, node, host, labels).to_string()
    });
    pods.collect()
}

/// Policies that let web in to the servers, always, and each time by other rules, sets, chains or policies.
fn ingress(edit: usize) -> String {
    let noise = format!(
        "{{from: [{{ipBlock: {{cidr: 203.0.113.{}/32}}}}], ports: [{{port: {}}}]}}",
        edit % 250,
        1000 + edit
    );
    let web = "from: [{podSelector: {matchLabels: {app: web}}}]";
    let both = "ports: [{port: 80}, {port: 80, protocol: UDP}]";
    let rule = match (edit / 5) % 6 {
        0 => format!("{{{web}}}"),
        1 => format!(
            "{{{web}, ports: [{{port: 80}}, {{port: 80, protocol: UDP}}, {{port: {}}}]}}",
            2000 + edit
        ),
        2 => format!(
            "{{{web}, ports: [{{port: 70, endPort: 90}}, {{port: 75, endPort: 85, protocol: UDP}}]}}"
        ),
        3 => format!("{{{web}, ports: [{{port: http}}, {{port: http-udp, protocol: UDP}}]}}"),
        4 => format!(
            "{{from: [{{ipBlock: {{cidr: 10.244.1.2/32}}}}, {{ipBlock: {{cidr: 'fd00:10:244:1::2/128'}}}}], {both}}}"
        ),
        _ => format!(
            "{{from: [{{namespaceSelector: {{matchLabels: {{team: shop}}}}, podSelector: {{matchExpressions: [{{key: app, operator: In, values: [web, x{edit}]}}]}}}}], {both}}}"
        ),
    };
    match (edit / 30) % 3 {
        0 => policy(
            "shop/allow",
            &format!("{{{SERVERS}, ingress: [{rule}, {noise}]}}"),
        ),
        1 => {
            policy("shop/allow", &format!("{{{SERVERS}, ingress: [{noise}]}}"))
                + &policy(
                    "shop/also",
                    &format!("{{{SERVERS}, ingress: [{noise}, {rule}]}}"),
                )
        }
        // By another policy altogether, about other pods that are the same.
        _ => policy(
            &format!("shop/other-{edit}"),
            &format!(
                "{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [api, db]}}, {{key: role, operator: Exists}}]}}, ingress: [{noise}, {rule}]}}"
            ),
        ),
    }
}

/// What lets web, and servers too, send to the servers, in as many ways.
fn egress(edit: usize) -> String {
    let noise = format!(
        "{{to: [{{ipBlock: {{cidr: 198.51.{}.0/24}}}}]}}",
        edit % 250
    );
    let rule = match (edit / 5) % 4 {
        0 => format!("{{to: [{{{SERVERS}}}]}}"),
        1 => format!("{{to: [{{{SERVERS}}}], ports: [{{port: 80}}, {{port: 80, protocol: UDP}}]}}"),
        2 => "{to: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.5/32]}}, {ipBlock: {cidr: 'fd00:10:244::/47', except: ['fd00:10:244:1::5/128']}}]}".to_owned(),
        _ => format!("{{to: [{{{SERVERS}}}], ports: [{{port: http}}, {{port: http-udp, protocol: UDP}}]}}"),
    };
    policy(
        "shop/send",
        &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{noise}, {rule}]}}"),
    )
}

/// Whole policies that come and go.
fn extra(edit: usize) -> String {
    let policies = (0..3).map(|n| {
        let spec = format!(
            "{{{SERVERS}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: nobody-{n}}}}}}}], ports: [{{port: {}}}]}}]}}",
            3000 + edit
        );
        policy(&format!("shop/extra-{n}-{edit}"), &spec)
    });
    policies.collect()
}

fn edit(manifests: &Manifests, edit: usize) -> Result<(), Error> {
    match edit % 5 {
        0 => manifests.put("ingress.yaml", ingress(edit)),
        1 => manifests.put("fleet.yaml", fleet(edit)),
        2 => manifests.put("egress.yaml", egress(edit)),
        3 => manifests.put("extra.yaml", extra(edit)),
        _ => manifests.put("servers.yaml", servers(edit)),
    }
}

/// Traffic that must pass unharmed from one pod to another.
struct Allowed {
    what: String,
    tcp: TcpFlow,
    udp: UdpStream,
    connects: Connects,
}

impl Allowed {
    fn start(from: &Pod, to: &Pod, address: IpAddr) -> Result<Self, Error> {
        Ok(Self {
            what: format!("{} to {} at {address}", from.name(), to.name()),
            tcp: TcpFlow::start(from, address, 80, PACE)?,
            udp: UdpStream::start(from, address, 80, 100)?,
            connects: Connects::start_with_window(from, address, 80, PACE, WINDOW)?,
        })
    }

    fn stop(self) -> Result<(), Error> {
        let (tcp, udp) = (self.tcp.stop()?, self.udp.stop()?);
        let connects = self.connects.stop()?;
        println!(
            "allowed: {}: TCP messages {} answered {} (retransmitted {:?}, longest stall {:?}); datagrams {} lost {}; \
             handshakes {} completed {} (slowest {:?})",
            self.what,
            tcp.sent,
            tcp.answered,
            tcp.retransmits,
            tcp.longest_stall,
            udp.sent,
            udp.lost(),
            connects.attempts(),
            connects.connected,
            connects.slowest,
        );
        let what = &self.what;
        assert_eq!((tcp.answered, tcp.error), (tcp.sent, None), "{what}");
        assert_eq!(
            (udp.lost(), udp.errors),
            (0, 0),
            "{what}: {:?}",
            udp.missing
        );
        assert_eq!(
            connects.connected,
            connects.attempts(),
            "{what}: {connects:?}"
        );
        assert!(
            tcp.sent > 0 && udp.sent > 0 && connects.attempts() > 0,
            "{what}"
        );
        Ok(())
    }
}

/// Traffic that must not pass at all.
struct Denied {
    what: String,
    udp: UdpStream,
    connects: Connects,
}

impl Denied {
    fn start(from: &Pod, to: &Pod, address: IpAddr) -> Result<Self, Error> {
        Ok(Self {
            what: format!("{} to {} at {address}", from.name(), to.name()),
            udp: UdpStream::start(from, address, 80, 100)?,
            connects: Connects::start_with_window(from, address, 80, PACE, PACE * 30)?,
        })
    }

    fn stop(self) -> Result<(), Error> {
        let (udp, connects) = (self.udp.stop()?, self.connects.stop()?);
        println!(
            "denied: {}: datagrams {} answered {}; handshakes {} completed {}",
            self.what,
            udp.sent,
            udp.answered,
            connects.attempts(),
            connects.connected,
        );
        let what = &self.what;
        assert_eq!((udp.answered, udp.errors), (0, 0), "{what}");
        assert_eq!(connects.denied, connects.attempts(), "{what}: {connects:?}");
        assert!(udp.sent > 0 && connects.attempts() > 0, "{what}");
        Ok(())
    }
}

/// Asks each server by datagrams from ever new ports until told to stop; the answer is how often, and what failed.
fn new_datagrams(
    web: &Pod,
    servers: &[&Pod],
    stop: &AtomicBool,
) -> Result<(usize, Vec<String>), Error> {
    let addresses = servers.iter().flat_map(|pod| pod.addresses());
    let probes: Vec<Probe> = addresses.map(|to| Probe::udp(*to, 80)).collect();
    let (mut asked, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        for (probe, outcome) in probes.iter().zip(web.probe_all(&probes)?) {
            asked += 1;
            if outcome.answered_by().is_none() {
                failed.push(format!("{probe:?}: {outcome}"));
            }
        }
        thread::sleep(PACE);
    }
    Ok((asked, failed))
}

/// Asserts that the kernel holds what the manifests make from nothing.
fn assert_settled(lab: &Lab, node: &Node, manifests: &Manifests) -> Result<(), Error> {
    let host = stage::host_of(lab, node)?;
    let wanted = compile(&manifests.index()?, &Text::from(node.name()), &host);
    let held = node.netns().run(|| Kernel::open()?.read(&tables()))?;
    let held = held.map_err(|error: DataplaneError| Error::Invalid {
        what: error.to_string(),
    })?;
    // The daemon's tables are its own.
    let held = held.with_ownership(Ownership::Anyone);
    assert!(held == wanted, "{} holds another ruleset", node.name());
    Ok(())
}

#[test]
fn a_thousand_edits_cost_no_allowed_packet_and_let_no_other_through() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    manifests.put("fixed.yaml", fixed())?;
    (0..5).try_for_each(|n| edit(&manifests, n))?;
    let lab = manifests.lab()?.build()?;
    let [web, api, db] = lab.pods_named(["shop/web", "shop/api", "shop/db"])?;
    let [stranger, sink, other] = lab.pods_named(["dev/stranger", "dev/sink", "dev/other"])?;
    for server in [&api, &db, &sink] {
        server.listen(Protocol::Tcp, 80)?;
        server.listen(Protocol::Udp, 80)?;
    }
    let (first, second) = (lab.node("node-1")?, lab.node("node-2")?);
    let daemons = [
        stage::daemon(&first, manifests.path())?,
        stage::daemon(&second, manifests.path())?,
    ];
    let both = [&daemons[0], &daemons[1]];

    let mut allowed = Vec::new();
    for to in [&api, &db] {
        for address in to.addresses() {
            allowed.push(Allowed::start(&web, to, *address)?);
        }
    }
    let mut denied = Vec::new();
    // On one node and across, by ingress and (web to sink) by egress.
    for (from, to) in [
        (&stranger, &api),
        (&stranger, &db),
        (&other, &db),
        (&other, &api),
        (&web, &sink),
    ] {
        for address in to.addresses() {
            denied.push(Denied::start(from, to, *address)?);
        }
    }
    let commits = |n: usize| both[n].stderr().matches("committed: ").count();
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let (asked, failed) = thread::scope(|scope| {
        let datagrams = scope.spawn(|| new_datagrams(&web, &[&api, &db], &stop));
        let mut edits = 0;
        let edited = (|| {
            while edits < EDITS || (0..2).any(|n| commits(n) < EDITS) {
                committed(&both, || edit(&manifests, edits + 5))?;
                edits += 1;
            }
            Ok::<_, Error>(())
        })();
        stop.store(true, Ordering::Relaxed);
        let counted = datagrams
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
        edited?;
        println!("{edits} edits in {:?}", started.elapsed());
        counted
    })?;
    println!("commits: {} and {}", commits(0), commits(1));
    println!(
        "allowed: datagrams from new ports {asked}, lost {}",
        failed.len()
    );
    assert!(asked > 0 && failed.is_empty(), "{failed:?}");
    allowed.into_iter().try_for_each(Allowed::stop)?;
    // Each waits a while for late answers.
    thread::scope(|scope| {
        let stops: Vec<_> = denied
            .into_iter()
            .map(|one| scope.spawn(|| one.stop()))
            .collect();
        let results = stops.into_iter().map(|stop| stop.join());
        results
            .map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Result<Vec<()>, Error>>()
    })?;
    for daemon in both {
        let said = daemon.stderr();
        let troubles: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        assert!(troubles.is_empty(), "{troubles:#?}");
    }
    assert_settled(&lab, &first, &manifests)?;
    assert_settled(&lab, &second, &manifests)
}
