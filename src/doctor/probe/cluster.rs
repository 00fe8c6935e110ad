//! The probe's cluster: one node, a client and a server, and a policy for the server. From here on it is the same
//! pipeline as everyone's.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use selvedge_nft::{IfName, Ruleset};
use serde_json::json;

use super::ProbeError;
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Addresses, Event, Namespace, Node, Object, Pod};
use crate::compile::{Host, compile};
use crate::index::Index;
use crate::policy::network_policy::lower;

/// The bridge, and the names of its ports.
pub(super) const BRIDGE: &str = "probe0";
pub(super) const CLIENT_PORT: &str = "client0";
pub(super) const SERVER_PORT: &str = "server0";

/// Addresses for documentation: of nobody's network.
pub(super) const CLIENT: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
);
pub(super) const SERVER: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(192, 0, 2, 3),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3),
);

/// The port that the policy may allow, and one that it never does.
pub(super) const OPEN: u16 = 7001;
pub(super) const SHUT: u16 = 7002;

/// What the server's policy says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Policy {
    /// The client may reach port [`OPEN`].
    Allow,
    /// Nobody may reach anything.
    Close,
}

/// The node's ruleset under that policy.
pub(super) fn ruleset(policy: Policy) -> Result<Ruleset, ProbeError> {
    let unsayable = |error: &dyn std::fmt::Display| ProbeError::Cluster(error.to_string());
    let name = Text::from("probe");
    let cidr = |text: &str| text.parse().map_err(|error| unsayable(&error));
    let node = Node {
        name: name.clone(),
        pod_cidrs: vec![cidr("192.0.2.0/24")?, cidr("2001:db8::/64")?],
        addresses: Vec::new(),
    };
    let rules = match policy {
        Policy::Allow => json!([{
            "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
            "ports": [{"protocol": "UDP", "port": OPEN}, {"protocol": "TCP", "port": OPEN}],
        }]),
        Policy::Close => json!([]),
    };
    let policy = json!({
        "metadata": {"namespace": "probe", "name": "server"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": rules},
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).map_err(|e| unsayable(&e))?;
    let objects = [
        Object::Namespace(Namespace::new(name.clone(), &Labels::default())),
        Object::Node(node),
        Object::Pod(pod("client", CLIENT)),
        Object::Pod(pod("server", SERVER)),
        Object::Policy(Arc::new(lower(&policy))),
    ];
    let mut index = Index::new();
    for object in objects {
        index.apply(Event::Apply(object));
    }
    let interface = |name: &str| IfName::new(name).map_err(|error| unsayable(&error));
    let ports = [interface(CLIENT_PORT)?, interface(SERVER_PORT)?];
    let host = Host::new(interface(BRIDGE)?, ports);
    Ok(compile(&index, &name, &host))
}

fn pod(name: &str, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Pod {
    Pod {
        namespace: Text::from("probe"),
        name: Text::from(name),
        uid: name.into(),
        created: 0,
        node: Some(Text::from("probe")),
        host_network: false,
        finished: false,
        labels: [(Text::from("app"), Text::from(name))]
            .into_iter()
            .collect(),
        addresses: Addresses {
            v4: Some(v4),
            v6: Some(v6),
        },
        ports: Arc::from([]),
    }
}
