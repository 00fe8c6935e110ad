//! A daemon that is not there, one that has just been started again, and addresses that go from one pod to another.

use std::thread::sleep;
use std::time::{Duration, Instant};

use selvedge_lab::{Error, Pod, Signal};
use serde_json::json;

use super::traffic::{Receiver, Sender};
use super::{PATIENCE, Stage};

const SENDS: Duration = Duration::from_millis(50);

/// What gets through of what a new pod sends.
fn through(stage: &Stage, receiver: &Receiver, from: &Pod) -> Result<usize, Error> {
    let sender = receiver.hears(from, &stage.receiver)?;
    arrived(receiver, sender)
}

/// What gets through of what a pod sends that has sent before.
fn still_through(stage: &Stage, receiver: &Receiver, from: &Pod) -> Result<usize, Error> {
    let sender = Sender::start(from, &stage.receiver)?;
    arrived(receiver, sender)
}

fn arrived(receiver: &Receiver, sender: Sender) -> Result<usize, Error> {
    sleep(SENDS);
    let (datagrams, syns) = sender.stop()?;
    assert!(datagrams > 0 && syns > 0, "{datagrams} {syns}");
    Ok(receiver.arrived())
}

#[test]
fn without_a_daemon_a_start_fails_or_passes_as_configured() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let daemon = stage.daemon()?;
    daemon.terminate(PATIENCE)?;
    let receiver = Receiver::start(&stage.receiver)?;
    let failing = stage.runtime()?.with("timeout", json!(1));
    let passing = failing.with("onUnreachable", json!("pass"));

    let sandbox = stage.sandbox("shop/web", None)?;
    let failed = failing.run("ADD", &sandbox)?;
    assert!(!failed.success, "{failed:?}");
    assert_eq!(failed.json["code"], 11, "{failed:?}");
    assert_eq!(failed.json["cniVersion"], "0.3.1");
    let message = failed.json["msg"].as_str().unwrap_or_default();
    for part in ["can't be reached", "`selvedge cni uninstall`"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(failed.took < Duration::from_secs(10), "{failed:?}");
    println!("fail: {message}; after {:?}", failed.took);
    // What a runtime does then, and what kubelet does next.
    assert!(failing.run("DEL", &sandbox)?.success);
    let mut newest = failing.clone();
    newest.version = "1.1.0";
    assert_eq!(newest.run("STATUS", &sandbox)?.json["code"], 50);

    let passed = passing.run("ADD", &sandbox)?;
    assert!(passed.success, "{passed:?}");
    assert_eq!(passed.json, sandbox.result());
    assert!(
        passed.stderr.contains("starts before its policies"),
        "{passed:?}"
    );
    assert!(passed.took < Duration::from_secs(10), "{passed:?}");
    let arrived = through(&stage, &receiver, &sandbox.pod)?;
    println!(
        "pass: started after {:?}; {arrived} packets through",
        passed.took
    );
    assert!(arrived > 0, "as said: it starts before its policies");

    // A daemon that comes in time is waited for, and the rest is as if it had been there.
    let waiting = failing.with("timeout", json!(60));
    let other = stage.sandbox("shop/other", None)?;
    let added = std::thread::scope(|scope| {
        let adding = scope.spawn(|| waiting.add(&other));
        sleep(Duration::from_millis(500));
        let daemon = stage.daemon();
        adding.join().unwrap().and_then(|took| Ok((took, daemon?)))
    });
    let (took, _daemon) = added?;
    println!("a start that waited for the daemon took {took:?}");
    assert_eq!(through(&stage, &receiver, &other.pod)?, 0);
    assert!(newest.run("STATUS", &other)?.success);
    Ok(())
}

#[test]
fn what_starts_without_a_daemon_is_closed_where_new_pods_are_blocked() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let block = ["--new-pods", "block"];
    let daemon = stage.daemon_with(&block)?;
    let receiver = Receiver::start(&stage.receiver)?;
    daemon.terminate(PATIENCE)?;
    let passing = stage.runtime()?.with("timeout", json!(1));
    let passing = passing.with("onUnreachable", json!("pass"));
    let closed = stage.sandbox("shop/web", None)?;
    let open = stage.sandbox("open/web", None)?;
    for sandbox in [&closed, &open] {
        assert!(passing.run("ADD", sandbox)?.success);
        assert_eq!(through(&stage, &receiver, &sandbox.pod)?, 0);
    }
    // The next daemon has not heard of them either, until kubelet says their addresses.
    let _daemon = stage.daemon_with(&block)?;
    for sandbox in [&closed, &open] {
        assert_eq!(still_through(&stage, &receiver, &sandbox.pod)?, 0);
        stage.report(sandbox)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while still_through(&stage, &receiver, &open.pod)? == 0 {
        assert!(Instant::now() < deadline, "the open pod stays cut off");
    }
    assert_eq!(still_through(&stage, &receiver, &closed.pod)?, 0);
    Ok(())
}

#[test]
fn a_pod_that_the_api_does_not_show_does_not_start() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let daemon = stage.daemon()?;
    let mut sandbox = stage.sandbox("shop/web", None)?;
    let uid = std::mem::replace(&mut sandbox.uid, "another".to_owned());
    let runtime = stage.runtime()?;
    // The daemon's answer comes two seconds before the plugin's own end, however busy the machine is.
    let failed = runtime.with("timeout", json!(16)).run("ADD", &sandbox)?;
    let message = failed.json["msg"].as_str().unwrap_or_default();
    assert!(message.contains("the API has not shown pod"), "{failed:?}");
    assert!(failed.took < Duration::from_secs(23), "{failed:?}");
    daemon.wait_for_output("the API has not shown pod", PATIENCE)?;
    sandbox.uid = uid;
    runtime.add(&sandbox)?;
    let mut newest = runtime.clone();
    newest.version = "1.0.0";
    let checked = newest.run("CHECK", &sandbox)?;
    assert!(checked.success, "{checked:?}");
    assert!(runtime.run("DEL", &sandbox)?.success);
    assert_eq!(newest.run("CHECK", &sandbox)?.json["code"], 100);
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_before_the_kubelet_reports_knows_the_pod_again() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let daemon = stage.daemon()?;
    let runtime = stage.runtime()?;
    let receiver = Receiver::start(&stage.receiver)?;
    let sandbox = stage.sandbox("shop/web", None)?;
    let old = stage.sandbox("shop/old", None)?;
    runtime.add(&sandbox)?;
    runtime.add(&old)?;
    let sender = receiver.hears(&sandbox.pod, &stage.receiver)?;
    for round in 0..3 {
        let before = stage.live.ruleset(1)?;
        match round {
            0 => {
                daemon.signal(Signal::SIGKILL)?;
                daemon.wait(PATIENCE)?;
            }
            _ => sleep(Duration::from_millis(50)),
        }
        let started = Instant::now();
        let daemon = stage.daemon()?;
        daemon.wait_for_output("there was nothing to change", PATIENCE)?;
        println!("in force again after {:?}", started.elapsed());
        assert_eq!(stage.live.ruleset(1)?, before);
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(PATIENCE)?;
    }
    // A pod that ends meanwhile is not taken for one that lives.
    stage.live.lab.remove_pod(old.pod.name())?;
    let _daemon = stage.daemon()?;
    stage.report(&sandbox)?;
    sleep(SENDS);
    let (datagrams, syns) = sender.stop()?;
    let arrived = receiver.arrived();
    println!("{arrived} packets through of {datagrams} datagrams and {syns} SYNs");
    assert_eq!(arrived, 0);
    let files = std::fs::read_dir(stage.directory.path().join("run/attachments")).unwrap();
    assert_eq!(
        files.count(),
        2,
        "the old one's address is withheld while the API has it"
    );
    stage.forget(&old)?;
    selvedge_lab::wait_until("nothing is left of the old pod", PATIENCE, || {
        let files = std::fs::read_dir(stage.directory.path().join("run/attachments"));
        Ok(files.unwrap().count() == 1)
    })
}

#[test]
fn an_address_goes_from_an_open_pod_to_a_closed_one() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let _daemon = stage.daemon()?;
    let runtime = stage.runtime()?;
    let receiver = Receiver::start(&stage.receiver)?;
    for round in 0..5 {
        let open = stage.sandbox(&format!("free/open-{round}"), None)?;
        runtime.add(&open)?;
        stage.report(&open)?;
        assert!(through(&stage, &receiver, &open.pod)? > 0);
        stage.end(&runtime, &open)?;
        // The API still says that the address is the open one's.
        let name = format!("shop/closed-{round}");
        let closed = stage.sandbox(&name, Some(&open.pod))?;
        runtime.add(&closed)?;
        assert_eq!(through(&stage, &receiver, &closed.pod)?, 0);
        stage.report(&closed)?;
        stage.forget(&open)?;
        assert_eq!(still_through(&stage, &receiver, &closed.pod)?, 0);
        stage.end(&runtime, &closed)?;
        stage.forget(&closed)?;
    }
    Ok(())
}
