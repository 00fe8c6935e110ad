//! What a container runtime and Flannel's own plugins do: the pod's network is there, with a result that says so, and the
//! next plugin of the list is run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use selvedge_lab::stage;
use selvedge_lab::{Error, Node, Pod};
use serde_json::{Value, json};

/// A pod whose network is made.
#[derive(Debug)]
pub struct Sandbox {
    /// The lab's pod.
    pub pod: Pod,
    /// Its namespace and its name in the API.
    pub namespace: String,
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// CNI_CONTAINERID.
    pub container: String,
}

impl Sandbox {
    /// The result of the plugins before, as Flannel's bridge plugin leaves it.
    pub fn result(&self) -> Value {
        let ips = self
            .pod
            .addresses()
            .iter()
            .map(|address| match address.is_ipv4() {
                true => json!({"version": "4", "interface": 2, "address": format!("{address}/24")}),
                false => {
                    json!({"version": "6", "interface": 2, "address": format!("{address}/64")})
                }
            });
        json!({
            "cniVersion": "0.3.1",
            "interfaces": [
                {"name": "cni0", "mac": "02:cb:00:00:00:01"},
                {"name": self.pod.veth(), "mac": "02:cb:00:00:00:02"},
                {"name": "eth0", "mac": "02:cb:00:00:00:03", "sandbox": format!("/run/netns/{}", self.container)},
            ],
            "ips": ips.collect::<Vec<_>>(),
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {},
        })
    }
}

/// A container runtime on a node.
#[derive(Debug, Clone)]
pub struct Runtime {
    node: Node,
    plugin: PathBuf,
    /// The plugin's entry in the list.
    pub entry: Value,
    /// The list's version.
    pub version: &'static str,
}

/// What a plugin answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its standard output; null where there is none.
    pub json: Value,
    /// What it said beside.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Runtime {
    pub fn new(node: &Node, socket: &Path) -> Result<Self, Error> {
        Ok(Self {
            node: node.clone(),
            plugin: stage::plugin()?.to_owned(),
            entry: json!({"type": "selvedge-cni", "socket": socket, "timeout": 10, "onUnreachable": "fail"}),
            version: "0.3.1",
        })
    }

    /// The same, configured otherwise.
    pub fn with(&self, key: &str, value: Value) -> Self {
        let mut other = self.clone();
        other.entry[key] = value;
        other
    }

    /// Runs the plugin for a pod.
    pub fn run(&self, command: &str, sandbox: &Sandbox) -> Result<Answer, Error> {
        let mut config = self.entry.clone();
        config["cniVersion"] = json!(self.version);
        config["name"] = json!("cbr0");
        config["prevResult"] = sandbox.result();
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            sandbox.namespace, sandbox.name, sandbox.container, sandbox.uid
        );
        let run = self.node.netns().command(&self.plugin);
        let run = run
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &sandbox.container)
            .env("CNI_NETNS", format!("/run/netns/{}", sandbox.container))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", arguments)
            .input(config.to_string());
        let started = Instant::now();
        let output = run.output()?;
        Ok(Answer {
            success: output.status.success(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        })
    }

    /// How long it takes to run the plugin at all: it says its versions.
    pub fn version(&self) -> Result<Duration, Error> {
        let run = self.node.netns().command(&self.plugin);
        let run = run.env("CNI_COMMAND", "VERSION").input("{}");
        let started = Instant::now();
        let output = run.output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(started.elapsed())
    }

    /// Runs the plugin for a pod that must start, and passes its result on; how long that took.
    pub fn add(&self, sandbox: &Sandbox) -> Result<Duration, Error> {
        let added = self.run("ADD", sandbox)?;
        assert!(added.success, "{added:?}");
        assert_eq!(added.json, sandbox.result());
        Ok(added.took)
    }
}
