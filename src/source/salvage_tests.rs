use serde_json::json;

use super::*;
use crate::cluster::labels::Labels;
use crate::policy::{Peer, Peers, Ports, Rule};

fn policy(spec: Value) -> Policy {
    let value = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop", "managedFields": 7},
        "spec": spec,
    });
    network_policy(&value, &Text::from("shop"), &Text::from("p"))
}

/// Whether the policy's subject takes a pod of its namespace with these labels.
fn selects(policy: &Policy, labels: &[(&str, &str)]) -> bool {
    let labels: Labels = labels.iter().copied().collect();
    let shop = Text::from("shop");
    policy.subject.matches(&shop, &Labels::default(), &labels)
}

fn locations(policy: &Policy) -> Vec<&str> {
    policy
        .problems
        .iter()
        .map(|p| p.location.as_str())
        .collect()
}

/// How many rules each direction has; `None` where the policy says nothing of it.
fn counts(policy: &Policy) -> (Option<usize>, Option<usize>) {
    let count = |rules: &Option<Vec<Rule>>| rules.as_ref().map(Vec::len);
    (count(&policy.ingress), count(&policy.egress))
}

#[test]
fn a_sound_policy_is_lowered_as_it_is() {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front"]},
        ]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {}, "namespaceSelector": null}],
             "ports": [{"port": 80}, {"port": "http", "protocol": "UDP"}, {"port": 1, "endPort": 9}]},
            {},
        ],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
    });
    let salvaged = policy(spec.clone());
    assert!(salvaged.problems.is_empty(), "{:?}", salvaged.problems);
    let mut typed = NetworkPolicy {
        spec: serde_json::from_value(spec).unwrap(),
        ..NetworkPolicy::default()
    };
    typed.metadata.name = Some("p".to_owned());
    typed.metadata.namespace = Some("shop".to_owned());
    assert_eq!(salvaged, lower(&typed));
    assert_eq!(counts(&salvaged), (Some(2), Some(1)));
}

#[test]
fn a_malformed_rule_closes_itself_alone() {
    let salvaged = policy(json!({
        "podSelector": {},
        "ingress": [
            {"ports": [{"port": 99_999_999_999_u64}]},
            {"from": "everyone"},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            null,
            {"from": [{"ipBlock": {"cidr": 7}}]},
        ],
    }));
    // It has the index that it has in the object: answers name it so.
    assert_eq!(counts(&salvaged), (Some(3), None));
    let [nothing, _, rule] = &salvaged.ingress.as_ref().unwrap()[..] else {
        panic!("{salvaged:?}");
    };
    let (peers, ports) = (Peers::Of(Vec::new()), Ports::Of(Vec::new()));
    assert_eq!((&nothing.peers, &nothing.ports), (&peers, &ports));
    assert!(
        matches!(&rule.peers, Peers::Of(peers) if matches!(peers[..], [Peer::Block(_)])),
        "{rule:?}"
    );
    assert_eq!(
        locations(&salvaged),
        [
            "spec.ingress[0].ports[0].port",
            "spec.ingress[1].from",
            "spec.ingress[3]",
            "spec.ingress[4].from[0].ipBlock.cidr",
        ]
    );
    for problem in &salvaged.problems {
        assert!(
            problem.reason.ends_with("this rule allows nothing"),
            "{problem}"
        );
    }
}

#[test]
fn problems_of_later_rules_keep_their_index() {
    let salvaged = policy(json!({
        "podSelector": {},
        "ingress": [{"from": 1}, {}, {"from": [{"ipBlock": {"cidr": "ten"}}]}],
        "egress": [{"to": 1}, {"to": 2}, {"to": [{"ipBlock": {"cidr": "ten"}}]}],
    }));
    let all = locations(&salvaged);
    for expected in [
        "spec.ingress[0].from",
        "spec.ingress[2].from[0].ipBlock.cidr",
        "spec.egress[0].to",
        "spec.egress[1].to",
        "spec.egress[2].to[0].ipBlock.cidr",
    ] {
        assert!(all.contains(&expected), "{expected} {all:?}");
    }
    assert_eq!(all.len(), 5);
}

#[test]
fn losing_its_last_egress_rule_does_not_open_egress() {
    let salvaged = policy(json!({"podSelector": {}, "egress": [{"to": "x"}]}));
    assert_eq!(counts(&salvaged), (Some(0), Some(0)));
    let salvaged = policy(json!({"podSelector": {}, "egress": "x"}));
    assert_eq!(counts(&salvaged), (Some(0), Some(0)));
    // These never meant egress.
    for egress in [json!([]), json!(null)] {
        let spec = json!({"podSelector": {}, "egress": egress, "ingress": "x"});
        assert_eq!(counts(&policy(spec)), (Some(0), None));
    }
}

#[test]
fn policy_types_are_read_leniently_and_closed_where_they_can_t_be() {
    for (types, expected) in [
        (json!("Egress"), (None, Some(0))),
        (json!(["Egress", 7]), (Some(0), Some(0))),
        (json!({"Egress": true}), (Some(0), Some(0))),
        (json!(["egress"]), (Some(0), Some(0))),
    ] {
        let salvaged = policy(json!({"podSelector": {}, "policyTypes": types}));
        assert_eq!(counts(&salvaged), expected, "{types}");
        assert_eq!(salvaged.problems.len(), 1, "{types}");
        assert!(
            salvaged.problems[0]
                .location
                .starts_with("spec.policyTypes")
        );
    }
    for types in [json!(null), json!([])] {
        let salvaged = policy(json!({"podSelector": {}, "policyTypes": types}));
        assert_eq!(counts(&salvaged), (Some(0), None), "{types}");
        assert!(salvaged.problems.is_empty());
    }
}

#[test]
fn a_selector_that_can_t_be_read_selects_all_it_may_mean_and_allows_nothing() {
    let web = [("app", "web")];
    let versioned = [("app", "web"), ("version", "1")];
    for (selector, plain, with_version) in [
        // The value is unknown, the key is not.
        (
            json!({"matchLabels": {"app": "web", "version": 1}}),
            false,
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "version", "operator": "In", "values": "1"}]}),
            false,
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "version", "operator": "NotIn", "values": [2]}]}),
            true,
            true,
        ),
        (
            json!({"matchLabels": {"app": "other"}, "matchExpressions": 7}),
            false,
            false,
        ),
        (json!({"matchlabels": {"app": "other"}}), true, true),
        // No label can have such a key or value, so none was meant.
        (json!({"matchLabels": {"app": "other "}}), true, true),
        (json!({"matchLabels": {"a pp": "other"}}), true, true),
        (
            json!({"matchLabels": {"version": "1"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["a b"]}]}),
            false,
            true,
        ),
        (
            json!({"matchExpressions": [{"operator": "In", "values": ["other"]}]}),
            true,
            true,
        ),
        (
            json!({"matchExpressions": [{"key": "a/b/c", "operator": "Exists"}]}),
            true,
            true,
        ),
        (json!("app=other"), true, true),
        (json!(["app"]), true, true),
    ] {
        let salvaged = policy(json!({
            "podSelector": selector,
            "policyTypes": ["Ingress"],
            "ingress": [{}],
            "egress": [{}],
        }));
        assert_eq!(selects(&salvaged, &web), plain, "{selector}");
        assert_eq!(selects(&salvaged, &versioned), with_version, "{selector}");
        assert_eq!(counts(&salvaged), (Some(0), None), "{selector}");
        assert_eq!(salvaged.problems.len(), 1, "{:?}", salvaged.problems);
        assert!(
            salvaged.problems[0]
                .location
                .starts_with("spec.podSelector")
        );
    }
}

#[test]
fn what_is_excepted_and_not_in_the_block_closes_it() {
    for (cidr, except, whole) in [
        ("10.0.0.0/8", "110.244.1.3/32", false),
        ("10.0.0.0/8", "10.0.0.0/8", false),
        ("10.1.0.0/16", "10.0.0.0/8", false),
        ("0.0.0.0/0", "fd00::/8", false),
        ("::/0", "10.0.0.0/8", false),
        ("10.0.0.9/8", "10.244.1.3/32", true),
        ("0.0.0.0/0", "128.0.0.0/1", true),
    ] {
        let block = json!({"cidr": cidr, "except": [except]});
        let salvaged = policy(json!({
            "podSelector": {},
            "ingress": [{"from": [{"ipBlock": block}, {"podSelector": {}}]}],
        }));
        let peers = match &salvaged.ingress.as_ref().unwrap()[0].peers {
            Peers::Of(peers) => peers.len(),
            Peers::Any => 99,
        };
        assert_eq!(peers, if whole { 2 } else { 1 }, "{block}");
        let place = "spec.ingress[0].from[0].ipBlock.except[0]";
        let expected: &[&str] = if whole { &[] } else { &[place] };
        assert_eq!(locations(&salvaged), expected);
    }
}

#[test]
fn a_field_that_the_api_does_not_have_is_no_selector_of_everything() {
    let salvaged = policy(json!({
        "podSelector": {},
        "ingress": [
            {"from": [{"podSelector": {"matchLabel": {"app": "web"}}}]},
            {"form": [{"podSelector": {}}]},
            {"from": [{"podSelector": {}}], "ports": [{"port": 80, "portEnd": 90}]},
        ],
    }));
    assert_eq!(counts(&salvaged), (Some(0), None));
    assert_eq!(
        locations(&salvaged),
        [
            "spec.ingress[0].from[0].podSelector.matchLabel",
            "spec.ingress[1].form",
            "spec.ingress[2].ports[0].portEnd",
        ]
    );
}

#[test]
fn an_unknown_field_of_the_spec_closes_both_directions_unless_types_are_given() {
    let salvaged = policy(json!({"podSelector": {}, "egres": [{}]}));
    assert_eq!(counts(&salvaged), (Some(0), Some(0)));
    assert_eq!(locations(&salvaged), ["spec.egres"]);
    let salvaged = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egres": [{}]}));
    assert_eq!(counts(&salvaged), (Some(0), None));
}

#[test]
fn a_selector_that_may_have_been_misspelt_allows_nothing() {
    let spec = json!({"podSelecter": {"matchLabels": {"app": "web"}}, "ingress": [{}]});
    let salvaged = policy(spec);
    assert!(selects(&salvaged, &[("app", "db")]));
    assert_eq!(counts(&salvaged), (Some(0), Some(0)));
    assert!(salvaged.problems[0].reason.contains("without podSelector"));
    // One that is there was not misspelt.
    let spec = json!({"podSelector": {}, "podSelecter": {}, "ingress": [{}]});
    assert_eq!(counts(&policy(spec)), (Some(1), Some(0)));
}

#[test]
fn a_spec_that_is_no_map_closes_the_namespace() {
    for spec in [json!("x"), json!([]), json!(7)] {
        let salvaged = policy(spec);
        assert!(selects(&salvaged, &[]));
        assert_eq!(counts(&salvaged), (Some(0), Some(0)));
        assert_eq!(locations(&salvaged), ["spec"]);
    }
}

#[test]
fn a_missing_spec_is_the_api_s_default() {
    let salvaged = policy(json!(null));
    assert_eq!(counts(&salvaged), (Some(0), None));
    assert!(salvaged.problems.is_empty(), "{:?}", salvaged.problems);
}
