//! The shop: a lab made from examples/shop, and a Service as kube-proxy would make it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use selvedge::index::Index;
use selvedge_lab::{Host, Lab, Protocol, Service, stage};
use tempfile::TempDir;

use crate::Failure;
use crate::story::Story;

/// The host that is no part of the cluster.
pub const OUTSIDE: &str = "outside";

/// The Service that the shop's api has.
pub struct Api {
    /// Its ClusterIPs.
    pub addresses: [IpAddr; 2],
    /// The pods behind it.
    pub backends: Vec<Host>,
    /// The port that they serve.
    pub target: u16,
}

/// The lab, and the manifests that its daemons follow.
pub struct Shop {
    /// The nodes, the pods and the host outside.
    pub lab: Lab,
    /// The Service of the api.
    pub api: Api,
    /// The cluster as the manifests describe it.
    pub index: Index,
    manifests: TempDir,
}

impl Shop {
    /// Builds the lab from the manifests in `examples`, and copies them to where they may be edited.
    pub fn open(examples: &Path) -> Result<Self, Failure> {
        let manifests = copy(examples)?;
        let index = stage::index_of(manifests.path())?;
        let lab = stage::lab_of(&index).outsider(OUTSIDE, []).build()?;
        let backends = lab.pods_named(["shop/api-0", "shop/api-1"])?;
        let api = Api {
            addresses: [
                Ipv4Addr::new(10, 96, 0, 80).into(),
                Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x80).into(),
            ],
            backends: backends.iter().map(|pod| (**pod).clone()).collect(),
            target: 8080,
        };
        for address in api.addresses {
            let addresses = api.backends.iter().flat_map(|host| host.addresses());
            let service = Service::new(&format!("shop/api {address}"), address)
                .port(Protocol::Tcp, 80, api.target)
                .backends(addresses.copied());
            lab.add_service(service)?;
        }
        Ok(Self {
            lab,
            api,
            index,
            manifests,
        })
    }

    /// The directory that the daemons follow.
    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// A pod, or the host outside.
    pub fn host(&self, name: &str) -> Result<Host, Failure> {
        match name {
            OUTSIDE => Ok(self.lab.outsider(OUTSIDE)?),
            pod => Ok((*self.lab.pod(pod)?).clone()),
        }
    }

    /// Says who is there.
    pub fn introduce(&self, story: &Story) {
        for node in self.lab.nodes() {
            let pods = self.lab.pods();
            let own = pods.iter().filter(|pod| pod.node().name() == node.name());
            let own: Vec<&str> = own.map(|pod| pod.name()).collect();
            story.say(&format!("{}:  {}", node.name(), own.join(", ")));
        }
        let [v4, v6] = self.api.addresses;
        story.say(&format!(
            "svc/api: ClusterIPs {v4} and {v6}, port 80, rewritten to an api pod's 8080"
        ));
        story.say(&format!("{OUTSIDE}: a host that is not in the cluster"));
    }

    /// What kube-proxy's stand-in has on all nodes, as nft lists it.
    pub fn kube_proxy(&self) -> Result<String, Failure> {
        let mut text = String::new();
        for node in self.lab.nodes() {
            for family in ["ip", "ip6"] {
                text.push_str(&node.nft_table(family, "kube-proxy")?);
            }
        }
        Ok(text)
    }
}

/// A copy of a directory's files that goes with its handle, and when the demo is interrupted.
fn copy(from: &Path) -> Result<TempDir, Failure> {
    let failed = || Failure::files(&format!("copy {}", from.display()));
    let directory = tempfile::Builder::new()
        .prefix("shop-")
        .tempdir()
        .map_err(failed())?;
    let path = directory.path().to_owned();
    let interrupted = ctrlc::set_handler(move || {
        let _ = fs::remove_dir_all(&path);
        std::process::exit(130);
    });
    interrupted.map_err(|error| Failure::Files {
        what: "catch Ctrl-C".to_owned(),
        source: std::io::Error::other(error),
    })?;
    for entry in fs::read_dir(from).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        fs::copy(entry.path(), directory.path().join(entry.file_name())).map_err(failed())?;
    }
    Ok(directory)
}
