use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::protocol::{self, Reply};

/// A daemon that answers each connection with the next of these, and what it was asked.
fn daemon(
    socket: &Path,
    answers: Vec<Result<(), Refusal>>,
) -> (std::thread::JoinHandle<()>, Arc<Mutex<Vec<Command>>>) {
    let listener = UnixListener::bind(socket).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let thread = std::thread::spawn({
        let heard = heard.clone();
        move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut line = Vec::new();
                let mut reader = BufReader::new(&stream);
                reader.read_until(b'\n', &mut line).unwrap();
                heard
                    .lock()
                    .unwrap()
                    .push(protocol::request(&line).unwrap());
                let reply = protocol::line(&Reply::from(answer)).unwrap();
                (&stream).write_all(&reply).unwrap();
            }
        }
    });
    (thread, heard)
}

fn previous() -> Value {
    json!({"cniVersion": "0.3.1",
        "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
        "ips": [{"version": "4", "address": "10.244.1.7/24", "interface": 2}]})
}

fn config(socket: &Path, more: &Value) -> Value {
    let mut config = json!({"cniVersion": "0.3.1", "name": "cbr0", "type": "selvedge-cni",
        "socket": socket, "timeout": 3, "prevResult": previous()});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Runs a command for a pod.
fn command(command: &str, config: &Value) -> Answer {
    let environment = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1",
        ),
    ];
    run_in(&environment, config)
}

fn run_in(environment: &[(&str, &str)], config: &Value) -> Answer {
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let text = config.to_string();
    run(
        |name| environment.get(name).map(|value| (*value).to_owned()),
        &mut text.as_bytes(),
    )
}

/// The code and the message of an error.
fn error(answer: &Answer) -> (u64, String) {
    assert!(!answer.success, "{answer:?}");
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert!(VERSIONS.contains(&json["cniVersion"].as_str().unwrap()));
    let message = json["msg"].as_str().unwrap();
    assert!(!message.contains('\n'));
    (json["code"].as_u64().unwrap(), message.to_owned())
}

#[test]
fn an_add_hands_over_the_pod_and_passes_the_result_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let (thread, heard) = daemon(&socket, vec![Ok(())]);
    let answer = command("ADD", &config(&socket, &json!({})));
    assert!(answer.success, "{answer:?}");
    assert_eq!(
        serde_json::from_str::<Value>(&answer.stdout).unwrap(),
        previous()
    );
    thread.join().unwrap();
    let heard = heard.lock().unwrap();
    let [
        Command::Add {
            attachment,
            patience,
        },
    ] = heard.as_slice()
    else {
        panic!("{heard:?}");
    };
    assert_eq!(attachment.id.network, "cbr0");
    assert_eq!(attachment.id.container, "c0ffee");
    assert_eq!(attachment.pod.uid, "u-1");
    assert_eq!(attachment.interfaces, ["cni0", "veth1"]);
    assert_eq!(attachment.addresses.len(), 1);
    assert!((500..=2625).contains(patience), "{patience}");
}

#[test]
fn a_refused_add_fails_or_passes_as_configured() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let refusal = || Err(Refusal::new(Reason::NotReady, "not yet"));
    let (thread, _) = daemon(&socket, vec![refusal(), refusal()]);
    let (code, message) = error(&command("ADD", &config(&socket, &json!({}))));
    assert_eq!(code, 11);
    assert!(
        message.contains("shop/web-0") && message.contains("not yet"),
        "{message}"
    );
    let answer = command("ADD", &config(&socket, &json!({"onUnreachable": "pass"})));
    assert!(answer.success);
    assert!(answer.notes[0].contains("not yet"), "{answer:?}");
    thread.join().unwrap();
}

#[test]
fn without_a_daemon_everything_ends_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let newest = json!({"cniVersion": "1.1.0", "timeout": 1, "cni.dev/valid-attachments": []});
    let started = Instant::now();
    let (code, message) = error(&command("ADD", &config(&socket, &json!({"timeout": 1}))));
    assert_eq!(code, 11);
    assert!(message.contains("can't be reached"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(error(&command("STATUS", &config(&socket, &newest))).0, 50);
    assert_eq!(error(&command("GC", &config(&socket, &newest))).0, 11);
    assert_eq!(error(&command("CHECK", &config(&socket, &newest))).0, 11);
    let deleted = command("DEL", &config(&socket, &json!({})));
    assert!(deleted.success && deleted.stdout.is_empty() && !deleted.notes.is_empty());
    let mut passing = newest;
    passing["onUnreachable"] = json!("pass");
    for name in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let answer = command(name, &config(&socket, &passing));
        assert!(
            answer.success && answer.notes.len() == 1,
            "{name} {answer:?}"
        );
    }
}

#[test]
fn a_daemon_that_says_nothing_is_not_waited_for_longer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let (code, message) = error(&command("ADD", &config(&socket, &json!({"timeout": 1}))));
    assert!(message.contains("has not answered within 1 s"), "{message}");
    assert_eq!(code, 11);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_daemon_that_comes_in_time_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let late = std::thread::spawn({
        let socket = socket.clone();
        move || {
            std::thread::sleep(Duration::from_millis(200));
            daemon(&socket, vec![Ok(())]).0.join().unwrap();
        }
    });
    let answer = command("ADD", &config(&socket, &json!({})));
    assert!(answer.success, "{answer:?}");
    late.join().unwrap();
}

#[test]
fn versions_are_told_and_held_to() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let version = run_in(
        &[("CNI_COMMAND", "VERSION")],
        &json!({"cniVersion": "1.0.0"}),
    );
    let told: Value = serde_json::from_str(&version.stdout).unwrap();
    assert_eq!(told["cniVersion"], "1.0.0");
    assert_eq!(told["supportedVersions"], json!(VERSIONS));
    for (name, version, understood) in [
        ("ADD", "0.2.0", false),
        ("ADD", "2.0.0", false),
        ("CHECK", "0.3.1", false),
        ("CHECK", "0.4.0", true),
        ("GC", "1.0.0", false),
        ("STATUS", "1.0.0", false),
        ("STATUS", "1.1.0", true),
    ] {
        let more = json!({"cniVersion": version, "onUnreachable": "pass"});
        let answer = command(name, &config(&socket, &more));
        match understood {
            true => assert!(answer.success, "{name} {version} {answer:?}"),
            false => assert_eq!(error(&answer).0, 1, "{name} {version}"),
        }
    }
    let mut without = config(&socket, &json!({}));
    without.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(error(&command("ADD", &without)).0, 1);
}

#[test]
fn what_is_wrong_is_said_by_the_specification_s_codes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    for (more, code) in [
        (json!({"timeout": 0}), 7),
        (json!({"timeout": 3600}), 7),
        (json!({"timeout": "10"}), 6),
        (json!({"socket": "cni.sock"}), 7),
        (json!({"name": ""}), 7),
        (json!({"onUnreachable": "maybe"}), 6),
        (json!({"prevResult": null}), 7),
        (json!({"prevResult": 7}), 6),
        (json!({"prevResult": {"ips": [{"address": "x"}]}}), 6),
    ] {
        let answer = command("ADD", &config(&socket, &more));
        assert_eq!(error(&answer).0, code, "{more} {answer:?}");
    }
    let good = config(&socket, &json!({}));
    assert_eq!(error(&run_in(&[], &good)).0, 4);
    assert_eq!(error(&run_in(&[("CNI_COMMAND", "PLAY")], &good)).0, 4);
    assert_eq!(error(&run_in(&[("CNI_COMMAND", "ADD")], &good)).0, 4);
    let add = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "a")];
    assert_eq!(error(&run_in(&add, &good)).0, 4);
    let answer = run(
        |name| (name == "CNI_COMMAND").then(|| "ADD".to_owned()),
        &mut &b"{\"cniVersion\":"[..],
    );
    assert_eq!(error(&answer).0, 6);
}

#[test]
fn a_container_that_is_no_pod_s_is_nobody_s_business() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cni.sock");
    let environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=;;x;="),
    ];
    let answer = run_in(&environment, &config(&socket, &json!({})));
    assert!(answer.success && answer.notes.is_empty(), "{answer:?}");
}
