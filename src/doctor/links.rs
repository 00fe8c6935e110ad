//! The pods' bridge and Flannel's interfaces, from rtnetlink and from what Flannel writes down.

use std::io;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use selvedge_nft::IfName;

use super::Finding;
use crate::enforce::host::{self, Link};
use crate::enforce::links::{self, LinksError};

/// Where Flannel writes down what it gave this node.
pub const SUBNET_ENV: &str = "/run/flannel/subnet.env";

/// The interfaces of this network namespace.
///
/// # Errors
/// When rtnetlink can't be reached.
pub fn read() -> Result<Vec<Link>, LinksError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| LinksError::Unreachable { source })?;
    runtime.block_on(links::read())
}

/// What Flannel wrote down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetEnv {
    /// This node's pod CIDRs.
    pub subnets: Vec<IpNetwork>,
}

impl SubnetEnv {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::parse(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `FLANNEL_SUBNET` and `FLANNEL_IPV6_SUBNET` are the bridge's own addresses with the length of the prefix.
    fn parse(text: &str) -> Self {
        let names = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"];
        let subnets = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| names.contains(name))
            .filter_map(|(_, value)| value.trim().parse().ok())
            .collect();
        Self { subnets }
    }
}

/// What was read of the node's interfaces.
#[derive(Debug)]
pub struct Interfaces {
    /// Them.
    pub links: Vec<Link>,
    /// `--bridge`.
    pub named: Option<IfName>,
    /// Where Flannel writes to.
    pub path: PathBuf,
    /// What it wrote; `None` where it has not.
    pub subnets: io::Result<Option<SubnetEnv>>,
    /// The node's `spec.podCIDRs`; empty where the node is not known.
    pub pod_cidrs: Vec<IpNetwork>,
}

impl Interfaces {
    fn cidrs(&self) -> &[IpNetwork] {
        match &self.subnets {
            Ok(Some(env)) if !env.subnets.is_empty() => &env.subnets,
            // The file is the node's, and in the daemon's container it isn't.
            _ => &self.pod_cidrs,
        }
    }

    /// The pods' bridge: the one named, else the one within the node's pod CIDRs, else cni0.
    fn bridge(&self) -> Option<&Link> {
        let cidrs = self.cidrs();
        let usual = host::unknown(self.named).ok();
        let named = match cidrs.is_empty() {
            true => usual.map(|host| host.bridge),
            false => self.named,
        };
        let host = host::find(&self.links, cidrs, named.as_ref(), None).host?;
        let mut links = self.links.iter();
        links.find(|link| link.name == host.bridge.as_str())
    }

    /// Whether what the pods' bridge passes on meets netfilter, whatever net.bridge says.
    pub fn filtered(&self) -> host::Filtered {
        self.bridge()
            .map(|bridge| bridge.filtered)
            .unwrap_or_default()
    }

    /// Whether pods have IPv6 addresses, as far as it can be seen.
    pub fn ipv6(&self) -> bool {
        let global = |link: &Link| {
            let mut addresses = link.addresses.iter();
            addresses.any(|address| match address {
                std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
                std::net::IpAddr::V4(_) => false,
            })
        };
        self.cidrs().iter().any(IpNetwork::is_ipv6) || self.bridge().is_some_and(global)
    }

    /// How it stands with the pods' bridge. Hairpin and promiscuous mode are the CNI plugin's own business: packets
    /// meet netfilter either way.
    pub fn judge_bridge(&self) -> Finding {
        const CHECK: &str = "bridge";
        let Some(bridge) = self.bridge() else {
            let cidrs: Vec<String> = self.cidrs().iter().map(ToString::to_string).collect();
            return match (&self.named, cidrs.is_empty()) {
                (Some(named), _) => Finding::fail(
                    CHECK,
                    format!("there is no bridge {named}"),
                    format!("name the pods' bridge; there are {}", self.bridges()),
                ),
                (None, false) => Finding::warn(
                    CHECK,
                    format!("no bridge has an address in {} yet", cidrs.join(" and ")),
                    "nothing to do on a node without pods: Flannel makes it with the first one",
                ),
                (None, true) => Finding::warn(
                    CHECK,
                    "there is no cni0, and the node's pod CIDR is not known",
                    format!(
                        "name the pods' bridge with --bridge ({}); Flannel makes it with the first pod",
                        self.bridges()
                    ),
                ),
            };
        };
        let ports = self.links.iter();
        let ports = ports.filter(|link| link.master == Some(bridge.index));
        let ports = match ports.count() {
            1 => "1 port".to_owned(),
            count => format!("{count} ports"),
        };
        match bridge.up {
            true => Finding::ok(CHECK, format!("{} is up, with {ports}", bridge.name)),
            false => Finding::fail(
                CHECK,
                format!("{} is down, with {ports}", bridge.name),
                format!("`ip link set {} up`", bridge.name),
            ),
        }
    }

    fn bridges(&self) -> String {
        let bridges = self.links.iter().filter(|link| link.bridge);
        let names: Vec<&str> = bridges.map(|link| link.name.as_str()).collect();
        match names.is_empty() {
            true => "no bridges".to_owned(),
            false => names.join(", "),
        }
    }

    /// Whether this is a node of Flannel's.
    pub fn judge_flannel(&self) -> Finding {
        const CHECK: &str = "flannel";
        let path = self.path.display();
        let links = self.links.iter().map(|link| link.name.as_str());
        let links: Vec<&str> = links.filter(|name| name.starts_with("flannel")).collect();
        let interface = match links.is_empty() {
            true => "no interface of its own (host-gw makes none)".to_owned(),
            false => links.join(" and "),
        };
        match &self.subnets {
            Ok(Some(env)) if !env.subnets.is_empty() => {
                let subnets: Vec<String> = env.subnets.iter().map(ToString::to_string).collect();
                Finding::ok(
                    CHECK,
                    format!("{interface}; {} here", subnets.join(" and ")),
                )
            }
            Ok(Some(_)) => Finding::warn(
                CHECK,
                format!("{path} names no FLANNEL_SUBNET"),
                "look at flanneld's log",
            ),
            Err(error) => Finding::warn(
                CHECK,
                format!("{interface}; {path} can't be read: {error}"),
                "mount it into the container, or name the bridge with --bridge",
            ),
            Ok(None) if links.is_empty() && self.bridge().is_none() => Finding::warn(
                CHECK,
                format!("no interface flannel.1 or flannel-wg, and no {path}"),
                "see that flanneld runs on this node; if another network does, name its bridge with --bridge",
            ),
            Ok(None) => Finding::ok(CHECK, format!("{interface}; no {path} here to read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn link(index: u32, name: &str, bridge: bool, master: Option<u32>, address: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            bridge,
            up: true,
            master,
            filtered: host::Filtered::default(),
            addresses: address.parse().into_iter().collect(),
        }
    }

    fn node() -> Interfaces {
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        Interfaces {
            links: vec![
                link(1, "lo", false, None, "127.0.0.1"),
                link(2, "docker0", true, None, "172.17.0.1"),
                link(3, "cni0", true, None, "10.244.1.1"),
                link(4, "veth1", false, Some(3), ""),
                link(5, "veth2", false, Some(3), ""),
                link(6, "flannel.1", false, None, "10.244.1.0"),
            ],
            named: None,
            path: SUBNET_ENV.into(),
            subnets: Ok(Some(SubnetEnv::parse(env))),
            pod_cidrs: Vec::new(),
        }
    }

    #[test]
    fn a_node_of_flannels_is_well() {
        let node = node();
        assert_eq!(node.cidrs().len(), 2);
        assert!(node.ipv6());
        let finding = node.judge_bridge();
        assert_eq!(finding, Finding::ok("bridge", "cni0 is up, with 2 ports"));
        let finding = node.judge_flannel();
        assert_eq!(finding.status, Status::Ok);
        assert!(finding.found.contains("10.244.1.1/24"), "{finding:?}");
    }

    #[test]
    fn the_bridge_may_have_another_name() {
        let mut node = node();
        node.links[2].name = "cbr0".to_owned();
        assert!(node.judge_bridge().found.starts_with("cbr0 "));
        node.named = Some(IfName::new("docker0").unwrap());
        assert!(node.judge_bridge().found.starts_with("docker0 "));
        node.named = Some(IfName::new("br9").unwrap());
        let finding = node.judge_bridge();
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.advice.unwrap().contains("cbr0"));
    }

    #[test]
    fn without_the_file_cni0_is_the_bridge() {
        let mut node = node();
        node.subnets = Ok(None);
        assert_eq!(node.judge_bridge().status, Status::Ok);
        assert_eq!(node.judge_flannel().status, Status::Ok);
        assert!(!node.ipv6());
        node.links.retain(|link| !link.name.starts_with("flannel"));
        assert_eq!(node.judge_flannel().status, Status::Ok, "host-gw");
        node.links.retain(|link| link.name != "cni0");
        assert_eq!(node.judge_flannel().status, Status::Warn);
        let finding = node.judge_bridge();
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.advice.unwrap().contains("docker0"));
        node.subnets = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(node.judge_flannel().status, Status::Warn);
    }

    #[test]
    fn without_the_file_the_node_says_which_bridge_it_is() {
        let mut node = node();
        node.subnets = Ok(None);
        node.pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
        node.links[2].name = "cbr0".to_owned();
        assert!(node.judge_bridge().found.starts_with("cbr0 "));
        node.links.remove(2);
        let finding = node.judge_bridge();
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.found.contains("10.244.1.0/24 yet"), "{finding:?}");
    }

    #[test]
    fn a_bridge_that_is_down_or_not_there_yet_is_said() {
        let mut node = node();
        node.links[2].up = false;
        assert_eq!(node.judge_bridge().status, Status::Fail);
        node.links.remove(2);
        let finding = node.judge_bridge();
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.found.contains("10.244.1.1/24"), "{finding:?}");
    }
}
