//! Synthetic clusters of a realistic shape, for tests and benchmarks.
//!
//! Namespaces of very different sizes; Deployments whose pods carry the labels that real ones do, `pod-template-hash`
//! among them; default-denies, DNS, monitoring, shared selectors, ipBlocks; and [`Cluster::next_event`], a stream of what
//! happens in such a cluster. The same [`Shape`] gives the same cluster and the same events.
//!
//! The pods of this node ([`NODE`]), their namespaces and the policies that select them depend on
//! [`Shape::local_pods`] alone: clusters of different sizes have the same node in them.

mod churn;
mod names;
mod policies;
pub mod wide;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;

use self::names::{SHOPS, TIERS};
use self::policies::PolicyState;
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Addresses, Event, Namespace, Node, Object, Pod};
use crate::cluster::port::{NamedPort, Protocol};
use crate::policy::Policy;

/// The node that the local pods run on.
pub const NODE: &str = "node-0";

/// How large a cluster is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// All pods; at least two for each local one, and a few.
    pub pods: usize,
    /// The pods on [`NODE`], at most 250.
    pub local_pods: usize,
    /// All policies; those of the local pods (seven each and fifteen) are there in any case.
    pub policies: usize,
    /// The namespaces beside a fixed few.
    pub namespaces: usize,
    /// What everything random comes from.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            pods: 1_000,
            local_pods: 50,
            policies: 500,
            namespaces: 50,
            seed: 1,
        }
    }
}

/// A cluster that changes.
#[derive(Debug)]
pub struct Cluster {
    rng: Rng,
    nodes: Vec<NodeState>,
    namespaces: Vec<NamespaceState>,
    deployments: Vec<Deployment>,
    policies: Vec<PolicyState>,
    serial: u32,
    /// How many pods there are, and how many there shall be on the average.
    pods: usize,
    wanted: usize,
    queue: VecDeque<Event>,
}

/// The addresses in use on a node, as a bitmap of its /24.
#[derive(Debug, Clone, Default)]
struct NodeState {
    used: [u64; 4],
    last: u8,
}

#[derive(Debug, Clone)]
struct NamespaceState {
    env: u8,
    /// A label that no policy names.
    budget: u8,
    deployments: u32,
}

#[derive(Debug)]
struct Deployment {
    namespace: u32,
    /// Its number in the namespace.
    number: u32,
    tier: u8,
    revision: u32,
    pods: Vec<PodState>,
}

/// What a pod is made from.
#[derive(Debug, Clone, Copy)]
struct PodState {
    serial: u32,
    revision: u32,
    node: u16,
    host: u8,
    canary: bool,
}

impl Cluster {
    /// A cluster of this shape.
    pub fn new(shape: Shape) -> Self {
        let nodes = 2 + shape.pods / 80;
        let namespaces = (0..names::FIXED_NAMESPACES + shape.namespaces).map(|n| NamespaceState {
            env: n as u8 % names::ENVS.len() as u8,
            budget: 0,
            deployments: 0,
        });
        let mut cluster = Self {
            rng: Rng::with_seed(shape.seed),
            nodes: vec![NodeState::default(); nodes],
            namespaces: namespaces.collect(),
            deployments: Vec::new(),
            policies: Vec::new(),
            serial: 0,
            pods: 0,
            wanted: shape.pods,
            queue: VecDeque::new(),
        };
        cluster.build_shops(shape.local_pods.min(250));
        for (namespace, pods) in names::INFRASTRUCTURE.into_iter().enumerate() {
            cluster.add_deployment(namespace as u32, 0, pods);
        }
        cluster.build_fleet(shape);
        cluster.policies = policies::plan(&cluster, shape.policies);
        cluster
    }

    /// One Deployment a local pod, with a second pod elsewhere.
    fn build_shops(&mut self, local_pods: usize) {
        for n in 0..local_pods {
            let namespace = (names::INFRASTRUCTURE.len() + n % SHOPS) as u32;
            let tier = (n % TIERS.len()) as u8;
            self.add_deployment(namespace, tier, 0);
            let last = self.deployments.len() - 1;
            self.add_pod(last, Some(0));
            self.add_pod(last, Some(1 + n % (self.nodes.len() - 1)));
        }
    }

    /// Deployments of all sizes in namespaces of all sizes, until there are as many pods as wanted.
    fn build_fleet(&mut self, shape: Shape) {
        let weights = (0..shape.namespaces).map(|n| 1.0 / (n as f64 + 1.0).powf(0.8));
        let sums: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let whole = sums.last().copied().unwrap_or_default();
        let mut left = shape.pods.saturating_sub(self.pods);
        while left > 0 && !sums.is_empty() {
            let at = self.rng.f64() * whole;
            let namespace = sums.partition_point(|sum| *sum < at).min(sums.len() - 1);
            let sizes = [1, 1, 2, 2, 2, 3, 3, 3, 5, 5, 8, 20];
            let size = sizes[self.rng.usize(..sizes.len())].min(left);
            let tier = self.rng.u8(..TIERS.len() as u8);
            self.add_deployment((names::FIXED_NAMESPACES + namespace) as u32, tier, size);
            left -= size;
        }
    }

    fn add_deployment(&mut self, namespace: u32, tier: u8, pods: usize) {
        let state = &mut self.namespaces[namespace as usize];
        let number = state.deployments;
        state.deployments += 1;
        self.deployments.push(Deployment {
            namespace,
            number,
            tier,
            revision: 0,
            pods: Vec::new(),
        });
        for _ in 0..pods {
            self.add_pod(self.deployments.len() - 1, None);
        }
    }

    /// Adds a pod to a Deployment, on the node given or on one that has room.
    fn add_pod(&mut self, deployment: usize, node: Option<usize>) -> Option<PodState> {
        let nodes = self.nodes.len();
        let node = node.unwrap_or_else(|| 1 + self.rng.usize(..nodes - 1));
        // The next node where this one is full; never the local one.
        let mut candidates = std::iter::once(node).chain((node + 1..nodes).chain(1..nodes));
        let (node, host) = candidates.find_map(|n| Some((n, self.nodes[n].take()?)))?;
        let deployment = &mut self.deployments[deployment];
        let pod = PodState {
            serial: self.serial,
            revision: deployment.revision,
            node: node as u16,
            host,
            canary: false,
        };
        self.serial += 1;
        self.pods += 1;
        deployment.pods.push(pod);
        Some(pod)
    }

    /// Everything there is now: nodes, namespaces, policies, pods.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let nodes = (0..self.nodes.len()).map(|n| Object::Node(node(n)));
        let namespaces = (0..self.namespaces.len()).map(|n| Object::Namespace(self.namespace(n)));
        let policies = self.policies.iter().filter(|policy| policy.exists);
        let policies = policies.map(|policy| Object::Policy(Arc::new(self.policy(policy))));
        let pods = self.deployments.iter().flat_map(|deployment| {
            let pods = deployment.pods.iter();
            pods.map(|pod| Object::Pod(self.pod(deployment, pod)))
        });
        nodes.chain(namespaces).chain(policies).chain(pods)
    }

    /// How many pods there are.
    pub fn pods(&self) -> usize {
        self.pods
    }

    fn namespace(&self, n: usize) -> Namespace {
        let state = &self.namespaces[n];
        names::namespace(n, state.env, state.budget)
    }

    fn pod(&self, deployment: &Deployment, pod: &PodState) -> Pod {
        let app = names::app(deployment.namespace, deployment.number);
        let hash = names::hash(deployment.number, pod.revision);
        let name = format!("{app}-{hash}-{}", names::suffix(pod.serial));
        let track = if pod.canary { "canary" } else { "stable" };
        let labels: Labels = [
            ("app", app.as_str()),
            ("app.kubernetes.io/managed-by", "helm"),
            ("pod-template-hash", &hash),
            ("tier", TIERS[usize::from(deployment.tier)]),
            ("track", track),
        ]
        .into_iter()
        .collect();
        let [high, low] = pod.node.to_be_bytes();
        Pod {
            namespace: text(names::namespace_name(deployment.namespace as usize)),
            name: text(name),
            uid: names::uid(pod.serial).into(),
            created: i64::from(pod.serial),
            node: Some(text(format!("node-{}", pod.node))),
            host_network: false,
            finished: false,
            labels,
            addresses: Addresses {
                v4: Some(Ipv4Addr::new(10, 128 + high, low, pod.host)),
                v6: None,
            },
            ports: Arc::new([port("http", 8080), port("metrics", 9090)]),
        }
    }

    // --- the same small changes in clusters of all sizes ---

    /// A pod that is not there yet, of a Deployment that has a pod on [`NODE`]; on that node or on another.
    pub fn newcomer(&self, local: bool, number: u32) -> Pod {
        let deployment = &self.deployments[number as usize % self.deployments.len().min(50)];
        let state = PodState {
            serial: u32::MAX - number,
            revision: 0,
            node: u16::from(!local),
            host: 255,
            canary: false,
        };
        Pod {
            addresses: Addresses {
                v4: Some(Ipv4Addr::from(0x0a7f_0000 + (number & 0xffff))),
                v6: None,
            },
            ..self.pod(deployment, &state)
        }
    }

    /// A namespace of the local pods, in this environment (0 to 2): policies select namespaces by that.
    pub fn shop(&self, env: u8) -> Namespace {
        names::namespace(names::INFRASTRUCTURE.len(), env, 0)
    }

    /// A policy of the first local pod, which admits its peers on this port.
    pub fn shop_policy(&self, port: u16) -> Policy {
        let state = PolicyState::of_deployment(0, 0, 0);
        let mut policy = self.policy(&state);
        policies::set_port(&mut policy, port);
        policy
    }
}

impl NodeState {
    /// An address that is free, after the one taken last.
    fn take(&mut self) -> Option<u8> {
        let start = self.last;
        let hosts = (1..=u8::MAX).map(|n| start.wrapping_add(n));
        let free = |host: &u8| (2..255).contains(host) && !self.has(*host);
        let host = hosts.into_iter().find(free)?;
        self.used[usize::from(host / 64)] |= 1 << (host % 64);
        self.last = host;
        Some(host)
    }

    fn has(&self, host: u8) -> bool {
        self.used[usize::from(host / 64)] & (1 << (host % 64)) != 0
    }

    fn give_back(&mut self, host: u8) {
        self.used[usize::from(host / 64)] &= !(1 << (host % 64));
    }
}

fn node(n: usize) -> Node {
    let [high, low] = (n as u16).to_be_bytes();
    let cidr = format!("10.{}.{low}.0/24", 128 + high);
    Node {
        name: text(format!("node-{n}")),
        pod_cidrs: cidr.parse().into_iter().collect(),
        addresses: vec![Ipv4Addr::new(192, 168, high, low).into()],
    }
}

fn port(name: &str, number: u16) -> NamedPort {
    NamedPort {
        name: text(name),
        protocol: Protocol::Tcp,
        number,
    }
}

fn text(text: impl AsRef<str>) -> Text {
    Text::from(text.as_ref())
}

#[cfg(test)]
mod tests;
