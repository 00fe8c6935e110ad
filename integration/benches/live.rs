//! From a write to the API until the kernel has it: the daemon on an API server, in a cluster of 1,000 pods.
//!
//! The clock starts before the request is sent and stops when the kernel tells of the daemon's transaction, so that the
//! API server's own time and the way to the daemon are in it. Design: p99 of at most 20 ms.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use selvedge::compile::tables;
use selvedge_lab::stage::live::Live;
use selvedge_lab::{Connects, Daemon, Error, Netns, Protocol, TcpFlow};
use selvedge_nft::{Dataplane, DataplaneError, Kernel};
use serde_json::{Value, json};

/// Namespaces, and pods in each; every twentieth pod is on the node that is measured.
const NAMESPACES: usize = 20;
const PODS: usize = 50;
const POLICIES: usize = 10;
/// What db serves.
const PORT: u16 = 80;
/// Events of each sort.
const EVENTS: usize = 300;
const TARGET: Duration = Duration::from_millis(20);
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<(), Error> {
    let (mut live, daemon) = cluster()?;
    let witness = Witness::start(&live)?;
    let news = listen(live.node(1).node.netns())?;
    println!(
        "API write to kernel: {} pods in {NAMESPACES} namespaces, {} policies, {} pods on the node, {EVENTS} events of each sort",
        NAMESPACES * PODS,
        NAMESPACES * POLICIES,
        NAMESPACES * PODS / 20,
    );
    println!("{:34} {:>9} {:>9} {:>9}", "", "median", "p99", "longest");
    let mut all = Vec::new();
    for (name, event) in SORTS {
        let mut times = Vec::with_capacity(EVENTS);
        for n in 0..EVENTS {
            while news.try_recv().is_ok() {}
            let started = Instant::now();
            event(&mut live, n)?;
            let heard = news.recv_timeout(PATIENCE).map_err(|_| Error::Timeout {
                what: format!("the kernel to be told of {name} (event {n})"),
                after: PATIENCE,
            })?;
            times.push(heard.duration_since(started));
        }
        print(name, &mut times);
        all.extend(times);
    }
    let p99 = print("all of them", &mut all);
    println!(
        "the daemon took {} for it; its memory at most: {}",
        cpu(&daemon)?,
        memory(&daemon)?
    );
    println!(
        "target: p99 of at most {TARGET:?}: {}",
        verdict(p99 <= TARGET)
    );
    daemon.terminate(PATIENCE)?;
    live.daemon(1)?.terminate(PATIENCE)?;
    witness.stop()
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "FALLS SHORT" }
}

/// Traffic beside it all, which shall notice nothing.
struct Witness {
    flow: TcpFlow,
    allowed: Connects,
    denied: Connects,
}

impl Witness {
    /// web talks to db, which a policy admits; stranger tries to, in vain.
    fn start(live: &Live) -> Result<Self, Error> {
        let [web, db, stranger] = live
            .lab
            .pods_named(["shop/web", "shop/db", "shop/stranger"])?;
        let (to, pace) = (db.ipv4()?, Duration::from_millis(5));
        db.listen(Protocol::Tcp, PORT)?;
        Ok(Self {
            flow: TcpFlow::start(&web, to, PORT, pace)?,
            allowed: Connects::start(&web, to, PORT, pace)?,
            denied: Connects::start(&stranger, to, PORT, pace)?,
        })
    }

    /// Prints what became of it.
    fn stop(self) -> Result<(), Error> {
        let (flow, allowed, denied) =
            (self.flow.stop()?, self.allowed.stop()?, self.denied.stop()?);
        let cut = allowed.attempts() - allowed.connected + u64::from(flow.error.is_some());
        let through = denied.attempts() - denied.denied;
        println!(
            "meanwhile, and over a restart: {} messages of a flow and {} connections that are allowed, {cut} cut; {} that are denied, {through} let through",
            flow.answered,
            allowed.attempts(),
            denied.attempts(),
        );
        println!(
            "target: nothing cut, nothing let through: {}",
            verdict(cut == 0 && through == 0)
        );
        Ok(())
    }
}

type Event = fn(&mut Live, usize) -> Result<(), Error>;

/// What happens; each changes the node's ruleset.
const SORTS: [(&str, Event); 5] = [
    ("a remote pod relabelled", |live, n| label(live, "p-1", n)),
    ("a local pod relabelled", |live, n| label(live, "p-0", n)),
    ("a remote pod's new address", |live, n| {
        let namespace = live.namespace("ns-0")?;
        let address = IpAddr::from([10, 244, 3, if n % 2 == 0 { 254 } else { 253 }]);
        live.cluster
            .report_addresses(&namespace, "p-4", &[address])?;
        Ok(())
    }),
    ("a namespace relabelled", |live, n| {
        let namespace = live.namespace("ns-1")?;
        let labels = json!({"tier": if n % 2 == 0 { "front" } else { "back" }});
        live.cluster.label_namespace(&namespace, &labels)
    }),
    ("a policy changed", |live, n| {
        let port = 8000 + n % 2;
        live.policy("ns-0/policy-0", &spec("app-0", "front", port + 1))
    }),
];

/// Gives a pod of the first namespace another app, so that it comes into some sets and leaves others.
fn label(live: &mut Live, pod: &str, n: usize) -> Result<(), Error> {
    let namespace = live.namespace("ns-0")?;
    let app = format!("app-{}", 2 - n % 2);
    live.cluster
        .label_pod(&namespace, pod, &json!({"app": app}))
}

/// Pods of an app accept their namespace's other apps, and namespaces of a tier, on a port.
fn spec(app: &str, tier: &str, port: usize) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": app}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [
                {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["app-1", "app-4"]}]}},
                {"namespaceSelector": {"matchLabels": {"tier": tier}}},
            ],
            "ports": [{"port": port}],
        }],
        "egress": [{"to": [{"namespaceSelector": {}}]}],
    })
}

/// The cluster, and the daemon of its first node.
fn cluster() -> Result<(Live, Daemon), Error> {
    let pods: [_; 3] = [
        ("shop/web", 1, &[("app", "web")][..]),
        ("shop/db", 1, &[("app", "db")]),
        ("shop/stranger", 1, &[("app", "stranger")]),
    ];
    let mut live = Live::new(3, &pods)?;
    let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    let db = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": from});
    live.policy("shop/db", &db)?;
    for namespace in 0..NAMESPACES {
        for policy in 0..POLICIES {
            let spec = spec(&format!("app-{policy}"), "front", 8000 + policy);
            live.policy(&format!("ns-{namespace}/policy-{policy}"), &spec)?;
        }
        for pod in 0..PODS {
            let node = if pod % 20 == 0 { 1 } else { 2 + pod % 2 };
            let number = namespace * PODS + pod;
            // Four nodes' worth of addresses a node, so that each is one pod's alone.
            let octets = [node * 4 + number / 250, number % 250 + 2];
            let [c, d] = octets.map(|octet| u8::try_from(octet).unwrap_or(u8::MAX));
            let address = IpAddr::from([10, 244, c, d]);
            let app = format!("app-{}", pod % POLICIES);
            let name = format!("ns-{namespace}/p-{pod}");
            live.report_pod(&name, node, &[("app", &app)], &[address])?;
        }
    }
    let daemon = live.daemon(1)?;
    Ok((live, daemon))
}

/// When the kernel tells of a transaction that changed our tables.
fn listen(netns: &Netns) -> Result<Receiver<Instant>, Error> {
    let (sender, receiver) = channel();
    let (ready, opened) = channel();
    let netns = netns.clone();
    thread::spawn(move || netns.run(move || hear(&sender, &ready)));
    match opened.recv() {
        Ok(Ok(())) => Ok(receiver),
        Ok(Err(error)) => Err(Error::Timeout {
            what: format!("news of nftables: {error}"),
            after: Duration::ZERO,
        }),
        Err(_) => Err(Error::Timeout {
            what: "a thread that listens".to_owned(),
            after: Duration::ZERO,
        }),
    }
}

fn hear(sender: &Sender<Instant>, ready: &Sender<Result<(), DataplaneError>>) {
    let opened = Kernel::open().and_then(|mut kernel| {
        kernel.listen(tables())?;
        Ok(kernel)
    });
    let mut kernel = match opened {
        Ok(kernel) => kernel,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    while let Some(news) = kernel.news() {
        let mut fds = [PollFd::new(news.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let now = Instant::now();
        if !kernel.interference().is_empty() && sender.send(now).is_err() {
            return;
        }
    }
}

fn proc_file(daemon: &Daemon, name: &str) -> Result<String, Error> {
    let path = format!("/proc/{}/{name}", daemon.pid());
    std::fs::read_to_string(&path).map_err(|source| Error::Io { what: path, source })
}

/// The CPU time that a daemon has taken since its start.
fn cpu(daemon: &Daemon) -> Result<String, Error> {
    let text = proc_file(daemon, "schedstat")?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    let time = Duration::from_nanos(nanoseconds.unwrap_or_default());
    Ok(format!("{:.2} s of CPU time", time.as_secs_f64()))
}

/// The most memory that a daemon has had resident (VmHWM).
fn memory(daemon: &Daemon) -> Result<String, Error> {
    let text = proc_file(daemon, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}

/// Prints the distribution of some times; the answer is their p99.
fn print(name: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share).div_ceil(100).saturating_sub(1));
    let [median, p99, longest] =
        [50, 99, 100].map(|share| at(share).copied().unwrap_or(Duration::MAX));
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    println!(
        "{name:34} {:>9} {:>9} {:>9}",
        ms(median),
        ms(p99),
        ms(longest)
    );
    p99
}
