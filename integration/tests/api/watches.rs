//! Watches: order, completeness, versions, bookmarks, ends.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use selvedge_lab::api::{ApiServer, Cluster, Endpoint, Gone, Kind, Settings, Target};
use selvedge_lab::{Error, wait_until};
use serde_json::{Value, json};

use super::http_client::{Answer, End, PATIENCE, get, types};

/// A namespace of its own, and an address to watch it at.
struct Stage {
    cluster: Cluster,
    endpoint: Endpoint,
    ns: String,
}

impl Stage {
    fn new(cluster: Cluster, name: &str) -> Result<Self, Error> {
        let endpoint = cluster.proxy()?.listen_here()?;
        let ns = cluster.namespace(name, &[])?;
        Ok(Self {
            cluster,
            endpoint,
            ns,
        })
    }

    fn server(&self) -> &ApiServer {
        self.cluster.server().expect("a stand-in")
    }

    fn path(&self, query: &str) -> String {
        let target = Target::collection(Kind::NetworkPolicy, Some(&self.ns));
        format!("{}?{query}", target.path())
    }

    fn watch(&self, query: &str) -> Result<Answer, Error> {
        let mut answer = get(
            self.endpoint.address(),
            &self.path(&format!("watch=true&{query}")),
        )?;
        // From here on, nothing that happens is missed.
        assert_eq!(answer.head().0, 200);
        Ok(answer)
    }

    fn version(&self) -> Result<u64, Error> {
        let list = self.cluster.call(Method::GET, &self.path(""), "", None)?;
        Ok(version(&list))
    }

    fn put(&self, name: &str) -> Result<Value, Error> {
        self.cluster
            .policy(&self.ns, name, &json!({"podSelector": {}}))
    }

    fn label(&self, name: &str, labels: &Value) -> Result<Value, Error> {
        let target = Target::object(Kind::NetworkPolicy, Some(&self.ns), name);
        self.cluster
            .patch(&target, &json!({"metadata": {"labels": labels}}))
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a version")
}

fn without_bookmarks(lines: &[Value]) -> Vec<Value> {
    lines
        .iter()
        .filter(|line| line["type"] != "BOOKMARK")
        .cloned()
        .collect()
}

fn quick() -> Settings {
    Settings {
        bookmarks: Duration::from_millis(20),
        ..Settings::default()
    }
}

#[test]
fn a_watch_shows_each_change_once_and_in_order() -> Result<(), Error> {
    let stage = Stage::new(Cluster::for_tests()?, "order")?;
    stage.put("old")?;
    let from = stage.version()?;
    let early = stage.watch(&format!("resourceVersion={from}"))?;
    thread::scope(|scope| {
        for writer in 0..4 {
            let stage = &stage;
            scope.spawn(move || {
                for turn in 0..15 {
                    let name = format!("w{writer}-{}", turn % 3);
                    stage.put(&name).unwrap();
                    stage
                        .label(&name, &json!({"turn": turn.to_string()}))
                        .unwrap();
                    if turn % 5 == 4 {
                        stage.cluster.delete_policy(&stage.ns, &name).unwrap();
                    }
                }
            });
        }
    });
    stage.put("zz-end")?;
    let late = stage.watch(&format!("resourceVersion={from}"))?;
    let ended = |lines: &[Value]| {
        lines
            .iter()
            .any(|line| line["object"]["metadata"]["name"] == "zz-end")
    };
    let list = stage.cluster.call(Method::GET, &stage.path(""), "", None)?;
    let mut seen = Vec::new();
    for mut watch in [early, late] {
        let lines = watch.until(ended);
        assert!(
            lines.is_sorted_by_key(|line| version(&line["object"])),
            "{lines:#?}"
        );
        let mut state: BTreeMap<String, Value> = BTreeMap::new();
        for line in &lines {
            let name = line["object"]["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(line["object"]["kind"], "NetworkPolicy");
            let known = state.contains_key(&name);
            match line["type"].as_str().unwrap() {
                "ADDED" => assert!(!known, "{name} again"),
                "MODIFIED" | "DELETED" => assert!(known, "{name} of old"),
                other => panic!("{other}"),
            }
            if line["type"] == "DELETED" {
                state.remove(&name);
            } else {
                state.insert(name, line["object"]["metadata"]["resourceVersion"].clone());
            }
        }
        let items = list["items"].as_array().unwrap().iter();
        let now: BTreeMap<String, Value> = items
            .map(|item| &item["metadata"])
            .filter(|metadata| metadata["name"] != "old")
            .map(|metadata| {
                (
                    metadata["name"].as_str().unwrap().to_owned(),
                    metadata["resourceVersion"].clone(),
                )
            })
            .collect();
        assert_eq!(state, now);
        seen.push(lines);
    }
    assert_eq!(
        seen[0], seen[1],
        "what was watched and what is remembered differ"
    );
    stage.cluster.finish()
}

#[test]
fn selectors_turn_changes_into_arrivals_and_departures() -> Result<(), Error> {
    let stage = Stage::new(Cluster::for_tests()?, "arrivals")?;
    stage.put("a")?;
    let from = stage.version()?;
    let mut watch = stage.watch(&format!("resourceVersion={from}&labelSelector=team%3Dred"))?;
    stage.label("a", &json!({"team": "red"}))?;
    stage.label("a", &json!({"more": "yes"}))?;
    let gone = stage.label("a", &json!({"team": "blue"}))?;
    stage.label("a", &json!({"team": "red"}))?;
    stage.cluster.delete_policy(&stage.ns, "a")?;
    let lines = watch.until(|lines| lines.len() >= 5);
    assert_eq!(
        types(&lines),
        ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    );
    // What left carries the version of its leaving, in its last state that matched.
    assert_eq!(version(&lines[2]["object"]), version(&gone));
    assert_eq!(lines[2]["object"]["metadata"]["labels"]["team"], "red");
    stage.cluster.finish()
}

#[test]
fn a_watch_of_the_present_begins_with_what_there_is() -> Result<(), Error> {
    let stage = Stage::new(Cluster::for_tests()?, "present")?;
    stage.put("a")?;
    for query in ["", "resourceVersion=0"] {
        let mut watch = stage.watch(query)?;
        let lines = watch.until(|lines| !lines.is_empty());
        assert_eq!(types(&lines), ["ADDED"]);
        stage.label(
            "a",
            &json!({"query": if query.is_empty() { "none" } else { "zero" }}),
        )?;
        assert_eq!(
            types(&watch.until(|lines| lines.len() > 1)),
            ["ADDED", "MODIFIED"]
        );
    }
    stage.cluster.finish()
}

#[test]
fn a_watch_ends_properly_after_its_time() -> Result<(), Error> {
    let stage = Stage::new(Cluster::for_tests()?, "timeout")?;
    let from = stage.version()?;
    let start = Instant::now();
    let mut watch = stage.watch(&format!("resourceVersion={from}&timeoutSeconds=2"))?;
    stage.put("a")?;
    assert_eq!(watch.end(), End::Proper);
    assert!(start.elapsed() >= Duration::from_millis(1500));
    assert_eq!(types(&watch.lines()), ["ADDED"]);
    stage.cluster.finish()
}

#[test]
fn bookmarks_come_if_they_are_allowed_and_lose_nothing() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in_with(quick())?, "bookmarks")?;
    let from = stage.version()?;
    let mut silent = stage.watch(&format!("resourceVersion={from}"))?;
    let mut watch = stage.watch(&format!("resourceVersion={from}&allowWatchBookmarks=true"))?;
    for n in 0..200 {
        stage.put(&format!("p{n:03}"))?;
    }
    // Another kind's changes move bookmarks, too.
    stage.cluster.namespace("another", &[])?;
    let end = stage.server().revision();
    let lines = watch.until(|lines| {
        lines
            .last()
            .is_some_and(|line| version(&line["object"]) == end)
    });
    assert!(lines.is_sorted_by_key(|line| version(&line["object"])));
    assert!(
        types(&lines)
            .iter()
            .filter(|one| **one == "BOOKMARK")
            .count()
            > 1
    );
    assert_eq!(without_bookmarks(&lines).len(), 200);
    let bookmark = lines.last().unwrap();
    assert_eq!(bookmark["object"]["kind"], "NetworkPolicy");
    assert_eq!(bookmark["object"]["metadata"]["annotations"], Value::Null);
    assert_eq!(
        without_bookmarks(&silent.until(|lines| lines.len() >= 200)).len(),
        200
    );
    assert!(!types(&silent.lines()).contains(&"BOOKMARK"));
    Ok(())
}

#[test]
fn the_last_bookmark_comes_before_the_end() -> Result<(), Error> {
    let slow = Settings {
        bookmarks: Duration::from_secs(3600),
        ..Settings::default()
    };
    let stage = Stage::new(Cluster::stand_in_with(slow)?, "last")?;
    let mut watch = stage.watch("allowWatchBookmarks=true&timeoutSeconds=1")?;
    stage.cluster.namespace("another", &[])?;
    assert_eq!(watch.end(), End::Proper);
    let lines = watch.lines();
    assert_eq!(types(&lines), ["BOOKMARK"]);
    assert_eq!(version(&lines[0]["object"]), stage.server().revision());
    Ok(())
}

#[test]
fn a_version_that_is_gone_is_said_in_either_form() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in()?, "gone")?;
    let from = stage.version()?;
    let mut running = stage.watch(&format!("resourceVersion={from}"))?;
    stage.put("a")?;
    stage.server().compact();
    let query = format!("watch=true&resourceVersion={from}");
    let mut event = stage.watch(&query)?;
    assert_eq!(event.end(), End::Proper);
    let lines = event.lines();
    assert_eq!(types(&lines), ["ERROR"]);
    let status = &lines[0]["object"];
    assert_eq!(
        (&status["kind"], &status["code"], &status["reason"]),
        (&json!("Status"), &json!(410), &json!("Expired"))
    );

    stage.server().change(|settings| settings.gone = Gone::Http);
    let mut refused = get(stage.endpoint.address(), &stage.path(&query))?;
    assert_eq!(refused.head().0, 410);
    refused.end();
    let status: Value = serde_json::from_slice(&refused.body()).unwrap();
    assert_eq!(status["reason"], "Expired");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version: ")
    );
    // What is the newest is not gone, and who watched already goes on.
    let now = stage.version()?;
    let mut fresh = stage.watch(&format!("resourceVersion={now}"))?;
    stage.put("b")?;
    assert_eq!(types(&fresh.until(|lines| !lines.is_empty())), ["ADDED"]);
    assert_eq!(
        types(&running.until(|lines| lines.len() > 1)),
        ["ADDED", "ADDED"]
    );
    Ok(())
}

#[test]
fn a_short_memory_forgets_by_itself() -> Result<(), Error> {
    let short = Settings {
        history: 10,
        gone: Gone::Http,
        ..Settings::default()
    };
    let stage = Stage::new(Cluster::stand_in_with(short)?, "memory")?;
    let from = stage.version()?;
    let ask = || -> Result<u16, Error> {
        let path = stage.path(&format!("watch=true&resourceVersion={from}"));
        Ok(get(stage.endpoint.address(), &path)?.head().0)
    };
    for n in 0..10 {
        stage.put(&format!("p{n}"))?;
    }
    assert_eq!(ask()?, 200);
    stage.put("one-more")?;
    assert_eq!(ask()?, 410);
    Ok(())
}

#[test]
fn a_version_of_the_future_is_waited_for() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in_with(quick())?, "future")?;
    let from = stage.version()? + 1;
    let mut watch = stage.watch(&format!("resourceVersion={from}"))?;
    stage.put("unseen")?;
    stage.put("seen")?;
    let lines = watch.until(|lines| !lines.is_empty());
    assert!(
        lines
            .iter()
            .any(|line| line["object"]["metadata"]["name"] == "seen")
    );
    Ok(())
}

const STREAMING: &str =
    "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

#[test]
fn a_streaming_list_says_where_it_ends() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in()?, "streaming")?;
    stage.put("a")?;
    stage.put("b")?;
    for version_of in ["", "&resourceVersion=0", "&resourceVersion=1"] {
        let mut watch = stage.watch(&format!("{STREAMING}{version_of}"))?;
        let is_end = |line: &Value| {
            line["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
        };
        let lines = watch.until(|lines| lines.iter().any(is_end));
        assert_eq!(types(&lines), ["ADDED", "ADDED", "BOOKMARK"]);
        assert_eq!(version(&lines[2]["object"]), stage.server().revision());
        assert!(is_end(&lines[2]));
    }
    let mut watch = stage.watch(STREAMING)?;
    stage.put("c")?;
    watch.until(|lines| {
        lines
            .iter()
            .any(|line| line["object"]["metadata"]["name"] == "c")
    });
    // The empty one ends, too.
    stage.cluster.delete_policy(&stage.ns, "a")?;
    let none = stage
        .watch(&format!("{STREAMING}&labelSelector=none"))?
        .until(|lines| !lines.is_empty());
    assert_eq!(types(&none), ["BOOKMARK"]);
    Ok(())
}

#[test]
fn a_server_without_streaming_lists_refuses_them() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in()?, "nostream")?;
    stage
        .server()
        .change(|settings| settings.watch_list = false);
    let refusal = |query: &str| -> Result<String, Error> {
        let mut answer = get(
            stage.endpoint.address(),
            &stage.path(&format!("watch=true&{query}")),
        )?;
        assert_eq!(answer.head().0, 422);
        answer.end();
        Ok(answer.text())
    };
    let why =
        "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    assert!(refusal(STREAMING)?.contains(why));
    stage.server().change(|settings| settings.watch_list = true);
    assert!(refusal("sendInitialEvents=true")?.contains("requires setting resourceVersionMatch"));
    assert!(
        refusal("resourceVersionMatch=NotOlderThan")?.contains("is forbidden for watch unless")
    );
    Ok(())
}

#[test]
fn who_reads_too_slowly_is_dropped() -> Result<(), Error> {
    let narrow = Settings {
        watch_buffer: 8,
        ..Settings::default()
    };
    let stage = Stage::new(Cluster::stand_in_with(narrow)?, "slow")?;
    let from = stage.version()?;
    let mut watch = stage.watch(&format!("resourceVersion={from}"))?;
    stage.endpoint.stall(true);
    for n in 0..30 {
        stage.put(&format!("p{n:02}"))?;
    }
    stage.endpoint.stall(false);
    assert_eq!(watch.end(), End::Proper);
    let lines = watch.lines();
    assert!(lines.len() < 30);
    let names: Vec<_> = lines
        .iter()
        .map(|line| line["object"]["metadata"]["name"].clone())
        .collect();
    let expected: Vec<_> = (0..names.len())
        .map(|n| json!(format!("p{n:02}")))
        .collect();
    assert_eq!(names, expected, "a gap");
    Ok(())
}

#[test]
fn a_watch_ends_with_its_client() -> Result<(), Error> {
    let stage = Stage::new(Cluster::stand_in()?, "clients")?;
    let watch = stage.watch("")?;
    assert_eq!(stage.server().watches(), 1);
    drop(watch);
    wait_until("the watch's end", PATIENCE, || {
        Ok(stage.server().watches() == 0)
    })
}
