//! The API's schemas, and objects held against them as `kubectl --validate=strict` does: types, required fields, and
//! no field that the API does not have.
//!
//! The schemas come with k8s-openapi's types, made from the API's own description. They use so few of JSON Schema's
//! words that a checker is shorter than the list of a general one's dependencies; a word it does not know stops it.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What is wrong with an object, one line each.
pub fn check(object: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let known = of_type::<Namespace>(object, &mut wrong)
        || of_type::<ServiceAccount>(object, &mut wrong)
        || of_type::<ClusterRole>(object, &mut wrong)
        || of_type::<ClusterRoleBinding>(object, &mut wrong)
        || of_type::<DaemonSet>(object, &mut wrong)
        || of_type::<NetworkPolicy>(object, &mut wrong);
    let of_prometheus = |kind| is(object, "monitoring.coreos.com/v1", kind);
    if let Some(root) = of_prometheus("PodMonitor")
        .then(pod_monitor)
        .or_else(|| of_prometheus("PrometheusRule").then(prometheus_rule))
    {
        Checker { root: &root }.value("", object, &root, &mut wrong);
    } else if !known {
        wrong.push(format!(
            "{} {} is no kind that is expected here",
            object["apiVersion"], object["kind"]
        ));
    }
    wrong
}

fn is(object: &Value, api_version: &str, kind: &str) -> bool {
    object["apiVersion"] == api_version && object["kind"] == kind
}

/// Whether the object is a `T`, and if so what is wrong with it.
fn of_type<T>(object: &Value, wrong: &mut Vec<String>) -> bool
where
    T: Resource + JsonSchema + DeserializeOwned + Serialize,
{
    if !is(object, T::API_VERSION, T::KIND) {
        return false;
    }
    let root = schema_for!(T);
    let root = root.as_value();
    Checker { root }.value("", object, root, wrong);
    // Its own decoder understands all of it, too: it gives back what it was given.
    match serde_json::from_value::<T>(object.clone()) {
        Ok(decoded) => {
            let again = serde_json::to_value(decoded).unwrap_or_default();
            if again != *object {
                wrong.push(format!("it is decoded as something else: {again}"));
            }
        }
        Err(error) => wrong.push(format!("it can't be decoded: {error}")),
    }
    true
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn value(&self, path: &str, value: &Value, schema: &Value, wrong: &mut Vec<String>) {
        let words = schema.as_object();
        for (word, says) in words.unwrap_or_else(|| panic!("{path}: not a schema: {schema}")) {
            match word.as_str() {
                "type" => {
                    if !of_json_type(value, says.as_str().unwrap_or_default()) {
                        wrong.push(format!("{path}: {value} is no {says}"));
                    }
                }
                "$ref" => {
                    let target = says.as_str().and_then(|at| at.strip_prefix('#'));
                    let target = target.and_then(|at| self.root.pointer(at));
                    let target = target.unwrap_or_else(|| panic!("{path}: no schema {says}"));
                    self.value(path, value, target, wrong);
                }
                "properties" => self.properties(path, value, says, wrong),
                "required" => {
                    for field in says.as_array().into_iter().flatten() {
                        let field = field.as_str().unwrap_or_default();
                        if value.get(field).is_none() {
                            wrong.push(format!("{path}/{field}: missing"));
                        }
                    }
                }
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.value(&format!("{path}/{n}"), item, says, wrong);
                    }
                }
                "additionalProperties" => {
                    for (key, item) in value.as_object().into_iter().flatten() {
                        self.value(&format!("{path}/{key}"), item, says, wrong);
                    }
                }
                "x-kubernetes-int-or-string" => {
                    if !value.is_string() && value.as_i64().is_none() {
                        wrong.push(format!("{path}: {value} is neither integer nor string"));
                    }
                }
                "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
                word => panic!("{path}: a schema's word that is not understood: {word}"),
            }
        }
    }

    fn properties(&self, path: &str, value: &Value, known: &Value, wrong: &mut Vec<String>) {
        for (field, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{field}");
            match known.get(field) {
                Some(schema) => self.value(&path, value, schema, wrong),
                None => wrong.push(format!("{path}: there is no such field")),
            }
        }
    }
}

fn of_json_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("a type that is not understood: {name}"),
    }
}

/// The part that is used of the Prometheus operator's PodMonitor, as its CustomResourceDefinition (0.91) has it.
fn pod_monitor() -> Value {
    let relabeling = json!({"type": "object", "properties": {
        "action": text(), "regex": text(), "replacement": text(), "separator": text(),
        "sourceLabels": {"type": "array", "items": text()}, "targetLabel": text(),
    }});
    let endpoint = json!({"type": "object", "properties": {
        "interval": text(), "path": text(), "port": text(), "scheme": text(), "scrapeTimeout": text(),
        "relabelings": {"type": "array", "items": relabeling},
    }});
    custom(
        json!({"type": "object", "required": ["selector"], "properties": {
            "selector": {"type": "object", "properties": {"matchLabels": texts()}},
            "podMetricsEndpoints": {"type": "array", "items": endpoint},
            "jobLabel": text(),
        }}),
    )
}

/// The same of its PrometheusRule; what records is left out.
fn prometheus_rule() -> Value {
    let rule = json!({"type": "object", "required": ["alert", "expr"], "properties": {
        "alert": text(), "expr": text(), "for": text(), "keep_firing_for": text(),
        "labels": texts(), "annotations": texts(),
    }});
    let group = json!({"type": "object", "required": ["name"], "properties": {
        "name": text(), "interval": text(), "rules": {"type": "array", "items": rule},
    }});
    custom(json!({"type": "object", "properties": {
        "groups": {"type": "array", "items": group},
    }}))
}

/// A custom resource, by the schema of its spec.
fn custom(spec: Value) -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "apiVersion": text(),
        "kind": text(),
        "metadata": {"type": "object", "properties": {
            "name": text(), "namespace": text(), "labels": texts(), "annotations": texts(),
        }},
        "spec": spec,
    }})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn texts() -> Value {
    json!({"type": "object", "additionalProperties": text()})
}
