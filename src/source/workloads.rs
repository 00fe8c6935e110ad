//! Workloads as the pods of their templates, for questions about manifests as people keep them in git.
//!
//! A Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job or CronJob stands for one pod of its
//! template, named like the workload. Where the input holds the workload's own pods as well (what `kubectl get` prints of
//! a cluster), those count instead: pods of its namespace that are called `NAME-…`, carry the template's labels, and are
//! not finished. A ReplicaSet of a Deployment, or a Job of a CronJob, stands for nothing beside its owner, nor when it
//! has been scaled to zero.
//!
//! Pods that have no address yet get one from Flannel's default network, the same each time.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::decode::{self, at};
use super::snapshot::{Origin, Snapshot};
use crate::cluster::Text;
use crate::cluster::object::{Object, ObjectKey, Pod};

/// A workload, as the pod that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    kind: &'static str,
    /// The pod of its template; its name is the workload's.
    pod: Pod,
    /// The kind and name of the object that controls it.
    owner: Option<(String, String)>,
    /// Whether it has been scaled to zero.
    idle: bool,
}

/// What a document says of a workload.
#[derive(Debug)]
pub struct Found {
    /// Its index, where the document is a list.
    pub index: Option<usize>,
    /// The workload, if enough of it can be read.
    pub workload: Option<Workload>,
    /// What of it can't, each in one line.
    pub problems: Vec<String>,
}

/// The kinds, each with the API groups that have it.
const KINDS: [(&str, &[&str]); 7] = [
    ("CronJob", &["batch"]),
    ("DaemonSet", &["apps", "extensions"]),
    ("Deployment", &["apps", "extensions"]),
    ("Job", &["batch"]),
    ("ReplicaSet", &["apps", "extensions"]),
    ("ReplicationController", &[""]),
    ("StatefulSet", &["apps"]),
];

/// The workloads of a document.
pub fn find(document: &Value) -> Vec<Found> {
    let leaves = decode::leaves(document);
    let found = leaves.iter().filter_map(|leaf| {
        let group = match leaf.api_version?.split_once('/') {
            Some((group, _)) => group,
            None => "",
        };
        let (kind, _) = KINDS
            .into_iter()
            .find(|(kind, groups)| Some(*kind) == leaf.kind && groups.contains(&group))?;
        Some(read(kind, leaf.value, leaf.index))
    });
    found.collect()
}

fn read(kind: &'static str, value: &Value, index: Option<usize>) -> Found {
    let spec = match kind {
        "CronJob" => at(value, "spec", "jobTemplate").and_then(|template| template.get("spec")),
        _ => value.get("spec"),
    };
    let template = spec.and_then(|spec| spec.get("template"));
    let mut pod_spec = template.and_then(|template| template.get("spec")).cloned();
    if let Some(Value::Object(fields)) = &mut pod_spec {
        fields.remove("nodeName");
    }
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": at(value, "metadata", "name"),
            "namespace": at(value, "metadata", "namespace"),
            "labels": template.and_then(|template| at(template, "metadata", "labels")),
        },
        "spec": pod_spec,
    });
    let mut problems = Vec::new();
    let mut pods = decode::objects(&pod).into_iter();
    let pod = match pods.next().map(|item| item.result) {
        Some(Ok(decoded)) => match decoded.object {
            Object::Pod(pod) => {
                let name = format!("{kind} {}/{}", pod.namespace, pod.name);
                let of_template = decoded.problems.iter();
                problems.extend(of_template.map(|p| format!("{name}: in its template: {p}")));
                Some(pod)
            }
            _ => None,
        },
        Some(Err(error)) => {
            problems.push(format!("{kind} {}: {}", error.name, error.problem));
            None
        }
        None => None,
    };
    let workload = pod.map(|pod| Workload {
        kind,
        pod,
        owner: controller(value),
        idle: spec.and_then(|spec| spec.get("replicas")) == Some(&json!(0)),
    });
    Found {
        index,
        workload,
        problems,
    }
}

/// The kind and name of the object that controls this one.
fn controller(value: &Value) -> Option<(String, String)> {
    let owners = at(value, "metadata", "ownerReferences")?.as_array()?;
    let owner = owners
        .iter()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let text = |key| owner.get(key).and_then(Value::as_str).map(str::to_owned);
    text("kind").zip(text("name"))
}

/// Adds the pods that workloads stand for, and gives an address to every pod that has none.
pub(super) fn stand_in<'a>(
    snapshot: &mut Snapshot,
    workloads: impl IntoIterator<Item = &'a (Workload, Origin)>,
) {
    let mut workloads: Vec<&(Workload, Origin)> = workloads.into_iter().collect();
    workloads.sort_by_key(|(workload, origin)| {
        let pod = &workload.pod;
        (
            pod.namespace.clone(),
            pod.name.clone(),
            workload.kind,
            origin.clone(),
        )
    });
    let names: BTreeSet<(&str, &Text, &Text)> = workloads
        .iter()
        .map(|(workload, _)| (workload.kind, &workload.pod.namespace, &workload.pod.name))
        .collect();
    let stands = |workload: &Workload| match &workload.owner {
        None => true,
        Some((kind, name)) => {
            let name = Text::from(name.as_str());
            !workload.idle && !names.contains(&(kind.as_str(), &workload.pod.namespace, &name))
        }
    };
    let live: Vec<Pod> = snapshot
        .objects()
        .filter_map(|object| match object {
            Object::Pod(pod) if !pod.finished => Some(pod.clone()),
            _ => None,
        })
        .collect();
    let mut previous = None;
    for (workload, origin) in workloads {
        let id = (workload.kind, &workload.pod.namespace, &workload.pod.name);
        // A workload that is written down twice is one.
        if previous == Some(id) || !stands(workload) || has_pods(workload, &live) {
            continue;
        }
        previous = Some(id);
        let mut pod = workload.pod.clone();
        let key = ObjectKey::Pod(pod.namespace.clone(), pod.name.clone());
        if snapshot.get(&key).is_some() {
            let kind = workload.kind.to_ascii_lowercase();
            pod.name = Text::from(format!("{}-{kind}", pod.name).as_str());
        }
        snapshot.insert_held(Object::Pod(pod), origin.clone());
    }
    make_up_addresses(snapshot);
}

/// Whether any of the pods is the workload's. The pods are in the order of their names.
fn has_pods(workload: &Workload, pods: &[Pod]) -> bool {
    let template = &workload.pod;
    let prefix = format!("{}-", template.name);
    let before = pods.partition_point(|pod| {
        (&*pod.namespace, &*pod.name) < (&*template.namespace, prefix.as_str())
    });
    let mut candidates = pods
        .iter()
        .skip(before)
        .take_while(|pod| pod.namespace == template.namespace && pod.name.starts_with(&prefix));
    candidates.any(|pod| {
        let mut labels = template.labels.iter();
        labels.all(|(key, value)| pod.labels.get(key) == Some(value))
    })
}

/// Gives an address to every pod that will have one: of 10.244.0.0/14 and, where the input knows of IPv6 at all, of
/// fd00:10:244::/48. Addresses of nodes, and of pods that have theirs, are left out.
fn make_up_addresses(snapshot: &mut Snapshot) {
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let mut nets: Vec<IpNetwork> = Vec::new();
    for object in snapshot.objects() {
        match object {
            Object::Pod(pod) => taken.extend(pod.addresses.iter()),
            Object::Node(node) => {
                taken.extend(&node.addresses);
                nets.extend(&node.pod_cidrs);
            }
            Object::Namespace(_) | Object::Policy(_) => {}
        }
    }
    let dual = taken.iter().any(IpAddr::is_ipv6) || nets.iter().any(IpNetwork::is_ipv6);
    let free = |address: &IpAddr| {
        !taken.contains(address) && !nets.iter().any(|net| net.contains(*address))
    };
    let first = Ipv4Addr::new(10, 244, 0, 0).to_bits();
    let last = Ipv4Addr::new(10, 247, 255, 255).to_bits();
    let mut v4 = (first..=last)
        // Wherever a network of theirs may end, these are no pod's.
        .filter(|bits| !matches!(bits & 0xff, 0 | 1 | 255))
        .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        .filter(free);
    let net = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0xffff, 0, 0, 0, 0).to_bits();
    let mut v6 = (2..u128::from(u32::MAX))
        .map(|n| IpAddr::V6(Ipv6Addr::from_bits(net + n)))
        .filter(free);
    for pod in snapshot.pods_mut() {
        if pod.selectable() && pod.addresses.iter().next().is_none() {
            let v6 = if dual { v6.next() } else { None };
            pod.addresses = v4.next().into_iter().chain(v6).collect();
        }
    }
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
