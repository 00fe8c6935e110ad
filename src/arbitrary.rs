//! Random clusters for tests: small, and weighted to collide. Labels, ports, addresses and blocks come from short lists,
//! so that selectors do match, ports do overlap, exceptions do hit pods, and addresses are used twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{
    Addresses, Event, Namespace, Node, Object, ObjectKey, ObjectKind, Pod,
};
use crate::cluster::port::{NamedPort, Protocol};
use crate::index::Index;
use crate::policy::network_policy;

/// The nodes of a random cluster; node N (from 1) has the pod CIDRs 10.244.N.0/24 and fd00:10:244:N::/64.
pub const NODES: [&str; 2] = ["node-1", "node-2"];
/// The namespaces of a random cluster.
pub const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
/// The ports that rules and pods are about.
pub const PORTS: [u16; 4] = [80, 8080, 8081, 9000];
/// How much further than its first port a range of ports goes.
const RANGES: [u16; 4] = [0, 1, 20, 1000];
/// Ports to probe: those that rules and pods are about, both ends of ranges, and what is just outside of them.
pub const PROBES: [u16; 24] = [
    1, 79, 80, 81, 82, 100, 101, 1080, 1081, 8079, 8080, 8081, 8082, 8100, 8101, 8102, 8999, 9000,
    9001, 9020, 9081, 10000, 10001, 65535,
];

/// A random cluster.
#[derive(Debug, Clone)]
pub struct World {
    /// Its nodes, namespaces and pods.
    pub objects: Vec<Object>,
    /// Its policies, as the API has them.
    pub policies: Vec<api::NetworkPolicy>,
}

impl World {
    /// All objects, the policies lowered.
    pub fn objects(&self) -> Vec<Object> {
        let policies = self.policies.iter();
        let policies = policies.map(|p| Object::Policy(Arc::new(network_policy::lower(p))));
        self.objects.iter().cloned().chain(policies).collect()
    }

    /// An index that has taken the whole cluster in.
    pub fn index(&self) -> Index {
        let mut index = Index::new();
        for object in self.objects() {
            index.apply(Event::Apply(object));
        }
        index
    }
}

/// Random clusters of up to `pods` pods and `policies` policies.
pub fn world(pods: usize, policies: usize) -> impl Strategy<Value = World> {
    let namespaces: Vec<_> = NAMESPACES.iter().map(|name| namespace(name)).collect();
    let pods: Vec<_> = (0..pods).map(pod).collect();
    let copies = vec(any::<prop::sample::Index>(), 0..2);
    let policies = (vec(policy(), 0..=policies), copies).prop_map(|(mut policies, copies)| {
        // The same policy under another name shares all its selectors.
        if !policies.is_empty() {
            let copies: Vec<_> = copies.iter().map(|n| n.get(&policies).clone()).collect();
            policies.extend(copies);
        }
        policies
    });
    (namespaces, pods, policies).prop_map(|(namespaces, pods, mut policies)| {
        let nodes = (1..=NODES.len()).map(|n| Object::Node(node(n as u8)));
        let namespaces = namespaces.into_iter().flatten().map(Object::Namespace);
        let pods = pods.into_iter().flatten().map(Object::Pod);
        for (n, policy) in policies.iter_mut().enumerate() {
            policy.metadata.name = Some(format!("policy-{n}"));
        }
        World {
            objects: nodes.chain(namespaces).chain(pods).collect(),
            policies,
        }
    })
}

/// Random events about a random cluster: objects come, change and go, some more than once. The cluster they lead to is
/// whatever they lead to.
pub fn events(count: usize) -> impl Strategy<Value = Vec<Event>> {
    let apply_pod = (0usize..8)
        .prop_flat_map(pod)
        .prop_map(|pod| pod.map(Object::Pod));
    let apply_namespace = select(NAMESPACES.as_slice())
        .prop_flat_map(namespace)
        .prop_map(|namespace| namespace.map(Object::Namespace));
    let apply_policy = (policy(), 0..5).prop_map(|(mut policy, n)| {
        policy.metadata.name = Some(format!("policy-{n}"));
        Some(Object::Policy(Arc::new(network_policy::lower(&policy))))
    });
    let apply_node = (1..=2u8, any::<bool>()).prop_map(|(n, dual)| {
        let mut node = node(n);
        if !dual {
            node.pod_cidrs.truncate(1);
        }
        Some(Object::Node(node))
    });
    let object = prop_oneof![
        6 => apply_pod,
        2 => apply_namespace,
        3 => apply_policy,
        1 => apply_node,
    ];
    let event = (object, prop::bool::weighted(0.25)).prop_map(|(object, delete)| {
        object.map(|object| match delete {
            true => Event::Delete {
                key: object.key(),
                uid: None,
            },
            false => Event::Apply(object),
        })
    });
    let list = btree_set(select(NAMESPACES.as_slice()), 0..NAMESPACES.len()).prop_map(|names| {
        let keys = names
            .into_iter()
            .map(|name| ObjectKey::Namespace(name.into()));
        Some(Event::Retain {
            kind: ObjectKind::Namespace,
            keys: keys.collect(),
        })
    });
    let event = prop_oneof![12 => event, 1 => list];
    vec(event, count).prop_map(|events| events.into_iter().flatten().collect())
}

fn node(n: u8) -> Node {
    let cidrs = [format!("10.244.{n}.0/24"), format!("fd00:10:244:{n}::/64")];
    Node {
        name: Text::from(format!("node-{n}").as_str()),
        pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
        addresses: vec![
            Ipv4Addr::new(192, 168, 50, 10 + n).into(),
            Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(n)).into(),
        ],
    }
}

const KEYS: [&str; 3] = ["app", "tier", "env"];
const VALUES: [&str; 3] = ["web", "db", ""];

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(KEYS.as_slice()), select(VALUES.as_slice()), 0..3)
        .prop_map(|labels| labels.into_iter().collect())
}

/// Sometimes the namespace's object is not known.
fn namespace(name: &str) -> impl Strategy<Value = Option<Namespace>> + use<> {
    let name = Text::from(name);
    let namespace = labels().prop_map(move |labels| Namespace::new(name.clone(), &labels));
    option::weighted(0.9, namespace)
}

fn named_ports() -> impl Strategy<Value = Arc<[NamedPort]>> {
    let port = (
        select(["http", "metrics"].as_slice()),
        prop_oneof![
            4 => Just(Protocol::Tcp),
            2 => Just(Protocol::Udp),
            1 => Just(Protocol::Sctp),
        ],
        select(PORTS.as_slice()),
    );
    let ports = vec(port, 0..3);
    ports.prop_map(|ports| {
        let mut ports: Vec<NamedPort> = ports
            .into_iter()
            .map(|(name, protocol, number)| NamedPort {
                name: Text::from(name),
                protocol,
                number,
            })
            .collect();
        ports.sort_unstable();
        ports.dedup_by(|a, b| a.name == b.name && a.protocol == b.protocol);
        ports.into()
    })
}

/// Pod `n`; its address is its own, sometimes another's.
fn pod(n: usize) -> impl Strategy<Value = Option<Pod>> {
    let host = prop_oneof![9 => Just(n), 1 => 0usize..4].prop_map(|n| n as u8 + 2);
    let families = prop_oneof![
        10 => Just((true, true)),
        6 => Just((true, false)),
        2 => Just((false, true)),
        1 => Just((false, false)),
    ];
    let state = prop_oneof![
        8 => Just((false, false)),
        1 => Just((true, false)),
        1 => Just((false, true)),
    ];
    let scheduled = prop::bool::weighted(0.95);
    let place = (
        select(NAMESPACES.as_slice()),
        1..=2u8,
        scheduled,
        host,
        families,
    );
    (
        place,
        state,
        labels(),
        named_ports(),
        0..3i64,
        prop::bool::weighted(0.95),
    )
        .prop_map(
            move |(place, (host_network, finished), labels, ports, created, exists)| {
                let (namespace, node, scheduled, host, (v4, v6)) = place;
                let v4 = v4.then(|| IpAddr::V4(Ipv4Addr::new(10, 244, node, host)));
                let v6 = v6.then(|| {
                    let (node, host) = (u16::from(node), u16::from(host));
                    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, node, 0, 0, 0, host))
                });
                exists.then(|| Pod {
                    namespace: Text::from(namespace),
                    name: Text::from(format!("pod-{n}").as_str()),
                    uid: format!("uid-{namespace}-{n}").into(),
                    created,
                    node: scheduled.then(|| Text::from(format!("node-{node}").as_str())),
                    host_network,
                    finished,
                    labels,
                    addresses: v4.into_iter().chain(v6).collect::<Addresses>(),
                    ports,
                })
            },
        )
}

/// A random NetworkPolicy, most of them valid; without a name.
pub fn policy() -> impl Strategy<Value = api::NetworkPolicy> {
    let types = prop_oneof![
        4 => Just(None),
        1 => Just(Some(vec![])),
        2 => Just(Some(vec!["Ingress"])),
        2 => Just(Some(vec!["Egress"])),
        3 => Just(Some(vec!["Ingress", "Egress"])),
        1 => select(["", "ingress", "Sideways"].as_slice()).prop_map(|bad| Some(vec!["Ingress", bad])),
    ];
    let ingress = option::weighted(0.8, vec((peers(), ports()), 0..3));
    let egress = option::weighted(0.5, vec((peers(), ports()), 0..3));
    let namespace = select(NAMESPACES.as_slice());
    (namespace, selector(), types, ingress, egress).prop_map(
        |(namespace, subject, types, ingress, egress)| {
            let ingress = ingress.map(|rules| {
                let rules = rules.into_iter();
                rules
                    .map(|(from, ports)| api::NetworkPolicyIngressRule { from, ports })
                    .collect()
            });
            let egress = egress.map(|rules| {
                let rules = rules.into_iter();
                rules
                    .map(|(to, ports)| api::NetworkPolicyEgressRule { to, ports })
                    .collect()
            });
            let types = types.map(|types| types.into_iter().map(str::to_owned).collect());
            api::NetworkPolicy {
                metadata: meta::ObjectMeta {
                    namespace: Some(namespace.to_owned()),
                    ..Default::default()
                },
                spec: Some(api::NetworkPolicySpec {
                    pod_selector: Some(subject),
                    policy_types: types,
                    ingress,
                    egress,
                }),
            }
        },
    )
}

fn selector() -> impl Strategy<Value = meta::LabelSelector> {
    let match_labels = option::weighted(
        0.4,
        btree_map(select(KEYS.as_slice()), select(VALUES.as_slice()), 0..2),
    );
    let match_labels = match_labels.prop_map(|labels| {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        labels.map(|labels| labels.into_iter().map(owned).collect())
    });
    let operator = prop_oneof![
        3 => Just("In"),
        3 => Just("NotIn"),
        2 => Just("Exists"),
        2 => Just("DoesNotExist"),
    ];
    let expression = (
        select(KEYS.as_slice()),
        operator,
        vec(select(VALUES.as_slice()), 1..3),
        prop_oneof![
            30 => Just(None),
            1 => Just(Some(("Near", true))),
            1 => Just(Some(("In", false))),
            1 => Just(Some(("Exists", true))),
        ],
    );
    let expression = expression.prop_map(|(key, operator, values, bad)| {
        let takes_values = matches!(operator, "In" | "NotIn");
        let (operator, takes_values) = bad.unwrap_or((operator, takes_values));
        let values = values.into_iter().map(str::to_owned).collect();
        meta::LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: takes_values.then_some(values),
        }
    });
    let expressions = option::weighted(0.3, vec(expression, 0..3));
    (match_labels, expressions).prop_map(|(match_labels, match_expressions)| meta::LabelSelector {
        match_labels,
        match_expressions,
    })
}

fn namespace_selector() -> impl Strategy<Value = meta::LabelSelector> {
    let by_name = select(NAMESPACES.as_slice()).prop_map(|name| meta::LabelSelector {
        match_labels: Some([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into()),
        match_expressions: None,
    });
    prop_oneof![3 => selector(), 1 => by_name]
}

fn peers() -> impl Strategy<Value = Option<Vec<api::NetworkPolicyPeer>>> {
    let peer = prop_oneof![
        12 => selector().prop_map(|pods| peer(Some(pods), None, None)),
        8 => namespace_selector().prop_map(|namespaces| peer(None, Some(namespaces), None)),
        12 => (selector(), namespace_selector()).prop_map(|(p, n)| peer(Some(p), Some(n), None)),
        16 => block().prop_map(|block| peer(None, None, Some(block))),
        1 => Just(peer(None, None, None)),
        1 => (selector(), block()).prop_map(|(pods, block)| peer(Some(pods), None, Some(block))),
    ];
    option::weighted(0.8, vec(peer, 0..3))
}

fn peer(
    pod_selector: Option<meta::LabelSelector>,
    namespace_selector: Option<meta::LabelSelector>,
    ip_block: Option<api::IPBlock>,
) -> api::NetworkPolicyPeer {
    api::NetworkPolicyPeer {
        ip_block,
        namespace_selector,
        pod_selector,
    }
}

fn block() -> impl Strategy<Value = api::IPBlock> {
    let v4 = (
        select(
            [
                "0.0.0.0/0",
                "10.244.0.0/16",
                "10.244.1.0/24",
                "10.244.2.2/31",
                "192.168.50.0/24",
                "192.168.50.12/32",
                "010.244.1.77/24",
                "10.244.0.0/33",
            ]
            .as_slice(),
        ),
        vec(
            select(
                [
                    "10.244.1.0/29",
                    "10.244.2.0/24",
                    "10.244.1.3/32",
                    "192.168.50.200/32",
                    "0.0.0.0/0",
                    "192.168.50.0",
                ]
                .as_slice(),
            ),
            0..3,
        ),
    );
    let v6 = (
        select(
            [
                "::/0",
                "fd00:10:244::/48",
                "fd00:10:244:1::/64",
                "fd00:10:244:2::2/127",
            ]
            .as_slice(),
        ),
        vec(
            select(["fd00:10:244:1::/125", "fd00:10:244:2::/64", "10.244.1.0/24"].as_slice()),
            0..2,
        ),
    );
    prop_oneof![3 => v4, 1 => v6].prop_map(|(cidr, except)| {
        let except: Vec<String> = except.into_iter().map(str::to_owned).collect();
        api::IPBlock {
            cidr: cidr.to_owned(),
            except: (!except.is_empty()).then_some(except),
        }
    })
}

fn ports() -> impl Strategy<Value = Option<Vec<api::NetworkPolicyPort>>> {
    let protocol = prop_oneof![
        3 => Just(None),
        3 => Just(Some("TCP")),
        2 => Just(Some("UDP")),
        1 => Just(Some("SCTP")),
    ];
    let protocol = prop_oneof![
        30 => protocol,
        1 => select(["ICMP", "tcp", ""].as_slice()).prop_map(Some),
    ];
    let target = prop_oneof![
        4 => Just((None, None)),
        16 => select(PORTS.as_slice()).prop_map(|p| (Some(IntOrString::Int(p.into())), None)),
        8 => (select(PORTS.as_slice()), select(RANGES.as_slice()))
            .prop_map(|(p, more)| (Some(IntOrString::Int(p.into())), Some(i32::from(p + more)))),
        1 => select(PORTS.as_slice()).prop_map(|p| (Some(IntOrString::Int(p.into())), Some(65535))),
        12 => select(["http", "metrics"].as_slice())
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
        1 => select([(0, None), (70_000, None), (9000, Some(80)), (80, Some(65_536))].as_slice())
            .prop_map(|(first, last)| (Some(IntOrString::Int(first)), last)),
        1 => select(["80", "http"].as_slice())
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), Some(8080))),
        1 => Just((None, Some(8080))),
    ];
    let port = (protocol, target).prop_map(|(protocol, (port, end_port))| api::NetworkPolicyPort {
        end_port,
        port,
        protocol: protocol.map(str::to_owned),
    });
    option::weighted(0.6, vec(port, 0..3))
}
