//! Who an address is: a pod, a node, or somebody outside.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::cluster::Text;
use crate::cluster::object::{Addresses, Node, Pod};
use crate::index::Index;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Owner {
    /// A pod that policies can select: it has a network of its own and is not finished.
    Pod {
        /// Its namespace.
        #[serde(serialize_with = "text")]
        namespace: Text,
        /// Its name.
        #[serde(serialize_with = "text")]
        name: Text,
        /// Its node, where its rules are enforced; none before it is scheduled.
        #[serde(serialize_with = "optional_text")]
        node: Option<Text>,
    },
    /// A node, and so its hostNetwork pods.
    Node {
        /// Its name.
        #[serde(serialize_with = "text")]
        name: Text,
    },
    /// Nobody the cluster knows.
    Outside,
}

/// Serializes an interned text as a string.
pub(super) fn text<S: serde::Serializer>(text: &Text, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn optional_text<S: serde::Serializer>(
    text: &Option<Text>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

/// One end of a connection, with its objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub address: IpAddr,
    /// The pod that has the address.
    pub pod: Option<&'a Pod>,
}

impl<'a> End<'a> {
    pub fn of(index: &'a Index, address: IpAddr) -> Self {
        Self {
            address,
            pod: index.owner(address),
        }
    }

    /// The node that the end's pod is on.
    pub fn node(&self) -> Option<&'a Text> {
        self.pod?.node.as_ref()
    }

    /// The node that the end's pod is on, if `other` is that node itself.
    pub fn own_node(&self, index: &Index, other: &End<'_>) -> Option<&'a Text> {
        let name = self.node()?;
        let is_own = other.pod.is_none()
            && match index.node(name) {
                Some(node) => is_own_address(node, other.address),
                // A node that no object describes is known by its hostNetwork pods.
                None => index.pods().any(|pod| {
                    pod.host_network
                        && pod.node.as_ref() == Some(name)
                        && pod.addresses.contains(other.address)
                }),
            };
        is_own.then_some(name)
    }

    /// Whether both are the same pod.
    pub fn is(&self, other: &End<'_>) -> bool {
        match (self.pod, other.pod) {
            (Some(one), Some(two)) => one.namespace == two.namespace && one.name == two.name,
            _ => false,
        }
    }

    pub fn endpoint(&self, index: &Index) -> Endpoint {
        let owner = match self.pod {
            Some(pod) => Owner::Pod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                node: pod.node.clone(),
            },
            None => {
                let mut nodes = index.nodes();
                let node = nodes.find(|node| is_own_address(node, self.address));
                node.map_or(Owner::Outside, |node| Owner::Node {
                    name: node.name.clone(),
                })
            }
        };
        Endpoint {
            address: self.address,
            owner,
        }
    }
}

/// The addresses that a pod can be asked about by: its own; for a hostNetwork pod those of its node; for a finished one
/// none, as it has lost them.
pub fn addresses(index: &Index, pod: &Pod) -> Addresses {
    if pod.finished {
        return Addresses::default();
    }
    if !pod.host_network {
        return index.addresses(pod);
    }
    let node = pod.node.as_ref().and_then(|name| index.node(name));
    let nodes = node
        .map(|node| node.addresses.as_slice())
        .unwrap_or_default();
    pod.addresses.iter().chain(nodes.iter().copied()).collect()
}

/// Whether the node itself answers to the address: one of its `status.addresses`, or the first two of a pod CIDR, which
/// `flannel.1` and `cni0` have.
pub fn is_own_address(node: &Node, address: IpAddr) -> bool {
    node.addresses.contains(&address)
        || node.pod_cidrs.iter().any(|net| match (net, address) {
            (IpNetwork::V4(net), IpAddr::V4(address)) => {
                let first = net.network().to_bits();
                address.to_bits().checked_sub(first).is_some_and(|n| n < 2)
            }
            (IpNetwork::V6(net), IpAddr::V6(address)) => {
                let first = net.network().to_bits();
                address.to_bits().checked_sub(first).is_some_and(|n| n < 2)
            }
            _ => false,
        })
}

/// Whether a destination reaches pods over a node's bridge though no pod's status names it: link-local and multicast
/// addresses, and broadcast, that of the node's pod CIDRs too.
pub fn is_shared(node: Option<&Node>, destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(v4) => {
            let broadcast = |net: &IpNetwork| match net {
                IpNetwork::V4(net) => net.prefix() < 31 && net.broadcast() == v4,
                IpNetwork::V6(_) => false,
            };
            v4.is_multicast()
                || v4 == Ipv4Addr::BROADCAST
                || v4 == Ipv4Addr::UNSPECIFIED
                || node.is_some_and(|node| node.pod_cidrs.iter().any(broadcast))
        }
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// Whether a source is an address that a pod has on its bridge beside those that its status names.
pub fn is_shared_source(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
