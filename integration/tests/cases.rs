//! The cases of `tests/cases` on real kernels: packets do what `verdicts.yaml` says, nft loads what `render` prints, and
//! it lists the same however it came into the kernel.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use selvedge::cluster::Text;
use selvedge::compile;
use selvedge::index::Index;
use selvedge::verdict::Transport;
use selvedge::verdict::endpoint::addresses;
use selvedge_lab::stage::{binary, host_of, index_of, lab_of, program};
use selvedge_lab::{Host, Lab, Netns, Outcome, PodSpec, Probe, Protocol, probe_all};
use selvedge_nft::{Dataplane, IfName, Kernel, Ruleset, diff};
use serde::Deserialize;

#[path = "../../tests/support/case_host.rs"]
mod case_host;

/// Labs at a time: they wait for silence most of the time.
const AT_ONCE: usize = 4;

/// One line of a `verdicts.yaml`; `tests/verdict_cases.rs` reads the rest of it.
#[derive(Debug, Deserialize)]
struct Expected {
    from: String,
    to: String,
    port: String,
    allowed: bool,
    host: Option<String>,
}

impl Expected {
    fn arrives(&self) -> bool {
        self.allowed && self.host.is_none()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cases() -> Vec<PathBuf> {
    let cases = fs::read_dir(root().join("tests/cases")).unwrap();
    let mut cases: Vec<PathBuf> = cases.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn expected(case: &Path) -> Vec<Expected> {
    let text = fs::read_to_string(case.join("verdicts.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn ends(index: &Index, text: &str) -> Vec<IpAddr> {
    if let Ok(address) = text.parse() {
        return vec![address];
    }
    let (namespace, name) = text.split_once('/').unwrap();
    addresses(index, index.pod(namespace, name).unwrap())
        .iter()
        .collect()
}

/// Addresses that every pod of a bridge shares, or that each has for itself: no host can be told by them. The tests of
/// detours send to them.
fn is_shared(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified() || v4.octets()[3] == 255
        }
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// The hosts of the lab by all their addresses.
fn hosts(lab: &Lab) -> BTreeMap<IpAddr, Host> {
    let mut hosts = BTreeMap::new();
    let mut add = |host: &Host, addresses: &[IpAddr]| {
        hosts.extend(addresses.iter().map(|address| (*address, host.clone())));
    };
    for pod in lab.pods() {
        add(&pod, pod.addresses());
    }
    for node in lab.nodes() {
        add(node, node.addresses());
        for cidr in node.pod_cidrs() {
            // flannel.1 and cni0 have the first two addresses.
            let own: Vec<IpAddr> = match cidr.network() {
                IpAddr::V4(v4) => [0, 1]
                    .map(|n| Ipv4Addr::from_bits(v4.to_bits() + n).into())
                    .into(),
                IpAddr::V6(v6) => [0, 1]
                    .map(|n| Ipv6Addr::from_bits(v6.to_bits() + n).into())
                    .into(),
            };
            add(node, &own);
        }
    }
    for outsider in lab.outsiders() {
        add(outsider, outsider.addresses());
    }
    hosts
}

fn probe(to: IpAddr, transport: Transport) -> (Probe, Option<(Protocol, u16)>) {
    match transport {
        Transport::Tcp(port) => (Probe::tcp(to, port), Some((Protocol::Tcp, port))),
        Transport::Udp(port) => (Probe::udp(to, port), Some((Protocol::Udp, port))),
        Transport::Sctp(port) => (Probe::sctp(to, port), Some((Protocol::Sctp, port))),
        Transport::Icmp => (Probe::icmp(to), None),
        Transport::Other(number) => panic!("protocol {number} is in no case"),
    }
}

/// The addresses of nodes' blocks that no pod is known by, each with its node: pods are made for them.
fn unknown(index: &Index, pairs: &[(&Expected, IpAddr, IpAddr)]) -> BTreeMap<IpAddr, String> {
    let about_hosts = pairs.iter().filter(|(line, ..)| line.host.is_some());
    let addresses = about_hosts.flat_map(|(_, from, to)| [*from, *to]);
    let unknown = addresses.filter(|address| index.owner(*address).is_none());
    let with_node = unknown.filter_map(|address| {
        let mut nodes = index.nodes();
        let node = nodes.find(|node| node.pod_cidrs.iter().any(|net| net.contains(address)));
        Some((address, node?.name.to_string()))
    });
    with_node.collect()
}

/// Programs every node as its daemon would, by what its host knows beside the cluster, too.
fn enforce(lab: &Lab, index: &Index, case: &Path) {
    for node in lab.nodes() {
        let mut host = host_of(lab, node).unwrap();
        if node.name() == "node-1" {
            host = case_host::complete(host, case);
        }
        // The pods of the lab are behind ports of other names.
        let pods = lab.pods();
        let attached = std::mem::take(&mut host.attached).into_values();
        host.attached = attached
            .filter_map(|addresses| {
                let mut pods = pods.iter();
                let pod = pods.find(|pod| pod.addresses().iter().all(|a| addresses.contains(a)))?;
                Some((IfName::new(pod.veth()).unwrap(), addresses))
            })
            .collect();
        let ruleset = compile::compile(index, &Text::from(node.name()), &host);
        program(node, &ruleset).unwrap();
    }
}

/// Sends what a case asks; the answer is where the packets differ from what is written down, and how many were sent.
fn differences(case: &Path) -> (Vec<String>, usize) {
    let index = index_of(&case.join("in.yaml")).unwrap();
    let lines = expected(case);
    let pairs = lines.iter().flat_map(|line| {
        let to = ends(&index, &line.to);
        let from = ends(&index, &line.from).into_iter();
        from.flat_map(move |from| to.clone().into_iter().map(move |to| (line, from, to)))
    });
    let pairs: Vec<(&Expected, IpAddr, IpAddr)> = pairs
        .filter(|(_, from, to)| from.is_ipv4() == to.is_ipv4())
        .filter(|(_, from, to)| !is_shared(*from) && !is_shared(*to))
        .collect();

    let cluster = |address: IpAddr| {
        let in_cidr = |net: &ipnetwork::IpNetwork| net.contains(address);
        let node = |node: &selvedge::cluster::object::Node| {
            node.addresses.contains(&address) || node.pod_cidrs.iter().any(in_cidr)
        };
        index.nodes().any(node)
    };
    let default: [IpAddr; 2] = [
        "192.168.50.200".parse().unwrap(),
        "fd50::200".parse().unwrap(),
    ];
    let mut outside: Vec<IpAddr> = pairs
        .iter()
        .flat_map(|(_, from, to)| [*from, *to])
        .collect();
    outside.retain(|address| !cluster(*address) && !default.contains(address));
    outside.sort_unstable();
    outside.dedup();
    let mut lab = lab_of(&index).outsider("outside", outside);
    for (n, (address, node)) in unknown(&index, &pairs).into_iter().enumerate() {
        let pod = PodSpec::new(&format!("unknown/pod-{n}"), &node).addresses([address]);
        lab = lab.pod_spec(pod);
    }
    let lab = lab.build().unwrap();
    enforce(&lab, &index, case);

    let hosts = hosts(&lab);
    let mut wrong = Vec::new();
    let mut asked = Vec::new();
    for (line, from, to) in pairs {
        let Some(source) = hosts.get(&from) else {
            wrong.push(format!("{line:?}: nobody has {from}"));
            continue;
        };
        let (probe, port) = probe(to, line.port.parse().unwrap());
        if let (Some((protocol, port)), Some(host)) = (port, hosts.get(&to)) {
            host.listen(protocol, port).unwrap();
        }
        asked.push((line, from, to, (source.clone(), probe.from_address(from))));
    }
    let probes: Vec<(Host, Probe)> = asked.iter().map(|(.., probe)| probe.clone()).collect();
    let outcomes = probe_all(&probes).unwrap();
    for ((line, from, to, _), outcome) in asked.iter().zip(outcomes) {
        let receiver = hosts.get(to);
        let right = match &outcome {
            Outcome::Connected { by } => {
                let named = by
                    .as_deref()
                    .zip(receiver)
                    .is_none_or(|(by, host)| by == host.name());
                line.arrives() && named
            }
            Outcome::Refused => line.arrives(),
            // What nobody has cannot answer, allowed or not.
            Outcome::Denied => !line.arrives() || receiver.is_none(),
            Outcome::Failed { .. } => receiver.is_none(),
        };
        if !right {
            wrong.push(format!("{line:?}: {from} -> {to}: {outcome:?}"));
        }
    }
    (wrong, asked.len())
}

#[test]
fn packets_do_what_is_written_down() {
    let queue = Mutex::new(cases());
    let results = Mutex::new((Vec::new(), 0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().pop() } {
                    let (wrong, count) = differences(&case);
                    let name = case.file_name().unwrap().display().to_string();
                    let mut results = results.lock().unwrap();
                    results
                        .0
                        .extend(wrong.iter().map(|text| format!("{name}: {text}")));
                    results.1 += count;
                }
            });
        }
    });
    let (wrong, count) = results.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 300, "only {count} connections were tried");
}

/// What `nft -s list ruleset` says after the namespace was given the ruleset over netlink.
fn over_netlink(ruleset: &Ruleset) -> String {
    let netns = Netns::new("netlink").unwrap();
    netns
        .run(|| {
            Kernel::open()
                .unwrap()
                .commit(&diff(&Ruleset::default(), ruleset))
                .unwrap()
        })
        .unwrap();
    list(&netns)
}

fn list(netns: &Netns) -> String {
    netns
        .command("nft")
        .args(["-s", "list", "ruleset"])
        .run()
        .unwrap()
}

#[test]
fn what_render_prints_loads_and_lists_as_what_run_programs() {
    let mut manifests: Vec<PathBuf> = cases().iter().map(|case| case.join("in.yaml")).collect();
    manifests.push(root().join("examples/shop"));
    for path in manifests {
        let index = index_of(&path).unwrap();
        for node in index.nodes() {
            let netns = Netns::new("text").unwrap();
            let script = netns
                .command(binary().unwrap())
                .arg("render")
                .arg(&path)
                .args(["--node", &node.name, "--bridge", "cni0"])
                .output()
                .unwrap();
            let script = String::from_utf8(script.stdout).unwrap();
            let load = |flags: &[&str]| {
                netns
                    .command("nft")
                    .args(flags)
                    .arg("-")
                    .input(script.as_str())
                    .run()
                    .unwrap()
            };
            load(&["-c", "-f"]);
            load(&["-f"]);
            let host = compile::Host::new(IfName::new("cni0").unwrap(), []);
            let ruleset = compile::compile(&index, &node.name, &host);
            assert_eq!(list(&netns), over_netlink(&ruleset), "{}", path.display());
        }
    }
}
