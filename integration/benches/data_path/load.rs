//! The policies that are measured under: one description, which both engines' rulesets are made from.
//!
//! A pair of pods, client and server, and the node's other pods, each selected by ten policies of its own. Each policy
//! has a rule a direction, for TCP and UDP on one port; its peers are the pods of other nodes by app: a tenth of them in
//! the first policy, all of them in the tenth. Only the tenth also admits the pair to each other: a new connection meets
//! all ten of the client's policies and all ten of the server's. Other pods of the node are objects alone, but all
//! their rules are in the kernel.

use std::net::Ipv4Addr;
use std::sync::Arc;

use selvedge::cluster::Text;
use selvedge::cluster::labels::Labels;
use selvedge::cluster::object::{Addresses, Event, Node, Object, Pod};
use selvedge::cluster::port::Protocol;
use selvedge::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use selvedge::index::Index;
use selvedge::policy::{
    Action, Dialect, Peer, Peers, Policy, PolicyKey, Port, PortMatch, Ports, Rule, Tier,
};

/// The node.
pub const NODE: &str = "node-1";
/// The pod that opens connections, and its address.
pub const CLIENT: (&str, Ipv4Addr) = ("client", Ipv4Addr::new(10, 244, 1, 2));
/// The pod that serves.
pub const SERVER: (&str, Ipv4Addr) = ("server", Ipv4Addr::new(10, 244, 1, 3));
/// The port that the pair's tenth policies admit.
pub const ALLOWED_PORT: u16 = port(POLICIES - 1);
/// A port that a policy of the server names, but admits others on.
pub const DENIED_PORT: u16 = port(0);

/// Policies a pod.
pub const POLICIES: u32 = 10;
/// The first pods of other nodes: 100.64.0.0 and on.
const REMOTE: u32 = 0x6440_0000;

/// How much policy a node has.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The node's pods that policies select, the server among them. The client is one more.
    pub local_pods: u32,
    /// The pods of other nodes that policies admit.
    pub peers: u32,
}

/// What is measured under.
pub const LOADS: [Load; 3] = [
    Load {
        local_pods: 1,
        peers: 1_000,
    },
    Load {
        local_pods: 50,
        peers: 10_000,
    },
    Load {
        local_pods: 250,
        peers: 100_000,
    },
];

/// The port of the policies of this number.
pub const fn port(policy: u32) -> u16 {
    1000 + policy as u16
}

impl Load {
    /// The node's pods beside the pair: name and address.
    pub fn others(&self) -> impl Iterator<Item = (String, Ipv4Addr)> + use<> {
        let first = SERVER.1.to_bits() + 1;
        let others = 0..self.local_pods.saturating_sub(1);
        others.map(move |n| (format!("other-{n}"), Ipv4Addr::from_bits(first + n)))
    }

    /// All pods of the node.
    pub fn local(&self) -> impl Iterator<Item = (String, Ipv4Addr)> + use<> {
        let pair = [CLIENT, SERVER].map(|(name, address)| (name.to_owned(), address));
        pair.into_iter().chain(self.others())
    }

    /// Whom the policies of this number admit, by address.
    pub fn peers_of(&self, policy: u32) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let pair = (policy == POLICIES - 1).then_some([CLIENT.1, SERVER.1]);
        let remote = (0..self.peers).filter(move |n| app(*n) <= policy);
        let remote = remote.map(|n| Ipv4Addr::from_bits(REMOTE + n));
        remote.chain(pair.into_iter().flatten())
    }

    /// The cluster's objects.
    pub fn index(&self) -> Index {
        let mut index = Index::new();
        index.apply(Event::Apply(Object::Node(Node {
            name: text(NODE),
            pod_cidrs: "10.244.1.0/24".parse().into_iter().collect(),
            addresses: Vec::new(),
        })));
        for (name, address) in self.local() {
            for n in 0..POLICIES {
                index.apply(policy(&name, n));
            }
            index.apply(pod("shop", &name, NODE, &name, address));
        }
        for n in 0..self.peers {
            let (name, node) = (format!("remote-{n}"), format!("node-{}", 2 + n / 100));
            let address = Ipv4Addr::from_bits(REMOTE + n);
            index.apply(pod("fleet", &name, &node, &app_name(app(n)), address));
        }
        index
    }
}

/// The app of a pod of another node.
fn app(remote: u32) -> u32 {
    remote % POLICIES
}

fn app_name(app: u32) -> String {
    format!("app-{app}")
}

fn text(text: impl AsRef<str>) -> Text {
    Text::from(text.as_ref())
}

fn pod(namespace: &str, name: &str, node: &str, app: &str, address: Ipv4Addr) -> Event {
    Event::Apply(Object::Pod(Pod {
        namespace: text(namespace),
        name: text(name),
        uid: "".into(),
        created: 0,
        node: Some(text(node)),
        host_network: false,
        finished: false,
        labels: Labels::from_iter([("app", app)]),
        addresses: Addresses {
            v4: Some(address),
            v6: None,
        },
        ports: Arc::new([]),
    }))
}

/// One of the ten policies of a local pod.
fn policy(subject: &str, n: u32) -> Event {
    let pair = [CLIENT.0, SERVER.0].map(str::to_owned);
    let pair = pair.into_iter().filter(|_| n == POLICIES - 1);
    let everywhere = Scope::Namespaces(LabelSelector::default());
    let peers = selector(everywhere, (0..=n).map(app_name).chain(pair));
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| Port {
        protocol,
        port: PortMatch::Range(port(n), port(n)),
    });
    let rules = vec![Rule {
        action: Action::Accept,
        peers: Peers::Of(vec![Peer::Pods(peers)]),
        ports: Ports::Of(ports.into()),
    }];
    Event::Apply(Object::Policy(Arc::new(Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: text("shop"),
            name: text(format!("{subject}-{n}")),
        },
        tier: Tier::NetworkPolicy,
        subject: selector(Scope::Namespace(text("shop")), [subject.to_owned()]),
        ingress: Some(rules.clone()),
        egress: Some(rules),
        problems: Vec::new(),
    })))
}

fn selector(scope: Scope, apps: impl IntoIterator<Item = String>) -> PodSelector {
    let requirement = Requirement {
        key: text("app"),
        operator: Operator::In(apps.into_iter().map(text).collect()),
    };
    PodSelector {
        scope,
        pods: LabelSelector::new([requirement]),
    }
}
