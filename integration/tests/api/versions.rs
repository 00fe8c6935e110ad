//! Versions in watches: bookmarks, what is gone, what is to come, and streaming lists.

use std::time::Duration;

use selvedge_lab::Error;
use selvedge_lab::api::{Cluster, Gone, Settings};
use serde_json::{Value, json};

use super::http_client::{End, get, types};
use super::watches::{Stage, version};

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
    let mut watch = stage.watch("allowWatchBookmarks=true&timeoutSeconds=5")?;
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
    assert_eq!(lines[0]["object"]["metadata"]["name"], "seen");
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
