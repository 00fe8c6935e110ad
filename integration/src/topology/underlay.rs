//! The network under the cluster: a bridge `br0` in a namespace of its own, to which every node's and outsider's `eth0`
//! is attached. Its gateway 192.168.50.1 takes what has no other route and forwards nothing.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::builder::Families;
use super::host::Host;
use super::node::NodePlan;
use crate::error::Error;
use crate::netns::Netns;

pub(super) fn create(families: Families) -> Result<Netns, Error> {
    let netns = Netns::new("underlay")?;
    netns.set_sysctls(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        // Only the nodes are to filter.
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ])?;
    let mut script = String::from(
        "link set lo up\n\
         link add br0 address 02:50:00:00:00:01 type bridge\n\
         link set br0 up\n",
    );
    for gateway in addresses(1, families) {
        let _ = writeln!(script, "{}", add_address(gateway, "br0"));
    }
    netns.ip_batch(&script)?;
    Ok(netns)
}

/// Attaches the ports that nodes (`node1` …) and outsiders (`out0` …) have brought.
pub(super) fn join(underlay: &Netns, nodes: usize, outsiders: usize) -> Result<(), Error> {
    let ports = (1..=nodes)
        .map(|number| format!("node{number}"))
        .chain((0..outsiders).map(|index| format!("out{index}")));
    let mut script = String::new();
    for port in ports {
        let _ = writeln!(script, "link set {port} master br0 up");
    }
    underlay.ip_batch(&script)
}

/// The addresses with host number `number` (written in decimal in both families).
pub(super) fn addresses(number: u8, families: Families) -> Vec<IpAddr> {
    let decimal = u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    [
        IpAddr::V4(Ipv4Addr::new(192, 168, 50, number)),
        IpAddr::V6(Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, decimal)),
    ]
    .into_iter()
    .filter(|address| families.has(*address))
    .collect()
}

pub(super) fn outsider_addresses(
    index: usize,
    families: Families,
    more: &[IpAddr],
) -> Result<Vec<IpAddr>, Error> {
    let number =
        u8::try_from(200 + index).map_err(|_| Error::invalid("a lab has at most 55 outsiders"))?;
    let mut all = addresses(number, families);
    all.extend(more.iter().filter(|address| families.has(**address)));
    Ok(all)
}

pub(super) fn connect_outsider(
    index: usize,
    outsider: &Host,
    underlay: &Netns,
    nodes: &[NodePlan],
) -> Result<(), Error> {
    let mut script = format!(
        "link set lo up\n\
         link add eth0 type veth peer name out{index} netns {}\n",
        underlay.path().display()
    );
    for address in outsider.addresses() {
        let _ = writeln!(script, "{}", add_address(*address, "eth0"));
    }
    script.push_str("link set eth0 up\n");
    for node in nodes {
        for cidr in &node.pod_cidrs {
            if let Some(via) = node.address_like(cidr.addr()) {
                let _ = writeln!(script, "route add {cidr} via {via} dev eth0");
            }
        }
    }
    outsider.netns().ip_batch(&script)
}

/// The `ip` command that adds an underlay address; one outside the underlay's own networks stands alone (/32, /128).
pub(super) fn add_address(address: IpAddr, device: &str) -> String {
    let length = match (address, on_underlay(address)) {
        (IpAddr::V4(_), true) => 24,
        (IpAddr::V4(_), false) => 32,
        (IpAddr::V6(_), true) => 64,
        (IpAddr::V6(_), false) => 128,
    };
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("addr add {address}/{length} dev {device}{nodad}")
}

/// Whether an address lies in 192.168.50.0/24 or fd50::/64.
pub(super) fn on_underlay(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[192, 168, 50]),
        IpAddr::V6(address) => address.segments().starts_with(&[0xfd50, 0, 0, 0]),
    }
}
