//! The machine that the demo runs on: nothing of the lab may be left there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Failure;

/// What the lab's nodes set, and this machine must keep.
const SWITCHES: [&str; 5] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/bridge/bridge-nf-call-arptables",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

/// The names that interfaces have in the lab. Others may come and go on this machine meanwhile.
const INTERFACES: [&str; 6] = ["cni0", "flannel.1", "flannel-v6.1", "br0", "node1", "out0"];

/// The names of tables that the lab's nodes have.
const TABLES: [&str; 2] = ["selvedge", "kube-proxy"];

/// This machine's own network, as far as the lab has things of the same names.
pub struct Machine {
    switches: BTreeMap<&'static str, String>,
    interfaces: Vec<&'static str>,
    tables: Vec<String>,
}

impl Machine {
    /// As it is now.
    pub fn look() -> Result<Self, Failure> {
        let value = |switch| fs::read_to_string(format!("/proc/sys/{switch}"));
        let switches = SWITCHES.map(|switch| (switch, value(switch)));
        let switches = switches.into_iter().filter_map(|(s, v)| Some((s, v.ok()?)));
        let is_there = |name: &&str| Path::new("/sys/class/net").join(name).exists();
        let output = Command::new("nft")
            .args(["list", "tables"])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .map_err(Failure::files("run nft"))?;
        let tables = String::from_utf8_lossy(&output.stdout);
        let tables = tables.lines().filter(|line| {
            let name = line.split_whitespace().last();
            name.is_some_and(|name| TABLES.contains(&name))
        });
        Ok(Self {
            switches: switches.collect(),
            interfaces: INTERFACES.into_iter().filter(is_there).collect(),
            tables: tables.map(str::to_owned).collect(),
        })
    }

    /// Fails when it is not as it was.
    pub fn compare(&self) -> Result<(), Failure> {
        let now = Self::look()?;
        for (switch, before) in &self.switches {
            let now = now.switches.get(switch);
            if now != Some(before) {
                let (before, now) = (before.trim(), now.map_or("gone", |now| now.trim()));
                let what = format!("  this machine's {switch} was {before} and is {now}");
                return Err(Failure::differs(what));
            }
        }
        if (&self.interfaces, &self.tables) != (&now.interfaces, &now.tables) {
            let what = format!(
                "  this machine had {:?} {:?} and has {:?} {:?}",
                self.interfaces, self.tables, now.interfaces, now.tables
            );
            return Err(Failure::differs(what));
        }
        Ok(())
    }
}
