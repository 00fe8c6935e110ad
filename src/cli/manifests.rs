//! What commands that are given a directory of manifests demand of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Failure;
use crate::cluster::Text;
use crate::cluster::object::{Object, ObjectKey};
use crate::source::{Files, Snapshot};

/// Reads a file or directory, or what comes in for `-`; what is wrong within it is in the snapshot's problems.
pub(super) fn read(path: &Path) -> Result<Snapshot, Failure> {
    snapshot(Files::new(place(path)))
}

/// Reads it for a question: workloads stand for their pods.
pub(super) fn read_with_workloads(path: &Path) -> Result<Snapshot, Failure> {
    snapshot(Files::with_workloads(place(path)))
}

fn snapshot(mut files: Files) -> Result<Snapshot, Failure> {
    let reading = files.read(Duration::ZERO);
    Ok(reading.map_err(Failure::input)?.snapshot)
}

fn place(path: &Path) -> &Path {
    match path == "-" {
        true => Path::new("/dev/stdin"),
        false => path,
    }
}

/// A name that no node has is more likely misspelt than meant.
pub(super) fn check_node(snapshot: &Snapshot, node: &Text) -> Result<(), Failure> {
    if snapshot.get(&ObjectKey::Node(node.clone())).is_some() {
        return Ok(());
    }
    let mut names = BTreeSet::new();
    for object in snapshot.objects() {
        match object {
            Object::Node(node) => {
                names.insert(node.name.clone());
            }
            Object::Pod(pod) => names.extend(pod.node.clone()),
            Object::Namespace(_) | Object::Policy(_) => {}
        }
    }
    // Pods may stand on a node that nobody wrote down.
    if names.contains(node) {
        return Ok(());
    }
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    Err(Failure::Input(match names.is_empty() {
        true => format!(
            "there is no node {node}: the input has no nodes; add a Node, or pods with spec.nodeName"
        ),
        false => format!(
            "there is no node {node}; --node must be one of: {}",
            names.join(", ")
        ),
    }))
}
