//! The objects that tests are made of, and what a kubelet says about pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::kinds::Kind;
use crate::api::path::Target;
use crate::error::Error;
use crate::wait::wait_until;

use super::Cluster;

/// A pod that is to be made.
#[derive(Debug, Clone)]
pub struct NewPod {
    namespace: String,
    name: String,
    node: Option<String>,
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    ports: Vec<Value>,
    host_network: bool,
}

impl NewPod {
    /// A pod without labels, node or address, which stays pending.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: None,
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            host_network: false,
        }
    }

    /// On this node.
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// With this label, too.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Running, with these addresses.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// With this named port, too.
    pub fn port(mut self, name: &str, number: u16, protocol: &str) -> Self {
        let port = json!({"name": name, "containerPort": number, "protocol": protocol});
        self.ports.push(port);
        self
    }

    /// In the node's own network.
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    fn object(&self) -> Value {
        let mut container = json!({"name": "main", "image": "registry.k8s.io/pause:3.10"});
        if !self.ports.is_empty() {
            container["ports"] = json!(self.ports);
        }
        let mut spec = json!({
            "containers": [container],
            // Nodes that tests make are never ready; their taints must not move the pods.
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
        });
        match &self.node {
            Some(node) => spec["nodeName"] = json!(node),
            // No scheduler is called so: on a real cluster, too, it stays without a node.
            None => spec["schedulerName"] = json!("nobody"),
        }
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        let metadata =
            json!({"name": self.name, "namespace": self.namespace, "labels": self.labels});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }
}

/// A pod's status with these addresses.
fn running(addresses: &[IpAddr]) -> Value {
    let list: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({"ip": ip.to_string()}))
        .collect();
    match list.first() {
        Some(first) => json!({"phase": "Running", "podIP": first["ip"], "podIPs": list}),
        None => json!({"phase": "Running", "podIP": null, "podIPs": null}),
    }
}

fn pod(namespace: &str, name: &str) -> Target {
    Target::object(Kind::Pod, Some(namespace), name)
}

impl Cluster {
    /// Makes a namespace with these labels and a name of its own, which is the answer.
    ///
    /// # Errors
    /// The API's.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<String, Error> {
        let name = self.unique(name);
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.create(&Target::collection(Kind::Namespace, None), &object)?;
        self.remember(Target::object(Kind::Namespace, None, &name));
        Ok(name)
    }

    /// Makes a node, under a name of its own, which is the answer. There is no machine behind it.
    ///
    /// # Errors
    /// The API's.
    pub fn node(
        &self,
        name: &str,
        pod_cidrs: &[&str],
        addresses: &[IpAddr],
    ) -> Result<String, Error> {
        let name = self.unique(name);
        self.node_named(&name, pod_cidrs, addresses)?;
        Ok(name)
    }

    /// Makes a node under this very name, as lab nodes are called.
    ///
    /// # Errors
    /// The API's.
    pub fn node_named(
        &self,
        name: &str,
        pod_cidrs: &[&str],
        addresses: &[IpAddr],
    ) -> Result<(), Error> {
        let spec =
            json!({"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs, "unschedulable": true});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        self.create(&Target::collection(Kind::Node, None), &object)?;
        let target = Target::object(Kind::Node, None, name);
        self.remember(target.clone());
        let addresses = addresses.iter();
        let addresses =
            addresses.map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
        let status = json!({"status": {"addresses": addresses.collect::<Vec<_>>()}});
        self.patch(&target.status(), &status).map(drop)
    }

    /// Makes a pod; one with addresses is reported as running with them, as its kubelet would.
    ///
    /// # Errors
    /// The API's.
    pub fn pod(&self, new: &NewPod) -> Result<Value, Error> {
        let collection = Target::collection(Kind::Pod, Some(&new.namespace));
        let object = new.object();
        let mut created = None;
        let what = format!("the service account of {}", new.namespace);
        wait_until(&what, Duration::from_secs(20), || {
            match self.create(&collection, &object) {
                // A real cluster takes a moment to give a new namespace its service account.
                Err(Error::Api {
                    code: 403, message, ..
                }) if message.contains("serviceaccount") => Ok(false),
                result => {
                    created = Some(result?);
                    Ok(true)
                }
            }
        })?;
        if new.addresses.is_empty() {
            return Ok(created.unwrap_or_default());
        }
        self.report(&new.namespace, &new.name, &running(&new.addresses))
    }

    /// Changes a pod's status as its kubelet does.
    ///
    /// # Errors
    /// The API's.
    pub fn report(&self, namespace: &str, name: &str, status: &Value) -> Result<Value, Error> {
        let patch = json!({"status": status});
        self.patch(&pod(namespace, name).status(), &patch)
    }

    /// Reports a pod as running with these addresses.
    ///
    /// # Errors
    /// The API's.
    pub fn report_addresses(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Value, Error> {
        self.report(namespace, name, &running(addresses))
    }

    /// Deletes a pod with its grace period: from now on it terminates.
    ///
    /// # Errors
    /// The API's.
    pub fn terminate_pod(&self, namespace: &str, name: &str) -> Result<(), Error> {
        self.delete(&pod(namespace, name)).map(drop)
    }

    /// Removes a pod at once, as its kubelet does when its containers have ended. One that is gone is no error.
    ///
    /// # Errors
    /// The API's.
    pub fn finish_pod(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let options = json!({"gracePeriodSeconds": 0});
        let path = pod(namespace, name).path();
        match self.call(
            http::Method::DELETE,
            &path,
            "application/json",
            Some(&options),
        ) {
            Ok(_) | Err(Error::Api { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets labels of a pod, or takes those away whose value is null.
    ///
    /// # Errors
    /// The API's.
    pub fn label_pod(&self, namespace: &str, name: &str, labels: &Value) -> Result<(), Error> {
        let patch = json!({"metadata": {"labels": labels}});
        self.patch(&pod(namespace, name), &patch).map(drop)
    }

    /// Sets labels of a namespace, or takes those away whose value is null.
    ///
    /// # Errors
    /// The API's.
    pub fn label_namespace(&self, namespace: &str, labels: &Value) -> Result<(), Error> {
        let patch = json!({"metadata": {"labels": labels}});
        self.patch(&Target::object(Kind::Namespace, None, namespace), &patch)
            .map(drop)
    }

    /// Starts a namespace's deletion. Pods on nodes stay until they are [finished](Self::finish_pod).
    ///
    /// # Errors
    /// The API's.
    pub fn terminate_namespace(&self, namespace: &str) -> Result<(), Error> {
        self.delete(&Target::object(Kind::Namespace, None, namespace))
            .map(drop)
    }

    /// Makes a networkpolicy, or gives the one that exists this spec.
    ///
    /// # Errors
    /// The API's.
    pub fn policy(&self, namespace: &str, name: &str, spec: &Value) -> Result<Value, Error> {
        let target = Target::object(Kind::NetworkPolicy, Some(namespace), name);
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        match self.replace(&target, &object) {
            Err(Error::Api { code: 404, .. }) => {
                let collection = Target::collection(Kind::NetworkPolicy, Some(namespace));
                self.create(&collection, &object)
            }
            result => result,
        }
    }

    /// Deletes a networkpolicy.
    ///
    /// # Errors
    /// The API's.
    pub fn delete_policy(&self, namespace: &str, name: &str) -> Result<(), Error> {
        self.delete(&Target::object(Kind::NetworkPolicy, Some(namespace), name))
            .map(drop)
    }
}
