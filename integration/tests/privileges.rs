//! What the daemon asks for and where it listens, seen from outside.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use selvedge_lab::api::{Kind, Target};
use selvedge_lab::stage::live::Live;
use selvedge_lab::{Error, wait_until};
use serde_json::json;

fn live() -> Result<Live, Error> {
    let mut live = Live::new(1, &[("shop/db", 1, &[("app", "db")][..])])?;
    live.policy("shop/closed", &json!({"podSelector": {}}))?;
    Ok(live)
}

#[test]
fn it_asks_the_api_for_what_its_role_lists_and_nothing_else() -> Result<(), Error> {
    let mut live = live()?;
    let _daemon = live.daemon(1)?;
    // So that there is something to report: where it is no real API server, which would not store it.
    let namespace = live.namespace("shop")?;
    if let Some(server) = live.cluster.server() {
        let target = Target::object(Kind::NetworkPolicy, Some(&namespace), "odd");
        let metadata = json!({"name": "odd", "namespace": namespace, "uid": "odd"});
        server.plant(
            &target,
            json!({"metadata": metadata, "spec": {"ingress": 7}}),
        );
        let events = Target::collection(Kind::Event, Some(&namespace));
        wait_until("an Event", Duration::from_secs(20), || {
            Ok(!live.cluster.list(&events)?.is_empty())
        })?;
    }
    let read = ["get", "list", "watch"];
    let kinds = [Kind::Pod, Kind::Namespace, Kind::Node, Kind::NetworkPolicy];
    let mut asked = BTreeSet::new();
    for seen in live.node(1).endpoint.seen() {
        let Some(target) = seen.target else {
            panic!("it asked for {}", seen.path);
        };
        let reads = read.contains(&seen.verb) && kinds.contains(&target.kind);
        let reports = seen.verb == "create" && target.kind == Kind::Event;
        assert!(reads || reports, "{} {}", seen.verb, seen.path);
        assert_eq!(target.subresource, None, "{}", seen.path);
        asked.insert((seen.verb, target.kind));
    }
    println!("it asked for {asked:?}");
    for kind in kinds {
        assert!(asked.iter().any(|(_, asked)| *asked == kind), "{kind:?}");
    }
    Ok(())
}

#[test]
fn it_listens_on_loopback_alone() -> Result<(), Error> {
    let live = live()?;
    let daemon = live.daemon(1)?;
    sleep(Duration::from_millis(200));
    let netns = live.node(1).node.netns();
    let pid = format!("pid={},", daemon.pid());
    let sockets = |what: &str| -> Result<Vec<String>, Error> {
        let all = netns.command("ss").args(["-Hnp", what]).run()?;
        let ours = all.lines().filter(|line| line.contains(&pid));
        let words = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        Ok(ours.filter_map(words).collect())
    };
    // TCP and SCTP that listen; UDP and raw sockets, which hear without that.
    assert_eq!(sockets("-lt")?, ["127.0.0.1:20464"]);
    for what in ["-lS", "-au", "-aw", "-0"] {
        assert!(sockets(what)?.is_empty(), "{what}");
    }
    // It was looked for in the right place.
    assert!(
        netns
            .command("ss")
            .args(["-Hnp", "-lx"])
            .run()?
            .contains("@selvedge")
    );
    Ok(())
}
