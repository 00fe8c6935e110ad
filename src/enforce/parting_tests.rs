use super::*;
use crate::cluster::object::{Addresses, Namespace, Pod};
use crate::cluster::selector::{LabelSelector, PodSelector, Scope};
use crate::policy::{Dialect, Tier};

/// A cluster with the namespace shop, a pod and a policy in it.
struct Shop {
    index: Index,
    parting: Parting,
    now: Instant,
}

fn shop() -> Text {
    Text::from("shop")
}

fn policy(namespace: &str) -> Policy {
    Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: Text::from(namespace),
            name: Text::from("closed"),
        },
        tier: Tier::NetworkPolicy,
        subject: PodSelector {
            scope: Scope::Namespace(Text::from(namespace)),
            pods: LabelSelector::default(),
        },
        ingress: Some(Vec::new()),
        egress: None,
        problems: Vec::new(),
    }
}

fn pod(name: &str, finished: bool) -> Event {
    Event::Apply(Object::Pod(Pod {
        namespace: shop(),
        name: Text::from(name),
        uid: "".into(),
        created: 0,
        node: None,
        host_network: false,
        finished,
        labels: Default::default(),
        addresses: Addresses::default(),
        ports: Arc::new([]),
    }))
}

fn namespace(terminating: bool) -> Event {
    Event::Apply(Object::Namespace(Namespace {
        terminating,
        ..Namespace::new(shop(), &Default::default())
    }))
}

fn apply_policy(namespace: &str) -> Event {
    Event::Apply(Object::Policy(Arc::new(policy(namespace))))
}

fn delete(key: ObjectKey) -> Event {
    Event::Delete { key, uid: None }
}

fn no_policy() -> Event {
    delete(ObjectKey::Policy(policy("shop").key))
}

fn no_pod(name: &str) -> Event {
    delete(ObjectKey::Pod(shop(), Text::from(name)))
}

impl Shop {
    fn new() -> Self {
        let mut shop = Self {
            index: Index::new(),
            parting: Parting::default(),
            now: Instant::now(),
        };
        shop.after([namespace(false), pod("a", false), apply_policy("shop")]);
        shop
    }

    /// Whether the policy is in force after these events.
    fn after(&mut self, events: impl IntoIterator<Item = Event>) -> bool {
        for event in events {
            self.parting.apply(&mut self.index, event, self.now);
        }
        self.index.policy(&policy("shop").key).is_some()
    }
}

#[test]
fn a_policy_that_is_deleted_alone_goes_at_once() {
    assert!(!Shop::new().after([no_policy()]));
}

#[test]
fn a_terminating_namespace_keeps_its_policies_until_its_last_pod_is_gone() {
    let mut shop = Shop::new();
    assert!(shop.after([namespace(true), pod("b", false), no_policy(), no_pod("b")]));
    assert!(!shop.after([no_pod("a")]));
    assert!(shop.parting.held.is_empty());
}

#[test]
fn a_pod_that_has_finished_keeps_nothing() {
    let mut shop = Shop::new();
    assert!(!shop.after([namespace(true), no_policy(), pod("a", true)]));
}

#[test]
fn a_list_without_the_policy_is_as_its_deletion() {
    let none = || Event::Retain {
        kind: ObjectKind::NetworkPolicy,
        keys: BTreeSet::new(),
    };
    assert!(Shop::new().after([namespace(true), none()]));
    assert!(!Shop::new().after([none()]));
}

#[test]
fn the_namespace_may_be_heard_of_after_its_policies() {
    let mut shop = Shop::new();
    assert!(shop.after([no_policy(), namespace(true)]));
    assert!(!shop.after([no_pod("a")]));

    // What was deleted long before has nothing to do with it.
    let mut shop = Shop::new();
    shop.after([no_policy()]);
    shop.now += LATE * 2;
    assert!(!shop.after([namespace(true)]));

    // Nor has what was deleted elsewhere.
    let mut shop = Shop::new();
    let elsewhere = policy("elsewhere").key;
    shop.after([
        apply_policy("elsewhere"),
        delete(ObjectKey::Policy(elsewhere.clone())),
        namespace(true),
    ]);
    assert!(shop.index.policy(&elsewhere).is_none());
}

#[test]
fn the_last_version_of_a_policy_comes_back() {
    let mut shop = Shop::new();
    let mut last = policy("shop");
    last.egress = Some(Vec::new());
    let replaced = Event::Apply(Object::Policy(Arc::new(last.clone())));
    assert!(shop.after([no_policy(), replaced, no_policy(), namespace(true)]));
    assert_eq!(
        shop.index.policy(&last.key).map(|known| &**known),
        Some(&last)
    );
}

#[test]
fn a_namespace_that_is_made_anew_starts_without_the_old_policies() {
    let mut shop = Shop::new();
    assert!(shop.after([namespace(true), no_policy()]));
    assert!(!shop.after([namespace(false)]));
}

#[test]
fn a_namespace_that_is_gone_holds_nothing() {
    let mut shop = Shop::new();
    assert!(shop.after([namespace(true), no_policy()]));
    assert!(!shop.after([delete(ObjectKey::Namespace(Text::from("shop")))]));
}

#[test]
fn a_policy_that_is_made_again_goes_its_own_way() {
    let mut shop = Shop::new();
    shop.after([namespace(true), no_policy(), apply_policy("shop")]);
    assert!(shop.parting.held.values().all(BTreeSet::is_empty));
}
