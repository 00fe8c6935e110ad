use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::cluster::object::{Event, Object};
use crate::cluster::port::Protocol;
use crate::cluster::selector::PodSelector;
use crate::policy::Dialect;
use crate::verdict::reach::Reach;

fn pod(name: &str, address: &str) -> Object {
    Object::Pod(Pod {
        namespace: Text::from("shop"),
        name: Text::from(name),
        uid: name.into(),
        created: 0,
        node: None,
        host_network: false,
        finished: false,
        labels: Default::default(),
        addresses: [address.parse::<IpAddr>().unwrap()].into_iter().collect(),
        ports: [].into(),
    })
}

/// An ingress rule for everyone, on TCP ports from the first to the second.
fn rule(action: Action, first: u16, last: u16) -> Rule {
    let port = Port {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(first, last),
    };
    Rule {
        action,
        peers: Peers::Any,
        ports: Ports::Of(vec![port]),
    }
}

fn policy(name: &str, tier: Tier, rules: Vec<Rule>) -> Object {
    Object::Policy(Arc::new(Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: Text::from("shop"),
            name: Text::from(name),
        },
        tier,
        subject: PodSelector::everything(),
        ingress: Some(rules),
        egress: None,
        problems: Vec::new(),
    }))
}

fn index(policies: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::new();
    let pods = [pod("web", "10.0.0.1"), pod("db", "10.0.0.2")];
    for object in pods.into_iter().chain(policies) {
        index.apply(Event::Apply(object));
    }
    index
}

/// The name of the policy that decides on a port, with a `+` or `-`, or the reason; and the same by [`Reach`].
fn ask(index: &Index, port: u16) -> String {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let transport = Transport::Tcp(port);
    let connection = Connection::new(address("10.0.0.1"), address("10.0.0.2"), transport).unwrap();
    let verdict = evaluate(index, &connection);
    let mut reach = Reach::new(index);
    let [from, to] = ["web", "db"].map(|name| reach.member(index.pod("shop", name).unwrap()));
    let ports = reach.allowed(&from, &to);
    assert_eq!(ports.contains(Protocol::Tcp, port), verdict.allowed());
    match verdict.ingress {
        Decision::Accepted { by } => format!("+{}", by.policy.name),
        Decision::Refused { by } => format!("-{}", by.policy.name),
        Decision::Isolated { .. } => "isolated".to_owned(),
        Decision::NotIsolated => "not isolated".to_owned(),
        other => panic!("{other:?}"),
    }
}

const fn admin(priority: u16) -> Tier {
    Tier::Admin { priority }
}

#[test]
fn the_lowest_priority_comes_first_and_its_first_rule_decides() {
    let index = index([
        policy("late", admin(20), vec![rule(Action::Accept, 1, 100)]),
        policy(
            "early",
            admin(10),
            vec![rule(Action::Deny, 80, 80), rule(Action::Accept, 80, 90)],
        ),
        policy("np", Tier::NetworkPolicy, vec![]),
    ]);
    assert_eq!(ask(&index, 80), "-early");
    assert_eq!(ask(&index, 85), "+early");
    assert_eq!(ask(&index, 100), "+late");
    assert_eq!(ask(&index, 101), "isolated");
}

#[test]
fn pass_leads_past_later_admin_rules_to_the_next_tier() {
    let index = index([
        policy("pass", admin(0), vec![rule(Action::Pass, 80, 81)]),
        policy("deny", admin(1), vec![rule(Action::Deny, 1, 1000)]),
        policy(
            "np",
            Tier::NetworkPolicy,
            vec![rule(Action::Accept, 80, 80)],
        ),
        policy("base", Tier::Baseline, vec![rule(Action::Accept, 1, 1000)]),
    ]);
    assert_eq!(ask(&index, 80), "+np");
    // Isolated pods never come to the baseline.
    assert_eq!(ask(&index, 81), "isolated");
    assert_eq!(ask(&index, 82), "-deny");
}

#[test]
fn the_baseline_is_for_pods_that_are_not_isolated() {
    let index = index([policy(
        "base",
        Tier::Baseline,
        vec![
            rule(Action::Pass, 79, 79),
            rule(Action::Accept, 80, 80),
            rule(Action::Deny, 1, 1000),
        ],
    )]);
    assert_eq!(ask(&index, 79), "not isolated");
    assert_eq!(ask(&index, 80), "+base");
    assert_eq!(ask(&index, 81), "-base");
    assert_eq!(ask(&index, 1001), "not isolated");
}
