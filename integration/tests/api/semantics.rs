//! Create, update, patch and delete, as a real API server does them: these tests run on one, too.

use std::net::IpAddr;

use http::Method;
use selvedge_lab::Error;
use selvedge_lab::api::{Cluster, Kind, NewPod, Target};
use serde_json::{Value, json};

fn code(result: Result<Value, Error>) -> (u16, String) {
    match result {
        Err(Error::Api { code, reason, .. }) => (code, reason),
        other => panic!("no refusal: {other:?}"),
    }
}

fn policy(namespace: &str, name: &str) -> Target {
    Target::object(Kind::NetworkPolicy, Some(namespace), name)
}

fn pod(namespace: &str, name: &str) -> Target {
    Target::object(Kind::Pod, Some(namespace), name)
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn refusals_have_the_codes_and_reasons_of_the_api() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("refusals", &[])?;
    let spec = json!({"podSelector": {}});
    let object = json!({"metadata": {"name": "deny"}, "spec": spec});
    let policies = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let first = cluster.create(&policies, &object)?;

    let refused = |result, wanted: (u16, &str)| {
        assert_eq!(code(result), (wanted.0, wanted.1.to_owned()));
    };
    refused(cluster.create(&policies, &object), (409, "AlreadyExists"));
    refused(cluster.get(&policy(&ns, "none")), (404, "NotFound"));
    refused(cluster.delete(&policy(&ns, "none")), (404, "NotFound"));
    refused(
        cluster.replace(
            &policy(&ns, "none"),
            &json!({"metadata": {"name": "none"}, "spec": spec}),
        ),
        (404, "NotFound"),
    );
    let nowhere = Target::collection(Kind::NetworkPolicy, Some("no-such-namespace"));
    refused(cluster.create(&nowhere, &object), (404, "NotFound"));
    // What was read is no longer what is there.
    cluster.patch(
        &policy(&ns, "deny"),
        &json!({"metadata": {"labels": {"a": "b"}}}),
    )?;
    refused(
        cluster.replace(&policy(&ns, "deny"), &first),
        (409, "Conflict"),
    );
    let stale = json!({"preconditions": {"uid": "another"}});
    let path = policy(&ns, "deny").path();
    refused(
        cluster.call(Method::DELETE, &path, "application/json", Some(&stale)),
        (409, "Conflict"),
    );
    let another = json!({"metadata": {"name": "another"}, "spec": spec});
    refused(
        cluster.replace(&policy(&ns, "deny"), &another),
        (400, "BadRequest"),
    );
    refused(cluster.get(&pod(&ns, "web").status()), (404, "NotFound"));
    cluster.finish()
}

#[test]
fn bodies_that_mean_nothing_are_refused() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("bodies", &[])?;
    let policies = Target::collection(Kind::NetworkPolicy, Some(&ns));
    for (spec, wanted) in [
        (json!({"podSelector": {}, "ingress": [{"from": [{}]}]}), 422),
        (
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]}),
            422,
        ),
        (
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}),
            422,
        ),
        (
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}),
            422,
        ),
        (
            json!({"podSelector": {}, "ingress": [{"ports": [{"endPort": 79}]}]}),
            422,
        ),
        (
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "ICMP"}]}]}),
            422,
        ),
        (json!({"podSelector": {}, "policyTypes": ["Sideways"]}), 422),
        (json!({"podSelector": {}, "ingress": "all"}), 400),
        (json!({"podSelector": {"matchLabels": {"a": 1}}}), 400),
    ] {
        let object = json!({"metadata": {"name": "bad"}, "spec": spec});
        assert_eq!(code(cluster.create(&policies, &object)).0, wanted, "{spec}");
    }
    let pods = Target::collection(Kind::Pod, Some(&ns));
    let empty = json!({"metadata": {"name": "web"}, "spec": {"containers": []}});
    assert_eq!(code(cluster.create(&pods, &empty)).0, 422);
    let namespaces = Target::collection(Kind::Namespace, None);
    assert_eq!(
        code(cluster.create(&namespaces, &json!({"metadata": {"name": "Shop"}}))).0,
        422
    );
    let path = policies.path();
    let text = cluster.call(Method::POST, &path, "text/plain", Some(&json!({})));
    assert_eq!(code(text).0, 415);
    cluster.finish()
}

#[test]
fn a_policy_is_stored_with_its_defaults() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("defaults", &[])?;
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}, {}]}]});
    let made = cluster.policy(&ns, "one", &spec)?;
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(
        made["spec"]["ingress"][0]["ports"],
        json!([{"port": 80, "protocol": "TCP"}, {"protocol": "TCP"}])
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let changed = cluster.policy(&ns, "one", &json!({"podSelector": {}, "egress": [{}]}))?;
    assert_eq!(changed["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
    // An empty list is the same as none.
    let empty = json!({"podSelector": {}, "ingress": [], "egress": []});
    let empty = cluster.policy(&ns, "two", &empty)?;
    assert_eq!(empty["spec"]["ingress"], Value::Null);
    assert_eq!(empty["spec"]["policyTypes"], json!(["Ingress"]));
    let everyone = json!({"podSelector": {}, "ingress": [{"from": [], "ports": []}]});
    assert_eq!(
        cluster.policy(&ns, "three", &everyone)?["spec"]["ingress"],
        json!([{}])
    );
    cluster.finish()
}

#[test]
fn a_namespace_has_the_label_of_its_name() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("named", &[("team", "blue")])?;
    let target = Target::object(Kind::Namespace, None, &ns);
    cluster.label_namespace(
        &ns,
        &json!({"kubernetes.io/metadata.name": null, "team": "red"}),
    )?;
    let labels = cluster.get(&target)?["metadata"]["labels"].clone();
    assert_eq!(
        labels,
        json!({"kubernetes.io/metadata.name": ns, "team": "red"})
    );
    cluster.finish()
}

#[test]
fn spec_and_status_have_their_own_paths() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("status", &[])?;
    let node = cluster.node("status", &["10.200.7.0/24"], &addresses(&["192.0.2.7"]))?;
    let ips = addresses(&["10.200.7.5", "fd00:7::5"]);
    let new = NewPod::new(&ns, "web")
        .node(&node)
        .label("app", "web")
        .port("http", 80, "TCP");
    let made = cluster.pod(&new.addresses(ips))?;
    assert_eq!(made["status"]["phase"], "Running");
    assert_eq!(
        made["status"]["podIPs"],
        json!([{"ip": "10.200.7.5"}, {"ip": "fd00:7::5"}])
    );
    let web = pod(&ns, "web");
    cluster.patch(&web, &json!({"status": {"phase": "Failed"}}))?;
    cluster.patch(
        &web.clone().status(),
        &json!({"spec": {"nodeName": "elsewhere"}}),
    )?;
    let now = cluster.get(&web)?;
    assert_eq!(now["status"]["phase"], "Running");
    assert_eq!(now["spec"]["nodeName"], json!(node));
    // A pod stays on its node.
    let moved = cluster.patch(&web, &json!({"spec": {"nodeName": "elsewhere"}}));
    assert_eq!(code(moved), (422, "Invalid".to_owned()));
    let node = cluster.get(&Target::object(Kind::Node, None, &node))?;
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.200.7.0/24"]));
    assert_eq!(node["status"]["addresses"][0]["address"], "192.0.2.7");
    cluster.finish()
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("versions", &[])?;
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]});
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let first = cluster.policy(&ns, "one", &spec)?;
    let again = cluster.policy(&ns, "one", &spec)?;
    assert_eq!(version(&first), version(&again));
    let other = cluster.policy(&ns, "two", &spec)?;
    assert!(version(&other) > version(&first));
    let path = policy(&ns, "one").path();
    let strategic = "application/strategic-merge-patch+json";
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = cluster.call(Method::PATCH, &path, strategic, Some(&patch))?;
    assert!(version(&changed) > version(&other));
    let patch = json!([{"op": "remove", "path": "/metadata/labels/a"}]);
    let changed = cluster.call(
        Method::PATCH,
        &path,
        "application/json-patch+json",
        Some(&patch),
    )?;
    assert!(
        changed["metadata"]["labels"]
            .as_object()
            .is_none_or(|labels| labels.is_empty())
    );
    cluster.finish()
}

#[test]
fn a_pod_terminates_before_it_goes() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("terminating", &[])?;
    let node = cluster.node("terminating", &["10.200.8.0/24"], &[])?;
    cluster.pod(
        &NewPod::new(&ns, "web")
            .node(&node)
            .addresses(addresses(&["10.200.8.5"])),
    )?;
    cluster.terminate_pod(&ns, "web")?;
    let marked = cluster.get(&pod(&ns, "web"))?;
    assert!(
        marked["metadata"]["deletionTimestamp"].is_string(),
        "{marked}"
    );
    assert_eq!(marked["status"]["podIPs"], json!([{"ip": "10.200.8.5"}]));
    // Its time is only ever shortened.
    let path = pod(&ns, "web").path();
    for (asked, left) in [(60, 30), (5, 5), (30, 5)] {
        let options = json!({"gracePeriodSeconds": asked});
        cluster.call(Method::DELETE, &path, "application/json", Some(&options))?;
        let now = cluster.get(&pod(&ns, "web"))?;
        assert_eq!(
            now["metadata"]["deletionGracePeriodSeconds"], left,
            "{asked}"
        );
    }
    cluster.finish_pod(&ns, "web")?;
    assert_eq!(cluster.find(&pod(&ns, "web"))?, None);
    // One that never got a node has nothing to stop.
    cluster.pod(&NewPod::new(&ns, "pending").label("app", "x"))?;
    cluster.terminate_pod(&ns, "pending")?;
    assert_eq!(cluster.find(&pod(&ns, "pending"))?, None);
    cluster.finish()
}

#[test]
fn a_finalizer_holds_an_object_back() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("finalizers", &[])?;
    let policies = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let metadata = json!({"name": "held", "finalizers": ["test.example/held"]});
    cluster.create(
        &policies,
        &json!({"metadata": metadata, "spec": {"podSelector": {}}}),
    )?;
    cluster.delete_policy(&ns, "held")?;
    let held = cluster.get(&policy(&ns, "held"))?;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    cluster.patch(
        &policy(&ns, "held"),
        &json!({"metadata": {"finalizers": null}}),
    )?;
    assert_eq!(cluster.find(&policy(&ns, "held"))?, None);
    cluster.finish()
}

#[test]
fn a_namespace_goes_after_its_last_pod() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("going", &[])?;
    let node = cluster.node("going", &["10.200.9.0/24"], &[])?;
    cluster.policy(&ns, "deny", &json!({"podSelector": {}}))?;
    cluster.pod(&NewPod::new(&ns, "web").node(&node))?;
    cluster.terminate_namespace(&ns)?;
    let target = Target::object(Kind::Namespace, None, &ns);
    selvedge_lab::wait_until("the policy's end", super::http_client::PATIENCE, || {
        Ok(cluster.find(&policy(&ns, "deny"))?.is_none())
    })?;
    let object = cluster.get(&target)?;
    assert_eq!(object["status"]["phase"], "Terminating");
    assert!(object["metadata"]["deletionTimestamp"].is_string());
    assert!(cluster.get(&pod(&ns, "web"))?["metadata"]["deletionTimestamp"].is_string());
    let late = json!({"metadata": {"name": "late"}, "spec": {"podSelector": {}}});
    let late = cluster.create(&Target::collection(Kind::NetworkPolicy, Some(&ns)), &late);
    assert_eq!(code(late), (403, "Forbidden".to_owned()));
    cluster.remove_namespace(&ns)?;
    assert_eq!(cluster.find(&target)?, None);
    cluster.finish()
}
