//! `selvedge node-setup`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use clap::Args;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;

use super::{Done, Failure, print};
use crate::enforce::host::{BRIDGE_SWITCHES, BRIDGE_SYSCTLS};

/// Send bridged packets through netfilter in this network namespace, as policies between pods of one node need it.
///
/// Sets net.bridge.bridge-nf-call-iptables and net.bridge.bridge-nf-call-ip6tables to 1, and loads the kernel module
/// br_netfilter where it is missing.
#[derive(Debug, Args)]
pub(super) struct NodeSetup {
    /// Where the node's root directory is, as a container sees it: the module is loaded with the node's own modprobe
    #[arg(long, value_name = "DIR")]
    host_root: Option<PathBuf>,
}

/// Where the kernel says which program loads its modules.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

/// Where modprobe is when the kernel does not say.
const USUAL_MODPROBE: &str = "/sbin/modprobe";

impl NodeSetup {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let directory = Path::new(BRIDGE_SYSCTLS);
        let mut said = String::new();
        if !directory.exists() {
            let output = match &self.host_root {
                None => load(Command::new("modprobe")),
                Some(root) => load_within(root, &kernels_modprobe(Path::new(MODPROBE))),
            };
            loaded(output, directory).map_err(Failure::Unreachable)?;
            said.push_str("loaded br_netfilter\n");
        }
        said.push_str(&set(directory).map_err(Failure::Unreachable)?);
        print(&said)
    }
}

/// The program that the kernel itself would run to load a module: a path on the node, wherever its distribution put it.
fn kernels_modprobe(setting: &Path) -> PathBuf {
    let text = std::fs::read_to_string(setting).unwrap_or_default();
    match text.trim() {
        "" => PathBuf::from(USUAL_MODPROBE),
        path => PathBuf::from(path),
    }
}

fn load(mut modprobe: Command) -> io::Result<Output> {
    // A pipe that nobody writes to, and no /dev/null: that may not be there in another root.
    modprobe.arg("br_netfilter").stdin(Stdio::piped()).output()
}

/// Runs the `modprobe` of the root directory `root`, which finds its libraries and the kernel's modules there.
///
/// The change of root stays with one thread and the program that it starts: this process needs its own /proc after.
fn load_within(root: &Path, modprobe: &Path) -> io::Result<Output> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            chroot(root)?;
            std::env::set_current_dir("/")?;
            let mut modprobe = Command::new(modprobe);
            // Nothing of the container's environment means anything there.
            modprobe
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            load(modprobe)
        });
        let died = |_| Err(io::Error::other("the thread that starts it died"));
        thread.join().unwrap_or_else(died)
    })
}

/// Whether `modprobe` did what it was run for: the switches are in `directory` then.
fn loaded(output: io::Result<Output>, directory: &Path) -> Result<(), String> {
    let reason = match output {
        Ok(output) if output.status.success() && directory.exists() => return Ok(()),
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
    Err(format!(
        "br_netfilter is not loaded and can't be from here ({reason}); run `modprobe br_netfilter` on the node"
    ))
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
#[path = "node_setup_tests.rs"]
mod tests;
