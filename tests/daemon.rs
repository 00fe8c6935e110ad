//! The daemon's life in a network namespace of its own: start, follow, refuse a second one, end, clean up.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node-a}
spec: {podCIDR: 10.244.1.0/24}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: node-a}
status: {podIP: 10.244.1.7}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}}
";

/// Runs `test` in a network namespace of its own; what it starts is in there too.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    thread.join().unwrap();
}

fn selvedge(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

/// For what would run on without the test: it is killed when the thread that starts it ends, as when the process is killed.
fn mortal(arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_selvedge")]);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A daemon, and the lines of its log.
struct Daemon {
    child: Child,
    log: Receiver<String>,
}

impl Daemon {
    fn start(source: &str) -> Self {
        let mut child = mortal(&["run", "--source", source, "--node", "node-a"])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, log }
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) -> String {
        let mut all = Vec::new();
        loop {
            let Ok(line) = self.log.recv_timeout(PATIENCE) else {
                panic!("{words:?} was not said: {all:#?}");
            };
            if line.contains(words) {
                return line;
            }
            all.push(line);
        }
    }

    fn ends_on(mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
        self.says("the rules stay in force");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_daemon_starts_follows_ends_and_is_cleaned_up_after() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.yaml");
    std::fs::write(&file, CLUSTER).unwrap();
    let source = directory.path().to_str().unwrap().to_owned();
    in_namespace(move || {
        let daemon = Daemon::start(&source);
        daemon.says("committed: tables +2");
        daemon.says("the policies are in force");
        let before = nft(&["-s", "list", "ruleset"]);
        assert!(before.contains("ingress/shop/web"), "{before}");

        for arguments in [
            &["run", "--source", &source, "--node", "node-a"][..],
            &["cleanup"],
        ] {
            let output = selvedge(arguments);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(3), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            let holder = format!("process {}", daemon.child.id());
            assert!(stderr.contains(&holder), "{stderr}");
        }

        // A broken file opens nothing and is said once.
        std::fs::write(&file, "kind: [").unwrap();
        daemon.says("stay in force until the file can be read");
        assert_eq!(nft(&["-s", "list", "ruleset"]), before);
        std::fs::write(&file, CLUSTER).unwrap();
        daemon.says("no longer so");

        daemon.ends_on(Signal::SIGTERM);
        // Nobody owns the tables any more; they are the same else.
        let orphaned = before
            .replace(" # progname selvedge", "")
            .replace("flags owner", "flags ");
        assert_eq!(nft(&["-s", "list", "ruleset"]), orphaned);

        let daemon = Daemon::start(&source);
        daemon.says("the policies are in force: there was nothing to change");
        daemon.ends_on(Signal::SIGINT);

        let output = selvedge(&["cleanup"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(nft(&["list", "tables"]), "");
    });
}

#[test]
fn without_permission_it_says_so_in_one_line() {
    in_namespace(|| {
        let binary = env!("CARGO_BIN_EXE_selvedge");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all", binary]);
        let output = command.args(["cleanup"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("NET_ADMIN"), "{stderr}");
    });
}

/// A DaemonSet's container must not end when it is done, nor may it hold what a daemon of a new installation needs.
#[test]
fn a_cleanup_that_stays_waits_for_its_signal_and_holds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cluster.yaml"), CLUSTER).unwrap();
    let source = directory.path().to_str().unwrap().to_owned();
    in_namespace(move || {
        let stay = || {
            let mut child = mortal(&["cleanup", "--stay"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            let said = stdout.lines().next().unwrap().unwrap();
            (child, said)
        };
        let (mut child, said) = stay();
        assert!(said.starts_with("nothing to remove"), "{said}");
        let daemon = Daemon::start(&source);
        daemon.says("the policies are in force");
        assert_eq!(child.try_wait().unwrap(), None, "it ended of its own");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));

        // Beside a daemon it neither removes nor stays: the container is started again, until the daemon is gone.
        let output = selvedge(&["cleanup", "--stay"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_ne!(nft(&["list", "tables"]), "");
        daemon.ends_on(Signal::SIGTERM);
        let (mut child, said) = stay();
        assert!(said.starts_with("removed table"), "{said}");
        assert_eq!(nft(&["list", "tables"]), "");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}
