//! A pod: a namespace with `eth0`, whose other end is a port of its node's `cni0`.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use crc::{CRC_32_ISCSI, Crc};
use ipnet::IpNet;

use super::host::Host;
use super::node::{Node, gateway};
use crate::error::Error;
use crate::probe::responder::Registry;

/// A pod to be made.
#[derive(Debug, Clone)]
pub struct PodSpec {
    name: String,
    node: String,
    addresses: Option<Vec<IpAddr>>,
}

impl PodSpec {
    /// A pod `namespace/name` on a node, with one picked address for each of the node's pod CIDRs.
    pub fn new(name: &str, node: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: node.to_owned(),
            addresses: None,
        }
    }

    /// Exactly these addresses: one family alone makes a single-stack pod.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = Some(addresses.into_iter().collect());
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn wanted(&self) -> &[IpAddr] {
        self.addresses.as_deref().unwrap_or_default()
    }

    pub(super) fn pick_addresses(
        &self,
        cidrs: &[IpNet],
        taken: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Error> {
        if let Some(wanted) = &self.addresses {
            for address in wanted {
                if !cidrs.iter().any(|cidr| cidr.contains(address)) {
                    return Err(Error::invalid(format!(
                        "pod {}: {address} is not in a pod CIDR of node {}",
                        self.name, self.node
                    )));
                }
                if taken.contains(address) {
                    return Err(Error::invalid(format!(
                        "pod {}: {address} belongs to another pod",
                        self.name
                    )));
                }
            }
            return Ok(wanted.clone());
        }
        cidrs
            .iter()
            .map(|cidr| {
                // .0 is flannel.1's, .1 is cni0's
                let mut free = cidr
                    .hosts()
                    .skip_while(|address| *address <= cidr.network());
                free.find(|address| {
                    Ok(*address) != gateway(cidr).map_err(drop) && !taken.contains(address)
                })
                .ok_or_else(|| Error::invalid(format!("pod CIDR {cidr} is full")))
            })
            .collect()
    }
}

/// A pod of the lab. Clones are the same pod.
#[derive(Debug, Clone)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Host,
    node: Node,
    veth: String,
    mac: [u8; 6],
}

/// A pod is a [`Host`].
impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.inner.host
    }
}

impl AsRef<Host> for Pod {
    fn as_ref(&self) -> &Host {
        self
    }
}

impl Pod {
    pub(super) fn new(
        name: &str,
        node: Node,
        addresses: Vec<IpAddr>,
        registry: Arc<Registry>,
    ) -> Result<Self, Error> {
        let mac = mac_of(&addresses);
        let host = Host::create(name, addresses, "eth0", registry)?;
        Ok(Self {
            inner: Arc::new(Inner {
                host,
                node,
                veth: veth_of(name),
                mac,
            }),
        })
    }

    /// Addresses and default routes; `eth0` is there already.
    pub(super) fn configure(&self) -> Result<(), Error> {
        let mut script = String::from("link set lo up\n");
        let mut routes = String::new();
        for address in self.addresses() {
            let cidr = self
                .node()
                .pod_cidrs()
                .iter()
                .find(|cidr| cidr.contains(address))
                .ok_or_else(|| Error::invalid(format!("no pod CIDR for {address}")))?;
            let extra = if address.is_ipv4() { "brd +" } else { "nodad" };
            let _ = writeln!(
                script,
                "addr add {address}/{} dev eth0 {extra}",
                cidr.prefix_len()
            );
            let _ = writeln!(routes, "route add default via {} dev eth0", gateway(cidr)?);
        }
        script.push_str("link set eth0 up\n");
        self.netns().ip_batch(&(script + &routes))
    }

    /// Stops the servers and removes the veth pair.
    pub(super) fn detach(&self) -> Result<(), Error> {
        self.stop_servers();
        self.node()
            .netns()
            .command("ip")
            .args(["link", "del", self.veth()])
            .run()
            .map(drop)
    }

    /// The node it runs on.
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Its namespace and name: (`shop`, `web-0`). A name without a slash has the namespace `default`.
    pub fn namespace_and_name(&self) -> (&str, &str) {
        self.name()
            .split_once('/')
            .unwrap_or(("default", self.name()))
    }

    /// The node's end of its veth pair: a port of `cni0`.
    pub fn veth(&self) -> &str {
        &self.inner.veth
    }

    /// The link address of its `eth0`.
    pub fn mac(&self) -> [u8; 6] {
        self.inner.mac
    }

    pub(super) fn mac_text(&self) -> String {
        self.inner.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A link address made from the IP address, as CNI's bridge plugin used to do: a pod that inherits an address is
/// reached by neighbours that still remember the one before it.
fn mac_of(addresses: &[IpAddr]) -> [u8; 6] {
    let [a, b, c, d] = match addresses.first() {
        Some(IpAddr::V4(address)) => address.octets(),
        Some(IpAddr::V6(address)) => {
            let bits = address.to_bits() as u32;
            bits.to_be_bytes()
        }
        None => [0; 4],
    };
    [0x0a, 0x58, a, b, c, d]
}

/// The same in every run, and unlike the names of other pods.
fn veth_of(pod: &str) -> String {
    format!(
        "veth{:08x}",
        Crc::<u32>::new(&CRC_32_ISCSI).checksum(pod.as_bytes())
    )
}
