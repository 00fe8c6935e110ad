//! Whether the API server answers, and lets be read what policies speak of.

use std::time::Duration;

use ipnetwork::IpNetwork;

use super::Finding;
use crate::cluster::object::{Node, Object, ObjectKind};
use crate::source::kube::{self, Access, AccessError, ApiError, Connection};

const CHECK: &str = "API server";
const NODE_CHECK: &str = "node";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was learnt of each kind.
type Read = Vec<(ObjectKind, Result<Vec<Object>, ApiError>)>;

/// Asks the API server for one object of each kind, and for this node; the pod CIDRs are the node's, as far as it says.
pub fn examine(access: &Access, node: Option<&str>) -> (Vec<Finding>, Vec<IpNetwork>) {
    let only = |finding| (vec![finding], Vec::new());
    if !access.is_configured() {
        let found = "not looked at: nothing here says where it is (--kubeconfig FILE does)";
        return only(Finding::ok(CHECK, found));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return only(Finding::fail(CHECK, error.to_string(), "try again")),
    };
    let (place, read) = match runtime.block_on(ask(access, node)) {
        Ok(answer) => answer,
        Err(error) => {
            let advice = "name a kubeconfig that is there and readable (--kubeconfig FILE), or mount the service account's token";
            return only(Finding::fail(CHECK, error.to_string(), advice));
        }
    };
    let mut findings = vec![judge(&place, &read)];
    let nodes = read.iter().find(|(kind, _)| *kind == ObjectKind::Node);
    let mut pod_cidrs = Vec::new();
    if let (Some(name), Some((_, Ok(nodes)))) = (node, nodes) {
        let node = known(name, nodes);
        findings.push(judge_node(name, node));
        pod_cidrs = node.map(|node| node.pod_cidrs.clone()).unwrap_or_default();
    }
    (findings, pod_cidrs)
}

fn known<'a>(name: &str, nodes: &'a [Object]) -> Option<&'a Node> {
    nodes.iter().find_map(|object| match object {
        Object::Node(node) if *node.name == *name => Some(node),
        _ => None,
    })
}

/// The server's URL, and what it answered.
async fn ask(access: &Access, node: Option<&str>) -> Result<(String, Read), AccessError> {
    let connection = Connection::new(access.clone()).await?;
    let mut read = Vec::new();
    for kind in ObjectKind::ALL {
        let answer = tokio::time::timeout(PATIENCE, kube::check(&connection, kind, node)).await;
        let answer = answer.unwrap_or_else(|_| {
            let reason = format!("it has not answered for {} s", PATIENCE.as_secs());
            Err(ApiError::Unreachable { reason })
        });
        let away = matches!(answer, Err(ApiError::Unreachable { .. }));
        read.push((kind, answer));
        if away {
            // It would not be there for the others either.
            break;
        }
    }
    Ok((connection.place().to_owned(), read))
}

fn judge(place: &str, read: &Read) -> Finding {
    let failed: Vec<_> = read
        .iter()
        .filter_map(|(kind, answer)| Some((kind.resource(), answer.as_ref().err()?)))
        .collect();
    let Some((_, error)) = failed.first() else {
        let kinds: Vec<_> = read.iter().map(|(kind, _)| kind.resource()).collect();
        let found = format!(
            "{place} lets these be listed and watched: {}",
            kinds.join(", ")
        );
        return Finding::ok(CHECK, found);
    };
    let kinds: Vec<_> = failed.iter().map(|(kind, _)| *kind).collect();
    let found = format!("{place}, asked for {}: {error}", kinds.join(", "));
    let advice = match error {
        ApiError::Refused { code: 401, .. } => {
            "the credentials are not accepted: renew the kubeconfig's, or restart the pod for a new token"
        }
        ApiError::Refused { code: 403, .. } => {
            "apply the ClusterRole and its binding again (`kubectl apply -k manifests`), or use credentials that may list and watch these"
        }
        ApiError::Refused { .. } | ApiError::Nonsense { .. } | ApiError::TooLarge => {
            "look into the API server's log, and whether something else answers at this address"
        }
        ApiError::Unreachable { .. } => {
            "see that the API server runs and that this node reaches it; the rules in force stay so meanwhile"
        }
    };
    Finding::fail(CHECK, found, advice)
}

fn judge_node(name: &str, known: Option<&Node>) -> Finding {
    let Some(node) = known else {
        return Finding::fail(
            NODE_CHECK,
            format!("the cluster has no node {name}"),
            "set NODE_NAME from spec.nodeName (fieldRef), or give --node a name that `kubectl get nodes` shows",
        );
    };
    if node.pod_cidrs.is_empty() {
        return Finding::warn(
            NODE_CHECK,
            format!("{name} has no spec.podCIDR"),
            "let kube-controller-manager give nodes their pod CIDRs (--allocate-node-cidrs), or name the pods' bridge with --bridge",
        );
    }
    let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    let found = format!(
        "{name} is in the cluster, with pod CIDRs {}",
        cidrs.join(", ")
    );
    Finding::ok(NODE_CHECK, found)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::cluster::Text;
    use crate::cluster::object::Node;

    fn refused(code: u16) -> ApiError {
        ApiError::Refused {
            code,
            reason: String::new(),
            message: "no".to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn each_refusal_has_its_advice() {
        let away = ApiError::Unreachable {
            reason: "gone".to_owned(),
        };
        for (error, advice) in [
            (refused(401), "renew"),
            (refused(403), "ClusterRole"),
            (refused(500), "log"),
            (away, "runs"),
        ] {
            let read = vec![
                (ObjectKind::Pod, Ok(Vec::new())),
                (ObjectKind::NetworkPolicy, Err(error)),
            ];
            let finding = judge("https://api", &read);
            assert_eq!(finding.status, Status::Fail);
            assert!(finding.found.contains("networkpolicies"), "{finding:?}");
            assert!(!finding.found.contains("pods"), "{finding:?}");
            assert!(finding.advice.unwrap().contains(advice));
        }
    }

    #[test]
    fn a_node_must_be_there_with_its_pod_cidrs() {
        let mut node = Node {
            name: Text::from("node-a"),
            pod_cidrs: Vec::new(),
            addresses: Vec::new(),
        };
        let judged = |name, node: &Node| {
            let nodes = [Object::Node(node.clone())];
            judge_node(name, known(name, &nodes)).status
        };
        assert_eq!(judged("node-b", &node), Status::Fail);
        assert_eq!(judged("node-a", &node), Status::Warn);
        node.pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
        assert_eq!(judged("node-a", &node), Status::Ok);
    }
}
