use std::sync::Arc;
use std::time::Duration;

use selvedge_nft::{Elements, Fake, Fault, IfName, Name, Verdict, errno};

use super::*;
use crate::cluster::object::{Addresses, Namespace, Node, Object, ObjectKey, Pod};
use crate::cluster::selector::{LabelSelector, PodSelector, Scope};
use crate::enforce::host;
use crate::policy::{Dialect, Policy, PolicyKey, Tier};
use crate::source::Standing;

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
    reconciler.step(cluster(), Instant::now());
    // Of which the first brings the interval sets that its rules look things up in.
    assert_eq!(fake.take_log().len(), 2);
    let outcome = reconciler.step((1..100).map(pod), Instant::now());
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

/// What others delete is closed before it is put right, with the pods that are isolated by then.
#[test]
fn wiped_tables_are_closed_until_they_are_repaired() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster().into_iter().chain([pod(1)]), Instant::now());
    reconciler.step([pod(2)], Instant::now());
    let before = fake.ruleset();
    fake.interfere(|held| *held = Ruleset::default());
    let closed = fake.ruleset();
    let inet = closed.tables.get(&tables()[0]).unwrap();
    let entries = match &inet
        .sets
        .get(&Name::new("ingress4").unwrap())
        .unwrap()
        .elements
    {
        Elements::Verdicts(entries) => entries,
        other => panic!("{other:?}"),
    };
    assert_eq!(entries.len(), 2);
    assert!(entries.values().all(|entry| entry.verdict == Verdict::Drop));
    assert!(reconciler.listen());
    let outcome = reconciler.step([], Instant::now());
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert!(fake.ruleset() == before);
    // Tables that nobody else can delete need no such thing.
    let (owner, fake) = self::reconciler();
    let mut owner = owner.with_ownership(Ownership::Own);
    owner.step(cluster().into_iter().chain([pod(1)]), Instant::now());
    fake.interfere(|held| *held = Ruleset::default());
    assert!(fake.ruleset().tables.is_empty());
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
        second.take([change], Instant::now());
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
fn a_pod_whose_chain_the_kernel_refuses_is_closed_and_all_else_goes_on() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster(), Instant::now());
    let chain = Name::new("ingress/shop/pod-1").unwrap();
    fake.refuse(chain.clone(), errno::EINVAL);
    let now = settle(&mut reconciler, vec![pod(1), pod(2)], Instant::now());
    let script = || selvedge_nft::text::script(&fake.ruleset());
    let closed = "10.244.1.1 comment \"shop/pod-1 is closed\" : drop";
    assert!(script().contains(closed), "{}", script());
    assert!(script().contains("10.244.1.2 : goto ingress/shop/pod-2"));
    assert!(!script().contains("chain ingress/shop/pod-1 "));
    let told = |notices: Vec<Notice>| -> Vec<(String, Standing)> {
        let notices = notices.into_iter();
        notices.map(|n| (n.about.to_string(), n.standing)).collect()
    };
    let about = "Pod shop/pod-1".to_owned();
    assert_eq!(
        told(reconciler.take_notices()),
        [(about.clone(), Standing::Refused)]
    );

    // What else comes is enforced at once, the pod itself as it was.
    let outcome = reconciler.step([pod(1), pod(3)], now);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert!(script().contains(closed) && script().contains("goto ingress/shop/pod-3"));

    // Tried again in vain, and then not.
    let trial = reconciler.next_trial().unwrap();
    settle(&mut reconciler, Vec::new(), trial);
    assert!(script().contains(closed));
    fake.heal();
    let trial = reconciler.next_trial().unwrap();
    settle(&mut reconciler, Vec::new(), trial);
    assert!(script().contains("10.244.1.1 : goto ingress/shop/pod-1"));
    let notices = told(reconciler.take_notices());
    assert_eq!(notices.last(), Some(&(about, Standing::Taken)));
    assert_eq!(reconciler.next_trial(), None);

    // With the pod its case is over.
    let now = settle(&mut reconciler, vec![gone(1)], trial);
    fake.refuse(chain, errno::EINVAL);
    let now = settle(&mut reconciler, vec![pod(1)], now);
    assert!(script().contains(closed));
    settle(&mut reconciler, vec![gone(1)], now);
    assert!(!script().contains("10.244.1.1 "));
    assert_eq!(reconciler.next_trial(), None);
}

#[test]
fn a_refused_object_of_the_frame_leaves_what_was_in_force() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster(), Instant::now());
    let before = fake.ruleset();
    fake.refuse(Name::new("ingress4").unwrap(), errno::EINVAL);
    let mut now = Instant::now();
    for _ in 0..4 {
        let Outcome::Retry(at) = reconciler.step([pod(1), pod(2)], now) else {
            panic!("it was not refused");
        };
        now = at;
    }
    assert_eq!(fake.ruleset(), before);
    fake.heal();
    let outcome = reconciler.step([], now + Duration::from_secs(60));
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

/// A policy that lets a block, but for a hole in it, into every pod of shop: that takes a set.
fn lets_in(name: &str, block: &str) -> Change {
    let hole = block
        .replace(".0/", ".64/")
        .replace("/24", "/26")
        .replace("/25", "/26");
    let policy = serde_json::json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": block, "except": [hole]}}]}]},
    });
    let policy = serde_json::from_value(policy).unwrap();
    let policy = crate::policy::network_policy::lower(&policy);
    apply(Object::Policy(Arc::new(policy)))
}

/// The set of the only block that a cluster with this change lets in.
fn set_of(change: Change) -> Name {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(
        cluster().into_iter().chain([pod(1), change]),
        Instant::now(),
    );
    let ruleset = fake.ruleset();
    let sets = ruleset.tables.values().flat_map(|table| table.sets.keys());
    let blocks: Vec<&Name> = sets
        .filter(|name| name.as_str().starts_with("cidr-"))
        .collect();
    assert_eq!(blocks.len(), 1);
    blocks[0].clone()
}

/// How many rules the chain of a policy has.
fn rules_of(fake: &Fake, policy: &str) -> Option<usize> {
    let name = Name::new(&format!("policy/shop/{policy}/ingress")).unwrap();
    let ruleset = fake.ruleset();
    let mut tables = ruleset.tables.values();
    tables.find_map(|table| Some(table.chains.get(&name)?.rules.len()))
}

/// Steps until nothing is to be tried again.
fn settle(reconciler: &mut Reconciler<Fake>, changes: Vec<Change>, mut now: Instant) -> Instant {
    let mut outcome = reconciler.step(changes, now);
    for _ in 0..10 {
        let Outcome::Retry(at) = outcome else {
            return now;
        };
        now = now.max(at);
        outcome = reconciler.step([], now);
    }
    panic!("it does not settle: {outcome:?}");
}

#[test]
fn a_policy_that_the_kernel_refuses_is_closed_and_all_else_goes_on() {
    let (bad, good) = (
        lets_in("bad", "192.0.2.0/24"),
        lets_in("good", "198.51.100.0/24"),
    );
    let (mut reconciler, fake) = reconciler();
    fake.refuse(set_of(bad.clone()), errno::EINVAL);
    let changes = cluster()
        .into_iter()
        .chain([pod(1), pod(2), bad.clone(), good]);
    let now = settle(&mut reconciler, changes.collect(), Instant::now());
    assert_eq!(
        (rules_of(&fake, "bad"), rules_of(&fake, "good")),
        (Some(0), Some(1))
    );
    assert_eq!(reconciler.quarantine.policies(), 1);
    assert!(reconciler.next_trial().is_some());
    let notices = reconciler.take_notices();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].about.to_string(), "NetworkPolicy shop/bad");
    assert_eq!(notices[0].standing, Standing::Refused);
    assert!(
        notices[0].message.contains("the kernel refused to"),
        "{notices:?}"
    );

    // The same object again is no news; what else comes is enforced at once.
    let outcome = reconciler.step([bad.clone(), pod(3)], now);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(rules_of(&fake, "bad"), Some(0));

    // Tried again in vain, it is closed for longer.
    let trial = reconciler.next_trial().unwrap();
    let now = settle(&mut reconciler, Vec::new(), trial);
    assert_eq!(rules_of(&fake, "bad"), Some(0));
    let next = reconciler.next_trial().unwrap();
    assert!(next - now > Duration::from_secs(90), "{:?}", next - now);

    // Once the kernel takes it, it is in force.
    fake.heal();
    settle(&mut reconciler, Vec::new(), next);
    assert_eq!(rules_of(&fake, "bad"), Some(1));
    let notices = reconciler.take_notices();
    let last = notices.last().map(|notice| notice.standing);
    assert_eq!(last, Some(Standing::Taken));
    assert_eq!(
        (reconciler.quarantine.policies(), reconciler.next_trial()),
        (0, None)
    );
}

#[test]
fn a_refused_policy_is_tried_at_once_when_it_changes_and_forgotten_when_it_goes() {
    let bad = lets_in("bad", "192.0.2.0/24");
    let (mut reconciler, fake) = reconciler();
    fake.refuse(set_of(bad.clone()), errno::EINVAL);
    let changes = || cluster().into_iter().chain([pod(1), bad.clone()]);
    let now = settle(&mut reconciler, changes().collect(), Instant::now());
    assert_eq!(rules_of(&fake, "bad"), Some(0));
    reconciler.step([lets_in("bad", "198.51.100.0/24")], now);
    assert_eq!(rules_of(&fake, "bad"), Some(1));
    assert_eq!(reconciler.quarantine.policies(), 0);
    let told = reconciler.take_notices().into_iter();
    let told: Vec<Standing> = told.map(|notice| notice.standing).collect();
    assert_eq!(told, [Standing::Refused, Standing::Taken]);

    let now = settle(&mut reconciler, vec![bad.clone()], now);
    assert_eq!(rules_of(&fake, "bad"), Some(0));
    let key = PolicyKey {
        dialect: Dialect::NetworkPolicy,
        namespace: Text::from("shop"),
        name: Text::from("bad"),
    };
    let gone = Event::Delete {
        key: ObjectKey::Policy(key),
        uid: None,
    };
    reconciler.step([Change::Cluster(gone)], now);
    assert_eq!(rules_of(&fake, "bad"), None);
    assert_eq!(reconciler.next_trial(), None);
}

#[test]
fn a_refused_policy_that_went_with_its_namespace_does_not_come_back() {
    let bad = lets_in("bad", "192.0.2.0/24");
    let (mut reconciler, fake) = reconciler();
    fake.refuse(set_of(bad.clone()), errno::EINVAL);
    let shop = Text::from("shop");
    let terminating = apply(Object::Namespace(Namespace {
        terminating: true,
        ..Namespace::new(shop.clone(), &crate::cluster::labels::Labels::default())
    }));
    let key = PolicyKey {
        dialect: Dialect::NetworkPolicy,
        namespace: shop,
        name: Text::from("bad"),
    };
    let deleted = Change::Cluster(Event::Delete {
        key: ObjectKey::Policy(key),
        uid: None,
    });
    // It is held for as long as the last pod lives, and closed.
    let changes = [pod(1), bad, terminating, deleted];
    let changes = cluster().into_iter().chain(changes).collect();
    let now = settle(&mut reconciler, changes, Instant::now());
    assert_eq!(rules_of(&fake, "bad"), Some(0));
    assert_eq!(reconciler.quarantine.policies(), 1);
    reconciler.step([gone(1)], now);
    let trial = reconciler.next_trial().unwrap_or(now);
    reconciler.step(Vec::new(), trial);
    settle(&mut reconciler, vec![pod(2)], trial);
    assert_eq!(rules_of(&fake, "bad"), None);
    assert_eq!(reconciler.quarantine.policies(), 0);
}

#[test]
fn what_the_circumstances_refuse_closes_nothing() {
    let bad = lets_in("bad", "192.0.2.0/24");
    let (mut reconciler, fake) = reconciler();
    fake.refuse(set_of(bad.clone()), errno::ENOBUFS);
    let mut now = Instant::now();
    let mut changes: Vec<Change> = cluster().into_iter().chain([pod(1), bad]).collect();
    for _ in 0..5 {
        let Outcome::Retry(at) = reconciler.step(std::mem::take(&mut changes), now) else {
            panic!("it was not refused");
        };
        now = now.max(at);
    }
    assert_eq!(reconciler.quarantine.policies(), 0);
}

#[test]
fn the_host_s_ports_are_followed() {
    let (mut reconciler, fake) = reconciler();
    reconciler.step(cluster().into_iter().chain([pod(1)]), Instant::now());
    fake.take_log();
    let mut host = host::unknown(None).unwrap();
    host.ports.insert(IfName::new("veth1").unwrap());
    let outcome = reconciler.step([Change::Host(host.clone())], Instant::now());
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    let outcome = reconciler.step([Change::Host(host)], Instant::now());
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(fake.log().len(), 1);
}

#[test]
fn attached_ports_are_guarded_against_false_addresses_unless_switched_off() {
    for on in [true, false] {
        let (reconciler, fake) = reconciler();
        let mut reconciler = reconciler.with_anti_spoof(on);
        let port = IfName::new("veth1").unwrap();
        let mut host = host::unknown(None).unwrap();
        host.ports.insert(port);
        host.attached.insert(port, [[10, 244, 1, 2].into()].into());
        let changes = cluster().into_iter().chain([Change::Host(host)]);
        reconciler.step(changes, Instant::now());
        let text = selvedge_nft::text::list(&fake.ruleset());
        assert_eq!(text.contains("chain port/veth1"), on, "{text}");
    }
}
