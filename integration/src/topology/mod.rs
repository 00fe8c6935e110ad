//! The lab: nodes shaped as Flannel shapes them, pods on their bridges, hosts outside the cluster.
//!
//! - [`builder`]: what to build, and the order in which it is built
//! - [`host`]: what nodes, pods and outsiders have in common: a namespace, addresses, servers, probes
//! - [`node`]: `cni0`, `flannel.1`, routes
//! - [`pod`]: a veth pair · [`module`]: what the kernel must have loaded

pub(crate) mod builder;
pub(crate) mod host;
mod module;
pub(crate) mod node;
pub(crate) mod pod;
mod underlay;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::error::Error;
use crate::netns::Netns;
use crate::probe::responder::Registry;
use crate::service::Service;
use crate::wait::wait_until;

use builder::LabBuilder;
use host::Host;
use node::Node;
use pod::{Pod, PodSpec};

/// Nodes, pods and outsiders, each in its network namespace. Everything vanishes when it drops.
#[derive(Debug)]
pub struct Lab {
    underlay: Netns,
    nodes: Vec<Node>,
    outsiders: Vec<Host>,
    pods: Mutex<Vec<Pod>>,
    services: Mutex<Vec<Service>>,
    registry: Arc<Registry>,
}

impl Lab {
    /// Starts the description of a lab.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The namespace that joins the nodes' `eth0`: a bridge `br0` that forwards between them and nothing else.
    pub fn underlay(&self) -> &Netns {
        &self.underlay
    }

    /// The nodes, in the order in which they were given.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by name. It is also the host of hostNetwork pods.
    pub fn node(&self, name: &str) -> Result<Node, Error> {
        find(&self.nodes, "node", name, |node| node.name())
    }

    /// The hosts outside the cluster, in the order in which they were given.
    pub fn outsiders(&self) -> &[Host] {
        &self.outsiders
    }

    /// A host outside the cluster by name.
    pub fn outsider(&self, name: &str) -> Result<Host, Error> {
        find(&self.outsiders, "outsider", name, Host::name)
    }

    /// The pods that are there now, oldest first.
    pub fn pods(&self) -> Vec<Pod> {
        self.lock_pods().clone()
    }

    /// A pod by `namespace/name`.
    pub fn pod(&self, name: &str) -> Result<Pod, Error> {
        find(&self.lock_pods(), "pod", name, |pod| pod.name())
    }

    /// Several pods at once: `let [web, db] = lab.pods_named(["shop/web", "shop/db"])?`.
    pub fn pods_named<const N: usize>(&self, names: [&str; N]) -> Result<[Pod; N], Error> {
        let found = names
            .iter()
            .map(|name| self.pod(name))
            .collect::<Result<Vec<_>, _>>()?;
        <[Pod; N]>::try_from(found).map_err(|_| Error::invalid("as many pods as names"))
    }

    /// Adds a pod while the lab runs. Addresses it doesn't name are picked from its node's pod CIDRs.
    pub fn add_pod(&self, spec: PodSpec) -> Result<Pod, Error> {
        let pod = self.prepare_pod(spec)?;
        pod.node().attach(&[&pod])?;
        pod.configure()?;
        await_forwarding(pod.node().netns(), "cni0")?;
        self.lock_pods().push(pod.clone());
        Ok(pod)
    }

    /// Removes a pod: its servers stop and its veth pair goes. Its addresses are free for another pod at once.
    ///
    /// Its namespace lasts as long as someone holds the returned handle or a clone of it, unconnected.
    pub fn remove_pod(&self, name: &str) -> Result<Pod, Error> {
        let pod = self.pod(name)?;
        pod.detach()?;
        self.lock_pods().retain(|other| other.name() != name);
        Ok(pod)
    }

    /// The pod CIDRs of all nodes.
    pub fn pod_cidrs(&self) -> Vec<IpNet> {
        self.nodes
            .iter()
            .flat_map(|node| node.pod_cidrs().iter().copied())
            .collect()
    }

    /// Programs a ClusterIP on every node as kube-proxy would, or replaces the one of the same name.
    pub fn add_service(&self, service: Service) -> Result<(), Error> {
        let mut services = self.lock_services();
        services.retain(|other| other.name() != service.name());
        services.push(service);
        self.program_services(&services)
    }

    /// Takes a ClusterIP away from every node.
    pub fn remove_service(&self, name: &str) -> Result<(), Error> {
        let mut services = self.lock_services();
        services.retain(|other| other.name() != name);
        self.program_services(&services)
    }

    fn program_services(&self, services: &[Service]) -> Result<(), Error> {
        let script = crate::service::script(services, &self.pod_cidrs());
        self.nodes
            .iter()
            .try_for_each(|node| node.netns().nft(&script))
    }

    /// Makes the pod's namespace and reserves its addresses; nothing is connected yet.
    fn prepare_pod(&self, spec: PodSpec) -> Result<Pod, Error> {
        let node = self.node(spec.node())?;
        let mut taken: Vec<IpAddr> = Vec::new();
        for pod in self.lock_pods().iter() {
            if pod.name() == spec.name() {
                return Err(Error::invalid(format!(
                    "pod {} is there already",
                    spec.name()
                )));
            }
            taken.extend(pod.addresses());
        }
        let addresses = spec.pick_addresses(node.pod_cidrs(), &taken)?;
        Pod::new(spec.name(), node, addresses, self.registry.clone())
    }

    fn lock_pods(&self) -> MutexGuard<'_, Vec<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_services(&self) -> MutexGuard<'_, Vec<Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until all ports of a bridge forward. The kernel takes up to a second to notice that a link is up, and what is sent
/// until then is lost.
fn await_forwarding(netns: &Netns, bridge: &str) -> Result<(), Error> {
    let what = format!("{bridge} of {} to forward", netns.name());
    wait_until(&what, Duration::from_secs(20), || {
        // The threads of this process see the machine's own links in /sys, whatever namespace they are in.
        let links = netns.command("bridge").args(["-j", "link"]).run()?;
        let links: Vec<Value> = serde_json::from_str(&links)
            .map_err(|error| Error::invalid(format!("bridge -j link: {error}")))?;
        let mut ports = links.iter().filter(|link| link["master"] == bridge);
        Ok(ports.all(|port| port["state"] == "forwarding"))
    })
}

fn find<T: Clone>(
    all: &[T],
    kind: &'static str,
    name: &str,
    name_of: impl Fn(&T) -> &str,
) -> Result<T, Error> {
    all.iter()
        .find(|one| name_of(one) == name)
        .cloned()
        .ok_or_else(|| Error::Unknown {
            kind,
            name: name.to_owned(),
        })
}
