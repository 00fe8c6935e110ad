//! The objects of a cluster, cut down to what policy needs, and the events that bring them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::Text;
use super::labels::Labels;
use super::port::NamedPort;
use crate::policy::{Dialect, Policy, PolicyKey};

/// The label that every namespace carries its own name in.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pod's addresses: at most one a family, as `status.podIPs` promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The addresses there are, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        self.iter().any(|own| own == address)
    }
}

impl FromIterator<IpAddr> for Addresses {
    /// The first address of each family counts.
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut all = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => all.v4 = all.v4.or(Some(v4)),
                IpAddr::V6(v6) => all.v6 = all.v6.or(Some(v6)),
            }
        }
        all
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: Text,
    /// `metadata.name`.
    pub name: Text,
    /// `metadata.uid`: what a pod is. Empty where a manifest has none. No two pods share one: it is not interned.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp` in seconds since the epoch; of two pods that claim one address the younger has it.
    pub created: i64,
    /// `spec.nodeName`, once the pod is scheduled.
    pub node: Option<Text>,
    /// `spec.hostNetwork`: the pod uses its node's addresses and no policy concerns it.
    pub host_network: bool,
    /// Whether the pod has Succeeded or Failed, and so has no address any more.
    pub finished: bool,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `status.podIPs`.
    pub addresses: Addresses,
    /// The named ports of its containers and restartable init containers, sorted.
    pub ports: Arc<[NamedPort]>,
}

impl Pod {
    /// Whether policies can select the pod, as a subject or as a peer: it has a network of its own and is not finished.
    pub fn selectable(&self) -> bool {
        !self.host_network && !self.finished
    }
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Text,
    /// `metadata.labels`, always with [`NAMESPACE_NAME_LABEL`].
    pub labels: Labels,
    /// Whether it has a `metadata.deletionTimestamp`: it goes as soon as all that is in it is gone.
    pub terminating: bool,
}

impl Namespace {
    /// A namespace with these labels and the one of its name, which the API server sets whatever a manifest says.
    pub fn new(name: Text, labels: &Labels) -> Self {
        let labels = labels.with(NAMESPACE_NAME_LABEL, &name);
        Self {
            name,
            labels,
            terminating: false,
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Text,
    /// `spec.podCIDRs`, host bits zero.
    pub pod_cidrs: Vec<IpNetwork>,
    /// The IP addresses of `status.addresses`.
    pub addresses: Vec<IpAddr>,
}

/// An object that the index keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A pod.
    Pod(Pod),
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// A policy, lowered from its dialect.
    Policy(Arc<Policy>),
}

/// The kinds of objects that the index keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A v1 Pod.
    Pod,
    /// A v1 Namespace.
    Namespace,
    /// A v1 Node.
    Node,
    /// A networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pod, Self::Namespace, Self::Node, Self::NetworkPolicy];

    /// The API's word for one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// The API's word for many, as it stands in URLs and roles.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::NetworkPolicy => "networkpolicies",
        }
    }

    /// The API's group and version.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Pod | Self::Namespace | Self::Node => "v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }
}

/// What tells objects apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKey {
    /// A pod's namespace and name.
    Pod(Text, Text),
    /// A namespace's name.
    Namespace(Text),
    /// A node's name.
    Node(Text),
    /// A policy's kind, namespace and name.
    Policy(PolicyKey),
}

impl Object {
    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Pod(pod) => ObjectKey::Pod(pod.namespace.clone(), pod.name.clone()),
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Policy(policy) => ObjectKey::Policy(policy.key.clone()),
        }
    }
}

impl ObjectKey {
    /// The object's kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Pod(..) => ObjectKind::Pod,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Node(_) => ObjectKind::Node,
            Self::Policy(key) => match key.dialect {
                Dialect::NetworkPolicy => ObjectKind::NetworkPolicy,
            },
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "Pod {namespace}/{name}"),
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Policy(key) => write!(f, "{key}"),
        }
    }
}

/// One change of the cluster. Applying an object again, or deleting one that is not there, changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The object is new or has changed.
    Apply(Object),
    /// The object is gone. A pod's UID, where it is known, keeps a late event from deleting its successor.
    Delete {
        /// The object.
        key: ObjectKey,
        /// The UID of a pod.
        uid: Option<Box<str>>,
    },
    /// These are all the objects of a kind that there are: those known beside them are gone.
    Retain {
        /// The kind.
        kind: ObjectKind,
        /// The keys of its objects.
        keys: BTreeSet<ObjectKey>,
    },
}
