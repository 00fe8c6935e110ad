//! Watches: order, completeness, versions, bookmarks, ends.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use selvedge_lab::api::{ApiServer, Cluster, Endpoint, Kind, Settings, Target};
use selvedge_lab::{Error, wait_until};
use serde_json::{Value, json};

use super::http_client::{Answer, End, PATIENCE, get, types};

/// A namespace of its own, and an address to watch it at.
pub struct Stage {
    pub cluster: Cluster,
    pub endpoint: Endpoint,
    pub ns: String,
}

impl Stage {
    pub fn new(cluster: Cluster, name: &str) -> Result<Self, Error> {
        let endpoint = cluster.proxy()?.listen_here()?;
        let ns = cluster.namespace(name, &[])?;
        Ok(Self {
            cluster,
            endpoint,
            ns,
        })
    }

    pub fn server(&self) -> &ApiServer {
        self.cluster.server().expect("a stand-in")
    }

    pub fn path(&self, query: &str) -> String {
        let target = Target::collection(Kind::NetworkPolicy, Some(&self.ns));
        format!("{}?{query}", target.path())
    }

    pub fn watch(&self, query: &str) -> Result<Answer, Error> {
        let mut answer = get(
            self.endpoint.address(),
            &self.path(&format!("watch=true&{query}")),
        )?;
        // From here on, nothing that happens is missed.
        assert_eq!(answer.head().0, 200);
        Ok(answer)
    }

    pub fn version(&self) -> Result<u64, Error> {
        let list = self.cluster.call(Method::GET, &self.path(""), "", None)?;
        Ok(version(&list))
    }

    pub fn put(&self, name: &str) -> Result<Value, Error> {
        self.cluster
            .policy(&self.ns, name, &json!({"podSelector": {}}))
    }

    pub fn label(&self, name: &str, labels: &Value) -> Result<Value, Error> {
        let target = Target::object(Kind::NetworkPolicy, Some(&self.ns), name);
        self.cluster
            .patch(&target, &json!({"metadata": {"labels": labels}}))
    }
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a version")
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
    let mut watch = stage.watch(&format!("resourceVersion={from}&timeoutSeconds=5"))?;
    stage.put("a")?;
    assert_eq!(watch.end(), End::Proper);
    assert!(start.elapsed() >= Duration::from_millis(4500));
    assert_eq!(types(&watch.lines()), ["ADDED"]);
    stage.cluster.finish()
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
