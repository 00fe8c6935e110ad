use serde_json::json;

use super::*;

fn one(value: Value) -> Result<Decoded, Undecodable> {
    let mut items = objects(&value);
    assert_eq!(items.len(), 1, "{value}");
    items.remove(0).result
}

fn pod_of(value: Value) -> (Pod, Vec<String>) {
    let decoded = one(value).unwrap();
    let problems = decoded.problems.iter().map(ToString::to_string).collect();
    match decoded.object {
        Object::Pod(pod) => (pod, problems),
        other => panic!("{other:?}"),
    }
}

fn minimal() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}})
}

/// kubelet runs it under the UID that it has from the file, and says that one to the CNI plugin.
#[test]
fn a_static_pod_has_its_own_uid() {
    let mut mirror = minimal();
    mirror["metadata"]["uid"] = json!("u1");
    let with = |mirror: &mut Value, uid: Value| {
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": uid});
        pod_of(mirror.clone()).0.uid
    };
    assert_eq!(&*with(&mut mirror, json!("81cdabfc")), "81cdabfc");
    for nonsense in [json!(""), json!(7), json!(null)] {
        assert_eq!(&*with(&mut mirror, nonsense), "u1");
    }
}

#[test]
fn a_pod_is_cut_down_to_what_policy_needs() {
    let (pod, problems) = pod_of(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
            "creationTimestamp": "1970-01-02T00:00:00Z", "managedFields": "nonsense",
        },
        "spec": {
            "nodeName": "node-a",
            "tolerations": 7,
            "containers": [
                {"name": "web", "ports": [
                    {"name": "http", "containerPort": 8080},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 9},
                ]},
                {"name": "other", "ports": [{"name": "http", "containerPort": 9999}]},
            ],
            "initContainers": [
                {"name": "once", "ports": [{"name": "setup", "containerPort": 1}]},
                {"name": "sidecar", "restartPolicy": "Always",
                 "ports": [{"name": "admin", "containerPort": 15000}]},
            ],
        },
        "status": {
            "phase": "Running", "podIP": "10.244.1.7",
            "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00::7"}],
        },
    }));
    assert!(problems.is_empty(), "{problems:?}");
    let port = |name, protocol, number| NamedPort {
        name: Text::from(name),
        protocol,
        number,
    };
    assert_eq!(
        pod,
        Pod {
            namespace: Text::from("shop"),
            name: Text::from("web-0"),
            uid: "u1".into(),
            created: 86400,
            node: Some(Text::from("node-a")),
            host_network: false,
            finished: false,
            labels: [("app", "web")].into_iter().collect(),
            addresses: Addresses {
                v4: Some("10.244.1.7".parse().unwrap()),
                v6: Some("fd00::7".parse().unwrap()),
            },
            ports: [
                port("admin", Protocol::Tcp, 15000),
                port("dns", Protocol::Udp, 53),
                port("http", Protocol::Tcp, 8080),
            ]
            .into(),
        }
    );
}

#[test]
fn a_pod_without_a_namespace_is_in_default() {
    let (pod, _) = pod_of(minimal());
    assert_eq!(&*pod.namespace, "default");
    assert_eq!(pod.addresses, Addresses::default());
    assert_eq!(pod.node, None);
}

#[test]
fn finished_pods_and_pods_of_the_host_s_network_are_told() {
    for (phase, finished) in [
        ("Running", false),
        ("Pending", false),
        ("Succeeded", true),
        ("Failed", true),
    ] {
        let mut value = minimal();
        value["status"] = json!({ "phase": phase });
        assert_eq!(pod_of(value).0.finished, finished, "{phase}");
    }
    let mut value = minimal();
    value["spec"] = json!({"hostNetwork": true});
    assert!(pod_of(value).0.host_network);
}

#[test]
fn pod_ip_stands_in_for_pod_ips() {
    let mut value = minimal();
    value["status"] = json!({"podIP": "10.244.1.9"});
    let (pod, _) = pod_of(value);
    assert_eq!(pod.addresses.v4, Some("10.244.1.9".parse().unwrap()));
}

#[test]
fn what_of_a_pod_can_t_be_read_costs_itself_alone() {
    let mut value = minimal();
    value["metadata"]["labels"] = json!({"app": "web", "version": 2, "odd": ["x"], "none": null});
    value["metadata"]["creationTimestamp"] = json!("yesterday");
    value["spec"] = json!({"hostNetwork": "yes", "containers": [{"name": "c", "ports": [
        {"name": "a", "containerPort": 99_999_999_999_u64},
        {"name": "b", "containerPort": 80, "protocol": "tcp"},
        {"name": "c", "containerPort": 0},
        {"name": "d", "containerPort": 81, "protocol": ""},
    ]}]});
    value["status"] = json!({"podIPs": [{"ip": "10.244.1.300"}, {"ip": "fd00::1"}, 7]});
    let (pod, problems) = pod_of(value);
    let labels = [("app", "web"), ("version", "2"), ("none", "")];
    assert_eq!(pod.labels, labels.into_iter().collect());
    assert!(!pod.host_network);
    assert_eq!(pod.addresses.iter().count(), 1);
    assert_eq!(pod.ports.len(), 1);
    for place in [
        "metadata.labels.version: ",
        "metadata.labels.odd: ",
        "metadata.creationTimestamp: ",
        "spec.hostNetwork: ",
        "spec.containers[c].ports[a]: ",
        "spec.containers[c].ports[b]: ",
        "spec.containers[c].ports[c]: ",
        "status.podIPs[0].ip: ",
        "status.podIPs[2].ip: ",
    ] {
        let found = problems.iter().filter(|p| p.starts_with(place)).count();
        assert_eq!(found, 1, "{place} {problems:?}");
    }
    assert_eq!(problems.len(), 9, "{problems:?}");
}

#[test]
fn a_namespace_carries_its_name_as_a_label() {
    let value = json!({"apiVersion": "v1", "kind": "Namespace",
                       "metadata": {"name": "shop", "labels": {"tier": "x"}}});
    let labels = [("kubernetes.io/metadata.name", "shop"), ("tier", "x")];
    assert_eq!(
        one(value).unwrap().object,
        Object::Namespace(Namespace {
            name: Text::from("shop"),
            labels: labels.into_iter().collect(),
            terminating: false,
        })
    );
}

#[test]
fn a_namespace_with_a_deletion_timestamp_terminates() {
    let value = json!({"apiVersion": "v1", "kind": "Namespace",
                       "metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let Object::Namespace(namespace) = one(value).unwrap().object else {
        panic!("no namespace");
    };
    assert!(namespace.terminating);
}

#[test]
fn a_node_s_networks_and_addresses_are_normalised() {
    let decoded = one(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["010.244.1.7/24", "fd00:1::/64", "bad", 7]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "Hostname", "address": "node-a"},
        ]},
    }))
    .unwrap();
    let Object::Node(node) = decoded.object else {
        panic!("no node");
    };
    let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.244.1.0/24", "fd00:1::/64"]);
    assert_eq!(node.addresses, ["192.168.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(decoded.problems.len(), 2, "{:?}", decoded.problems);
}

#[test]
fn lists_of_all_kinds_are_opened() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    let bare = |name: &str| json!({"metadata": {"name": name}});
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [pod("a"), pod("b")]}),
            2,
        ),
        (
            json!({"apiVersion": "v1", "kind": "PodList", "items": [bare("a"), pod("b")]}),
            2,
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList",
                   "items": [bare("a")]}),
            1,
        ),
        (
            json!({"kind": "List", "items": [
                {"apiVersion": "v1", "kind": "NamespaceList", "items": [bare("a"), bare("b")]}, pod("c"),
            ]}),
            3,
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [bare("a")]}),
            0,
        ),
        (
            json!({"apiVersion": "v1", "kind": "PodList", "items": []}),
            0,
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": null}),
            0,
        ),
    ] {
        let items = objects(&value);
        assert_eq!(items.len(), expected, "{value}");
        assert!(items.iter().all(|item| item.result.is_ok()), "{items:?}");
    }
}

#[test]
fn what_is_none_of_our_business_is_skipped() {
    for value in [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}),
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}}),
        json!({"apiVersion": "example.com/v1", "kind": "Pod", "metadata": {}}),
        json!({"resources": ["a.yaml"], "namePrefix": "x"}),
        json!({"apiVersion": "v2", "name": "shop", "version": "1.0.0"}),
        json!({"spec": {"podSelector": {}}}),
        json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClassList", "items": []}),
        json!({"apiVersion": "example.com/v1", "kind": "AllowList", "metadata": {"name": "a"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        json!({"kind": 7}),
        json!(["a"]),
        json!("text"),
        json!(null),
    ] {
        assert!(objects(&value).is_empty(), "{value}");
    }
}

#[test]
fn an_object_that_can_t_be_told_is_an_error_that_says_why() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "Pod (no name): metadata.name: missing",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ["a"], "namespace": "shop"}}),
            "Pod shop/(no name): metadata.name: it must be a string",
        ),
        (
            json!({"kind": "Pod", "metadata": {"name": "a"}}),
            "Pod a: apiVersion: missing; it must be v1",
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolcy",
                   "metadata": {"name": "a", "namespace": "shop"}}),
            "object shop/a: kind: networking.k8s.io/v1 has no \"NetworkPolcy\"",
        ),
        (
            json!({"apiVersion": "v1", "kind": "pod", "metadata": {"name": "a"}}),
            "object a: kind: v1 has no \"pod\"",
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": null, "metadata": {"name": "a"}}),
            "object a: kind: missing",
        ),
        (
            json!([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]),
            "object (no name): document: a list of objects must be the items of a List",
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [7]}),
            "object (no name): document: it is no object",
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": {"a": 1}}),
            "object (no name): items: it must be a list",
        ),
        (
            json!({"apiVersion": "v1", "kind": "PodList", "itmes": []}),
            "object (no name): items: missing",
        ),
    ] {
        assert_eq!(one(value).unwrap_err().to_string(), expected);
    }
    let long = "a".repeat(254);
    for name in ["a\nb", "../x", "a b", "", &long] {
        let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        assert!(one(value).is_err(), "{name:?}");
    }
    let long = "a".repeat(253);
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": long}});
    assert!(one(value).is_ok());
}

/// Such a policy is meant to close something.
#[test]
fn a_policy_of_another_version_closes_whom_it_selects() {
    for version in [
        json!("extensions/v1beta1"),
        json!("networking.k8s.io/v1 "),
        json!("v1"),
        json!(null),
    ] {
        let decoded = one(json!({
            "apiVersion": version, "kind": "NetworkPolicy",
            "metadata": {"generateName": "a-", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{}]},
        }))
        .unwrap();
        let Object::Policy(policy) = decoded.object else {
            panic!("no policy");
        };
        assert_eq!(policy.key.to_string(), "NetworkPolicy shop/a-");
        assert_eq!(policy.subject.to_string(), "app=db in ns shop");
        assert_eq!(
            (&policy.ingress, &policy.egress),
            (&Some(vec![]), &Some(vec![]))
        );
        let [problem] = &policy.problems[..] else {
            panic!("{:?}", policy.problems);
        };
        assert!(problem.to_string().starts_with("apiVersion: "), "{problem}");
    }
}

#[test]
fn labels_that_can_t_be_read_are_no_absent_ones() {
    for labels in [json!("app=db"), json!(["app"]), json!({"app": ["db"]})] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": labels}});
        let decoded = one(namespace).unwrap();
        let Object::Namespace(namespace) = decoded.object else {
            panic!("no namespace");
        };
        assert!(decoded.partial && namespace.labels.are_partial());
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": labels}});
        assert!(one(pod).unwrap().partial);
    }
    assert!(!one(minimal()).unwrap().partial);
}

#[test]
fn a_policy_s_problems_are_its_own() {
    let decoded = one(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": 7}, "spec": {"ingress": "none"},
    }))
    .unwrap();
    assert!(decoded.problems.is_empty());
    let Object::Policy(policy) = decoded.object else {
        panic!("no policy");
    };
    assert_eq!(&*policy.key.name, "7");
    assert_eq!(policy.problems.len(), 2, "{:?}", policy.problems);
}
