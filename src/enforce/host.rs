//! The host: which bridge is the pods', and what else must be so for rules to see their packets.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use selvedge_nft::IfName;

use crate::compile::Host;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it is up, as far as its owner is concerned.
    pub up: bool,
    /// The index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether what it bridges meets netfilter, whatever net.bridge says.
    pub filtered: Filtered,
}

/// A bridge's own switches of br_netfilter: a packet meets netfilter where they or net.bridge say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filtered {
    /// `nf_call_iptables`.
    pub ipv4: bool,
    /// `nf_call_ip6tables`.
    pub ipv6: bool,
}

impl Filtered {
    /// Both.
    pub const WHOLLY: Self = Self {
        ipv4: true,
        ipv6: true,
    };
}

/// What the interfaces say about the pods' bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The bridge and its ports; `None` while no bridge is the pods'.
    pub host: Option<Host>,
    /// What is not as it should be, one line each.
    pub warnings: Vec<String>,
}

/// The bridge's name while none is known: Flannel's. Rules about an interface that does not exist match nothing.
const USUAL_BRIDGE: &str = "cni0";

/// The interface that kube-proxy makes in IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";

/// What the ruleset depends on before anything is known of the host: the bridge `named`, else Flannel's usual one,
/// and no ports.
///
/// # Errors
/// [`selvedge_nft::InvalidName`] if the usual name were none.
pub fn unknown(named: Option<IfName>) -> Result<Host, selvedge_nft::InvalidName> {
    let bridge = named.map_or_else(|| IfName::new(USUAL_BRIDGE), Ok)?;
    Ok(Host::new(bridge, []))
}

/// Finds the pods' bridge: the one `named`, else the bridge that has an address in one of the node's pod CIDRs, else the
/// one that was found `before`, which may have lost its address, but not its pods. Where no pod CIDR is known it is Flannel's
/// usual one.
pub fn find(
    links: &[Link],
    pod_cidrs: &[IpNetwork],
    named: Option<&IfName>,
    before: Option<&IfName>,
) -> Found {
    let mut warnings: Vec<String> = ipvs(links).into_iter().collect();
    let mut bridges: Vec<&Link> = links.iter().filter(|link| link.bridge).collect();
    bridges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let called = |name: &IfName| {
        let bridges = bridges.iter().copied();
        bridges.filter(|link| link.name == name.as_str()).collect()
    };
    let mut candidates: Vec<&Link> = match named {
        Some(named) => called(named),
        None => {
            let bridges = bridges.iter().copied();
            bridges.filter(|link| carries(link, pod_cidrs)).collect()
        }
    };
    if candidates.is_empty() {
        warnings.push(missing(pod_cidrs, named));
        candidates = before.map(called).unwrap_or_default();
        if candidates.is_empty() && named.is_none() && pod_cidrs.is_empty() {
            let usual = bridges.iter().copied();
            candidates = usual.filter(|link| link.name == USUAL_BRIDGE).collect();
        }
    }
    let Some(bridge) = candidates.first() else {
        return Found {
            host: None,
            warnings,
        };
    };
    if candidates.len() > 1 {
        let names: Vec<&str> = candidates.iter().map(|link| link.name.as_str()).collect();
        warnings.push(format!(
            "{} have an address in the node's pod CIDR; {} is taken for the pods' bridge, name another with --bridge",
            names.join(" and "),
            bridge.name
        ));
    }
    if pod_cidrs.is_empty() {
        warnings.push("the node's pod CIDR is not known: pods can reach one another by its broadcast address; give the Node with spec.podCIDR".to_owned());
    }
    let mut name = |link: &Link| match IfName::new(&link.name) {
        Ok(name) => Some(name),
        Err(error) => {
            warnings.push(format!("left unguarded: {error}"));
            None
        }
    };
    let ports = links
        .iter()
        .filter(|link| link.master == Some(bridge.index));
    let ports: Vec<IfName> = ports.filter_map(&mut name).collect();
    let host = name(bridge).map(|bridge| Host::new(bridge, ports));
    Found { host, warnings }
}

/// What is wrong where kube-proxy is in IPVS mode; `None` where it isn't. It is among the warnings of [`find`], too.
pub fn ipvs(links: &[Link]) -> Option<String> {
    links.iter().any(|link| link.name == IPVS_LINK).then(|| {
        format!(
            "kube-proxy is in IPVS mode ({IPVS_LINK} is there): ClusterIP traffic to pods of this node passes by the policies; use its iptables or nftables mode"
        )
    })
}

fn carries(link: &Link, pod_cidrs: &[IpNetwork]) -> bool {
    let within = |address: &IpAddr| pod_cidrs.iter().any(|cidr| cidr.contains(*address));
    link.addresses.iter().any(within)
}

fn missing(pod_cidrs: &[IpNetwork], named: Option<&IfName>) -> String {
    match named {
        Some(named) => format!("there is no bridge {named} yet; waiting for it"),
        None if pod_cidrs.is_empty() => {
            format!(
                "the node's pod CIDR is not known, so neither is the pods' bridge: {USUAL_BRIDGE} is taken for it where it is there; give it with --bridge, or the Node with spec.podCIDR"
            )
        }
        None => {
            let cidrs: Vec<String> = pod_cidrs.iter().map(ToString::to_string).collect();
            format!(
                "no bridge has an address in the node's pod CIDR {} yet; waiting for it (Flannel makes it with the node's first pod)",
                cidrs.join(" and ")
            )
        }
    }
}

/// The switches that send bridged packets through netfilter.
pub const BRIDGE_SWITCHES: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];

/// Where they are, in this process's network namespace.
pub const BRIDGE_SYSCTLS: &str = "/proc/sys/net/bridge";

/// What is wrong with the switches in `directory`, one line each; those that the pods' bridge has itself make up for them.
pub fn bridge_netfilter(directory: &Path, bridge: Filtered) -> Vec<String> {
    let mut warnings = Vec::new();
    for (switch, filtered) in BRIDGE_SWITCHES.into_iter().zip([bridge.ipv4, bridge.ipv6]) {
        let effect =
            "policies between pods of this node are not enforced; run `selvedge node-setup`";
        match std::fs::read_to_string(directory.join(switch)) {
            Ok(value) if filtered || value.trim() == "1" => {}
            Ok(value) => {
                let value = value.trim();
                warnings.push(format!("net.bridge.{switch} is {value}, not 1: {effect}"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let line = format!("br_netfilter is not loaded: {effect}");
                if !warnings.contains(&line) {
                    warnings.push(line);
                }
            }
            Err(error) => {
                warnings.push(format!(
                    "net.bridge.{switch} can't be read ({error}): {effect}"
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn link(index: u32, name: &str, bridge: bool, master: Option<u32>, address: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            bridge,
            up: true,
            master,
            addresses: address.parse().into_iter().collect(),
            filtered: Filtered::default(),
        }
    }

    fn node() -> Vec<Link> {
        vec![
            link(1, "lo", false, None, "127.0.0.1"),
            link(2, "docker0", true, None, "172.17.0.1"),
            link(3, "vethd", false, Some(2), ""),
            link(4, "cbr0", true, None, "10.244.1.1"),
            link(6, "veth2", false, Some(4), ""),
            link(5, "veth1", false, Some(4), ""),
            // flannel.1 has an address of the pod CIDR too, and is no bridge.
            link(7, "flannel.1", false, None, "10.244.1.0"),
        ]
    }

    fn name(text: &str) -> IfName {
        IfName::new(text).unwrap()
    }

    #[test]
    fn the_bridge_within_the_pod_cidr_is_the_pods() {
        let cidr = "10.244.1.0/24".parse().unwrap();
        let found = find(&node(), &[cidr], None, None);
        let host = found.host.unwrap();
        assert_eq!(host.bridge, name("cbr0"));
        assert_eq!(host.ports, BTreeSet::from([name("veth1"), name("veth2")]));
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    #[test]
    fn a_named_bridge_is_taken_wherever_it_is() {
        let found = find(&node(), &[], Some(&name("docker0")), None);
        assert_eq!(found.host.unwrap().ports, BTreeSet::from([name("vethd")]));
        assert!(found.warnings[0].contains("broadcast"));
        let found = find(&node(), &[], Some(&name("br9")), None);
        assert_eq!(found.host, None);
        assert!(found.warnings[0].contains("br9"), "{:?}", found.warnings);
    }

    #[test]
    fn without_a_bridge_it_says_what_it_waits_for() {
        let other = "10.244.2.0/24".parse().unwrap();
        let found = find(&node(), &[other], None, None);
        assert_eq!(found.host, None);
        assert!(found.warnings[0].contains("10.244.2.0/24"));
        assert!(find(&node(), &[], None, None).warnings[0].contains("--bridge"));
    }

    #[test]
    fn a_bridge_that_has_lost_its_address_still_has_its_ports() {
        let mut links = node();
        links[3].addresses.clear();
        let cidr = "10.244.1.0/24".parse().unwrap();
        let cbr0 = name("cbr0");
        let find = |links: &[Link], before| find(links, &[cidr], None, before);
        assert_eq!(find(&links, None).host, None);
        let found = find(&links, Some(&cbr0));
        assert_eq!(found.host.unwrap().ports.len(), 2);
        assert!(found.warnings[0].contains("10.244.1.0/24"));
        // Another that has an address there is the pods' now.
        links[1].addresses = vec!["10.244.1.1".parse().unwrap()];
        let found = find(&links, Some(&cbr0));
        assert_eq!(found.host.unwrap().bridge, name("docker0"));
        links.remove(3);
        links.remove(1);
        assert_eq!(find(&links, Some(&cbr0)).host, None);
    }

    #[test]
    fn ipvs_is_reported() {
        let mut links = node();
        links.push(link(9, "kube-ipvs0", false, None, "10.96.0.1"));
        let found = find(&links, &["10.244.1.0/24".parse().unwrap()], None, None);
        assert!(found.host.is_some());
        assert!(found.warnings[0].contains("IPVS"), "{:?}", found.warnings);
    }

    #[test]
    fn the_switches_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let warnings = bridge_netfilter(directory.path(), Filtered::default());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("br_netfilter"));
        std::fs::write(directory.path().join(BRIDGE_SWITCHES[0]), "1\n").unwrap();
        std::fs::write(directory.path().join(BRIDGE_SWITCHES[1]), "0\n").unwrap();
        let warnings = bridge_netfilter(directory.path(), Filtered::default());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("bridge-nf-call-ip6tables is 0"));
        std::fs::write(directory.path().join(BRIDGE_SWITCHES[1]), "1\n").unwrap();
        assert!(bridge_netfilter(directory.path(), Filtered::default()).is_empty());
    }
}
