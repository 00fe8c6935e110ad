//! The kernel module br_netfilter, which nobody loads by itself: nodes need it, and this machine shall not notice.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{During, Error};

/// Where a network namespace has its switches while the module is loaded.
const SWITCHES: &str = "/proc/sys/net/bridge";

/// Loads br_netfilter where it is not. It comes switched on in every namespace; in this machine's own, which has done
/// without so far, it is switched off.
///
/// # Errors
/// When it can't be loaded.
pub(super) fn load_br_netfilter() -> Result<(), Error> {
    let switches = Path::new(SWITCHES);
    if switches.exists() {
        return Ok(());
    }
    let output = Command::new("modprobe")
        .arg("br_netfilter")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .during("run modprobe")?;
    if !output.status.success() || !switches.exists() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("modprobe says nothing");
        return Err(Error::invalid(format!(
            "the kernel module br_netfilter can't be loaded, and nodes need it: {said}"
        )));
    }
    switch_off(switches)
}

fn switch_off(switches: &Path) -> Result<(), Error> {
    for switch in ["arptables", "iptables", "ip6tables"] {
        let path = switches.join(format!("bridge-nf-call-{switch}"));
        fs::write(&path, "0").during(&format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_switches_go_off() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["arptables", "iptables", "ip6tables"];
        let paths = names.map(|name| directory.path().join(format!("bridge-nf-call-{name}")));
        for path in &paths {
            fs::write(path, "1\n").unwrap();
        }
        switch_off(directory.path()).unwrap();
        for path in &paths {
            assert_eq!(fs::read_to_string(path).unwrap(), "0");
        }
    }
}
