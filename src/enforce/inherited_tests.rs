use std::sync::Arc;
use std::time::Duration;

use selvedge_nft::Fake;

use super::*;
use crate::cluster::object::{Addresses, Event, Namespace, Node, Object, ObjectKey};
use crate::cluster::selector::{LabelSelector, PodSelector, Scope};
use crate::enforce::{Change, Outcome, Reconciler, host};
use crate::policy::{Dialect, Policy, PolicyKey, Tier};

fn apply(object: Object) -> Change {
    Change::Cluster(Event::Apply(object))
}

fn delete(key: ObjectKey) -> Change {
    Change::Cluster(Event::Delete { key, uid: None })
}

fn namespace(name: &str, terminating: bool) -> Change {
    apply(Object::Namespace(Namespace {
        terminating,
        ..Namespace::new(Text::from(name), &Default::default())
    }))
}

fn pod(namespace: &str, name: &str, last: u8) -> Change {
    apply(Object::Pod(Pod {
        namespace: Text::from(namespace),
        name: Text::from(name),
        uid: Box::default(),
        created: 0,
        node: Some(Text::from("node-a")),
        host_network: false,
        finished: false,
        labels: Default::default(),
        addresses: Addresses {
            v4: Some([10, 244, 1, last].into()),
            v6: None,
        },
        ports: Arc::new([]),
    }))
}

/// A policy that isolates the pods of a namespace for ingress.
fn policy(namespace: &str) -> Policy {
    let namespace = Text::from(namespace);
    Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: namespace.clone(),
            name: Text::from("closed"),
        },
        tier: Tier::NetworkPolicy,
        subject: PodSelector {
            scope: Scope::Namespace(namespace),
            pods: LabelSelector::default(),
        },
        ingress: Some(Vec::new()),
        egress: None,
        problems: Vec::new(),
    }
}

fn apply_policy(namespace: &str) -> Change {
    apply(Object::Policy(Arc::new(policy(namespace))))
}

fn node() -> Change {
    apply(Object::Node(Node {
        name: Text::from("node-a"),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        addresses: Vec::new(),
    }))
}

fn reconciler(kernel: &Fake) -> Reconciler<Fake> {
    let host = host::unknown(None).unwrap();
    Reconciler::new(kernel.clone(), Text::from("node-a"), host)
}

/// A kernel that a daemon has left behind: a pod of shop is isolated, one of lane too, one of free is not.
fn left_behind() -> Fake {
    let kernel = Fake::new();
    let outcome = reconciler(&kernel).step(
        [
            node(),
            namespace("shop", false),
            namespace("lane", false),
            namespace("free", false),
            pod("shop", "web", 2),
            pod("lane", "web", 3),
            pod("free", "web", 4),
            apply_policy("shop"),
            apply_policy("lane"),
        ],
        Instant::now(),
    );
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    kernel
}

/// Who is isolated for ingress in the kernel, by the last byte of the address.
fn isolated_in(kernel: &Fake) -> Vec<u8> {
    let all = isolated(&kernel.ruleset());
    let ingress = all.iter().filter(|(_, d)| *d == Direction::Ingress);
    assert!(all.iter().all(|(_, d)| *d == Direction::Ingress));
    ingress
        .filter_map(|(address, _)| match address {
            IpAddr::V4(v4) => Some(v4.octets()[3]),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// A daemon that starts when all policies are gone, and shop terminates if it is so.
fn restarted(kernel: &Fake, terminating: bool, now: Instant) -> Reconciler<Fake> {
    let mut second = reconciler(kernel);
    second.step(
        [
            node(),
            namespace("shop", terminating),
            namespace("lane", false),
            namespace("free", true),
            pod("shop", "web", 2),
            pod("lane", "web", 3),
            pod("free", "web", 4),
        ],
        now,
    );
    second
}

#[test]
fn what_was_isolated_in_a_namespace_that_terminates_stays_so_until_it_is_gone() {
    let kernel = left_behind();
    let now = Instant::now();
    let mut second = restarted(&kernel, true, now);
    assert_eq!(isolated_in(&kernel), [2]);
    // Nor does it open later, whatever else happens.
    second.step([pod("lane", "other", 5)], now + LATE * 3);
    assert_eq!(isolated_in(&kernel), [2]);
    // Its end is the end of it: a namesake in a new namespace has nothing to do with it.
    second.step(
        [
            delete(ObjectKey::Pod(Text::from("shop"), Text::from("web"))),
            delete(ObjectKey::Namespace(Text::from("shop"))),
        ],
        now + LATE * 3,
    );
    assert!(isolated_in(&kernel).is_empty());
    second.step(
        [namespace("shop", false), pod("shop", "web", 2)],
        now + LATE * 3,
    );
    assert!(isolated_in(&kernel).is_empty());
}

#[test]
fn a_closed_pod_has_no_chain_and_nothing_passes() {
    let kernel = left_behind();
    restarted(&kernel, true, Instant::now());
    let ruleset = kernel.ruleset();
    let chains = ruleset
        .tables
        .values()
        .flat_map(|table| table.chains.keys());
    assert!(
        !chains
            .into_iter()
            .any(|chain| chain.as_str().contains("/shop/"))
    );
    let script = selvedge_nft::text::script(&ruleset);
    let entry = "10.244.1.2 comment \"shop/web is closed\" : drop";
    assert!(script.contains(entry), "{script}");
}

#[test]
fn the_end_of_the_namespace_may_be_heard_a_moment_late() {
    let kernel = left_behind();
    let now = Instant::now();
    let mut second = restarted(&kernel, false, now);
    assert!(isolated_in(&kernel).is_empty());
    second.step([namespace("shop", true)], now + Duration::from_secs(1));
    assert_eq!(isolated_in(&kernel), [2]);

    // Later it has nothing to do with it.
    let kernel = left_behind();
    let mut second = restarted(&kernel, false, now);
    second.step([namespace("shop", true)], now + LATE * 2);
    assert!(isolated_in(&kernel).is_empty());
}

#[test]
fn policies_that_are_there_decide_themselves() {
    let kernel = left_behind();
    let now = Instant::now();
    let mut second = reconciler(&kernel);
    let all = [
        node(),
        namespace("shop", true),
        pod("shop", "web", 2),
        apply_policy("shop"),
    ];
    second.step(all, now);
    assert_eq!(isolated_in(&kernel), [2]);
    let script = selvedge_nft::text::script(&kernel.ruleset());
    assert!(script.contains("goto ingress/shop/web"), "{script}");
}

#[test]
fn nothing_is_committed_before_the_kernel_has_told_what_it_holds() {
    let kernel = left_behind();
    let before = kernel.ruleset();
    let mut second = reconciler(&kernel);
    kernel.fail_reads(1, selvedge_nft::errno::ENOBUFS);
    let all = || [node(), namespace("shop", true), pod("shop", "web", 2)];
    let now = Instant::now();
    let Outcome::Retry(at) = second.step(all(), now) else {
        panic!("it was not read");
    };
    assert_eq!(kernel.ruleset(), before);
    second.step([], at);
    assert_eq!(isolated_in(&kernel), [2]);
}
