//! Lists: pages, versions, selectors.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use http::Method;
use selvedge_lab::Error;
use selvedge_lab::api::{Cluster, Kind, NewPod, Target};
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn list(cluster: &Cluster, target: &Target, query: &str) -> Result<Value, Error> {
    cluster.call(Method::GET, &format!("{}?{query}", target.path()), "", None)
}

/// Each character that isn't plain escaped, as clients must.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn code(result: Result<Value, Error>) -> (u16, String, String) {
    match result {
        Err(Error::Api {
            code,
            reason,
            message,
            ..
        }) => (code, reason, message),
        other => panic!("no refusal: {other:?}"),
    }
}

fn put(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value, Error> {
    cluster.policy(namespace, name, &json!({"podSelector": {}}))
}

#[test]
fn pages_are_of_one_version_while_writers_write() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("pages", &[])?;
    let all: Vec<String> = (0..60).map(|n| format!("p{n:02}")).collect();
    for name in &all {
        put(&cluster, &ns, name)?;
    }
    let target = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Three policies come and go all the time, at every place in the order.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for name in ["o-first", "p30-between", "q-last"] {
                    put(&cluster, &ns, name).unwrap();
                    cluster.delete_policy(&ns, name).unwrap();
                }
            }
        });
        let pages = || -> Result<(), Error> {
            for _ in 0..20 {
                let mut page = list(&cluster, &target, "limit=7")?;
                let version = page["metadata"]["resourceVersion"].clone();
                let mut found = names(&page);
                while let Some(token) = page["metadata"]["continue"]
                    .as_str()
                    .filter(|t| !t.is_empty())
                {
                    let rest = page["metadata"]["remainingItemCount"].as_u64().unwrap();
                    page = list(
                        &cluster,
                        &target,
                        &format!("limit=7&continue={}", escaped(token)),
                    )?;
                    assert_eq!(page["metadata"]["resourceVersion"], version);
                    let more = names(&page);
                    assert!(!more.is_empty() && more.len() <= 7 && more.len() as u64 <= rest);
                    found.extend(more);
                }
                // As that very version is, read at once.
                let version = version.as_str().unwrap();
                let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
                assert_eq!(found, names(&list(&cluster, &target, &exact)?));
                let found: BTreeSet<_> = found.into_iter().collect();
                assert!(all.iter().all(|name| found.contains(name)));
            }
            Ok(())
        };
        let result = pages();
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    cluster.finish()
}

#[test]
fn a_list_that_is_too_old_to_continue_says_how_to_go_on() -> Result<(), Error> {
    let cluster = Cluster::stand_in()?;
    let server = cluster.server().unwrap();
    let ns = cluster.namespace("expired", &[])?;
    for name in ["a", "b", "c"] {
        put(&cluster, &ns, name)?;
    }
    let target = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let page = list(&cluster, &target, "limit=1")?;
    let token = page["metadata"]["continue"].as_str().unwrap();
    cluster.delete_policy(&ns, "b")?;
    server.compact();
    let path = format!("limit=1&continue={}", escaped(token));
    let (number, reason, message) = code(list(&cluster, &target, &path));
    assert_eq!((number, reason.as_str()), (410, "Expired"));
    assert!(
        message.contains("too old to display a consistent list"),
        "{message}"
    );
    // The token in the refusal leads on, from the present.
    let endpoint = cluster.proxy()?.listen_here()?;
    let refused = format!("{}?{path}", target.path());
    let mut answer = super::http_client::get(endpoint.address(), &refused)?;
    assert_eq!(answer.head().0, 410);
    answer.end();
    let status: Value = serde_json::from_slice(&answer.body()).unwrap();
    let token = status["metadata"]["continue"].as_str().unwrap();
    let rest = list(&cluster, &target, &format!("continue={}", escaped(token)))?;
    assert_eq!(names(&rest), ["c"]);
    // Exact versions are gone, too.
    let version = page["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(code(list(&cluster, &target, &exact)).0, 410);
    Ok(())
}

#[test]
fn versions_of_lists_mean_what_the_api_says() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("matching", &[])?;
    let target = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let first = put(&cluster, &ns, "a")?;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    put(&cluster, &ns, "b")?;
    let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&list(&cluster, &target, &exact)?), ["a"]);
    let newer = format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    assert!(names(&list(&cluster, &target, &newer)?).contains(&"a".to_owned()));
    assert_eq!(names(&list(&cluster, &target, "")?), ["a", "b"]);
    let future = "resourceVersion=999999999999&resourceVersionMatch=NotOlderThan";
    let (number, reason, message) = code(list(&cluster, &target, future));
    assert_eq!((number, reason.as_str()), (504, "Timeout"));
    assert!(message.contains("Too large resource version"), "{message}");
    assert_eq!(
        code(list(&cluster, &target, "resourceVersionMatch=Exact")).0,
        422
    );
    assert_eq!(
        code(list(
            &cluster,
            &target,
            "resourceVersionMatch=Near&resourceVersion=1"
        ))
        .0,
        422
    );
    assert_eq!(
        code(list(&cluster, &target, "limit=1&continue=rubbish")).0,
        400
    );
    cluster.finish()
}

#[test]
fn the_past_stays_as_it_was() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("past", &[])?;
    let collection = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let target = Target::object(Kind::NetworkPolicy, Some(&ns), "a");
    let label =
        |turn: &str| cluster.patch(&target, &json!({"metadata": {"labels": {"turn": turn}}}));
    let mut states = vec![list(&cluster, &collection, "")?];
    let mut then = |_: Value| -> Result<(), Error> {
        states.push(list(&cluster, &collection, "")?);
        Ok(())
    };
    then(put(&cluster, &ns, "a")?)?;
    then(label("1")?)?;
    then(label("2")?)?;
    then(cluster.delete(&target)?)?;
    then(put(&cluster, &ns, "a")?)?;
    then(put(&cluster, &ns, "b")?)?;
    then(label("3")?)?;
    for state in &states {
        let version = state["metadata"]["resourceVersion"].as_str().unwrap();
        let exact = format!("resourceVersion={version}&resourceVersionMatch=Exact");
        assert_eq!(
            list(&cluster, &collection, &exact)?["items"],
            state["items"]
        );
    }
    cluster.finish()
}

#[test]
fn items_do_not_repeat_what_kind_they_are() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("items", &[])?;
    put(&cluster, &ns, "a")?;
    let target = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let all = list(&cluster, &target, "")?;
    assert_eq!(all["kind"], "NetworkPolicyList");
    assert_eq!(all["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(all["items"][0]["kind"], Value::Null);
    assert_eq!(all["items"][0]["apiVersion"], Value::Null);
    let one = cluster.get(&Target::object(Kind::NetworkPolicy, Some(&ns), "a"))?;
    assert_eq!(one["kind"], "NetworkPolicy");
    cluster.finish()
}

#[test]
fn selectors_narrow_a_list() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("selectors", &[])?;
    let node = cluster.node("selectors", &["10.200.10.0/24"], &[])?;
    let new = |name: &str| NewPod::new(&ns, name);
    cluster.pod(
        &new("web")
            .label("app", "web")
            .label("tier", "front")
            .node(&node),
    )?;
    cluster.pod(
        &new("api")
            .label("app", "api")
            .node(&node)
            .addresses(["10.200.10.6".parse().unwrap()]),
    )?;
    cluster.pod(&new("bare"))?;
    let target = Target::collection(Kind::Pod, Some(&ns));
    for (query, wanted) in [
        ("labelSelector=app%3Dweb".to_owned(), &["web"] as &[&str]),
        ("labelSelector=app%3D%3Dweb,tier".to_owned(), &["web"]),
        ("labelSelector=app!%3Dweb".to_owned(), &["api", "bare"]),
        (
            "labelSelector=app%20in%20(web,api),!tier".to_owned(),
            &["api"],
        ),
        (
            "labelSelector=app%20notin%20(web)".to_owned(),
            &["api", "bare"],
        ),
        ("labelSelector=!app".to_owned(), &["bare"]),
        (
            format!("fieldSelector=spec.nodeName%3D{node}"),
            &["api", "web"],
        ),
        ("fieldSelector=status.phase%3DRunning".to_owned(), &["api"]),
        ("fieldSelector=metadata.name%3Dbare".to_owned(), &["bare"]),
        (
            format!("fieldSelector=metadata.namespace%3D{ns},metadata.name!%3Dbare"),
            &["api", "web"],
        ),
    ] {
        assert_eq!(names(&list(&cluster, &target, &query)?), wanted, "{query}");
    }
    assert_eq!(
        code(list(&cluster, &target, "fieldSelector=spec.colour%3Dred")).0,
        400
    );
    assert_eq!(
        code(list(&cluster, &target, "labelSelector=a%20of%20(b)")).0,
        400
    );
    cluster.finish()
}

#[test]
fn events_are_found_by_what_they_are_about() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("events", &[])?;
    let target = Target::collection(Kind::Event, Some(&ns));
    for name in ["a", "b"] {
        let about = json!({"kind": "NetworkPolicy", "namespace": ns, "name": name});
        let event = json!({"metadata": {"generateName": "test-"}, "involvedObject": about,
            "reason": "Tried", "type": "Warning", "message": "a test"});
        cluster.create(&target, &event)?;
    }
    let found = list(
        &cluster,
        &target,
        "fieldSelector=involvedObject.name%3Da,reason%3DTried",
    )?;
    assert_eq!(names(&found).len(), 1);
    assert_eq!(found["items"][0]["involvedObject"]["name"], "a");
    cluster.finish()
}

#[test]
fn a_collection_is_deleted_by_selector() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let ns = cluster.namespace("collection", &[])?;
    put(&cluster, &ns, "a")?;
    put(&cluster, &ns, "b")?;
    let target = Target::collection(Kind::NetworkPolicy, Some(&ns));
    let labels = json!({"metadata": {"labels": {"gone": "yes"}}});
    cluster.patch(
        &Target::object(Kind::NetworkPolicy, Some(&ns), "a"),
        &labels,
    )?;
    let path = format!("{}?labelSelector=gone", target.path());
    cluster.call(Method::DELETE, &path, "", None)?;
    assert_eq!(names(&list(&cluster, &target, "")?), ["b"]);
    cluster.finish()
}
