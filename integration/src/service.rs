//! A ClusterIP as kube-proxy's nftables rules would make it: DNAT in an own table `ip kube-proxy` (and `ip6`) of every
//! node, a random backend for each new flow, masquerade for a pod that reaches itself and for sources outside the
//! pods' networks.
//!
//! In Selvedge's tests it is also the other table, which must stay as it is.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::probe::Protocol;

/// A Service with one or more ports, for [`Lab::add_service`](crate::Lab::add_service).
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    cluster_ip: IpAddr,
    ports: Vec<ServicePort>,
    backends: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
struct ServicePort {
    protocol: Protocol,
    port: u16,
    target: u16,
}

impl Service {
    /// A Service `namespace/name` without ports and backends.
    pub fn new(name: &str, cluster_ip: impl Into<IpAddr>) -> Self {
        Self {
            name: name.to_owned(),
            cluster_ip: cluster_ip.into(),
            ports: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// Adds a port and the backends' port behind it (targetPort). ICMP has none and is left out.
    pub fn port(mut self, protocol: Protocol, port: u16, target: u16) -> Self {
        self.ports.push(ServicePort {
            protocol,
            port,
            target,
        });
        self
    }

    /// Adds pods' addresses; those of the other family are left out.
    pub fn backends<A: Into<IpAddr>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        let addresses = addresses.into_iter().map(Into::into);
        self.backends
            .extend(addresses.filter(|a| a.is_ipv4() == self.cluster_ip.is_ipv4()));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// An nft script that replaces both tables.
pub(crate) fn script(services: &[Service], pod_cidrs: &[IpNet]) -> String {
    let mut text = String::new();
    for family in ["ip", "ip6"] {
        let v4 = family == "ip";
        let own: Vec<&Service> = services
            .iter()
            .filter(|service| service.cluster_ip.is_ipv4() == v4)
            .collect();
        let _ = writeln!(
            text,
            "add table {family} kube-proxy\ndelete table {family} kube-proxy"
        );
        if !own.is_empty() {
            let cidrs: Vec<&IpNet> = pod_cidrs
                .iter()
                .filter(|cidr| cidr.addr().is_ipv4() == v4)
                .collect();
            table(&mut text, family, &own, &cidrs);
        }
    }
    text
}

fn table(text: &mut String, family: &str, services: &[&Service], pod_cidrs: &[&IpNet]) {
    let _ = writeln!(text, "table {family} kube-proxy {{\n  chain services {{");
    for service in services {
        for port in &service.ports {
            if let Some(rule) = rule(family, service, port) {
                let _ = writeln!(text, "    {rule}");
            }
        }
    }
    let _ = write!(
        text,
        "  }}\n  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n  \
         chain output {{ type nat hook output priority -100; jump services; }}\n  \
         chain postrouting {{ type nat hook postrouting priority srcnat;\n"
    );
    let mut backends: Vec<IpAddr> = services
        .iter()
        .flat_map(|service| service.backends.iter().copied())
        .collect();
    backends.sort();
    backends.dedup();
    for backend in backends {
        let _ = writeln!(
            text,
            "    ct status dnat {family} saddr {backend} {family} daddr {backend} masquerade"
        );
    }
    if !pod_cidrs.is_empty() {
        let list = join(pod_cidrs);
        let _ = writeln!(
            text,
            "    ct status dnat {family} saddr != {{ {list} }} {family} daddr {{ {list} }} masquerade"
        );
    }
    let _ = writeln!(text, "  }}\n}}");
}

fn rule(family: &str, service: &Service, port: &ServicePort) -> Option<String> {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => return None,
    };
    let matching = format!(
        "{family} daddr {} {protocol} dport {}",
        service.cluster_ip, port.port
    );
    let name = service.name.replace(['"', '\\', '\n'], "_");
    let action = match service.backends.as_slice() {
        // kube-proxy rejects in the filter hooks; here silence would look like a policy, so it isn't translated at all.
        [] => return None,
        [one] => match one {
            IpAddr::V4(one) => format!("dnat to {one}:{}", port.target),
            IpAddr::V6(one) => format!("dnat to [{one}]:{}", port.target),
        },
        many => {
            let elements: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(index, backend)| format!("{index} : {backend} . {}", port.target))
                .collect();
            format!(
                "dnat {family} to numgen random mod {} map {{ {} }}",
                many.len(),
                elements.join(", ")
            )
        }
    };
    Some(format!("{matching} {action} comment \"{name}\""))
}

fn join(cidrs: &[&IpNet]) -> String {
    let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
