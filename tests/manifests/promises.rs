//! What the manifests promise: who may do what, where it runs, and that the parts fit each other and the daemon.

use std::process::Command;

use selvedge::observe::Observer;
use serde_json::{Value, json};

use super::{KUSTOMIZATIONS, built, manifests, the};
use crate::kustomize;

const IMAGE: &str = concat!("ghcr.io/selvedge/selvedge:", env!("CARGO_PKG_VERSION"));

fn pod(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn containers(set: &Value) -> impl Iterator<Item = &Value> {
    let pod = pod(set);
    list(&pod["initContainers"])
        .iter()
        .chain(list(&pod["containers"]))
}

/// The DaemonSets of everything that can be installed.
fn sets() -> Vec<Value> {
    let objects = KUSTOMIZATIONS.iter().flat_map(|path| built(path));
    let sets: Vec<Value> = objects
        .filter(|object| object["kind"] == "DaemonSet")
        .collect();
    assert_eq!(sets.len(), KUSTOMIZATIONS.len());
    sets
}

#[test]
fn every_container_runs_the_image_of_this_version() {
    for set in sets() {
        assert!(containers(&set).count() > 1);
        for container in containers(&set) {
            assert_eq!(container["image"], IMAGE);
            assert_eq!(container["imagePullPolicy"], "IfNotPresent");
            assert_eq!(container["command"], Value::Null, "its entrypoint");
        }
    }
}

/// What the main containers may: change the network, and nothing else that root may.
fn restricted(container: &Value) {
    let capabilities = json!({"drop": ["ALL"], "add": ["NET_ADMIN"]});
    runs_with(container, &capabilities);
}

/// What it takes to write files in directories that are another user's.
fn writes_others_files() -> Value {
    json!({"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE"]})
}

/// That a container is root with these capabilities, and nothing else that root may; but where it writes to the node's
/// directories, SELinux lets it.
fn runs_with(container: &Value, capabilities: &Value) {
    let mut context = json!({
        "runAsUser": 0,
        "capabilities": capabilities,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if container["volumeMounts"] != Value::Null {
        context["seLinuxOptions"] = json!({"type": "spc_t"});
    }
    assert_eq!(container["securityContext"], context);
}

/// The node's directories that a container writes to, by their paths in it.
fn mounts(pod: &Value, container: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mounts = list(&container["volumeMounts"]).iter().map(|mount| {
        let volumes = list(&pod["volumes"]);
        let volume = volumes.iter().find(|v| v["name"] == mount["name"]).unwrap();
        assert_eq!(volume["hostPath"]["type"], "DirectoryOrCreate");
        let path = text(&volume["hostPath"]["path"]);
        (text(&mount["mountPath"]), path)
    });
    mounts.collect()
}

/// The directory of the daemon's socket.
fn run_directory() -> Vec<(String, String)> {
    vec![("/run/selvedge".to_owned(), "/run/selvedge".to_owned())]
}

/// The directories where container runtimes look for plugins and their configurations.
fn cni_directories() -> Vec<(String, String)> {
    let same = |path: &str| (path.to_owned(), path.to_owned());
    vec![same("/opt/cni/bin"), same("/etc/cni/net.d")]
}

#[test]
fn the_plugin_s_overlay_adds_what_it_is_for_and_nothing_else() {
    let (base, overlay) = (built("base"), built("overlays/cni"));
    let set = the(&overlay, "DaemonSet");
    let pod = pod(set);
    let [daemon, installer] = list(&pod["containers"]) else {
        panic!("{pod}");
    };
    let socket = json!({"name": "SELVEDGE_CNI_SOCKET", "value": "/run/selvedge/cni.sock"});
    assert_eq!(list(&daemon["env"]).last(), Some(&socket));
    assert_eq!(mounts(pod, daemon), run_directory());
    assert_eq!(installer["args"], json!(["cni", "install", "--watch"]));
    let status = &installer["readinessProbe"]["exec"]["command"];
    assert_eq!(*status, json!(["/selvedge", "cni", "status"]));
    runs_with(installer, &writes_others_files());
    assert_eq!(mounts(pod, installer), cni_directories());
    // The two ends of the socket are one.
    let (_, help) = selvedge(&["cni", "install", "--help"]);
    for default in ["/run/selvedge/cni.sock", "/opt/cni/bin", "/etc/cni/net.d"] {
        assert!(help.contains(&format!("[default: {default}]")), "{help}");
    }
    let (_, help) = selvedge(&["run", "--help"]);
    assert!(help.contains("[env: SELVEDGE_CNI_SOCKET="), "{help}");

    // Without these it is the base.
    let mut without = overlay.clone();
    let set = without
        .iter_mut()
        .find(|o| o["kind"] == "DaemonSet")
        .unwrap();
    let pod = &mut set["spec"]["template"]["spec"];
    pod["containers"].as_array_mut().unwrap().pop();
    pod["volumes"].as_array_mut().unwrap().truncate(2);
    // So the daemon hears a plugin that an overlay has left on the node.
    assert_eq!(without, base);
}

#[test]
fn an_uninstall_takes_the_plugin_away_first() {
    let objects = built("uninstall");
    let pod = pod(the(&objects, "DaemonSet"));
    let init = list(&pod["initContainers"]);
    let arguments: Vec<&Value> = init.iter().map(|container| &container["args"]).collect();
    assert_eq!(
        arguments,
        [&json!(["cni", "uninstall"]), &json!(["cleanup"])]
    );
    runs_with(&init[0], &writes_others_files());
    assert_eq!(mounts(pod, &init[0]), cni_directories());
}

#[test]
fn only_the_init_containers_of_the_daemon_are_privileged() {
    for set in sets() {
        let pod = pod(&set);
        restricted(&pod["containers"][0]);
        for container in list(&pod["containers"]).iter().skip(1) {
            runs_with(container, &writes_others_files());
        }
        assert_eq!(pod["securityContext"], Value::Null);
        for field in ["hostPID", "hostIPC", "shareProcessNamespace"] {
            assert_eq!(pod[field], Value::Null);
        }
    }
    let objects = built("uninstall");
    let cleanup = pod(the(&objects, "DaemonSet"));
    for container in [&cleanup["initContainers"][1], &cleanup["containers"][0]] {
        restricted(container);
        assert_eq!(container["volumeMounts"], Value::Null);
    }

    let objects = built("");
    let pod = pod(the(&objects, "DaemonSet"));
    assert_eq!(list(&pod["containers"]).len(), 1);
    assert_eq!(mounts(pod, &pod["containers"][0]), run_directory());
    let privileged = json!({"privileged": true, "readOnlyRootFilesystem": true});
    let init = list(&pod["initContainers"]);
    for container in init {
        assert_eq!(container["securityContext"], privileged);
    }
    // The node's files are for loading a module, and can't be written.
    let mount = json!([{"name": "host-root", "mountPath": "/host", "readOnly": true}]);
    assert_eq!(init[0]["volumeMounts"], mount);
    assert_eq!(init[0]["args"], json!(["node-setup", "--host-root=/host"]));
    // The probe comes after what it tries is set up.
    assert_eq!(init[1]["volumeMounts"], Value::Null);
    assert_eq!(init[1]["args"], json!(["doctor", "--only-probe"]));
    assert_eq!(init.len(), 2);
    assert_eq!(list(&pod["volumes"]).len(), 2);
}

#[test]
fn it_runs_on_every_node_and_in_its_network() {
    for set in sets() {
        let pod = pod(&set);
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["dnsPolicy"], "Default");
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
        assert_eq!(pod["affinity"], Value::Null);
        assert_eq!(set["metadata"]["namespace"], "selvedge");
    }
}

#[test]
fn an_update_goes_node_by_node() {
    let objects = built("");
    let set = the(&objects, "DaemonSet");
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}});
    assert_eq!(set["spec"]["updateStrategy"], strategy);
    assert_eq!(set["spec"]["minReadySeconds"], 10);
}

/// A pod that stays long after SIGTERM, or a hook that acts on it, would be a mistake about what an update is.
#[test]
fn nothing_happens_when_a_pod_ends() {
    for set in sets() {
        assert!(pod(&set)["terminationGracePeriodSeconds"].as_u64() <= Some(10));
        for container in containers(&set) {
            assert_eq!(container["lifecycle"], Value::Null);
        }
    }
}

#[test]
fn the_selectors_select_their_own_pods_alone() {
    let labels = |set: &Value| {
        let labels = set["spec"]["template"]["metadata"]["labels"].clone();
        assert_eq!(set["spec"]["selector"], json!({"matchLabels": labels}));
        labels
    };
    let (daemon, cleanup) = (built(""), built("uninstall"));
    let daemon = labels(the(&daemon, "DaemonSet"));
    assert_eq!(daemon, json!({"app.kubernetes.io/name": "selvedge"}));
    assert_ne!(labels(the(&cleanup, "DaemonSet")), daemon);
}

#[test]
fn the_namespace_admits_the_pods() {
    let objects = built("");
    let namespace = the(&objects, "Namespace");
    assert_eq!(namespace["metadata"]["name"], "selvedge");
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
    let cleanup = built("uninstall");
    assert_eq!(the(&cleanup, "Namespace"), namespace);
    // What is applied first must be there first.
    assert_eq!(objects[0], *namespace);
    assert_eq!(cleanup[0], *namespace);
}

#[test]
fn the_daemon_may_read_what_it_needs_and_write_events() {
    let objects = built("");
    let role = the(&objects, "ClusterRole");
    let read = json!(["get", "list", "watch"]);
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": read},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": read},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        ])
    );
    assert_eq!(role["aggregationRule"], Value::Null);
    let binding = the(&objects, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["kind"], "ClusterRole");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let account = the(&objects, "ServiceAccount");
    let subject = json!([{
        "kind": "ServiceAccount",
        "name": account["metadata"]["name"],
        "namespace": account["metadata"]["namespace"],
    }]);
    assert_eq!(binding["subjects"], subject);
    let pod = pod(the(&objects, "DaemonSet"));
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);

    let cleanup = built("uninstall");
    let pod = self::pod(the(&cleanup, "DaemonSet"));
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["serviceAccountName"], Value::Null);
}

#[test]
fn memory_is_limited_and_cpu_is_not() {
    let objects = built("");
    let resources = &pod(the(&objects, "DaemonSet"))["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"memory": "512Mi"}));
    let requests = &resources["requests"];
    let number = |text: &Value, unit| text.as_str()?.strip_suffix(unit)?.parse::<u32>().ok();
    assert!(number(&requests["cpu"], "m") > Some(0), "{requests}");
    let memory = number(&requests["memory"], "Mi");
    assert!(memory > Some(0) && memory <= Some(512), "{requests}");
}

fn selvedge(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    let output = command.args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// `--help` after them: arguments before it that don't exist are an error, and those that do are not acted on.
#[test]
fn the_command_line_understands_the_containers_arguments() {
    for set in sets() {
        for container in containers(&set) {
            let arguments = list(&container["args"])
                .iter()
                .map(|arg| arg.as_str().unwrap());
            let arguments: Vec<&str> = arguments.chain(["--help"]).collect();
            let (understood, text) = selvedge(&arguments);
            assert!(understood, "{arguments:?}: {text}");
        }
    }
}

#[test]
fn kubelet_asks_where_the_daemon_answers() {
    let objects = built("");
    let container = &pod(the(&objects, "DaemonSet"))["containers"][0];
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = json!({"host": "127.0.0.1", "port": 20464, "path": path});
        assert_eq!(container[probe]["httpGet"], get);
    }
    let node =
        json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
    assert_eq!(container["env"][0], node);
    let (_, help) = selvedge(&["run", "--help"]);
    assert!(help.contains("[env: NODE_NAME="), "{help}");
    assert!(help.contains("[default: 127.0.0.1:20464]"), "{help}");
    assert!(help.contains("[env: SELVEDGE_HTTP="), "{help}");
}

#[test]
fn the_example_denies_everything_in_both_directions() {
    let policies = kustomize::documents(&manifests("examples/default-deny.yaml"));
    let policy = the(&policies, "NetworkPolicy");
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    assert_eq!(policy["spec"], spec);
    assert_eq!(
        policy["metadata"]["namespace"],
        Value::Null,
        "kubectl's -n says where"
    );
}

/// The series `name{label="value"}` that a query names, one for each value that it takes.
fn series(query: &str) -> Vec<String> {
    let mut series = Vec::new();
    for (at, _) in query.match_indices("selvedge_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((labels, _)) = labels else {
            series.push(name.to_owned());
            continue;
        };
        for pair in labels.split(',') {
            let (label, values) = pair.split_once('=').unwrap();
            let values = values.trim_start_matches('~').trim_matches('"').split('|');
            series.extend(values.map(|value| format!("{name} {label}=\"{value}\"")));
        }
    }
    series
}

/// A query for what nobody exposes is an alert that never comes.
#[test]
fn the_alerts_ask_for_what_is_exposed() {
    let exposed = Observer::new().open_metrics().unwrap();
    let objects = built("overlays/podmonitor");
    let groups = &the(&objects, "PrometheusRule")["spec"]["groups"];
    let alerts = list(groups).iter().flat_map(|group| list(&group["rules"]));
    let mut asked = 0;
    for alert in alerts {
        let query = alert["expr"].as_str().unwrap();
        for series in series(query) {
            asked += 1;
            let (name, label) = series.split_once(' ').unwrap_or((&series, ""));
            let is_it = |line: &str| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
            };
            assert!(exposed.lines().any(is_it), "{query}: no {series}");
        }
        let described = ["summary", "description"].map(|what| &alert["annotations"][what]);
        assert!(described.iter().all(|text| text.is_string()), "{alert}");
    }
    assert!(asked > 10, "{asked}");
}
