//! A node at the edge of what it must carry: many local pods with many policies each, whose peers are large sets.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Addresses, Event, Node, Object, Pod};
use crate::cluster::port::Protocol;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use crate::index::Index;
use crate::policy::{
    Action, Dialect, Peer, Peers, Policy, PolicyKey, Port, PortMatch, Ports, Rule, Tier,
};

/// The name of the node.
pub const NODE: &str = "node-1";

/// A cluster with such a node. Each local pod is a group of its own, with its own policies; each policy admits the pods
/// of one selector on one port.
#[derive(Debug, Clone, Copy)]
pub struct Wide {
    /// Pods of the node, 10.244.1.2 and on.
    pub local_pods: u32,
    /// Policies that select each of them.
    pub policies_a_pod: u32,
    /// Selectors that the policies share.
    pub selectors: u32,
    /// Pods of other nodes, 100.64.0.0 and on.
    pub remote_pods: u32,
    /// Apps among them; each selector selects one.
    pub apps: u32,
}

impl Wide {
    /// 250 local pods with ten policies each, whose peers are 100 sets of 10,000 addresses.
    pub const MILLION: Self = Self {
        local_pods: 250,
        policies_a_pod: 10,
        selectors: 100,
        remote_pods: 100_000,
        apps: 10,
    };

    /// The whole cluster.
    pub fn index(&self) -> Index {
        let mut index = Index::new();
        index.apply(Event::Apply(Object::Node(Node {
            name: text(NODE),
            pod_cidrs: "10.244.0.0/16".parse().into_iter().collect(),
            addresses: Vec::new(),
        })));
        for group in 0..self.local_pods {
            for n in 0..self.policies_a_pod {
                index.apply(self.policy(group, n));
            }
        }
        for n in 0..self.local_pods {
            index.apply(self.local(n, n));
        }
        for n in 0..self.remote_pods {
            index.apply(self.remote(n, &format!("app-{}", n % self.apps)));
        }
        index
    }

    /// A pod of this node; its group says which policies select it.
    pub fn local(&self, n: u32, group: u32) -> Event {
        let address = Ipv4Addr::from(0x0af4_0102 + n);
        let labels = label("group", &group.to_string());
        pod("shop", &format!("local-{n}"), NODE, labels, address)
    }

    /// A pod of another node.
    pub fn remote(&self, n: u32, app: &str) -> Event {
        let address = Ipv4Addr::from(0x6440_0000 + n);
        let node = format!("node-{}", 2 + n / 100);
        let name = format!("remote-{n}");
        pod("fleet", &name, &node, label("app", app), address)
    }

    fn selector_of(&self, group: u32, n: u32) -> u32 {
        (group * self.policies_a_pod + n) % self.selectors
    }

    /// One of the policies of a group of local pods: it admits the pods of one selector on one port.
    fn policy(&self, group: u32, n: u32) -> Event {
        let port = 1000 + n as u16;
        let rule = Rule {
            action: Action::Accept,
            peers: Peers::Of(vec![Peer::Pods(self.peers(self.selector_of(group, n)))]),
            ports: Ports::Of(vec![Port {
                protocol: Protocol::Tcp,
                port: PortMatch::Range(port, port),
            }]),
        };
        let shop = Scope::Namespace(text("shop"));
        Event::Apply(Object::Policy(Arc::new(Policy {
            key: PolicyKey {
                dialect: Dialect::NetworkPolicy,
                namespace: text("shop"),
                name: text(format!("allow-{group}-{n}")),
            },
            tier: Tier::NetworkPolicy,
            subject: selector(shop, "group", [group.to_string()]),
            ingress: Some(vec![rule]),
            egress: None,
            problems: Vec::new(),
        })))
    }

    /// One of the selectors of remote pods: those of one app, and a canary that no other selector has.
    fn peers(&self, n: u32) -> PodSelector {
        let everywhere = Scope::Namespaces(LabelSelector::default());
        let values = [format!("app-{}", n % self.apps), format!("canary-{n}")];
        selector(everywhere, "app", values)
    }
}

fn label(key: &str, value: &str) -> Labels {
    [(key, value)].into_iter().collect()
}

fn pod(namespace: &str, name: &str, node: &str, labels: Labels, address: Ipv4Addr) -> Event {
    Event::Apply(Object::Pod(Pod {
        namespace: text(namespace),
        name: text(name),
        uid: Box::default(),
        created: 0,
        node: Some(text(node)),
        host_network: false,
        finished: false,
        labels,
        addresses: Addresses {
            v4: Some(address),
            v6: None,
        },
        ports: Arc::new([]),
    }))
}

fn selector(scope: Scope, key: &str, values: impl IntoIterator<Item = String>) -> PodSelector {
    let requirement = Requirement {
        key: text(key),
        operator: Operator::In(values.into_iter().map(text).collect()),
    };
    PodSelector {
        scope,
        pods: LabelSelector::new([requirement]),
    }
}
