//! Absurd input: what is under a limit works, what is over it closes what it concerns, and neither takes long.
//!
//! The times are printed; what they are held against is far above, for machines that have other work.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a test may stop

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge::cluster::Text;
use selvedge::cluster::object::{Event, Object};
use selvedge::cluster::port::Protocol;
use selvedge::compile::{Compiler, Host};
use selvedge::index::Index;
use selvedge::limits::{BLOCKS, MESSAGE, NAMED, PROBLEMS, VALUES, WAYS};
use selvedge::policy::Policy;
use selvedge::source::{decode, document};
use selvedge::verdict::{Connection, Transport, evaluate};
use selvedge_nft::{Dataplane, Fake, IfName, diff};
use serde_json::{Value, json};

/// What any one step may take, on a busy machine and without much optimisation.
const PATIENCE: Duration = Duration::from_secs(30);

fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = step();
    let took = started.elapsed();
    println!("{what}: {took:?}");
    assert!(took < PATIENCE, "{what} took {took:?}");
    result
}

fn object(value: &Value) -> Object {
    let mut items = decode::objects(value);
    assert_eq!(items.len(), 1);
    items.remove(0).result.unwrap().object
}

fn policy(spec: Value) -> Arc<Policy> {
    let value = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "p"}, "spec": spec,
    });
    match object(&value) {
        Object::Policy(policy) => policy,
        other => panic!("it became {other:?}"),
    }
}

fn pod(name: &str, host: u8, labels: Value, ports: Value) -> Object {
    object(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": ports}]},
        "status": {"podIPs": [{"ip": format!("10.244.1.{host}")}]},
    }))
}

/// A node with a pod `web`, which the policy may be about.
struct Node {
    index: Index,
    compiler: Compiler,
    kernel: Fake,
}

impl Node {
    fn new() -> Self {
        let host = Host::new(IfName::new("cni0").unwrap(), []);
        let mut index = Index::new();
        index.apply(Event::Apply(object(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
        }))));
        index.apply(Event::Apply(pod(
            "web",
            2,
            json!({"app": "web"}),
            json!([]),
        )));
        Self {
            index,
            compiler: Compiler::new(Text::from("node-1"), host),
            kernel: Fake::new(),
        }
    }

    fn apply(&mut self, object: Object) {
        self.index.apply(Event::Apply(object));
        let ruleset = self.compiler.update(&mut self.index);
        let transaction = diff(&self.kernel.ruleset(), &ruleset);
        self.kernel.commit(&transaction).unwrap();
    }

    /// Whether `web` can be reached from an address.
    fn reached(&self, from: [u8; 4], port: u16) -> bool {
        let from = IpAddr::from(from);
        let transport = Transport::new(Protocol::Tcp, port);
        let connection = Connection::new(from, Ipv4Addr::new(10, 244, 1, 2).into(), transport);
        evaluate(&self.index, &connection.unwrap()).allowed()
    }
}

fn only_problem(policy: &Policy) -> String {
    let [problem] = policy.problems.as_slice() else {
        panic!("{} problems", policy.problems.len());
    };
    problem.to_string()
}

#[test]
fn a_hundred_thousand_ports_are_as_many_ranges_as_there_can_be() {
    let ports = (0..100_000).map(|n| json!({"port": 1 + n * 2 % 65_534}));
    let spec = json!({"podSelector": {}, "ingress": [{"ports": ports.collect::<Value>()}]});
    let policy = timed("100,000 ports read", || policy(spec));
    assert!(policy.problems.is_empty());
    let mut node = Node::new();
    timed("100,000 ports in force", || {
        node.apply(Object::Policy(policy))
    });
    assert!(node.reached([192, 0, 2, 1], 81) && !node.reached([192, 0, 2, 1], 82));
}

/// A policy that allows 192.0.2.0/24, and in another rule 20.0.0.0/8 with so many exceptions, of every other address.
fn exceptions(count: usize) -> Arc<Policy> {
    let first = 20_u32 << 24;
    let except: Vec<String> = (0..u32::try_from(count).unwrap())
        .map(|n| format!("{}/32", Ipv4Addr::from_bits(first + n * 2)))
        .collect();
    policy(json!({"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        {"from": [{"ipBlock": {"cidr": "20.0.0.0/8", "except": except}}]},
    ]}))
}

#[test]
fn blocks_are_taken_up_to_their_number_and_one_that_is_beyond_matches_nothing() {
    let mut node = Node::new();
    let most = BLOCKS - 2;
    let under = timed("100,000 blocks read", || exceptions(most));
    assert!(under.problems.is_empty());
    timed("100,000 blocks in force", || {
        node.apply(Object::Policy(under))
    });
    assert!(!node.reached([20, 0, 0, 2], 80) && node.reached([20, 0, 0, 1], 80));

    for (what, count) in [("one more", most + 1), ("a million", 1_000_000)] {
        let over = timed(&format!("{what} read"), || exceptions(count));
        assert_eq!(
            only_problem(&over),
            "spec.ingress[1].from[0].ipBlock: with it the policy has more than 100000 address blocks and exceptions; this peer matches nothing"
        );
        timed(&format!("{what}, closed"), || {
            node.apply(Object::Policy(over))
        });
        assert!(!node.reached([20, 0, 0, 1], 80) && node.reached([192, 0, 2, 1], 80));
    }
}

/// A policy with so many rules of one way each; the last one allows port 65,535 alone.
fn rules(count: usize) -> Arc<Policy> {
    let rule = |n: usize| {
        let selector = json!({"matchLabels": {"n": n.to_string()}});
        json!({"from": [{"podSelector": selector}]})
    };
    let last = json!({"ports": [{"port": 65_535}]});
    let rules = (1..count).map(rule).chain([last]);
    policy(json!({"podSelector": {}, "ingress": rules.collect::<Value>()}))
}

#[test]
fn rules_have_so_many_ways_and_one_that_has_more_allows_nothing() {
    let mut node = Node::new();
    let under = rules(WAYS);
    assert!(under.problems.is_empty());
    timed("2,000 selectors in force", || {
        node.apply(Object::Policy(under))
    });
    assert!(node.reached([192, 0, 2, 1], 65_535));
    let over = rules(WAYS + 1);
    assert_eq!(
        only_problem(&over),
        "spec.ingress[2000]: with it the policy has more than 2000 ways to meet its ingress rules; this rule allows nothing"
    );
    node.apply(Object::Policy(over));
    assert!(!node.reached([192, 0, 2, 1], 65_535));

    // Selectors and names together, in one rule.
    let from = |count: usize| -> Value {
        let selector = |n: usize| json!({"podSelector": {"matchLabels": {"n": n.to_string()}}});
        (0..count).map(selector).collect()
    };
    let ports: Value = (0..50).map(|n| json!({"port": format!("p{n}")})).collect();
    let product = |count| {
        policy(json!({"podSelector": {}, "ingress": [{"from": from(count), "ports": ports}]}))
    };
    assert!(product(40).problems.is_empty());
    let over = product(41);
    assert!(only_problem(&over).contains("more than 2000 ways"));
    timed("2,050 ways, closed", || node.apply(Object::Policy(over)));
}

/// `In` so many values, of which no other selector has any.
fn values(key: &str, from: usize, count: usize) -> Value {
    let values: Value = (from..from + count)
        .map(|n| json!(format!("v{n}")))
        .collect();
    json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]})
}

#[test]
fn values_of_namespaces_times_values_of_pods_are_not_each_looked_for() {
    // Each of the peers fits in itself: 64 values are looked for one by one, 64 times 64 are not.
    let peers = (0..VALUES / 128).map(|n| {
        json!({"namespaceSelector": values("team", n * 64, 64), "podSelector": values("app", n * 64, 64)})
    });
    let spec = json!({"podSelector": {}, "ingress": [{"from": peers.collect::<Value>()}]});
    let under = policy(spec);
    assert!(under.problems.is_empty());
    let mut node = Node::new();
    node.apply(Object::Policy(under));
    // A pod is found by any of its values all the same.
    let labels = json!({"app": "v70"});
    node.apply(object(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "v70"}},
    })));
    node.apply(pod("peer", 3, labels, json!([])));
    assert!(node.reached([10, 244, 1, 3], 80));
}

#[test]
fn values_times_named_ports_are_bounded_and_what_they_lack_is_told_shortly() {
    let ports = |count: usize| -> Value {
        (0..count)
            .map(|n| json!({"port": format!("p{n}")}))
            .collect()
    };
    let spec = |count: usize| {
        let mut subject = values("app", 0, VALUES - 1);
        subject["matchExpressions"][0]["values"][0] = json!("web");
        json!({"podSelector": subject, "ingress": [{"ports": ports(count)}]})
    };
    let over = policy(spec(NAMED / VALUES + 1));
    assert_eq!(
        only_problem(&over),
        "spec.ingress[0]: with it the policy has more than 500000 values times named ports in its ingress rules; this rule allows nothing"
    );
    let mut node = Node::new();
    let under = policy(spec(NAMED / VALUES));
    assert!(under.problems.is_empty());
    timed("25 named ports of 19,999 values in force", || {
        node.apply(Object::Policy(under))
    });
    let warnings = node.compiler.warnings();
    assert_eq!(warnings.len(), NAMED / VALUES);
    let longest = warnings.iter().map(|line| line.chars().count()).max();
    assert!(longest <= Some(MESSAGE), "{longest:?}");

    // So many lines at most, and how many more there would be.
    let spec = json!({"podSelector": {}, "ingress": [{"ports": ports(1_500)}]});
    node.apply(Object::Policy(policy(spec)));
    let warnings = node.compiler.warnings();
    assert_eq!(warnings.len(), PROBLEMS + 1);
    let more = "NetworkPolicy shop/p: 1400 more of its named ports match nothing";
    assert!(warnings.iter().any(|line| line == more));
}

/// A pod of one family has its ports in one.
#[test]
fn what_one_family_meets_is_met() {
    let mut node = Node::new();
    node.apply(object(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
    })));
    let labels = json!({"app": "web"});
    let ports = json!([{"name": "http", "containerPort": 80}]);
    node.apply(pod("web", 3, labels, ports));
    let spec = |port: &str| json!({"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]});
    node.apply(Object::Policy(policy(spec("http"))));
    assert_eq!(node.compiler.warnings(), [""; 0]);
    node.apply(Object::Policy(policy(spec("https"))));
    assert_eq!(node.compiler.warnings().len(), 1);
}

#[test]
fn a_selector_has_so_many_values_and_one_that_has_more_selects_nobody() {
    let selector = |count: usize| {
        let values: Vec<String> = (1..count)
            .map(|n| n.to_string())
            .chain(["web".to_owned()])
            .collect();
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": values}]})
    };
    let peer =
        |count| json!({"podSelector": selector(count), "namespaceSelector": selector(count)});
    let mut node = Node::new();
    let spec = json!({"podSelector": {}, "ingress": [{"from": [peer(VALUES / 2)]}]});
    let under = policy(spec);
    assert!(under.problems.is_empty());
    timed("20,000 values in force", || {
        node.apply(Object::Policy(under))
    });

    let spec =
        json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": selector(1_000_000)}]}]});
    let over = timed("a million values read", || policy(spec));
    assert_eq!(
        only_problem(&over),
        "spec.ingress[0].from[0].podSelector.matchExpressions[0]: with it the policy has more than 20000 values in its selectors; this peer matches nothing"
    );

    // A subject that can't be told is every pod that it may mean, and they are allowed nothing.
    let spec = json!({"podSelector": selector(1_000_000), "ingress": [{}]});
    node.apply(Object::Policy(policy(spec)));
    assert!(!node.reached([192, 0, 2, 1], 80));
}

#[test]
fn a_pod_may_have_ten_thousand_ports_and_megabytes_of_labels() {
    let ports: Value = (0..10_000)
        .map(|n| json!({"name": format!("p{n}"), "containerPort": n + 1}))
        .collect();
    let labels: Value = (0..100_000)
        .map(|n| {
            (
                format!("example.com/label-{n}"),
                json!(format!("value-{n}")),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let big = timed("10,000 ports and 4 MiB of labels read", || {
        pod("big", 3, labels, ports)
    });
    let mut node = Node::new();
    node.apply(Object::Policy(policy(json!({
        "podSelector": {}, "ingress": [{"ports": [{"port": "p7"}]}],
    }))));
    timed("10,000 ports and 4 MiB of labels in force", || {
        node.apply(big)
    });
}

#[test]
fn so_many_problems_are_told_and_the_rest_counted() {
    let bad: Value = (0..100_000)
        .map(|_| json!({"ipBlock": {"cidr": "x"}}))
        .collect();
    let policy = policy(json!({"podSelector": {}, "ingress": [{"from": bad}]}));
    assert_eq!(policy.problems.len(), PROBLEMS + 1);
    let last = policy.problems.last().unwrap().to_string();
    assert!(last.contains("99900 more"), "{last}");
}

#[test]
fn deep_nesting_and_aliases_are_errors() {
    for depth in [1_000, 100_000, 1_000_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let read = timed(&format!("YAML {depth} deep"), || document::yaml(&deep));
        assert!(read.iter().all(Result::is_err), "{depth}");
        let read = timed(&format!("JSON {depth} deep"), || document::json(&deep));
        assert!(read.iter().all(Result::is_err), "{depth}");
    }
    let mut bomb = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
    for n in 1..30 {
        let refs = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    let read = timed("an alias bomb", || document::yaml(&bomb));
    assert!(read.iter().all(Result::is_err));
}
