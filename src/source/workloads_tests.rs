use std::fs;
use std::time::Duration;

use super::*;
use crate::source::Files;

/// The pods of a directory that holds this one file: `NAMESPACE/NAME ADDRESS…`.
fn pods(yaml: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("all.yaml"), yaml).unwrap();
    let reading = Files::with_workloads(directory.path())
        .read(Duration::ZERO)
        .unwrap();
    assert!(
        reading.snapshot.problems.is_empty(),
        "{:?}",
        reading.snapshot.problems
    );
    let pods = reading
        .snapshot
        .objects()
        .filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        });
    let line = |pod: &Pod| {
        let addresses: Vec<String> = pod.addresses.iter().map(|a| a.to_string()).collect();
        format!("{}/{} {}", pod.namespace, pod.name, addresses.join(" "))
    };
    pods.map(line).collect()
}

fn workload(kind: &str, api_version: &str, name: &str) -> String {
    let template = "{metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}}";
    let spec = match kind {
        "CronJob" => format!("{{jobTemplate: {{spec: {{template: {template}}}}}}}"),
        _ => format!("{{template: {template}}}"),
    };
    format!(
        "---\napiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

fn pod(name: &str, labels: &str, phase: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {labels}}}\n\
         status: {{phase: {phase}, podIPs: [{{ip: 10.244.0.2}}]}}\n"
    )
}

#[test]
fn every_kind_stands_for_a_pod_of_its_name() {
    let all: String = [
        ("CronJob", "batch/v1"),
        ("DaemonSet", "apps/v1"),
        ("Deployment", "apps/v1"),
        ("Job", "batch/v1"),
        ("ReplicaSet", "apps/v1"),
        ("ReplicationController", "v1"),
        ("StatefulSet", "apps/v1"),
    ]
    .iter()
    .map(|(kind, version)| workload(kind, version, &kind.to_ascii_lowercase()))
    .collect();
    assert_eq!(
        pods(&all),
        [
            "shop/cronjob 10.244.0.2",
            "shop/daemonset 10.244.0.3",
            "shop/deployment 10.244.0.4",
            "shop/job 10.244.0.5",
            "shop/replicaset 10.244.0.6",
            "shop/replicationcontroller 10.244.0.7",
            "shop/statefulset 10.244.0.8",
        ]
    );
}

#[test]
fn the_template_gives_labels_and_ports() {
    let document = serde_saphyr::from_str(&workload("Deployment", "apps/v1", "web")[4..]).unwrap();
    let found = find(&document);
    let pod = &found[0].workload.as_ref().unwrap().pod;
    assert_eq!(pod.labels, [("app", "web")].into_iter().collect());
    assert_eq!((&*pod.ports[0].name, pod.ports[0].number), ("http", 80));
}

#[test]
fn kinds_of_other_groups_are_others() {
    assert!(pods(&workload("Deployment", "example.org/v1", "web")).is_empty());
}

#[test]
fn the_pods_count_where_they_are_there() {
    let web = workload("Deployment", "apps/v1", "web");
    let live = pod(
        "web-5d9c-x7",
        "{app: web, pod-template-hash: 5d9c}",
        "Running",
    );
    assert_eq!(
        pods(&(web.clone() + &live)),
        ["shop/web-5d9c-x7 10.244.0.2"]
    );
    // Finished, or somebody else's.
    for other in [
        pod("web-5d9c-x7", "{app: web}", "Succeeded"),
        pod("web-5d9c-x7", "{app: api}", "Running"),
        pod("webber-1", "{app: web}", "Running"),
    ] {
        let all = pods(&(web.clone() + &other));
        assert!(all.contains(&"shop/web 10.244.0.3".to_owned()), "{all:?}");
    }
}

#[test]
fn what_another_workload_controls_stands_for_nothing_beside_it() {
    let owned = |replicas| {
        format!(
            "---\napiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: web-5d9c, namespace: shop, \
             ownerReferences: [{{kind: Deployment, name: web, controller: true}}]}}\n\
             spec: {{replicas: {replicas}, template: {{metadata: {{labels: {{app: web}}}}}}}}\n"
        )
    };
    let web = workload("Deployment", "apps/v1", "web");
    assert_eq!(pods(&(web + &owned(3))), ["shop/web 10.244.0.2"]);
    assert_eq!(pods(&owned(3)), ["shop/web-5d9c 10.244.0.2"]);
    assert!(pods(&owned(0)).is_empty());
}

#[test]
fn two_kinds_of_one_name_are_two_pods() {
    let both =
        workload("Deployment", "apps/v1", "web") + &workload("StatefulSet", "apps/v1", "web");
    assert_eq!(
        pods(&both),
        ["shop/web 10.244.0.2", "shop/web-statefulset 10.244.0.3"]
    );
    let twice = workload("Deployment", "apps/v1", "web").repeat(2);
    assert_eq!(pods(&twice), ["shop/web 10.244.0.2"]);
}

#[test]
fn made_up_addresses_keep_clear_of_real_ones() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n\
                spec: {podCIDRs: [10.244.0.0/24, 'fd00:10:244::/64']}\n";
    let web = workload("Deployment", "apps/v1", "web");
    let pending = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: shop}\n";
    assert_eq!(
        pods(&(node.to_owned() + &web + pending)),
        [
            "shop/new 10.244.1.2 fd00:10:244:ffff::2",
            "shop/web 10.244.1.3 fd00:10:244:ffff::3"
        ]
    );
}

#[test]
fn the_daemon_takes_no_workload_for_a_pod() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.yaml");
    fs::write(&path, workload("Deployment", "apps/v1", "web")).unwrap();
    let reading = Files::new(&path).read(Duration::ZERO).unwrap();
    assert!(reading.snapshot.is_empty());
}

#[test]
fn what_can_t_be_read_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {namespace: shop}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n\
                spec: {template: {metadata: {labels: [1]}}}\n";
    fs::write(directory.path().join("all.yaml"), yaml).unwrap();
    let reading = Files::with_workloads(directory.path())
        .read(Duration::ZERO)
        .unwrap();
    let problems: Vec<&str> = reading
        .snapshot
        .problems
        .iter()
        .map(|p| p.as_str())
        .collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].ends_with("all.yaml:1: Deployment shop/(no name): metadata.name: missing"),
        "{problems:?}"
    );
    assert!(
        problems[1]
            .contains("all.yaml:5: Deployment default/web: in its template: metadata.labels"),
        "{problems:?}"
    );
}
