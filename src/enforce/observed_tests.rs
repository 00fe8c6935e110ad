//! What is observed of reconciler and committer, on a kernel in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use selvedge_nft::{Elements, Fake, Fault, Name, Ruleset, errno};

use crate::arbitrary::{NODES, events, world};
use crate::cluster::Text;
use crate::cluster::object::{Event, Object, ObjectKey, Pod};
use crate::compile::tables;
use crate::enforce::{Change, Committer, Outcome, Reconciler, host};
use crate::observe::checker::{Exposition, Format, check};
use crate::observe::{Condition, Held, Observer};

struct Observed {
    reconciler: Reconciler<Fake>,
    fake: Fake,
    observer: Arc<Observer>,
}

fn observed() -> Observed {
    let (fake, observer) = (Fake::new(), Observer::new());
    let host = host::unknown(None).unwrap();
    let reconciler = Reconciler::new(fake.clone(), Text::from(NODES[0]), host);
    Observed {
        reconciler: reconciler.observed_by(observer.clone()),
        fake,
        observer,
    }
}

impl Observed {
    fn exposed(&self) -> Exposition {
        check(&self.observer.open_metrics().unwrap(), Format::OpenMetrics).unwrap()
    }

    fn value(&self, name: &str, label: &str) -> f64 {
        self.exposed().value(&format!("selvedge_{name}"), label)
    }

    fn step(&mut self, events: impl IntoIterator<Item = Event>) -> Outcome {
        let changes = events.into_iter().map(Change::Cluster);
        self.reconciler.step(changes, Instant::now())
    }

    /// Steps at a time when no failure is waited out any more.
    fn later(&mut self) -> Outcome {
        let later = Instant::now() + Duration::from_secs(60);
        self.reconciler.step([], later)
    }

    /// Asserts that what is told of the kernel is what it holds.
    fn assert_held(&self) {
        let held = Held::by(&self.fake.ruleset());
        let exposed = self.exposed();
        let told = |name| exposed.value(name, "") as usize;
        let told = Held {
            chains: told("selvedge_chains"),
            sets: told("selvedge_sets"),
            elements: told("selvedge_elements"),
        };
        assert_eq!(told, held);
    }
}

fn pod(number: u8) -> Pod {
    Pod {
        namespace: Text::from("shop"),
        name: Text::from(format!("pod-{number}").as_str()),
        uid: Box::default(),
        created: 0,
        // The odd ones are local.
        node: Some(Text::from(NODES[usize::from(number.is_multiple_of(2))])),
        host_network: false,
        finished: false,
        labels: [("app", "web")].into_iter().collect(),
        addresses: [[10, 244, 1, number].into()].into_iter().collect(),
        ports: Arc::new([]),
    }
}

fn apply(number: u8) -> Event {
    Event::Apply(Object::Pod(pod(number)))
}

fn gone(number: u8) -> Event {
    let pod = pod(number);
    Event::Delete {
        key: ObjectKey::Pod(pod.namespace, pod.name),
        uid: None,
    }
}

/// A policy that isolates every pod in namespace shop, for ingress.
fn policy() -> Event {
    let policy = k8s_openapi::api::networking::v1::NetworkPolicy {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("deny".to_owned()),
            namespace: Some("shop".to_owned()),
            ..Default::default()
        },
        spec: Some(Default::default()),
    };
    Event::Apply(Object::Policy(Arc::new(
        crate::policy::network_policy::lower(&policy),
    )))
}

/// The pods of the node that a ruleset isolates, by the chains it dispatches to.
fn isolated(ruleset: &Ruleset, direction: &str) -> usize {
    let chains = ruleset
        .tables
        .values()
        .flat_map(|table| table.chains.keys());
    let prefix = format!("{direction}/");
    chains
        .filter(|name| name.as_str().starts_with(&prefix))
        .count()
}

#[test]
fn the_figures_follow_commits() {
    let mut observed = observed();
    observed.step((1..=6).map(apply));
    assert_eq!(observed.value("pods", ""), 6.0);
    assert_eq!(observed.value("local_pods", ""), 3.0);
    assert_eq!(observed.value("isolated_pods", "direction=ingress"), 0.0);
    observed.step([policy()]);
    assert_eq!(observed.value("policies", ""), 1.0);
    assert_eq!(observed.value("isolated_pods", "direction=ingress"), 3.0);
    assert_eq!(observed.value("isolated_pods", "direction=egress"), 0.0);
    assert_eq!(observed.value("commits_total", "result=acknowledged"), 2.0);
    assert_eq!(observed.value("commit_duration_seconds_count", ""), 2.0);
    assert!(observed.value("last_commit_timestamp_seconds", "") > 1e9);
    observed.step([gone(2), gone(1)]);
    assert_eq!(observed.value("pods", ""), 4.0);
    assert_eq!(observed.value("isolated_pods", "direction=ingress"), 2.0);
    assert_eq!(observed.value("drift_repairs_total", ""), 0.0);
    observed.assert_held();
    // Nothing to do is no commit.
    observed.step([gone(1)]);
    assert_eq!(observed.value("commits_total", "result=acknowledged"), 3.0);
}

#[test]
fn what_is_known_shows_before_the_first_commit() {
    let mut observed = observed();
    observed
        .reconciler
        .take([Change::Cluster(apply(1))], Instant::now());
    assert_eq!(observed.value("pods", ""), 1.0);
    assert_eq!(observed.value("last_commit_timestamp_seconds", ""), 0.0);
}

#[test]
fn a_failure_is_counted_and_stands_in_the_way_until_it_is_over() {
    let mut observed = observed();
    observed.observer.health.set(Condition::BridgeNetfilter, []);
    observed.observer.health.set(Condition::KubeProxy, []);
    observed.observer.health.set(Condition::NewPods, []);
    let ready = |observed: &Observed| observed.observer.health.report().ready();
    assert!(!ready(&observed));
    observed.step([apply(1)]);
    assert!(ready(&observed));
    observed.fake.fail_commits(1, Fault::Refused(errno::EINVAL));
    observed.step([policy()]);
    assert!(!ready(&observed));
    let reasons = observed.observer.health.report().reasons();
    assert!(
        reasons[0].starts_with("commit: not committed: "),
        "{reasons:?}"
    );
    assert_eq!(observed.value("commits_total", "result=refused"), 1.0);
    assert_eq!(observed.value("errors_total", "kind=commit"), 1.0);
    observed.fake.fail_reads(1, 1);
    observed.later();
    assert_eq!(observed.value("errors_total", "kind=read_back"), 1.0);
    assert!(!ready(&observed));
    let later = Instant::now() + Duration::from_secs(120);
    observed.reconciler.step([], later);
    assert!(ready(&observed));
    assert_eq!(
        observed.value("drift_repairs_total", ""),
        0.0,
        "nobody interfered"
    );
    observed.assert_held();
}

#[test]
fn a_lost_acknowledgement_is_no_drift() {
    let mut observed = observed();
    observed.step([apply(1)]);
    observed
        .fake
        .fail_commits(1, Fault::AcknowledgementLost(105));
    observed.step([policy()]);
    assert_eq!(observed.value("commits_total", "result=unknown"), 1.0);
    assert!(!observed.observer.health.report().reasons().is_empty());
    // What the kernel turns out to have is what was sent, though something else is wanted by now.
    let later = Instant::now() + Duration::from_secs(60);
    let outcome = observed.reconciler.step([Change::Cluster(apply(3))], later);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(observed.value("drift_repairs_total", ""), 0.0);
    let reasons = observed.observer.health.report().reasons();
    assert!(!reasons.iter().any(|r| r.contains("commit")), "{reasons:?}");
    observed.assert_held();
}

#[test]
fn what_others_changed_is_counted_once_when_it_is_put_right() {
    let mut observed = observed();
    observed.step([apply(1), policy()]);
    observed.fake.fail_commits(1, Fault::Refused(errno::EINVAL));
    observed.step([apply(3)]);
    let inet = tables().remove(0);
    observed
        .fake
        .interfere(|ruleset| drop(ruleset.tables.remove(&inet)));
    // The repair fails, too.
    observed.fake.fail_commits(1, Fault::Refused(errno::EBUSY));
    observed.later();
    assert_eq!(observed.value("drift_repairs_total", ""), 0.0);
    let later = Instant::now() + Duration::from_secs(200);
    let outcome = observed.reconciler.step([], later);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(observed.value("drift_repairs_total", ""), 1.0);
    observed.assert_held();
}

#[test]
fn where_the_rules_are_gone_and_isolated_pods_closed_the_node_is_not_ready() {
    let mut observed = observed();
    observed.step([apply(1), policy()]);
    let inet = tables().remove(0);
    observed
        .fake
        .interfere(|ruleset| drop(ruleset.tables.remove(&inet)));
    assert!(observed.reconciler.listen());
    let reasons = observed.observer.health.report().reasons();
    let deleted = "commit: deleted by somebody else: inet selvedge; until ";
    assert!(
        reasons.iter().any(|r| r.starts_with(deleted)),
        "{reasons:?}"
    );
    assert_eq!(observed.value("closings_total", ""), 1.0);
    observed.later();
    let reasons = observed.observer.health.report().reasons();
    assert!(!reasons.iter().any(|r| r.contains("commit")), "{reasons:?}");
    assert_eq!(observed.value("closings_total", ""), 1.0);
    observed.assert_held();
}

#[test]
fn a_start_finds_no_drift() {
    let mut first = observed();
    first.step([apply(1), policy()]);
    let observer = Observer::new();
    let mut committer = Committer::new(first.fake.clone(), tables()).observed_by(observer.clone());
    committer.reconcile(&Ruleset::default(), true, Instant::now());
    let text = observer.open_metrics().unwrap();
    let exposed = check(&text, Format::OpenMetrics).unwrap();
    assert_eq!(exposed.value("selvedge_drift_repairs_total", ""), 0.0);
    for name in ["selvedge_chains", "selvedge_sets", "selvedge_elements"] {
        assert_eq!(exposed.value(name, ""), 0.0, "{name}");
    }
}

#[test]
fn a_restart_with_nothing_to_change_is_in_force_by_what_was_read() {
    let mut first = observed();
    first.step([apply(1), policy()]);
    let mut second = observed();
    second
        .fake
        .interfere(|ruleset| *ruleset = first.fake.ruleset());
    assert_eq!(second.step([apply(1), policy()]), Outcome::Unchanged);
    assert!(second.value("last_commit_timestamp_seconds", "") > 1e9);
    assert_eq!(second.value("commits_total", "result=acknowledged"), 0.0);
    second.assert_held();
}

#[test]
fn the_time_from_event_to_kernel_is_of_the_commit_that_followed() {
    let mut observed = observed();
    let observations = |o: &Observed| o.value("event_to_kernel_seconds_count", "");
    let sum = |o: &Observed| o.value("event_to_kernel_seconds_sum", "");
    let ago = |seconds| {
        Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap()
    };
    // The start waits for everything to be known.
    observed.reconciler.heard(ago(9));
    observed.step([policy()]);
    assert_eq!(observations(&observed), 0.0);
    // The oldest of a burst counts, in any order.
    observed.reconciler.heard(ago(2));
    observed.reconciler.heard(ago(3));
    observed.reconciler.heard(ago(1));
    observed.step([apply(1), apply(3)]);
    assert_eq!(observations(&observed), 1.0);
    assert!((3.0..30.0).contains(&sum(&observed)), "{}", sum(&observed));
    // Nothing followed from this one, nor is it left for the next.
    observed.reconciler.heard(ago(1000));
    observed.step([apply(1)]);
    assert_eq!(observations(&observed), 1.0);
    observed.reconciler.heard(ago(1));
    observed.step([gone(1)]);
    assert_eq!(observations(&observed), 2.0);
    assert!(sum(&observed) < 60.0);
    // A failure does not end the wait.
    observed.fake.fail_commits(1, Fault::Refused(errno::EINVAL));
    observed.reconciler.heard(ago(100));
    observed.step([apply(5)]);
    assert_eq!(observations(&observed), 2.0);
    observed.later();
    assert_eq!(observations(&observed), 3.0);
    assert!(sum(&observed) > 100.0);
    // A commit that no change led to has no such time.
    observed
        .fake
        .refuse(Name::new("ingress/shop/pod-7").unwrap(), errno::EINVAL);
    observed.step([apply(7)]);
    observed.fake.heal();
    observed.later();
    assert_eq!(observations(&observed), 3.0);
}

#[test]
fn there_are_as_many_series_for_many_pods_as_for_none() {
    let mut observed = observed();
    let before = observed.exposed().series.len();
    observed.step((1..=200).map(apply).chain([policy()]));
    let exposed = observed.exposed();
    assert_eq!(exposed.series.len(), before);
    let told = format!("{:?}", exposed.labels());
    assert!(!told.contains("shop") && !told.contains("pod-"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn after_any_events_the_figures_are_as_counted_afresh(
        start in world(8, 5),
        events in events(30),
        failures in prop::collection::vec(0usize..8, 1..6),
    ) {
        let mut observed = observed();
        observed.step(start.objects().into_iter().map(Event::Apply));
        for (n, batch) in events.chunks(3).enumerate() {
            match failures.get(n) {
                Some(0) => observed.fake.fail_commits(1, Fault::Refused(errno::EBUSY)),
                Some(1) => observed.fake.fail_commits(1, Fault::AcknowledgementLost(105)),
                _ => {}
            }
            let mut outcome = observed.step(batch.iter().cloned());
            while let Outcome::Retry(at) = outcome {
                outcome = observed.reconciler.step([], at);
            }
            observed.assert_held();
            let ruleset = observed.fake.ruleset();
            for direction in ["ingress", "egress"] {
                let told = observed.value("isolated_pods", &format!("direction={direction}"));
                prop_assert_eq!(told as usize, isolated(&ruleset, direction));
            }
            prop_assert_eq!(observed.value("drift_repairs_total", ""), 0.0);
        }
    }
}

#[test]
fn elements_that_go_with_their_set_are_counted() {
    let mut observed = observed();
    observed.step((1..=100).map(apply).chain([policy()]));
    observed.assert_held();
    let maps = |ruleset: &Ruleset| {
        let sets = ruleset.tables.values().flat_map(|t| t.sets.values());
        let maps = sets.filter(|set| matches!(set.elements, Elements::Verdicts(_)));
        maps.map(|set| set.elements.len()).sum::<usize>()
    };
    assert_eq!(maps(&observed.fake.ruleset()), 50);
    // All gone at once, chains and elements.
    observed.step((1..=100).map(gone));
    assert_eq!(maps(&observed.fake.ruleset()), 0);
    observed.assert_held();
}
