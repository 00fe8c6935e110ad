//! A lab to look around in: two nodes, nine pods and an outsider, for as long as a command runs on the first node.
//!
//! `cargo run -p selvedge-lab -- ip route`; without a command, a shell.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use selvedge_lab::{Error, Lab};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(success) if success => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("selvedge-lab: {error}");
            ExitCode::from(3)
        }
    }
}

fn run(words: &[String]) -> Result<bool, Error> {
    let mut lab = Lab::builder()
        .node("node-1")
        .node("node-2")
        .outsider("outsider", []);
    for namespace in ["a", "b", "c"] {
        for (name, node) in [("x", "node-1"), ("y", "node-2"), ("z", "node-1")] {
            lab = lab.pod(&format!("{namespace}/{name}"), node);
        }
    }
    let lab = lab.build()?;
    eprintln!("enter a namespace with: nsenter --net=PATH");
    for node in lab.nodes() {
        eprintln!(
            "{:9} {} {:?}",
            node.name(),
            node.netns().path().display(),
            node.addresses()
        );
    }
    for pod in lab.pods() {
        eprintln!(
            "{:9} {} {:?}",
            pod.name(),
            pod.netns().path().display(),
            pod.addresses()
        );
    }
    let shell = ["bash".to_owned()];
    let words = if words.is_empty() { &shell } else { words };
    let [program, args @ ..] = words else {
        return Ok(true);
    };
    let node = lab.node("node-1")?;
    let status = node.netns().command(program).args(args).interactive()?;
    Ok(status.success())
}
