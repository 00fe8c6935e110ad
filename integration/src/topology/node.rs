//! A node as Flannel's vxlan backend and the bridge CNI plugin leave it.
//!
//! `cni0` holds the first address of each pod CIDR; `flannel.1` (and `flannel-v6.1`) hold its network address; routes,
//! neighbours and forwarding entries towards the other nodes are static, as flanneld writes them.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;

use super::host::Host;
use super::pod::Pod;
use super::underlay;
use crate::error::Error;
use crate::netns::Netns;
use crate::probe::responder::Registry;

/// MTU of pods and bridge: 1500 less VXLAN's 50 bytes.
pub(super) const POD_MTU: u16 = 1450;

/// What is decided about a node before it is built.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    pub(super) name: String,
    pub(super) number: u8,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pod_cidrs: Vec<IpNet>,
}

impl NodePlan {
    /// The node's own address of the same family.
    pub(super) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| address.is_ipv4() == other.is_ipv4())
    }

    fn vtep_mac(&self, cidr: &IpNet) -> String {
        let family = if cidr.addr().is_ipv4() { 4 } else { 6 };
        format!("02:f1:00:00:{family:02x}:{:02x}", self.number)
    }
}

/// A node: its namespace is where kube-proxy, Selvedge and hostNetwork pods stand. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Host,
    plan: NodePlan,
}

/// A node is a [`Host`].
impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.inner.host
    }
}

impl AsRef<Host> for Node {
    fn as_ref(&self) -> &Host {
        self
    }
}

impl Node {
    /// Makes the node's namespace with its sysctls and its port on the underlay.
    pub(super) fn create(
        plan: &NodePlan,
        underlay: &Netns,
        br_netfilter: bool,
        registry: Arc<Registry>,
    ) -> Result<Self, Error> {
        let host = Host::create(&plan.name, plan.addresses.clone(), "cni0", registry)?;
        let bridged = if br_netfilter { "1" } else { "0" };
        host.netns().set_sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/default/forwarding", "1"),
            // These are a namespace's own on this kernel; the machine's stay as they are.
            ("net/bridge/bridge-nf-call-iptables", bridged),
            ("net/bridge/bridge-nf-call-ip6tables", bridged),
            ("net/bridge/bridge-nf-call-arptables", "0"),
        ])?;
        host.netns().ip_batch(&format!(
            "link set lo up\n\
             link add eth0 address 02:50:00:00:01:{:02x} type veth peer name node{} netns {}\n",
            plan.number,
            plan.number,
            underlay.path().display()
        ))?;
        Ok(Self {
            inner: Arc::new(Inner {
                host,
                plan: plan.clone(),
            }),
        })
    }

    /// Addresses, `cni0`, `flannel.1` and the routes to the other nodes. `outside` are further addresses on the underlay.
    pub(super) fn connect(&self, nodes: &[NodePlan], outside: &[IpAddr]) -> Result<(), Error> {
        let plan = &self.inner.plan;
        let mut ip = String::new();
        let mut fdb = String::new();
        for address in &plan.addresses {
            let _ = writeln!(ip, "{}", underlay::add_address(*address, "eth0"));
        }
        ip.push_str("link set eth0 up\n");
        for address in &plan.addresses {
            let gateway = if address.is_ipv4() {
                "192.168.50.1"
            } else {
                "fd50::1"
            };
            let _ = writeln!(ip, "route add default via {gateway} dev eth0");
        }
        for address in outside {
            let _ = writeln!(ip, "route add {address} dev eth0");
        }
        let _ = writeln!(
            ip,
            "link add cni0 address 02:cb:00:00:00:{:02x} mtu {POD_MTU} type bridge\nlink set cni0 up",
            plan.number
        );
        for cidr in &plan.pod_cidrs {
            let gateway = gateway(cidr)?;
            let extra = if gateway.is_ipv4() { "brd +" } else { "nodad" };
            let _ = writeln!(
                ip,
                "addr add {gateway}/{} dev cni0 {extra}",
                cidr.prefix_len()
            );
            self.connect_overlay(cidr, nodes, &mut ip, &mut fdb)?;
        }
        self.netns().ip_batch(&ip)?;
        self.netns()
            .command("bridge")
            .args(["-batch", "-"])
            .input(fdb)
            .run()
            .map(drop)
    }

    fn connect_overlay(
        &self,
        cidr: &IpNet,
        nodes: &[NodePlan],
        ip: &mut String,
        fdb: &mut String,
    ) -> Result<(), Error> {
        let plan = &self.inner.plan;
        let v4 = cidr.addr().is_ipv4();
        // flanneld runs IPv6 over a device of its own, whose outer header is 20 bytes longer.
        let (device, mtu, host_length) = if v4 {
            ("flannel.1", POD_MTU, 32)
        } else {
            ("flannel-v6.1", POD_MTU - 20, 128)
        };
        let Some(local) = plan.address_like(cidr.addr()) else {
            return Err(Error::invalid(format!(
                "node {} has no address for {cidr}",
                plan.name
            )));
        };
        let _ = writeln!(
            ip,
            "link add {device} address {} mtu {mtu} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning\n\
             addr add {}/{host_length} dev {device}{}\n\
             link set {device} up",
            plan.vtep_mac(cidr),
            cidr.network(),
            if v4 { "" } else { " nodad" },
        );
        for peer in nodes.iter().filter(|peer| peer.number != plan.number) {
            let theirs = peer
                .pod_cidrs
                .iter()
                .find(|theirs| theirs.addr().is_ipv4() == v4);
            let (Some(theirs), Some(remote)) = (theirs, peer.address_like(cidr.addr())) else {
                continue;
            };
            let (mac, vtep) = (peer.vtep_mac(theirs), theirs.network());
            let _ = writeln!(
                ip,
                "neigh add {vtep} lladdr {mac} dev {device} nud permanent\n\
                 route add {theirs} via {vtep} dev {device} onlink"
            );
            let _ = writeln!(
                fdb,
                "fdb append {mac} dev {device} dst {remote} self permanent"
            );
        }
        Ok(())
    }

    /// Makes the veth pairs of pods and attaches them to `cni0`, all in one call.
    pub(super) fn attach(&self, pods: &[&Pod]) -> Result<(), Error> {
        if pods.is_empty() {
            return Ok(());
        }
        let mut script = String::new();
        for pod in pods {
            let veth = pod.veth();
            let _ = writeln!(
                script,
                "link add {veth} mtu {POD_MTU} type veth peer name eth0 mtu {POD_MTU} address {} netns {}\n\
                 link set {veth} master cni0 up\n\
                 link set {veth} type bridge_slave hairpin on",
                pod.mac_text(),
                pod.netns().path().display()
            );
        }
        self.netns().ip_batch(&script)
    }

    /// The node's pod CIDRs.
    pub fn pod_cidrs(&self) -> &[IpNet] {
        &self.inner.plan.pod_cidrs
    }

    /// The node's ruleset as `nft -s list ruleset` prints it (without counters' values).
    pub fn nft_ruleset(&self) -> Result<String, Error> {
        self.netns()
            .command("nft")
            .args(["-s", "list", "ruleset"])
            .run()
    }

    /// One table, e.g. `inet`, `selvedge`, as `nft -s list table` prints it.
    pub fn nft_table(&self, family: &str, table: &str) -> Result<String, Error> {
        self.netns()
            .command("nft")
            .args(["-s", "list", "table", family, table])
            .run()
    }
}

/// The pod network's gateway: the first address after the network's own.
pub(super) fn gateway(cidr: &IpNet) -> Result<IpAddr, Error> {
    let address = match cidr {
        IpNet::V4(cidr) => u32::from(cidr.network())
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpNet::V6(cidr) => u128::from(cidr.network())
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    };
    address
        .filter(|address| cidr.contains(address))
        .ok_or_else(|| Error::invalid(format!("pod CIDR {cidr} has no room for pods")))
}
