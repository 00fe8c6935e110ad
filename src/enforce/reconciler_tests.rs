use std::sync::Arc;
use std::time::Duration;

use selvedge_nft::{Fake, Fault, IfName, Name, errno};

use super::*;
use crate::cluster::object::{Addresses, Namespace, Node, Object, ObjectKey, Pod};
use crate::cluster::selector::{LabelSelector, PodSelector, Scope};
use crate::enforce::host;
use crate::policy::{Dialect, Policy, PolicyKey, Tier};

fn reconciler() -> (Reconciler<Fake>, Fake) {
    let fake = Fake::new();
    let host = host::unknown(None).unwrap();
    (
        Reconciler::new(fake.clone(), Text::from("node-a"), host),
        fake,
    )
}

fn apply(object: Object) -> Change {
    Change::Cluster(Event::Apply(object))
}

fn pod(number: u8) -> Change {
    apply(Object::Pod(Pod {
        namespace: Text::from("shop"),
        name: Text::from(format!("pod-{number}").as_str()),
        uid: Box::default(),
        created: 0,
        node: Some(Text::from("node-a")),
        host_network: false,
        finished: false,
        labels: [("app", "web")].into_iter().collect(),
        addresses: Addresses {
            v4: Some([10, 244, 1, number].into()),
            v6: None,
        },
        ports: Arc::new([]),
    }))
}

fn gone(number: u8) -> Change {
    Change::Cluster(Event::Delete {
        key: ObjectKey::Pod(
            Text::from("shop"),
            Text::from(format!("pod-{number}").as_str()),
        ),
        uid: None,
    })
}

/// A node, a namespace, and a policy that isolates every pod in it.
fn cluster() -> Vec<Change> {
    let shop = Text::from("shop");
    vec![
        apply(Object::Node(Node {
            name: Text::from("node-a"),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            addresses: Vec::new(),
        })),
        apply(Object::Namespace(Namespace::new(
            shop.clone(),
            &crate::cluster::labels::Labels::default(),
        ))),
        apply(Object::Policy(Arc::new(Policy {
            key: PolicyKey {
                dialect: Dialect::NetworkPolicy,
                namespace: shop.clone(),
                name: Text::from("deny"),
            },
            tier: Tier::NetworkPolicy,
            subject: PodSelector {
                scope: Scope::Namespace(shop),
                pods: LabelSelector::default(),
            },
            ingress: Some(Vec::new()),
            egress: None,
            problems: Vec::new(),
        }))),
    ]
}

#[test]
fn a_burst_is_one_commit() {
    let (mut reconciler, fake) = reconciler();
    let changes = cluster().into_iter().chain((1..100).map(pod));
    let outcome = reconciler.step(changes, Instant::now());
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(fake.log().len(), 1);
}

#[test]
fn what_changes_nothing_sends_nothing() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster().into_iter().chain([pod(1)]), Instant::now());
    fake.take_log();
    for changes in [
        vec![],
        vec![pod(1)],
        vec![gone(7)],
        // It all comes back to what it was.
        vec![pod(2), gone(2)],
        vec![gone(1), pod(1)],
    ] {
        let outcome = reconciler.step(changes.clone(), Instant::now());
        assert_eq!(outcome, Outcome::Unchanged, "{changes:?}");
    }
    assert!(fake.log().is_empty());
}

#[test]
fn a_restart_with_nothing_to_change_sends_nothing() {
    let (mut first, fake) = reconciler();
    let changes = || cluster().into_iter().chain((1..9).map(pod));
    first.step(changes(), Instant::now());
    fake.take_log();
    let host = host::unknown(None).unwrap();
    let mut second = Reconciler::new(fake.clone(), Text::from("node-a"), host);
    // Taken in piece by piece, and acted on once all is there.
    for change in changes() {
        second.take([change]);
    }
    assert_eq!(second.step([], Instant::now()), Outcome::Unchanged);
    assert!(fake.log().is_empty());
}

#[test]
fn changes_are_taken_in_while_a_failure_is_waited_out() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster(), Instant::now());
    fake.take_log();
    fake.fail_commits(1, Fault::Refused(errno::EINVAL));
    let now = Instant::now();
    for number in 1..5 {
        let outcome = reconciler.step([pod(number)], now);
        assert!(matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
    }
    assert!(fake.log().is_empty());
    let later = now + Duration::from_secs(60);
    let outcome = reconciler.step([], later);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(fake.log().len(), 1, "one commit has all of them");
    let (mut fresh, other) = self::reconciler();
    fresh.step(cluster().into_iter().chain((1..5).map(pod)), now);
    assert_eq!(fake.ruleset(), other.ruleset());
}

#[test]
fn a_refused_object_holds_up_no_cure() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster(), Instant::now());
    fake.refuse(Name::new("ingress/shop/pod-1").unwrap(), errno::EINVAL);
    let mut now = Instant::now();
    for _ in 0..3 {
        let Outcome::Retry(at) = reconciler.step([pod(1), pod(2)], now) else {
            panic!("it was not refused");
        };
        now = at;
    }
    let outcome = reconciler.step([gone(1)], now + Duration::from_secs(60));
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

#[test]
fn the_host_s_ports_are_followed() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster().into_iter().chain([pod(1)]), Instant::now());
    let mut host = host::unknown(None).unwrap();
    host.ports.insert(IfName::new("veth1").unwrap());
    let outcome = reconciler.step([Change::Host(host.clone())], Instant::now());
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    let outcome = reconciler.step([Change::Host(host)], Instant::now());
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(fake.log().len(), 2);
}
