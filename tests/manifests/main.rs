//! The manifests: built as kustomize builds them, held against the API's schemas, and against what they promise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests, as in the tests themselves

mod kustomize;
mod promises;
mod schema;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What can be installed.
const KUSTOMIZATIONS: [&str; 6] = [
    "",
    "base",
    "overlays/cni",
    "overlays/cni-podmonitor",
    "overlays/podmonitor",
    "uninstall",
];

/// The files of the base, in order, which are the one file too.
const BASE: [&str; 3] = ["namespace.yaml", "rbac.yaml", "daemonset.yaml"];

fn manifests(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")).join(path)
}

fn built(path: &str) -> Vec<Value> {
    kustomize::build(&manifests(path))
}

/// The only object of that kind.
fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    first
}

#[test]
fn every_object_is_what_the_api_takes() {
    let examples = fs::read_dir(manifests("examples")).unwrap();
    let examples = examples.map(|entry| kustomize::documents(&entry.unwrap().path()));
    let all = KUSTOMIZATIONS
        .iter()
        .map(|path| built(path))
        .chain(examples);
    for objects in all {
        assert!(!objects.is_empty());
        for object in objects {
            assert_eq!(schema::check(&object), [""; 0], "{object:#}");
        }
    }
}

/// A mistake that a person could make: where, what stands there then, and what is said about it.
#[test]
fn what_the_api_does_not_take_is_noticed() {
    let spec = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let mistakes = [
        // A misspelt field.
        (spec, "hostNetworks", json!(true), "there is no such field"),
        (container, "securitycontext", json!({}), "no such field"),
        ("/spec", "updateStrategie", json!({}), "no such field"),
        ("/metadata", "label", json!({}), "no such field"),
        ("", "specs", json!({}), "no such field"),
        // A wrong type.
        (spec, "hostNetwork", json!("true"), "is no \"boolean\""),
        (
            spec,
            "terminationGracePeriodSeconds",
            json!("10"),
            "\"integer\"",
        ),
        (container, "args", json!("run"), "is no \"array\""),
        (container, "args", json!([1]), "args/0: 1 is no \"string\""),
        (
            container,
            "env",
            json!({"NODE_NAME": "a"}),
            "is no \"array\"",
        ),
        ("/metadata/labels", "a", json!(1), "1 is no \"string\""),
        (
            "/spec/updateStrategy/rollingUpdate",
            "maxUnavailable",
            json!(0.1),
            "neither",
        ),
        (
            container,
            "resources",
            json!({"limits": {"memory": true}}),
            "neither",
        ),
        // A required field that is missing.
        (container, "name", Value::Null, "name: missing"),
        ("/spec", "selector", Value::Null, "selector: missing"),
        ("/spec", "template", Value::Null, "template: missing"),
        (spec, "containers", Value::Null, "containers: missing"),
        (
            &format!("{container}/env/0"),
            "name",
            Value::Null,
            "name: missing",
        ),
        (
            &format!("{container}/livenessProbe/httpGet"),
            "port",
            Value::Null,
            "port: missing",
        ),
        (
            &format!("{spec}/volumes/0/hostPath"),
            "path",
            Value::Null,
            "path: missing",
        ),
        // Another kind.
        ("", "apiVersion", json!("apps/v1beta1"), "is no kind"),
        ("", "kind", json!("Daemonset"), "is no kind"),
    ];
    let objects = built("");
    for (at, field, value, says) in mistakes {
        let mut object = the(&objects, "DaemonSet").clone();
        let map = object.pointer_mut(at).and_then(Value::as_object_mut);
        let map = map.unwrap_or_else(|| panic!("{at} is no map"));
        if value.is_null() {
            assert!(map.remove(field).is_some(), "{at}/{field} is not there");
        } else {
            map.insert(field.to_owned(), value);
        }
        let wrong = schema::check(&object).join("\n");
        assert!(
            wrong.contains(says),
            "{at}/{field}: {says:?} is not in {wrong:?}"
        );
    }
    let objects = built("overlays/podmonitor");
    let mut monitor = the(&objects, "PodMonitor").clone();
    monitor["spec"]["podMetricsEndpoint"] = json!([]);
    assert_eq!(schema::check(&monitor).len(), 1);
    let mut role = the(&objects, "ClusterRole").clone();
    role["rules"][0].as_object_mut().unwrap().remove("verbs");
    assert!(schema::check(&role).contains(&"/rules/0/verbs: missing".to_owned()));
}

/// `make bless` writes the one file anew.
#[test]
fn the_one_file_says_the_same_as_the_kustomization() {
    let file = manifests("selvedge.yaml");
    let mut text = "# kubectl apply -f selvedge.yaml: the same as kubectl apply -k manifests. Made by `make bless` from base/.\n".to_owned();
    for part in BASE {
        text.push_str("---\n");
        text.push_str(&fs::read_to_string(manifests("base").join(part)).unwrap());
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "manifests/selvedge.yaml is not the base; see `make bless`"
    );
    assert_eq!(kustomize::documents(&file), built(""));
    assert_eq!(built(""), built("base"));
}

#[test]
fn the_overlay_changes_what_it_is_for_and_nothing_else() {
    let mut base = built("base");
    let mut overlay = built("overlays/podmonitor");
    let alerts = overlay.pop().unwrap();
    assert_eq!(alerts["kind"], "PrometheusRule");
    let monitor = overlay.pop().unwrap();
    assert_eq!(monitor["kind"], "PodMonitor");
    let container = |objects: &mut [Value]| {
        let set = objects
            .iter_mut()
            .find(|object| object["kind"] == "DaemonSet");
        set.unwrap()["spec"]["template"]["spec"]["containers"][0].take()
    };
    let mut patched = container(&mut overlay);
    let plain = container(&mut base);
    assert_eq!(overlay, base, "beside the container");

    let env = patched["env"].as_array_mut().unwrap();
    // Kubernetes puts in the values of variables that stand before.
    let address = env.pop().unwrap();
    assert_eq!(
        address,
        json!({"name": "SELVEDGE_HTTP", "value": "$(HOST_IP)"})
    );
    let host = env.pop().unwrap();
    let from = json!({"fieldRef": {"fieldPath": "status.hostIP"}});
    assert_eq!(host, json!({"name": "HOST_IP", "valueFrom": from}));
    let ports = patched.as_object_mut().unwrap().remove("ports").unwrap();
    assert_eq!(ports.as_array().unwrap().len(), 1);
    assert_eq!(
        ports[0]["name"],
        monitor["spec"]["podMetricsEndpoints"][0]["port"]
    );
    assert_eq!(ports[0]["containerPort"], 20464);
    assert_eq!(ports[0]["hostPort"], 20464, "what hostNetwork asks for");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(patched[probe]["httpGet"]["host"], Value::Null, "{probe}");
        patched[probe]["httpGet"]["host"] = json!("127.0.0.1");
    }
    assert_eq!(patched, plain);
    let selected = &monitor["spec"]["selector"]["matchLabels"];
    let labels = &the(&base, "DaemonSet")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(selected, labels);
}

#[test]
fn both_overlays_in_one_are_both() {
    let both = built("overlays/cni-podmonitor");
    let container = |objects: &[Value]| {
        let containers = &the(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"];
        containers.as_array().unwrap().clone()
    };
    let (cni, monitored) = (built("overlays/cni"), built("overlays/podmonitor"));
    assert_eq!(the(&both, "PodMonitor"), the(&monitored, "PodMonitor"));
    assert_eq!(container(&both)[1], container(&cni)[1], "the installer");
    let daemon = &container(&both)[0];
    assert_eq!(daemon["volumeMounts"], container(&cni)[0]["volumeMounts"]);
    assert_eq!(daemon["ports"], container(&monitored)[0]["ports"]);
    let names = |daemon: &Value| -> Vec<Value> {
        let env = daemon["env"].as_array().unwrap();
        env.iter()
            .map(|variable| variable["name"].clone())
            .collect()
    };
    assert_eq!(
        names(daemon),
        [
            "NODE_NAME",
            "SELVEDGE_CNI_SOCKET",
            "HOST_IP",
            "SELVEDGE_HTTP"
        ]
    );
}
