//! The description of a lab, and its building: namespaces first, then the nodes' links, then the pods' own side.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::host::Host;
use super::node::{Node, NodePlan};
use super::pod::{Pod, PodSpec};
use super::{Lab, await_forwarding, module, underlay};
use crate::error::Error;
use crate::parallel::parallel;
use crate::probe::responder::Registry;

/// Which IP families the lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 and IPv6 (the default).
    #[default]
    Dual,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Families {
    pub(crate) fn has(self, address: IpAddr) -> bool {
        match self {
            Families::Dual => true,
            Families::Ipv4 => address.is_ipv4(),
            Families::Ipv6 => address.is_ipv6(),
        }
    }
}

/// A node to be built.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    pub(crate) name: String,
    pub(crate) pod_cidrs: Option<Vec<IpNet>>,
}

impl NodeSpec {
    /// A node with the next default pod CIDRs: 10.244.1.0/24 and fd00:10:244:1::/64, then 10.244.2.0/24 …
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pod_cidrs: None,
        }
    }

    /// Other pod CIDRs, at most one a family.
    pub fn pod_cidrs(mut self, cidrs: impl IntoIterator<Item = IpNet>) -> Self {
        self.pod_cidrs = Some(cidrs.into_iter().map(|cidr| cidr.trunc()).collect());
        self
    }
}

impl From<&str> for NodeSpec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// Describes a [`Lab`]; [`build`](Self::build) makes it.
#[derive(Debug, Clone)]
pub struct LabBuilder {
    families: Families,
    br_netfilter: bool,
    nodes: Vec<NodeSpec>,
    pods: Vec<PodSpec>,
    outsiders: Vec<(String, Vec<IpAddr>)>,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            families: Families::Dual,
            br_netfilter: true,
            nodes: Vec::new(),
            pods: Vec::new(),
            outsiders: Vec::new(),
        }
    }
}

impl LabBuilder {
    /// The IP families of all nodes and pods (default: both).
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Whether bridged packets meet the nodes' IP hooks (default: yes). `false` is a node before `selvedge node-setup`.
    pub fn br_netfilter(mut self, on: bool) -> Self {
        self.br_netfilter = on;
        self
    }

    /// Adds a node: a name, or a [`NodeSpec`] with its own pod CIDRs. The first has address 192.168.50.11 and fd50::11.
    pub fn node(mut self, node: impl Into<NodeSpec>) -> Self {
        self.nodes.push(node.into());
        self
    }

    /// Adds a pod `namespace/name` on a node, with addresses picked from the node's pod CIDRs.
    pub fn pod(self, name: &str, node: &str) -> Self {
        self.pod_spec(PodSpec::new(name, node))
    }

    /// Adds a pod as described.
    pub fn pod_spec(mut self, spec: PodSpec) -> Self {
        self.pods.push(spec);
        self
    }

    /// Adds a host on the underlay outside the cluster, which has routes to the pods. Its first addresses are
    /// 192.168.50.200 and fd50::200 (then .201 …); `more` are further ones, each reachable from every node.
    pub fn outsider(mut self, name: &str, more: impl IntoIterator<Item = IpAddr>) -> Self {
        self.outsiders
            .push((name.to_owned(), more.into_iter().collect()));
        self
    }

    /// Builds it. What was built before an error is gone when this returns.
    pub fn build(self) -> Result<Lab, Error> {
        raise_file_limit();
        let registry = Arc::new(Registry::default());
        let plans = self.node_plans()?;
        let underlay = underlay::create(self.families)?;
        // After the first namespace: without root that error is the clearer one.
        module::load_br_netfilter()?;
        let nodes = parallel(&plans, |plan| {
            Node::create(plan, &underlay, self.br_netfilter, registry.clone())
        })?;
        let outsiders = self
            .outsiders
            .iter()
            .enumerate()
            .map(|(index, (name, more))| {
                let addresses = underlay::outsider_addresses(index, self.families, more)?;
                Host::create(name, addresses, "eth0", registry.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let lab = Lab {
            underlay,
            nodes,
            outsiders,
            pods: Mutex::default(),
            services: Mutex::default(),
            registry,
        };
        let extra = lab.outsiders.iter().flat_map(Host::extra_addresses);
        let extra: Vec<IpAddr> = extra.collect();
        parallel(&lab.nodes, |node| node.connect(&plans, &extra))?;
        for (index, outsider) in lab.outsiders.iter().enumerate() {
            underlay::connect_outsider(index, outsider, &lab.underlay, &plans)?;
        }
        underlay::join(&lab.underlay, lab.nodes.len(), lab.outsiders.len())?;
        self.build_pods(&lab)?;
        await_forwarding(&lab.underlay, "br0")?;
        Ok(lab)
    }

    fn build_pods(&self, lab: &Lab) -> Result<(), Error> {
        // Addresses that are asked for come before those that are picked.
        let mut taken: Vec<IpAddr> = Vec::new();
        for spec in &self.pods {
            taken.extend(spec.wanted());
        }
        let mut planned: Vec<(&str, Node, Vec<IpAddr>)> = Vec::new();
        for spec in &self.pods {
            let node = lab.node(spec.node())?;
            if planned.iter().any(|(name, ..)| *name == spec.name()) {
                return Err(Error::invalid(format!(
                    "two pods are named {}",
                    spec.name()
                )));
            }
            let others: Vec<IpAddr> = taken
                .iter()
                .copied()
                .filter(|address| !spec.wanted().contains(address))
                .collect();
            let addresses: Vec<IpAddr> = spec
                .pick_addresses(node.pod_cidrs(), &others)?
                .into_iter()
                .filter(|address| self.families.has(*address))
                .collect();
            taken.extend(&addresses);
            planned.push((spec.name(), node, addresses));
        }
        let pods = parallel(&planned, |(name, node, addresses)| {
            Pod::new(name, node.clone(), addresses.clone(), lab.registry.clone())
        })?;
        parallel(&lab.nodes, |node| {
            let own: Vec<&Pod> = pods
                .iter()
                .filter(|pod| pod.node().name() == node.name())
                .collect();
            node.attach(&own)
        })?;
        parallel(&pods, Pod::configure)?;
        parallel(&lab.nodes, |node| await_forwarding(node.netns(), "cni0"))?;
        *lab.lock_pods() = pods;
        Ok(())
    }

    fn node_plans(&self) -> Result<Vec<NodePlan>, Error> {
        let mut plans = Vec::new();
        for (index, spec) in self.nodes.iter().enumerate() {
            let number = u8::try_from(index + 1)
                .ok()
                .filter(|number| *number < 180)
                .ok_or_else(|| Error::invalid("a lab has fewer than 180 nodes"))?;
            let default: [IpNet; 2] = [
                Ipv4Net::new_assert([10, 244, number, 0].into(), 24).into(),
                Ipv6Net::new_assert([0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 0].into(), 64)
                    .into(),
            ];
            let mut cidrs = spec.pod_cidrs.clone().unwrap_or(default.to_vec());
            cidrs.retain(|cidr| self.families.has(cidr.addr()));
            if plans.iter().any(|plan: &NodePlan| plan.name == spec.name) {
                return Err(Error::invalid(format!("two nodes are named {}", spec.name)));
            }
            plans.push(NodePlan {
                name: spec.name.clone(),
                number,
                addresses: underlay::addresses(10 + number, self.families),
                pod_cidrs: cidrs,
            });
        }
        Ok(plans)
    }
}

/// Hundreds of pods with sockets and namespaces need more file descriptors than the usual soft limit of 1024.
fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it small labs work all the same, and a large one names the file that it could not open.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
