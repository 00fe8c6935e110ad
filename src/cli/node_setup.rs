//! `selvedge node-setup`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use super::{Done, Failure, print};
use crate::enforce::host::{BRIDGE_SWITCHES, BRIDGE_SYSCTLS};

/// Send bridged packets through netfilter in this network namespace, as policies between pods of one node need it.
///
/// Sets net.bridge.bridge-nf-call-iptables and net.bridge.bridge-nf-call-ip6tables to 1, and loads the kernel module
/// br_netfilter where it is missing.
#[derive(Debug, Args)]
pub(super) struct NodeSetup {}

impl NodeSetup {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let directory = Path::new(BRIDGE_SYSCTLS);
        let mut said = String::new();
        if !directory.exists() {
            load_module()?;
            said.push_str("loaded br_netfilter\n");
        }
        said.push_str(&set(directory).map_err(Failure::Unreachable)?);
        print(&said)
    }
}

fn load_module() -> Result<(), Failure> {
    let output = Command::new("modprobe")
        .arg("br_netfilter")
        .stdin(Stdio::null())
        .output();
    let reason = match output {
        Ok(output) if output.status.success() && Path::new(BRIDGE_SYSCTLS).exists() => {
            return Ok(());
        }
        Ok(output) if output.status.success() => {
            "this network namespace has no net.bridge switches all the same".to_owned()
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().next().unwrap_or("modprobe failed");
            line.to_owned()
        }
        Err(error) => format!("modprobe can't be run: {error}"),
    };
    Err(Failure::Unreachable(format!(
        "br_netfilter is not loaded and can't be from here ({reason}); run `modprobe br_netfilter` on the node"
    )))
}

/// Sets the switches in `directory`; the answer is what was done, a line each.
fn set(directory: &Path) -> Result<String, String> {
    let mut said = String::new();
    for switch in BRIDGE_SWITCHES {
        let path = directory.join(switch);
        let failed = |doing: &str, error: io::Error| {
            format!("net.bridge.{switch} can't be {doing}: {error}")
        };
        let before = std::fs::read_to_string(&path).map_err(|error| failed("read", error))?;
        let before = before.trim();
        if before == "1" {
            said.push_str(&format!("net.bridge.{switch} is 1 already\n"));
            continue;
        }
        std::fs::write(&path, "1").map_err(|error| failed("set", error))?;
        said.push_str(&format!("net.bridge.{switch} set to 1 (it was {before})\n"));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_off_is_switched_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = |switch| directory.path().join(switch);
        std::fs::write(path(BRIDGE_SWITCHES[0]), "0\n").unwrap();
        std::fs::write(path(BRIDGE_SWITCHES[1]), "1\n").unwrap();
        let said = set(directory.path()).unwrap();
        assert_eq!(
            said,
            "net.bridge.bridge-nf-call-iptables set to 1 (it was 0)\n\
             net.bridge.bridge-nf-call-ip6tables is 1 already\n"
        );
        assert_eq!(
            std::fs::read_to_string(path(BRIDGE_SWITCHES[0])).unwrap(),
            "1"
        );
    }

    #[test]
    fn a_switch_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = set(directory.path()).unwrap_err();
        assert!(error.contains("bridge-nf-call-iptables"), "{error}");
    }
}
