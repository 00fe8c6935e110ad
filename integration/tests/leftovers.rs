//! Namespaces and programs end with their handles, with a panic, and with the process.
//!
//! A namespace without a name cannot be listed, but the kernel removes a veth pair when either end's namespace goes:
//! each is tied to an observer this way, which sees its end vanish.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use selvedge_lab::{Error, Lab, Netns, Protocol, Signal, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn tie(observer: &Netns, number: usize, namespace: &Path) -> Result<(), Error> {
    observer.ip_batch(&format!(
        "link add tie{number} type veth peer name tied netns {}\n",
        namespace.display()
    ))
}

fn tie_lab(observer: &Netns, lab: &Lab) -> Result<usize, Error> {
    let hosts = lab.pods().into_iter().map(|pod| pod.netns().path());
    let nodes = lab.nodes().iter().map(|node| node.netns().path());
    let outside = lab.outsiders().iter().map(|one| one.netns().path());
    let all = hosts
        .chain(nodes)
        .chain(outside)
        .chain([lab.underlay().path()]);
    let paths: Vec<_> = all.collect();
    for (number, path) in paths.iter().enumerate() {
        tie(observer, number, path)?;
    }
    Ok(paths.len())
}

fn ties(observer: &Netns) -> Result<usize, Error> {
    let links = observer.command("ip").args(["-o", "link"]).run()?;
    Ok(links.lines().filter(|line| line.contains(" tie")).count())
}

fn await_no_ties(observer: &Netns) -> Result<(), Error> {
    wait_until("the end of all namespaces", PATIENCE, || {
        Ok(ties(observer)? == 0)
    })
}

fn busy_lab() -> Result<Lab, Error> {
    let lab = Lab::builder()
        .node("node-1")
        .node("node-2")
        .pod("shop/web", "node-1")
        .pod("shop/db", "node-2")
        .outsider("outsider", [])
        .build()?;
    for pod in lab.pods() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            pod.listen(protocol, 80)?;
        }
    }
    Ok(lab)
}

#[test]
fn a_dropped_lab_leaves_no_namespace() -> Result<(), Error> {
    let observer = Netns::new("observer")?;
    let lab = busy_lab()?;
    assert_eq!(tie_lab(&observer, &lab)?, 6);
    assert_eq!(ties(&observer)?, 6);
    drop(lab);
    await_no_ties(&observer)
}

#[test]
fn a_panic_leaves_no_namespace() -> Result<(), Error> {
    let observer = Netns::new("observer")?;
    let panic = catch_unwind(AssertUnwindSafe(|| -> Result<(), Error> {
        let lab = busy_lab()?;
        let web = lab.pod("shop/web")?;
        let _daemon = web.netns().command("sleep").arg("1000").daemon()?;
        tie_lab(&observer, &lab)?;
        // Inside a namespace, on its thread.
        web.netns().run(|| panic!("in the pod"))?
    }));
    let text = panic
        .err()
        .and_then(|panic| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    assert_eq!(text.as_deref(), Some("in the pod"));
    await_no_ties(&observer)
}

#[test]
fn a_killed_process_leaves_neither_namespace_nor_program() -> Result<(), Error> {
    let observer = Netns::new("observer")?;
    let process = Netns::new("machine")?
        .command(env!("CARGO_BIN_EXE_selvedge-lab"))
        .args(["sh", "-c", "echo child $$ >&2; exec sleep 1000"])
        .daemon()?;
    process.wait_for_output("child ", PATIENCE)?;
    let said = process.stderr();
    let paths = said
        .split_whitespace()
        .filter(|word| word.starts_with("/proc/"));
    let mut namespaces = 0;
    for path in paths {
        tie(&observer, namespaces, Path::new(path))?;
        namespaces += 1;
    }
    let child = said.split("child ").nth(1).unwrap_or_default().trim();
    assert_eq!((namespaces, ties(&observer)?), (11, 11));
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;
    await_no_ties(&observer)?;
    // The program stood in a namespace; that this is gone says that the program is. Its pid may be another's by now.
    let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
    assert!(!command.starts_with("sleep"), "{command}");
    Ok(())
}

#[test]
fn a_daemon_is_heard_signalled_and_killed() -> Result<(), Error> {
    let netns = Netns::new("daemons")?;
    let script =
        "trap 'echo bye; exit 7' TERM; echo ready; echo oops >&2; while :; do sleep 0.01; done";
    let daemon = netns.command("sh").args(["-c", script]).daemon()?;
    daemon.wait_for_output("ready", PATIENCE)?;
    daemon.wait_for_output("oops", PATIENCE)?;
    assert_eq!(daemon.exit(), None);
    let status = daemon.terminate(PATIENCE)?;
    assert_eq!(
        (status.code(), daemon.stdout().as_str()),
        (Some(7), "ready\nbye\n")
    );
    assert_eq!(daemon.stderr(), "oops\n");
    daemon.signal(Signal::SIGKILL)?;

    let silent = netns.command("true").daemon()?;
    let error = silent.wait_for_output("never", PATIENCE);
    assert!(matches!(error, Err(Error::Timeout { .. })), "{error:?}");

    let sleeper = netns.command("sleep").arg("1000").daemon()?;
    let pid = sleeper.pid();
    drop(sleeper);
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(!command.contains("sleep"), "{command}");
    Ok(())
}

#[test]
fn without_root_one_line_says_so() {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"])
        .args([env!("CARGO_BIN_EXE_selvedge-lab"), "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("needs root"), "{said}");
}

#[test]
fn a_failing_program_is_one_line() -> Result<(), Error> {
    let netns = Netns::new("programs")?;
    let error = netns.nft("add rule inet nowhere chain drop").err();
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        text.starts_with("nft -f - in namespace programs: exit status: 1: "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(matches!(
        netns.command("no-such-program").run(),
        Err(Error::Io { .. })
    ));
    Ok(())
}
