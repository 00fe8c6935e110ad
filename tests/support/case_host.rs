//! What a case's host knows beside the cluster, if it has a `host.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use selvedge::compile::Host;
use selvedge_nft::IfName;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    attached: BTreeMap<String, BTreeSet<IpAddr>>,
    withheld: BTreeSet<IpAddr>,
    closed: Vec<String>,
}

/// Adds to a host what the case in this directory says of node-1's.
pub fn complete(host: Host, case: &Path) -> Host {
    let Ok(text) = std::fs::read_to_string(case.join("host.yaml")) else {
        return host;
    };
    let known: Known = serde_saphyr::from_str(&text).unwrap();
    let attached = known.attached.into_iter();
    let attached = attached.map(|(port, addresses)| (IfName::new(&port).unwrap(), addresses));
    let closed = known.closed.iter().map(|net| net.parse().unwrap());
    Host {
        attached: attached.collect(),
        withheld: known.withheld,
        closed: closed.collect(),
        ..host
    }
}
