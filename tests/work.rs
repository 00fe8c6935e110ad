//! What one change looks at doesn't grow with the cluster: the same change is made in a small cluster and in one twenty
//! times as large, with the same pods on the node, and the objects that index, compiler and difference look at are
//! counted.
//!
//! A lookup counts as one object whatever the depth of its tree, which grows with the logarithm; `selvedge_nft`'s own
//! tests count the comparisons within a difference's trees.

#![allow(clippy::unwrap_used)] // a test may stop

use std::sync::Arc;

use selvedge::cluster::Text;
use selvedge::cluster::labels::Labels;
use selvedge::cluster::object::{Event, Namespace, Object, Pod};
use selvedge::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use selvedge::compile::{Compiler, Host, compile};
use selvedge::index::Index;
use selvedge::policy::{Peer, Peers, Policy, PortMatch, Ports};
use selvedge::synthetic::{Cluster, NODE, Shape};
use selvedge::work::{Visited, Work};
use selvedge_nft::{Elements, IfName, Op, Ruleset, Transaction, diff};

const SMALL: Shape = Shape {
    pods: 1_000,
    local_pods: 50,
    policies: 1_000,
    namespaces: 20,
    seed: 7,
};

const LARGE: Shape = Shape {
    pods: 20_000,
    policies: 20_000,
    namespaces: 400,
    ..SMALL
};

fn host() -> Host {
    Host::new(
        IfName::new("cni0").unwrap(),
        [IfName::new("veth0").unwrap()],
    )
}

struct Held {
    index: Index,
    compiler: Compiler,
    ruleset: Ruleset,
    log: Vec<(&'static str, Work, usize)>,
}

impl Held {
    fn new(cluster: &Cluster) -> Self {
        let mut index = Index::new();
        for object in cluster.objects() {
            index.apply(Event::Apply(object));
        }
        let mut compiler = Compiler::new(Text::from(NODE), host());
        let ruleset = compiler.update(&mut index);
        compiler.new_warnings();
        Self {
            index,
            compiler,
            ruleset,
            log: Vec::new(),
        }
    }

    fn step(&mut self, what: &'static str, event: Event) -> Transaction {
        Work::take();
        self.index.apply(event);
        let ruleset = self.compiler.update(&mut self.index);
        self.compiler.new_warnings();
        let transaction = diff(&self.ruleset, &ruleset);
        self.log
            .push((what, Work::take(), operations(&transaction)));
        assert!(
            ruleset == compile(&self.index, &Text::from(NODE), &host()),
            "{what}: not as compiled afresh"
        );
        self.ruleset = ruleset;
        transaction
    }

    fn pod(&mut self, what: &'static str, pod: &Pod) -> Transaction {
        self.step(what, Event::Apply(Object::Pod(pod.clone())))
    }

    fn delete(&mut self, what: &'static str, object: &Object) -> Transaction {
        let key = object.key();
        self.step(what, Event::Delete { key, uid: None })
    }

    fn policy(&mut self, what: &'static str, policy: &Policy) -> Transaction {
        let policy = Object::Policy(Arc::new(policy.clone()));
        self.step(what, Event::Apply(policy))
    }

    fn namespace(&mut self, what: &'static str, namespace: &Namespace) -> Transaction {
        self.step(what, Event::Apply(Object::Namespace(namespace.clone())))
    }
}

/// Operations and elements.
fn operations(transaction: &Transaction) -> usize {
    let ops = transaction.ops.iter();
    ops.map(|op| match op {
        Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => {
            1 + Elements::len(elements)
        }
        _ => 1,
    })
    .sum()
}

fn relabelled(labels: &Labels, key: &str, value: &str) -> Labels {
    let others = labels.iter().filter(|(k, _)| &***k != key);
    let others = others.map(|(k, v)| (k.clone(), v.clone()));
    others
        .chain([(Text::from(key), Text::from(value))])
        .collect()
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new([Requirement {
        key: Text::from(key),
        operator: Operator::In([Text::from(value)].into()),
    }])
}

fn from_pods(policy: &Policy, selector: PodSelector) -> Policy {
    let mut policy = policy.clone();
    for rule in policy.ingress.iter_mut().flatten() {
        rule.peers = Peers::Of(vec![Peer::Pods(selector.clone())]);
    }
    policy
}

/// Makes every change there is, and tells what each of them took.
fn changes(shape: Shape) -> Vec<(&'static str, Work, usize)> {
    let cluster = Cluster::new(shape);
    let mut held = Held::new(&cluster);

    for (local, what) in [
        (
            false,
            [
                "a remote pod comes",
                "a remote pod again",
                "a remote pod gets a label that no selector names",
                "a remote pod gets a label that selectors name",
                "a remote pod finishes",
                "a remote pod goes",
            ],
        ),
        (
            true,
            [
                "a local pod comes",
                "a local pod again",
                "a local pod gets a label that no selector names",
                "a local pod gets a label that selectors name",
                "a local pod finishes",
                "a local pod goes",
            ],
        ),
    ] {
        let mut pod = cluster.newcomer(local, 0);
        assert!(!held.pod(what[0], &pod).is_empty());
        assert!(held.pod(what[1], &pod).is_empty());
        pod.labels = relabelled(&pod.labels, "track", "canary");
        assert!(held.pod(what[2], &pod).is_empty());
        pod.labels = relabelled(&pod.labels, "tier", "db");
        assert!(!held.pod(what[3], &pod).is_empty());
        pod.finished = true;
        assert!(!held.pod(what[4], &pod).is_empty());
        let transaction = held.delete(what[5], &Object::Pod(pod));
        assert!(transaction.is_empty());
    }

    let shop = cluster.shop(1);
    assert!(!held.namespace("a namespace's env", &shop).is_empty());
    let labels = relabelled(&shop.labels, "budget", "9");
    let shop = Namespace { labels, ..shop };
    let transaction = held.namespace("a namespace's label that no selector names", &shop);
    assert!(transaction.is_empty());

    let mut policy = cluster.shop_policy(8081);
    assert!(!held.policy("a policy's port", &policy).is_empty());
    let scope = Scope::Namespace(policy.key.namespace.clone());
    let pods = label("track", "stable");
    policy = from_pods(&policy, PodSelector { scope, pods });
    let transaction = held.policy("a policy's new selector in its namespace", &policy);
    assert!(!transaction.is_empty());
    let scope = Scope::Namespaces(label("team", "shop-1"));
    let pods = label("tier", "cache");
    policy = from_pods(&policy, PodSelector { scope, pods });
    let transaction = held.policy("a policy's new selector in one namespace of all", &policy);
    assert!(!transaction.is_empty());
    let everywhere = Scope::Namespaces(LabelSelector::default());
    let scope = everywhere.clone();
    let pods = label("app", "nobody");
    policy = from_pods(&policy, PodSelector { scope, pods });
    let transaction = held.policy("a policy's new selector of nobody anywhere", &policy);
    assert!(!transaction.is_empty());
    for rule in policy.ingress.iter_mut().flatten() {
        if let Ports::Of(ports) = &mut rule.ports {
            ports[0].port = PortMatch::Named(Text::from("nowhere"));
        }
    }
    held.policy("a policy's port that no pod has", &policy);
    assert!(!held.compiler.warnings().is_empty());
    let remote = cluster.newcomer(false, 1);
    held.pod("a remote pod while there are warnings", &remote);
    held.delete("a policy goes", &Object::Policy(Arc::new(policy)));
    held.log
}

#[test]
fn what_a_change_looks_at_does_not_grow_with_the_cluster() {
    let small = changes(SMALL);
    let large = changes(LARGE);
    for ((what, before, ops_before), (_, after, ops_after)) in small.iter().zip(&large) {
        println!("{what}: {after:?}, {ops_after} operations");
        assert_eq!(before, after, "{what}: in a cluster twenty times as large");
        assert_eq!(ops_before, ops_after, "{what}");
        assert!(after.total() < 500, "{what}: {after:?}");
    }
    let (_, work, _) = large
        .iter()
        .find(|(what, ..)| *what == "a remote pod while there are warnings")
        .unwrap();
    assert_eq!(work.of(Visited::Warnings), 0, "nothing about them changed");
}

/// The counters count: what must grow, does.
#[test]
fn a_selector_of_everyone_looks_at_everyone() {
    let everyone = |shape| {
        let cluster = Cluster::new(shape);
        let mut held = Held::new(&cluster);
        let pods = label("tier", "db");
        let scope = Scope::Namespaces(label("role", "tenant"));
        let policy = from_pods(&cluster.shop_policy(80), PodSelector { scope, pods });
        held.policy("a policy", &policy);
        held.log[0].1.of(Visited::Elements)
    };
    assert!(everyone(LARGE) > 10 * everyone(SMALL));
}
