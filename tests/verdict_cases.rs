//! Each case in `tests/cases` is a cluster (`in.yaml`) and what may pass in it (`verdicts.yaml`), written down from the
//! API's text. Both evaluators must say so, for every address family that the two ends have in common.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge::cluster::Text;
use selvedge::cluster::object::Pod;
use selvedge::compile::{Host, compile};
use selvedge::index::Index;
use selvedge::policy::PolicyKey;
use selvedge::source::Files;
use selvedge::verdict::endpoint::addresses;
use selvedge::verdict::journey::{NodeRules, journey};
use selvedge::verdict::packet::Packet;
use selvedge::verdict::{Connection, Decision, Transport, Verdict, evaluate};
use selvedge_nft::{IfName, Ruleset};
use serde::Deserialize;

#[path = "support/case_host.rs"]
mod case_host;

/// One line of a `verdicts.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// `NAMESPACE/POD` or an address.
    from: String,
    /// Likewise.
    to: String,
    /// `tcp/8080`, `udp/53`, `sctp/9000` or `icmp`.
    port: String,
    allowed: bool,
    /// `NAMESPACE/NAME` of a policy that allows the connection or, where it is denied, isolates.
    by: Option<String>,
    /// That the ruleset denies it for what the host knows, which is no matter of policies.
    host: Option<ByHost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ByHost {
    Denies,
}

/// The cases about what can't be read; any other must be read without a complaint.
const WITH_PROBLEMS: [&str; 3] = ["07-named-ports", "14-stored-cidrs", "16-closed-by-mistake"];

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

fn index(case: &Path) -> Index {
    let reading = Files::new(case.join("in.yaml"))
        .read(Duration::ZERO)
        .unwrap();
    let problems = &reading.snapshot.problems;
    let expected = WITH_PROBLEMS.iter().any(|name| case.ends_with(name));
    assert_eq!(
        !problems.is_empty(),
        expected,
        "{}: {problems:#?}",
        case.display()
    );
    reading.snapshot.index()
}

fn expected(case: &Path) -> Vec<Expected> {
    let text = std::fs::read_to_string(case.join("verdicts.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

fn interface(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

/// Each node's ruleset, and what its host knows.
type Nodes = BTreeMap<Text, (Ruleset, Host)>;

fn rulesets(case: &Path, index: &Index) -> Nodes {
    let plain = Host::new(interface("cni0"), [interface("veth0")]);
    let host = |node: &Text| match &**node {
        "node-1" => case_host::complete(plain.clone(), case),
        _ => plain.clone(),
    };
    let nodes = index.nodes().map(|node| node.name.clone());
    nodes
        .map(|node| {
            let host = host(&node);
            (node.clone(), (compile(index, &node, &host), host))
        })
        .collect()
}

fn ends(index: &Index, text: &str) -> Vec<IpAddr> {
    if let Ok(address) = text.parse() {
        return vec![address];
    }
    let (namespace, name) = text.split_once('/').unwrap();
    let pod: Option<&Pod> = index.pod(namespace, name);
    let pod = pod.unwrap_or_else(|| panic!("there is no pod {text}"));
    addresses(index, pod).iter().collect()
}

/// The policies that a verdict rests on.
fn policies(verdict: &Verdict) -> Vec<&PolicyKey> {
    let decisions = [&verdict.egress, &verdict.ingress];
    let policies = decisions.into_iter().flat_map(|decision| match decision {
        Decision::Accepted { by } if verdict.allowed() => vec![&by.policy],
        Decision::Refused { by } => vec![&by.policy],
        Decision::Isolated { by } => by.iter().collect(),
        _ => Vec::new(),
    });
    policies.collect()
}

/// The nodes for a packet of a pod that is behind its own port, or else behind one that nothing is known of.
fn nodes(rulesets: &Nodes, from: IpAddr) -> BTreeMap<Text, NodeRules<'_>> {
    let rules = rulesets.iter().map(|(node, (ruleset, host))| {
        let mut attached = host.attached.iter();
        let own = attached.find(|(_, addresses)| addresses.contains(&from));
        let rules = NodeRules {
            ruleset,
            bridge: interface("cni0"),
            port: Some(own.map_or(interface("veth9"), |(port, _)| *port)),
            overlay: interface("flannel.1"),
            uplink: interface("eth0"),
        };
        (node.clone(), rules)
    });
    rules.collect()
}

fn check(index: &Index, rulesets: &Nodes, expected: &Expected) -> Vec<String> {
    let transport: Transport = expected.port.parse().unwrap();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for from in ends(index, &expected.from) {
        let nodes = nodes(rulesets, from);
        for to in ends(index, &expected.to) {
            let Ok(connection) = Connection::new(from, to, transport) else {
                continue;
            };
            asked += 1;
            let verdict = evaluate(index, &connection);
            if verdict.allowed() != expected.allowed {
                wrong.push(format!("{expected:?} on {from}: {verdict:#?}"));
            }
            if let Some(by) = &expected.by {
                let named = |key: &&PolicyKey| format!("{}/{}", key.namespace, key.name) == *by;
                if !policies(&verdict).iter().any(named) {
                    wrong.push(format!("{expected:?} on {from} is by others: {verdict:#?}"));
                }
            }
            let packet = Packet::opening(&connection, 1234).unwrap();
            let journey = journey(index, &nodes, &packet).unwrap();
            if journey.accepted() != (expected.allowed && expected.host.is_none()) {
                wrong.push(format!("{expected:?} on {from}, by the ruleset: {journey}"));
            }
        }
    }
    if asked == 0 {
        wrong.push(format!("{expected:?}: the two have no family in common"));
    }
    wrong
}

#[test]
fn both_evaluators_say_what_is_written_down() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases() {
        let index = index(&case);
        let rulesets = rulesets(&case, &index);
        let all = expected(&case);
        let name = case.file_name().unwrap().display().to_string();
        for line in &all {
            count += 1;
            let lines = check(&index, &rulesets, line);
            wrong.extend(lines.iter().map(|text| format!("{name}: {text}")));
        }
        for allowed in [true, false] {
            if all.iter().all(|line| line.allowed != allowed) {
                wrong.push(format!("{name}: no line is allowed: {allowed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 300, "only {count} lines were checked");
}
