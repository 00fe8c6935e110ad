//! From a Kubernetes object as JSON to what Selvedge keeps of it.
//!
//! Only the fields that policy needs are looked at: nonsense elsewhere in an object does no harm, and nonsense in one
//! of them costs that field alone. A pod that is dropped is a pod that nothing isolates, so as much of it as can be
//! read is kept. NetworkPolicies have their own file, `salvage`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::salvage;
use crate::cluster::Text;
use crate::cluster::labels::Labels;
use crate::cluster::object::{Addresses, Namespace, Node, Object, ObjectKind, Pod};
use crate::cluster::parse::{parse_cidr, parse_ip};
use crate::cluster::port::{NamedPort, Protocol};
use crate::policy::{Policy, Problem, Problems};

/// The annotation that holds the UID of a static pod, in the API's image of it.
pub(super) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// An object that was read, and what in it could not be. A policy's problems are its own ([`crate::policy::Policy`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The object.
    pub object: Object,
    /// What could not be read and was left out.
    pub problems: Vec<Problem>,
    /// Whether that may change whom it concerns: labels are among it.
    pub partial: bool,
}

/// An object of a kind that matters, of which too little could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {problem}")]
pub struct Undecodable {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace and name, as far as they are known.
    pub name: String,
    /// What is wrong.
    pub problem: Problem,
}

/// One object of a document.
#[derive(Debug)]
pub struct Item {
    /// Its index, where the document is a list.
    pub index: Option<usize>,
    /// The object.
    pub result: Result<Decoded, Undecodable>,
}

/// The objects of a document: itself, or the items of a `List`, `PodList` and so on, also nested. What is no object
/// of a kind that matters, or no Kubernetes object at all, is not in the answer. What is meant as one and has no kind, or
/// one that there isn't, is an error.
pub fn objects(document: &Value) -> Vec<Item> {
    leaves(document).iter().filter_map(item).collect()
}

/// One object of a document, of any kind; without one where it is meant as an object and has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf<'a> {
    pub kind: Option<&'a str>,
    pub api_version: Option<&'a str>,
    /// Its index, where the document is a list.
    pub index: Option<usize>,
    pub value: &'a Value,
}

/// The objects of a document, of whatever kinds.
pub(super) fn leaves(document: &Value) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    collect(document, Inherited::default(), None, &mut leaves);
    leaves
}

/// What the items of a typed list may leave out.
#[derive(Debug, Clone, Copy, Default)]
struct Inherited<'a> {
    kind: Option<&'a str>,
    api_version: Option<&'a str>,
}

fn collect<'a>(
    value: &'a Value,
    inherited: Inherited<'a>,
    index: Option<usize>,
    leaves: &mut Vec<Leaf<'a>>,
) {
    let own = |key| value.get(key).and_then(Value::as_str);
    let api_version = own("apiVersion").or(inherited.api_version);
    let kind = own("kind").or(inherited.kind);
    if let (Some(of), Some(Value::Array(values))) = (
        kind.and_then(|kind| kind.strip_suffix("List")),
        value.get("items"),
    ) {
        let inherited = Inherited {
            kind: (!of.is_empty()).then_some(of),
            api_version: (!of.is_empty()).then_some(api_version).flatten(),
        };
        for (n, item) in values.iter().enumerate() {
            let index = Some(index.map_or(n, |outer| outer + n));
            collect(item, inherited, index, leaves);
        }
        return;
    }
    if kind.is_some() || index.is_some() || is_meant(value) {
        leaves.push(Leaf {
            kind,
            api_version,
            index,
            value,
        });
    }
}

/// Whether what has no kind is meant as an object, or as objects that nobody made a List of. Helm's charts have an
/// apiVersion, too, and other lists, such as patches, none.
fn is_meant(value: &Value) -> bool {
    let has = |key| value.get(key).is_some();
    match value {
        Value::Array(values) => values.iter().any(|item| item.get("apiVersion").is_some()),
        _ => has("apiVersion") && (has("metadata") || has("spec") || has("items")),
    }
}

fn item(leaf: &Leaf<'_>) -> Option<Item> {
    let undecodable = |kind, problem| {
        Err(Undecodable {
            kind,
            name: described(leaf.value),
            problem,
        })
    };
    let kind = ObjectKind::ALL
        .into_iter()
        .find(|kind| Some(kind.name()) == leaf.kind);
    let result = match kind {
        None => undecodable("object", unknown_kind(leaf)?),
        Some(kind) => match concerns(kind, leaf.api_version) {
            Ok(true) => decode(kind, leaf.value),
            Ok(false) => return None,
            Err(reason) => {
                let problem = problem("apiVersion", reason);
                match decode(kind, leaf.value) {
                    Ok(Decoded {
                        object: Object::Policy(policy),
                        ..
                    }) => Ok(closed(&policy, problem)),
                    _ => undecodable(kind.name(), problem),
                }
            }
        },
    };
    Some(Item {
        index: leaf.index,
        result,
    })
}

/// A policy of which it can't be said what it means: the pods that it selects are isolated, and allowed nothing.
fn closed(policy: &Policy, problem: Problem) -> Decoded {
    let reason = problem.reason;
    let said = Problem {
        reason: format!(
            "{reason}; the pods that it selects are isolated and allowed nothing by this policy"
        ),
        ..problem
    };
    let object = Object::Policy(Arc::new(Policy {
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        problems: vec![said],
        ..policy.clone()
    }));
    Decoded {
        object,
        problems: Vec::new(),
        partial: false,
    }
}

/// The kinds of networking.k8s.io beside NetworkPolicy.
const NETWORKING: [&str; 5] = [
    "Ingress",
    "IngressClass",
    "IPAddress",
    "ServiceCIDR",
    "ClusterCIDR",
];

/// What is wrong with an object of none of the kinds that matter, if it may be meant as one; `None` for what is truly
/// another's.
fn unknown_kind(leaf: &Leaf<'_>) -> Option<Problem> {
    let Some(kind) = leaf.kind else {
        let reason = match leaf.value {
            Value::Object(_) => return Some(problem("kind", "missing")),
            Value::Array(_) => "a list of objects must be the items of a List",
            _ => "it is no object",
        };
        return Some(problem("document", reason));
    };
    let of = kind.strip_suffix("List");
    let of_ours = |name: &str| {
        let mut all = ObjectKind::ALL.into_iter();
        all.any(|kind| kind.name().eq_ignore_ascii_case(name))
    };
    // Lists that have items are not here.
    if of.is_some_and(|of| of.is_empty() || of_ours(of)) {
        let items = leaf.value.get("items");
        let reason = match items {
            Some(Value::Null) => return None,
            Some(_) => "it must be a list",
            None => "missing",
        };
        return Some(problem("items", reason));
    }
    let group = leaf.api_version?.split_once('/').map(|(group, _)| group);
    let wrong = match group {
        Some("networking.k8s.io") => !NETWORKING.contains(&of.unwrap_or(kind)),
        None => of_ours(kind),
        Some(_) => false,
    };
    let api_version = leaf.api_version.unwrap_or_default();
    wrong.then(|| problem("kind", format!("{api_version} has no {kind:?}")))
}

/// Whether an object of this kind and API version is the one that is meant: other groups have kinds of the same
/// name (crd.projectcalico.org's NetworkPolicy), and those are skipped. An error says why an object that is
/// plainly meant can't be taken; skipping it quietly would leave open what its author believes closed.
fn concerns(kind: ObjectKind, api_version: Option<&str>) -> Result<bool, String> {
    let expected = kind.api_version();
    match api_version {
        Some(version) if version == expected => Ok(true),
        None => Err(format!("missing; it must be {expected}")),
        Some(version) => {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            match (kind, group) {
                (_, "") | (ObjectKind::NetworkPolicy, "extensions" | "networking.k8s.io") => {
                    Err(format!("{version:?} is not {expected}"))
                }
                _ => Ok(false),
            }
        }
    }
}

/// Reads an object of which the kind is known.
///
/// # Errors
/// When not even its name can be read.
pub(super) fn decode(kind: ObjectKind, value: &Value) -> Result<Decoded, Undecodable> {
    let mut problems = Problems::default();
    let mut partial = false;
    let meta = metadata(kind, value, &mut problems).map_err(|problem| Undecodable {
        kind: kind.name(),
        name: described(value),
        problem,
    })?;
    let object = match kind {
        ObjectKind::Pod => {
            let labels;
            (labels, partial) = self::labels(value, &mut problems);
            Object::Pod(pod(value, meta, labels, &mut problems))
        }
        ObjectKind::Namespace => {
            let mut labels;
            (labels, partial) = self::labels(value, &mut problems);
            if partial {
                // None can be said to be absent, which would let its pods in.
                labels = labels.partial();
            }
            let deleted = at(value, "metadata", "deletionTimestamp");
            Object::Namespace(Namespace {
                terminating: deleted.is_some_and(|time| !time.is_null()),
                ..Namespace::new(meta.name, &labels)
            })
        }
        ObjectKind::Node => Object::Node(node(value, meta, &mut problems)),
        ObjectKind::NetworkPolicy => {
            let mut policy = salvage::network_policy(value, &meta.namespace, &meta.name);
            let own = std::mem::take(&mut problems);
            policy.problems.splice(0..0, own.into_vec());
            Object::Policy(Arc::new(policy))
        }
    };
    Ok(Decoded {
        object,
        problems: problems.into_vec(),
        partial,
    })
}

/// An object's identity.
struct Metadata {
    namespace: Text,
    name: Text,
}

fn metadata(kind: ObjectKind, value: &Value, problems: &mut Problems) -> Result<Metadata, Problem> {
    let location = "metadata.name";
    // As `kubectl create` takes it: the name will be longer.
    let generated = || at(value, "metadata", "generateName").filter(|name| name.is_string());
    let given = at(value, "metadata", "name").filter(|name| !name.is_null());
    let name = match given.or_else(generated) {
        None => return Err(problem(location, "missing")),
        Some(name) => scalar(name, location, problems)
            .ok_or_else(|| problem(location, "it must be a string"))?,
    };
    let name = valid_name(location, &name)?;
    let location = "metadata.namespace";
    let namespace = match at(value, "metadata", "namespace") {
        _ if matches!(kind, ObjectKind::Namespace | ObjectKind::Node) => String::new(),
        None | Some(Value::Null) => String::new(),
        Some(namespace) => scalar(namespace, location, problems)
            .ok_or_else(|| problem(location, "it must be a string"))?,
    };
    let namespace = match namespace.as_str() {
        "" => Text::from("default"),
        namespace => valid_name(location, namespace)?,
    };
    Ok(Metadata { namespace, name })
}

/// Names go into chain names and logs. Any that the API accepts is accepted, capitals and underscores besides.
fn valid_name(location: &str, name: &str) -> Result<Text, Problem> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(fine) {
        let reason = "it must have 1 to 253 characters, letters, digits, - and . only";
        return Err(problem(location, format!("{name:?} is no name: {reason}")));
    }
    Ok(Text::from(name))
}

/// What an object that can't be read is called in a message.
fn described(value: &Value) -> String {
    let text = |key| at(value, "metadata", key).and_then(Value::as_str);
    match (text("namespace"), text("name")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        (Some(namespace), None) => format!("{namespace}/(no name)"),
        (None, None) => "(no name)".to_owned(),
    }
}

fn pod(value: &Value, meta: Metadata, labels: Labels, problems: &mut Problems) -> Pod {
    let phase = at(value, "status", "phase").and_then(Value::as_str);
    let node = at(value, "spec", "nodeName")
        .and_then(Value::as_str)
        .filter(|node| !node.is_empty());
    let host_network = match at(value, "spec", "hostNetwork") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(host_network)) => *host_network,
        Some(_) => {
            let reason = "it must be true or false; read as false";
            problems.push(problem("spec.hostNetwork", reason));
            false
        }
    };
    let uid = at(value, "metadata", "uid").and_then(Value::as_str);
    // The API's image of a pod that a kubelet has from a file has another UID than the pod.
    let annotations = at(value, "metadata", "annotations");
    let of_static = annotations.and_then(|all| all.get(CONFIG_MIRROR)?.as_str());
    let uid = of_static.filter(|uid| !uid.is_empty()).or(uid);
    Pod {
        namespace: meta.namespace,
        name: meta.name,
        uid: uid.unwrap_or_default().into(),
        created: created(value, problems),
        node: node.map(Text::from),
        host_network,
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        labels,
        addresses: pod_addresses(value, problems),
        ports: named_ports(value, problems),
    }
}

fn created(value: &Value, problems: &mut Problems) -> i64 {
    let location = "metadata.creationTimestamp";
    match at(value, "metadata", "creationTimestamp") {
        None | Some(Value::Null) => 0,
        Some(Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(timestamp) => timestamp.as_second(),
            Err(_) => {
                problems.push(problem(location, format!("{text:?} is no timestamp")));
                0
            }
        },
        Some(_) => {
            problems.push(problem(location, "it must be a timestamp"));
            0
        }
    }
}

fn pod_addresses(value: &Value, problems: &mut Problems) -> Addresses {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut read = |text: &str, location: &str| match parse_ip(text) {
        Ok(address) => addresses.push(address),
        Err(error) => problems.push(problem(location, error.to_string())),
    };
    for (n, entry) in list(value, "status", "podIPs").iter().enumerate() {
        let text = entry.get("ip").and_then(Value::as_str);
        read(text.unwrap_or_default(), &format!("status.podIPs[{n}].ip"));
    }
    match at(value, "status", "podIP") {
        None | Some(Value::Null) => {}
        // A repetition of podIPs[0] where both are there: the first of a family counts.
        Some(Value::String(text)) if !text.is_empty() => read(text, "status.podIP"),
        Some(Value::String(_)) => {}
        Some(_) => read("", "status.podIP"),
    }
    if let Some(other) =
        at(value, "status", "podIPs").filter(|all| !(all.is_array() || all.is_null()))
    {
        let reason = format!("{other} is no list of addresses; left out");
        problems.push(problem("status.podIPs", reason));
    }
    addresses.into_iter().collect()
}

fn named_ports(value: &Value, problems: &mut Problems) -> Arc<[NamedPort]> {
    let restartable = |container: &&Value| {
        container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
    };
    let containers = list(value, "spec", "containers");
    let inits = list(value, "spec", "initContainers");
    let mut ports: BTreeMap<(Text, Protocol), u16> = BTreeMap::new();
    for container in containers.iter().chain(inits.iter().filter(restartable)) {
        let Some(Value::Array(entries)) = container.get("ports") else {
            continue;
        };
        for entry in entries {
            let Some(name) = entry.get("name").and_then(Value::as_str) else {
                continue;
            };
            match named_port(name, entry) {
                // As in Kubernetes' own FindPort, the first container that has the name counts.
                Ok(port) => {
                    let first = ports.entry((port.name, port.protocol));
                    first.or_insert(port.number);
                }
                Err(reason) => {
                    let container = container.get("name").and_then(Value::as_str);
                    let container = container.unwrap_or("(no name)");
                    problems.push(problem(
                        format!("spec.containers[{container}].ports[{name}]"),
                        reason,
                    ));
                }
            }
        }
    }
    let ports = ports.into_iter();
    ports
        .map(|((name, protocol), number)| NamedPort {
            name,
            protocol,
            number,
        })
        .collect()
}

fn named_port(name: &str, entry: &Value) -> Result<NamedPort, String> {
    let protocol = match entry.get("protocol") {
        None | Some(Value::Null) => Protocol::Tcp,
        Some(Value::String(text)) if text.is_empty() => Protocol::Tcp,
        Some(protocol) => protocol
            .as_str()
            .and_then(Protocol::parse)
            .ok_or_else(|| format!("protocol {protocol} is not TCP, UDP or SCTP"))?,
    };
    let number = entry.get("containerPort").unwrap_or(&Value::Null);
    match number.as_u64().and_then(|n| u16::try_from(n).ok()) {
        Some(number) if number > 0 => Ok(NamedPort {
            name: Text::from(name),
            protocol,
            number,
        }),
        _ => Err(format!("containerPort {number} is not within 1-65535")),
    }
}

fn node(value: &Value, meta: Metadata, problems: &mut Problems) -> Node {
    let mut pod_cidrs: Vec<IpNetwork> = Vec::new();
    let mut read = |text: &str, location: &str| match parse_cidr(text) {
        Ok(net) if pod_cidrs.contains(&net) => {}
        Ok(net) => pod_cidrs.push(net),
        Err(error) => problems.push(problem(location, error.to_string())),
    };
    for (n, cidr) in list(value, "spec", "podCIDRs").iter().enumerate() {
        match cidr {
            Value::String(text) => read(text, &format!("spec.podCIDRs[{n}]")),
            other => read(&other.to_string(), &format!("spec.podCIDRs[{n}]")),
        }
    }
    let single = at(value, "spec", "podCIDR").and_then(Value::as_str);
    if let Some(text) = single.filter(|text| !text.is_empty()) {
        read(text, "spec.podCIDR");
    }
    // Host names stand among the addresses too.
    let addresses = list(value, "status", "addresses")
        .iter()
        .filter_map(|entry| entry.get("address").and_then(Value::as_str))
        .filter_map(|text| parse_ip(text).ok())
        .collect();
    Node {
        name: meta.name,
        pod_cidrs,
        addresses,
    }
}

/// The labels that can be read, and whether there are others.
fn labels(value: &Value, problems: &mut Problems) -> (Labels, bool) {
    match at(value, "metadata", "labels") {
        None | Some(Value::Null) => (Labels::default(), false),
        Some(Value::Object(labels)) => {
            let read = labels.iter().filter_map(|(key, value)| {
                // Go's decoder reads null as the empty string.
                let value = match value {
                    Value::Null => String::new(),
                    value => scalar(value, &format!("metadata.labels.{key}"), problems)?,
                };
                Some((Text::from(key.as_str()), Text::from(value.as_str())))
            });
            let read: Labels = read.collect();
            let partial = read.iter().count() < labels.len();
            (read, partial)
        }
        Some(_) => {
            problems.push(problem(
                "metadata.labels",
                "it must be a map; left out, so policies may pass it by",
            ));
            (Labels::default(), true)
        }
    }
}

/// A string. YAML makes numbers and booleans of unquoted ones; the API refuses those, and here they are read as they
/// were most likely meant, with a word about it.
fn scalar(value: &Value, location: &str, problems: &mut Problems) -> Option<String> {
    let text = match value {
        Value::String(text) => return Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            problems.push(problem(location, "it must be a string; left out"));
            return None;
        }
    };
    let reason = format!("it must be a string; read as {text:?}, write it with quotes");
    problems.push(problem(location, reason));
    Some(text)
}

pub(super) fn problem(location: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem {
        location: location.into(),
        reason: reason.into(),
    }
}

pub(super) fn at<'a>(value: &'a Value, outer: &str, inner: &str) -> Option<&'a Value> {
    value.get(outer)?.get(inner)
}

fn list<'a>(value: &'a Value, outer: &str, inner: &str) -> &'a [Value] {
    match at(value, outer, inner) {
        Some(Value::Array(entries)) => entries,
        _ => &[],
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
