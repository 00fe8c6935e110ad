//! Pods that start by way of the CNI plugin: the API has shown the pod and its labels, the runtime makes its network and
//! runs the plugin, and only then, and after all else, its kubelet reports its addresses.
//!
//! - `runtime`: what a container runtime and Flannel do · `traffic`: what pods send, and what arrives
//! - `starts`: many pods, one after the other · `away`: the daemon is stopped or started again
//! - `socket`: what else comes to the socket · `installed`: Flannel's configuration

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

mod away;
mod installed;
mod runtime;
mod socket;
mod starts;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use selvedge_lab::api::NewPod;
use selvedge_lab::stage::live::{IN_FORCE, Live};
use selvedge_lab::{Daemon, Error, Pod, PodSpec};
use serde_json::json;

use runtime::{Runtime, Sandbox};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a receiver, whose namespace shop is closed in both directions.
struct Stage {
    live: Live,
    receiver: Pod,
    directory: tempfile::TempDir,
    made: usize,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let mut live = Live::new(1, &[("sink/receiver", 1, &[])])?;
        let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        live.policy("shop/default-deny", &deny)?;
        Ok(Self {
            receiver: live.pod("sink/receiver")?,
            live,
            directory: tempfile::tempdir().unwrap(),
            made: 0,
        })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/cni.sock")
    }

    fn daemon(&self) -> Result<Daemon, Error> {
        self.daemon_with(&[])
    }

    fn daemon_with(&self, args: &[&str]) -> Result<Daemon, Error> {
        let command = self.live.run_command(1)?.arg("--cni-socket");
        let daemon = command.arg(self.socket()).args(args).daemon()?;
        daemon.wait_for_output(IN_FORCE, PATIENCE)?;
        Ok(daemon)
    }

    fn runtime(&self) -> Result<Runtime, Error> {
        Runtime::new(&self.live.node(1).node, &self.socket())
    }

    /// The API shows a pod without addresses, and the runtime makes its network: all that is before the plugin.
    fn sandbox(&mut self, name: &str, addresses: Option<&Pod>) -> Result<Sandbox, Error> {
        let (team, short) = name.split_once('/').unwrap();
        let namespace = self.live.namespace(team)?;
        let node = self.live.node(1);
        let new = NewPod::new(&namespace, short)
            .node(&node.name)
            .label("app", short);
        let object = self.live.cluster.pod(&new)?;
        let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
        let mut spec = PodSpec::new(name, node.node.name());
        if let Some(before) = addresses {
            spec = spec.addresses(before.addresses().iter().copied());
        }
        let pod = self.live.lab.add_pod(spec)?;
        self.made += 1;
        Ok(Sandbox {
            pod,
            namespace,
            name: short.to_owned(),
            uid,
            container: format!("sandbox-{}", self.made),
        })
    }

    /// What the kubelet says of a pod, when all is done.
    fn report(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let cluster = &self.live.cluster;
        let addresses = sandbox.pod.addresses();
        cluster.report_addresses(&sandbox.namespace, &sandbox.name, addresses)?;
        Ok(())
    }

    /// The runtime takes a pod's network away; the API still has it.
    fn end(&self, runtime: &Runtime, sandbox: &Sandbox) -> Result<(), Error> {
        let ended = runtime.run("DEL", sandbox)?;
        assert!(ended.success, "{ended:?}");
        self.live.lab.remove_pod(sandbox.pod.name())?;
        Ok(())
    }

    /// The API has a pod no more.
    fn forget(&self, sandbox: &Sandbox) -> Result<(), Error> {
        self.live
            .cluster
            .finish_pod(&sandbox.namespace, &sandbox.name)
    }
}
