//! A lab whose nodes are fed by an API server: each node has its own way to it, which fails on demand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use selvedge::cluster::Text;
use selvedge::compile;
use selvedge::index::Index;
use selvedge::source::kube::{self, Access, Connection};
use selvedge_nft::{Dataplane, DataplaneError, Kernel, text};
use serde_json::Value;

use super::{host_of, selvedge, unowned};
use crate::api::{Cluster, Endpoint, NewPod, Proxy};
use crate::daemon::Daemon;
use crate::error::{During, Error};
use crate::netns::NsCommand;
use crate::topology::Lab;
use crate::topology::node::Node;
use crate::topology::pod::{Pod, PodSpec};

/// What a daemon says when it has read everything, and its rules are in the kernel.
pub const IN_FORCE: &str = "the policies are in force";

const PATIENCE: Duration = Duration::from_secs(60);

/// A pod that a [`Live`] begins with: `namespace/name`, the number of its node (from 1), and its labels.
pub type Begin<'a> = (&'a str, usize, &'a [(&'a str, &'a str)]);

/// A lab, and the cluster that its daemons read. Nodes and namespaces have names of their own in the cluster, so that
/// tests don't meet in a real one.
#[derive(Debug)]
pub struct Live {
    /// The cluster.
    pub cluster: Cluster,
    /// The lab.
    pub lab: Lab,
    nodes: Vec<LiveNode>,
    namespaces: BTreeMap<String, String>,
}

/// A node of it.
#[derive(Debug)]
pub struct LiveNode {
    /// The lab's node.
    pub node: Node,
    /// Its name in the cluster.
    pub name: String,
    /// Its way to the API server.
    pub endpoint: Endpoint,
}

impl Live {
    /// A lab and a cluster with so many nodes, and these pods running on them. Namespaces are labelled `team=NAME`.
    ///
    /// # Errors
    /// When the lab can't be built, and the API's.
    pub fn new(nodes: usize, pods: &[Begin]) -> Result<Self, Error> {
        let names: Vec<String> = (1..=nodes).map(|n| format!("node-{n}")).collect();
        let mut builder = Lab::builder();
        for name in &names {
            builder = builder.node(name.as_str());
        }
        let lab = builder.build()?;
        let cluster = Cluster::for_tests()?;
        let proxy = cluster.proxy()?;
        let mut live = Self {
            cluster,
            lab,
            nodes: Vec::new(),
            namespaces: BTreeMap::new(),
        };
        for name in &names {
            live.add_node(name, &proxy)?;
        }
        for (name, node, labels) in pods {
            live.start_pod(name, *node, labels)?;
        }
        Ok(live)
    }

    fn add_node(&mut self, name: &str, proxy: &Proxy) -> Result<(), Error> {
        let node = self.lab.node(name)?;
        let cidrs: Vec<String> = node.pod_cidrs().iter().map(ToString::to_string).collect();
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        let name = self.cluster.node(name, &cidrs, node.addresses())?;
        let endpoint = proxy.listen(node.netns())?;
        self.nodes.push(LiveNode {
            node,
            name,
            endpoint,
        });
        Ok(())
    }

    /// A node by its number, from 1.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, number: usize) -> &LiveNode {
        &self.nodes[number - 1]
    }

    /// What a namespace is called in the cluster, where it is made if it isn't there yet.
    ///
    /// # Errors
    /// The API's.
    pub fn namespace(&mut self, name: &str) -> Result<String, Error> {
        if let Some(known) = self.namespaces.get(name) {
            return Ok(known.clone());
        }
        let made = self.cluster.namespace(name, &[("team", name)])?;
        self.namespaces.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    /// Starts a pod on a node: its network first, as the container runtime does, then what its kubelet reports.
    ///
    /// # Errors
    /// When the lab can't make it, and the API's.
    pub fn start_pod(
        &mut self,
        name: &str,
        node: usize,
        labels: &[(&str, &str)],
    ) -> Result<Pod, Error> {
        let spec = PodSpec::new(name, self.node(node).node.name());
        let pod = self.lab.add_pod(spec)?;
        self.report_pod(name, node, labels, pod.addresses())?;
        Ok(pod)
    }

    /// Makes a running pod in the cluster alone, with these addresses.
    ///
    /// # Errors
    /// The API's.
    pub fn report_pod(
        &mut self,
        name: &str,
        node: usize,
        labels: &[(&str, &str)],
        addresses: &[IpAddr],
    ) -> Result<(), Error> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let namespace = self.namespace(namespace)?;
        let mut new = NewPod::new(&namespace, name).node(&self.node(node).name);
        for (key, value) in labels {
            new = new.label(key, value);
        }
        let new = new.addresses(addresses.iter().copied());
        self.cluster.pod(&new).map(drop)
    }

    /// The lab's pod of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, name: &str) -> Result<Pod, Error> {
        self.lab.pod(name)
    }

    /// Makes a policy `namespace/name`, or changes it.
    ///
    /// # Errors
    /// The API's.
    pub fn policy(&mut self, name: &str, spec: &Value) -> Result<(), Error> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let namespace = self.namespace(namespace)?;
        self.cluster.policy(&namespace, name, spec).map(drop)
    }

    /// `selvedge run` on a node (from 1), reading the cluster by the node's own way.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn run_command(&self, number: usize) -> Result<NsCommand, Error> {
        let node = self.node(number);
        let command = selvedge(&node.node)?.args(["run", "--node", &node.name, "--kubeconfig"]);
        Ok(command.arg(node.endpoint.kubeconfig()))
    }

    /// Starts the daemon of a node (from 1) and waits until it enforces.
    ///
    /// # Errors
    /// When it ends, or does not commit.
    pub fn daemon(&self, number: usize) -> Result<Daemon, Error> {
        let daemon = self.run_command(number)?.daemon()?;
        daemon.wait_for_output(IN_FORCE, PATIENCE)?;
        Ok(daemon)
    }

    /// Starts the daemons of all nodes, and waits until they enforce.
    ///
    /// # Errors
    /// When one ends, or does not commit.
    pub fn daemons(&self) -> Result<Vec<Daemon>, Error> {
        (1..=self.nodes.len())
            .map(|number| self.daemon(number))
            .collect()
    }

    /// The status code that the daemon of a node (from 1) answers a GET with, and what it says.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn ask(&self, number: usize, path: &str) -> Result<(u16, String), Error> {
        let asked = self.node(number).node.netns().run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:20464")?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        })?;
        let answer = asked.during(&format!("ask the daemon for {path}"))?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.unwrap_or(0), answer))
    }

    /// The cluster as the API has it now, as policy sees it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn index(&self) -> Result<Index, Error> {
        let access = Access {
            kubeconfig: Some(self.node(1).endpoint.kubeconfig()),
            context: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.during("start a runtime")?;
        let invalid = |reason: String| Error::invalid(format!("the API can't be read: {reason}"));
        self.node(1)
            .node
            .netns()
            .run(move || {
                runtime.block_on(async {
                    let connection = Connection::new(access).await.map_err(|e| e.to_string())?;
                    let snapshot = kube::list(&connection).await.map_err(|e| e.to_string())?;
                    Ok(snapshot.index())
                })
            })?
            .map_err(invalid)
    }

    /// The ruleset that the kernel of a node (from 1) has, and the one that a fresh compile of the API's objects gives, as
    /// scripts.
    ///
    /// # Errors
    /// When one of them can't be read.
    pub fn enforced_and_fresh(&self, number: usize) -> Result<(String, String), Error> {
        let LiveNode { node, name, .. } = self.node(number);
        let host = host_of(&self.lab, node)?;
        let fresh = compile::compile(&self.index()?, &Text::from(name.as_str()), &host);
        let read = || Kernel::open()?.read(&compile::tables());
        let kernel = node.netns().run(read)?;
        let kernel = kernel.map_err(|e: DataplaneError| Error::invalid(e.to_string()))?;
        Ok((text::script(&kernel), text::script(&fresh)))
    }

    /// Our tables on a node (from 1), in one order, whoever owns them.
    ///
    /// # Errors
    /// When they aren't there.
    pub fn ruleset(&self, number: usize) -> Result<String, Error> {
        let netns = self.node(number).node.netns();
        let list = |family| {
            let words = ["-s", "list", "table", family, "selvedge"];
            netns.command("nft").args(words).run()
        };
        Ok(unowned(&(list("inet")? + &list("bridge")?)))
    }
}
