//! `/version`, `/api`, `/apis` and the lists of resources: what kubectl asks before anything else.

use serde_json::{Value, json};

use super::kinds::Kind;
use super::settings::Settings;

/// Answers a discovery path.
pub(crate) fn discover(path: &str, settings: &Settings) -> Option<Value> {
    let minor = settings.minor;
    let group_version = json!({"groupVersion": "networking.k8s.io/v1", "version": "v1"});
    let group = json!({"name": "networking.k8s.io", "versions": [group_version], "preferredVersion": group_version});
    match path.trim_end_matches('/') {
        "/version" => Some(json!({
            "major": "1", "minor": minor.to_string(), "gitVersion": format!("v1.{minor}.0+stand-in"),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        })),
        "/api" => Some(
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ),
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})),
        "/apis/networking.k8s.io" => {
            let mut group = group;
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            Some(group)
        }
        "/api/v1" => Some(resources("v1")),
        "/apis/networking.k8s.io/v1" => Some(resources("networking.k8s.io/v1")),
        _ => None,
    }
}

fn resources(group_version: &str) -> Value {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| kind.api_version() == group_version);
    let resources = kinds.flat_map(|kind| {
        let one = json!({
            "name": kind.plural(), "singularName": kind.name().to_lowercase(), "kind": kind.name(),
            "namespaced": kind.is_namespaced(), "shortNames": kind.short_names(),
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        });
        let status = json!({
            "name": format!("{}/status", kind.plural()), "singularName": "", "kind": kind.name(),
            "namespaced": kind.is_namespaced(), "verbs": ["get", "patch", "update"],
        });
        [Some(one), kind.has_status().then_some(status)].into_iter().flatten()
    });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": resources.collect::<Vec<_>>(),
    })
}
