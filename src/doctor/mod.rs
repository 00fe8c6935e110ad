//! What `selvedge doctor` looks at on a node: what enforcement needs, and what stands in its way.
//!
//! Each file is a check: it reads, and judges what was read with a function that does nothing else.
//!
//! - [`system`]: the kernel's release, and this process's capabilities · [`reach`]: nftables over netlink
//! - [`features`]: what rulesets need of the kernel, tried in a throwaway [`namespace`]
//! - [`netfilter`]: br_netfilter and forwarding · [`links`]: the pods' bridge, Flannel's interfaces
//! - [`api`]: the API server, and what it lets be read
//! - [`own`]: Selvedge's daemon and tables · [`engines`]: other policy engines · [`forward`]: others who drop
//! - [`kube_proxy`]: its mode · [`legacy`]: what nftables' dumps don't show
//! - [`probe`]: the proof, with packets

pub mod api;
pub mod engines;
pub mod features;
mod finding;
#[cfg(test)]
mod fixtures;
pub mod forward;
pub mod kube_proxy;
pub mod legacy;
pub mod links;
pub mod namespace;
pub mod netfilter;
pub mod own;
pub mod probe;
pub mod reach;
pub mod system;

use std::path::PathBuf;

use ipnetwork::IpNetwork;
use selvedge_nft::{IfName, Survey};

pub use finding::{Finding, Status};

use crate::enforce::host::Link;
use crate::source::kube::Access;

/// What the doctor is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pods' bridge, where it is named.
    pub bridge: Option<IfName>,
    /// The way to the API server.
    pub access: Access,
    /// The node's name, where it is known.
    pub node: Option<String>,
    /// Where Flannel writes down what it gave this node.
    pub subnet_env: PathBuf,
    /// What to prove with packets, if anything.
    pub probe: Option<probe::Options>,
}

/// All that was found, in the order of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One line each.
    pub findings: Vec<Finding>,
    /// Whether nftables could not be reached, so that most could not be looked at.
    pub unreachable: bool,
}

impl Report {
    /// The worst status of all findings.
    pub fn worst(&self) -> Status {
        let statuses = self.findings.iter().map(|finding| finding.status);
        statuses.max().unwrap_or(Status::Ok)
    }

    /// How many findings have this status.
    pub fn count(&self, status: Status) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.status == status).count()
    }
}

/// Looks at this network namespace, which should be the host's.
pub fn examine(options: &Options) -> Report {
    let powers = system::Powers::read();
    let survey = reach::survey();
    let mut findings = vec![
        system::judge(&system::release()),
        reach::judge(survey.as_ref(), powers),
    ];
    if let Ok(survey) = &survey {
        let in_use = !own::own_tables(survey).is_empty();
        let tried = features::attempt();
        let tried = tried.as_deref().map_err(String::as_str);
        findings.extend(features::judge(tried, in_use));
    }
    let links = match links::read() {
        Ok(links) => links,
        Err(error) => {
            findings.push(Finding::fail(
                "interfaces",
                error.to_string(),
                "a seccomp filter may refuse netlink sockets: use the profile RuntimeDefault",
            ));
            Vec::new()
        }
    };
    let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
    let (asked, pod_cidrs) = api::examine(&options.access, options.node.as_deref());
    findings.extend(network(options, links, pod_cidrs));
    findings.extend(asked);
    if let Ok(survey) = &survey {
        findings.extend(others(survey, &names));
    }
    if let Some(options) = &options.probe {
        findings.extend(probe::run(options));
    }
    Report {
        findings,
        unreachable: survey.is_err(),
    }
}

/// The pods' network on this node, whose pod CIDRs are these, as far as its object is known.
fn network(options: &Options, links: Vec<Link>, pod_cidrs: Vec<IpNetwork>) -> Vec<Finding> {
    let interfaces = links::Interfaces {
        links,
        named: options.bridge,
        path: options.subnet_env.clone(),
        subnets: links::SubnetEnv::read(&options.subnet_env),
        pod_cidrs,
    };
    let mut findings = netfilter::bridged(interfaces.filtered());
    findings.extend(netfilter::Forwarding::read().judge(interfaces.ipv6()));
    findings.push(interfaces.judge_bridge());
    findings.push(interfaces.judge_flannel());
    findings
}

/// Selvedge itself, and everyone else who has a say about packets.
fn others(survey: &Survey, names: &[String]) -> Vec<Finding> {
    let holder = own::holder().map_err(|error| error.to_string());
    let mut findings = vec![own::judge(survey, holder)];
    let legacy = legacy::Legacy::read();
    let mut all = survey.clone();
    all.tables.extend(legacy.tables.iter().cloned());
    findings.push(kube_proxy::judge(&all, names, legacy.tables_unread()));
    findings.extend(engines::judge(engines::Place {
        survey: &all,
        ipsets: &legacy.ipsets,
        links: names,
        pins: &legacy.pins,
        queues: legacy.queues,
    }));
    findings.extend(forward::judge(&all));
    findings.extend(legacy.judge());
    findings
}
