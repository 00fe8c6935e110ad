//! A directory of manifests that a test edits, and the text of the objects that most tests need.

use std::fmt;
use std::fs;
use std::path::Path;

use selvedge::index::Index;
use tempfile::TempDir;

use super::{index_of, lab_of};
use crate::error::{During, Error};
use crate::topology::builder::LabBuilder;

/// A directory of manifests, gone when it drops.
#[derive(Debug)]
pub struct Manifests {
    directory: TempDir,
}

impl Manifests {
    /// An empty directory.
    ///
    /// # Errors
    /// When none can be made.
    pub fn new() -> Result<Self, Error> {
        let directory = TempDir::new().during("make a directory")?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file, whole at once: a new file takes the old one's name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put(&self, name: &str, text: impl fmt::Display) -> Result<(), Error> {
        // Files whose names start with a dot are nobody's manifests.
        let draft = self.path().join(format!(".{name}"));
        fs::write(&draft, text.to_string()).during(&format!("write {name}"))?;
        fs::rename(&draft, self.path().join(name)).during(&format!("rename to {name}"))
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        fs::remove_file(self.path().join(name)).during(&format!("delete {name}"))
    }

    /// The index of what the files say now.
    ///
    /// # Errors
    /// When they can't be read at all.
    pub fn index(&self) -> Result<Index, Error> {
        index_of(self.path())
    }

    /// A lab with the nodes and pods that the files name now.
    ///
    /// # Errors
    /// When they can't be read at all.
    pub fn lab(&self) -> Result<LabBuilder, Error> {
        Ok(lab_of(&self.index()?))
    }
}

/// The manifest of the node `node-N` as a lab makes its N-th: pod CIDRs 10.244.N.0/24 and fd00:10:244:N::/64, addresses
/// 192.168.50.1N and fd50::1N (N under 10).
pub fn node(number: u8) -> String {
    format!(
        "---\n\
         apiVersion: v1\n\
         kind: Node\n\
         metadata: {{name: node-{number}}}\n\
         spec: {{podCIDRs: [10.244.{number}.0/24, 'fd00:10:244:{number}::/64']}}\n\
         status:\n  addresses:\n\
         \x20 - {{type: InternalIP, address: 192.168.50.1{number}}}\n\
         \x20 - {{type: InternalIP, address: 'fd50::1{number}'}}\n"
    )
}

/// The manifest of a namespace with labels such as `team: blue`.
pub fn namespace(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    )
}

/// The manifest of a NetworkPolicy `namespace/name`; its spec is YAML in flow style, e.g. `{podSelector: {}}`.
pub fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---\n\
         apiVersion: networking.k8s.io/v1\n\
         kind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

/// The manifest of a pod, as text.
#[derive(Debug, Clone)]
pub struct PodManifest {
    name: String,
    node: u8,
    addresses: Vec<String>,
    labels: String,
    ports: String,
    host_network: bool,
    phase: &'static str,
}

impl PodManifest {
    /// A running pod `namespace/name` on `node-N` with host number `host` in both its pod CIDRs: 10.244.N.host and
    /// fd00:10:244:N::host. Labels are YAML such as `app: web, tier: front`.
    pub fn new(name: &str, node: u8, host: u8, labels: &str) -> Self {
        Self {
            name: name.to_owned(),
            node,
            addresses: vec![
                format!("10.244.{node}.{host}"),
                format!("fd00:10:244:{node}::{host:x}"),
            ],
            labels: labels.to_owned(),
            ports: String::new(),
            host_network: false,
            phase: "Running",
        }
    }

    /// Its container's ports, e.g. `{name: http, containerPort: 80}`.
    pub fn ports(mut self, ports: &str) -> Self {
        ports.clone_into(&mut self.ports);
        self
    }

    /// One that runs in its node's network namespace, with its node's addresses.
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self.addresses = vec![
            format!("192.168.50.1{}", self.node),
            format!("fd50::1{}", self.node),
        ];
        self
    }

    /// One that has completed; its addresses may be another's by now.
    pub fn succeeded(mut self) -> Self {
        self.phase = "Succeeded";
        self
    }
}

impl fmt::Display for PodManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.name.split_once('/').unwrap_or(("default", &self.name));
        let addresses = self.addresses.iter().map(|ip| format!("{{ip: '{ip}'}}"));
        let addresses: Vec<String> = addresses.collect();
        write!(
            f,
            "---\n\
             apiVersion: v1\n\
             kind: Pod\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{{}}}}}\n\
             spec:\n  nodeName: node-{}\n  hostNetwork: {}\n  containers: [{{name: main, image: x, ports: [{}]}}]\n\
             status: {{phase: {}, podIPs: [{}]}}\n",
            self.labels,
            self.node,
            self.host_network,
            self.ports,
            self.phase,
            addresses.join(", ")
        )
    }
}
