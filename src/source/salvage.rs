//! NetworkPolicies, piece by piece.
//!
//! A policy that were dropped because a part of it makes no sense would leave open what its author believes closed. So
//! it is decoded in pieces: a rule that can't be read allows nothing and the others keep their meaning; a podSelector
//! that can't be read selects all that it may mean, at most every pod of the policy's namespace, and allows them
//! nothing, as [`lower`] does where the fault is one of meaning. A field that the API does not have counts as
//! unreadable: a misspelt `matchLabel` would otherwise be a selector of everything.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::decode::problem;
use crate::cluster::Text;
use crate::policy::network_policy::lower;
use crate::policy::{Policy, Problem, Problems, Rule};

/// Reads a networking.k8s.io/v1 NetworkPolicy and lowers it. There is always an answer: what can't be read is closed,
/// and one of the policy's problems.
pub(super) fn network_policy(value: &Value, namespace: &Text, name: &Text) -> Policy {
    let mut pieces = Pieces::default();
    let spec = match value.get("spec") {
        None | Some(Value::Null) => None,
        Some(Value::Object(spec)) => Some(pieces.spec(spec)),
        Some(_) => {
            pieces.problems.push(problem(
                "spec",
                "it must be a map; every pod of the namespace is isolated, and allowed nothing by this policy",
            ));
            Some(NetworkPolicySpec {
                policy_types: Some(both()),
                ..NetworkPolicySpec::default()
            })
        }
    };
    let mut policy = lower(&NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_string()),
            name: Some(name.to_string()),
            ..ObjectMeta::default()
        },
        spec,
    });
    for (rules, kept) in [
        (&mut policy.ingress, &pieces.ingress),
        (&mut policy.egress, &pieces.egress),
    ] {
        *rules = rules.take().map(|rules| in_place(rules, kept));
    }
    if pieces.inexact {
        for rules in [&mut policy.ingress, &mut policy.egress]
            .into_iter()
            .flatten()
        {
            rules.clear();
        }
    }
    for problem in &mut policy.problems {
        pieces.restore_index(&mut problem.location);
    }
    policy.problems.splice(0..0, pieces.problems.into_vec());
    policy
}

/// The rules at the indices that they have in the object. In the place of those before them that could not be read come
/// some that allow nothing.
fn in_place(rules: Vec<Rule>, indices: &[usize]) -> Vec<Rule> {
    let mut placed = Vec::with_capacity(rules.len());
    for (rule, index) in rules.into_iter().zip(indices) {
        placed.resize_with(placed.len().max(*index), Rule::nothing);
        placed.push(rule);
    }
    placed
}

fn both() -> Vec<String> {
    vec!["Ingress".to_owned(), "Egress".to_owned()]
}

/// What is known while a policy is read.
#[derive(Default)]
struct Pieces {
    problems: Problems,
    /// Whether the policy may select more pods than was meant.
    inexact: bool,
    /// The indices of the rules that were kept.
    ingress: Vec<usize>,
    egress: Vec<usize>,
}

impl Pieces {
    fn spec(&mut self, spec: &Map<String, Value>) -> NetworkPolicySpec {
        let mut unknown = false;
        let nameless = spec.get("podSelector").is_none_or(Value::is_null);
        for (key, value) in spec {
            let known = ["podSelector", "policyTypes", "ingress", "egress"];
            if !known.contains(&key.as_str()) && !value.is_null() {
                unknown = true;
                let reason = "NetworkPolicy has no such field; without policyTypes both directions are isolated";
                let reason = match nameless {
                    true => format!(
                        "{reason}; without podSelector every pod of the namespace is isolated and allowed nothing by this policy"
                    ),
                    false => reason.to_owned(),
                };
                self.problems.push(problem(format!("spec.{key}"), reason));
            }
        }
        // It may have been meant for podSelector.
        self.inexact |= unknown && nameless;
        let pod_selector = self.subject(spec.get("podSelector"));
        let (ingress, kept) = self.rules::<NetworkPolicyIngressRule>("ingress", spec);
        self.ingress = kept;
        let (egress, kept) = self.rules::<NetworkPolicyEgressRule>("egress", spec);
        self.egress = kept;
        let policy_types = match self.policy_types(spec.get("policyTypes")) {
            Some(types) => Some(types),
            None if unknown => Some(both()),
            // The default looks at the rules, and some of those may be gone.
            None if !self.problems.is_empty() => {
                let egress = match spec.get("egress") {
                    None | Some(Value::Null) => false,
                    Some(Value::Array(rules)) => !rules.is_empty(),
                    Some(_) => true,
                };
                let types = both().into_iter();
                Some(types.take(if egress { 2 } else { 1 }).collect())
            }
            None => None,
        };
        NetworkPolicySpec {
            pod_selector,
            policy_types,
            ingress,
            egress,
        }
    }

    /// The pods that the policy is about. Where a part of the selector can't be read they are all that it may mean,
    /// and [`Pieces::inexact`] is set.
    fn subject(&mut self, raw: Option<&Value>) -> Option<LabelSelector> {
        let raw = raw.filter(|raw| !raw.is_null())?;
        let location = "spec.podSelector";
        let first = match piece::<LabelSelector>(raw, location) {
            Ok(selector) => return Some(selector),
            Err(first) => first,
        };
        self.inexact = true;
        self.problems.push(problem(
            first.location,
            format!(
                "{}; every pod it may select is isolated and allowed nothing by this policy",
                first.reason
            ),
        ));
        Some(loosened(raw))
    }

    /// The rules of one direction that can be read, and their indices.
    fn rules<T: DeserializeOwned + Serialize>(
        &mut self,
        direction: &str,
        spec: &Map<String, Value>,
    ) -> (Option<Vec<T>>, Vec<usize>) {
        let entries = match spec.get(direction) {
            None | Some(Value::Null) => return (None, Vec::new()),
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                let reason = format!("it must be a list of rules; no {direction} is allowed");
                self.problems
                    .push(problem(format!("spec.{direction}"), reason));
                return (Some(Vec::new()), Vec::new());
            }
        };
        let mut rules = Vec::with_capacity(entries.len());
        let mut kept = Vec::with_capacity(entries.len());
        for (n, entry) in entries.iter().enumerate() {
            match piece(entry, &format!("spec.{direction}[{n}]")) {
                Ok(rule) => {
                    rules.push(rule);
                    kept.push(n);
                }
                Err(Problem { location, reason }) => {
                    let reason = format!("{reason}; this rule allows nothing");
                    self.problems.push(problem(location, reason));
                }
            }
        }
        (Some(rules), kept)
    }

    /// The policy's types where it has any; both where they can't be told.
    fn policy_types(&mut self, raw: Option<&Value>) -> Option<Vec<String>> {
        let location = "spec.policyTypes";
        match raw {
            None | Some(Value::Null) => None,
            Some(Value::String(one)) => {
                let reason = format!("it must be a list; read as [{one}]");
                self.problems.push(problem(location, reason));
                Some(vec![one.clone()])
            }
            Some(Value::Array(entries)) if entries.iter().all(Value::is_string) => {
                let types = entries.iter().filter_map(Value::as_str);
                let types: Vec<String> = types.map(str::to_owned).collect();
                (!types.is_empty()).then_some(types)
            }
            Some(_) => {
                let reason =
                    "it must be a list of Ingress and Egress; both directions are isolated";
                self.problems.push(problem(location, reason));
                Some(both())
            }
        }
    }

    /// Gives a location the index that its rule has in the object, where rules before it were left out.
    fn restore_index(&self, location: &mut String) {
        for (direction, kept) in [("ingress", &self.ingress), ("egress", &self.egress)] {
            let rest = location
                .strip_prefix("spec.")
                .and_then(|rest| rest.strip_prefix(direction))
                .and_then(|rest| rest.strip_prefix('['))
                .and_then(|rest| rest.split_once(']'));
            let Some((index, rest)) = rest else {
                continue;
            };
            let original = index.parse::<usize>().ok().and_then(|n| kept.get(n));
            if let Some(original) = original {
                *location = format!("spec.{direction}[{original}]{rest}");
                return;
            }
        }
    }
}

/// Decodes one part of an object; the error says where within it the trouble is.
fn piece<T: DeserializeOwned + Serialize>(raw: &Value, location: &str) -> Result<T, Problem> {
    let decoded: T = serde_path_to_error::deserialize(raw).map_err(|error| {
        let path = error.path().to_string();
        let location = match path.as_str() {
            "." => location.to_owned(),
            path if path.starts_with('[') => format!("{location}{path}"),
            path => format!("{location}.{path}"),
        };
        problem(location, error.into_inner().to_string())
    })?;
    let again = serde_json::to_value(&decoded)
        .map_err(|error| problem(location.to_owned(), error.to_string()))?;
    match lost(raw, &again) {
        None => Ok(decoded),
        Some(path) => Err(problem(
            format!("{location}{path}"),
            "the API has no such field",
        )),
    }
}

/// The path of the first field that decoding has left out.
fn lost(raw: &Value, decoded: &Value) -> Option<String> {
    match (raw, decoded) {
        (Value::Object(raw), Value::Object(decoded)) => raw
            .iter()
            .filter(|(_, value)| !value.is_null())
            .find_map(|(key, value)| match decoded.get(key) {
                None => Some(format!(".{key}")),
                Some(decoded) => lost(value, decoded).map(|path| format!(".{key}{path}")),
            }),
        (Value::Array(raw), Value::Array(decoded)) => raw
            .iter()
            .zip(decoded)
            .enumerate()
            .find_map(|(n, (raw, decoded))| lost(raw, decoded).map(|path| format!("[{n}]{path}"))),
        _ => None,
    }
}

/// What of a selector can be read. A requirement that can't be is loosened, never tightened: to the presence of its
/// key where it needs that, else to nothing.
fn loosened(raw: &Value) -> LabelSelector {
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    let present = |key: &str| LabelSelectorRequirement {
        key: key.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    if let Some(Value::Object(entries)) = raw.get("matchLabels") {
        for (key, value) in entries {
            match value {
                Value::String(value) => {
                    labels.insert(key.clone(), value.clone());
                }
                _ => expressions.push(present(key)),
            }
        }
    }
    if let Some(Value::Array(entries)) = raw.get("matchExpressions") {
        for entry in entries {
            let text = |key| entry.get(key).and_then(Value::as_str);
            match piece::<LabelSelectorRequirement>(entry, "") {
                Ok(requirement) => expressions.push(requirement),
                Err(_) => {
                    if let (Some(key), Some("In" | "Exists")) = (text("key"), text("operator")) {
                        expressions.push(present(key));
                    }
                }
            }
        }
    }
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: Some(expressions),
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
