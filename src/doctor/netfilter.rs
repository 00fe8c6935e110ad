//! The switches of this network namespace: bridged packets meet netfilter, and packets are forwarded at all.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::enforce::host::{BRIDGE_SYSCTLS, Filtered, bridge_netfilter};

/// Whether packets that the pods' bridge passes on meet netfilter. `net.bridge.bridge-nf-filter-vlan-tagged` and its like don't matter: the
/// port guard drops such frames before.
pub fn bridged(bridge: Filtered) -> Vec<Finding> {
    judge_bridged(Path::new(BRIDGE_SYSCTLS), bridge)
}

fn judge_bridged(directory: &Path, bridge: Filtered) -> Vec<Finding> {
    const CHECK: &str = "br_netfilter";
    let wrong: Vec<Finding> = bridge_netfilter(directory, bridge)
        .into_iter()
        .map(|line| {
            // The daemon says the same in its log; the advice stands behind the last semicolon.
            match line.rsplit_once("; ") {
                Some((found, advice)) => Finding::fail(CHECK, found, advice),
                None => Finding::fail(CHECK, line, "run `selvedge node-setup`"),
            }
        })
        .collect();
    if wrong.is_empty() {
        let found = match bridge == Filtered::WHOLLY {
            true => "loaded; the pods' bridge has nf_call_iptables and nf_call_ip6tables at 1",
            false => "loaded; bridge-nf-call-iptables and bridge-nf-call-ip6tables are 1",
        };
        return vec![Finding::ok(CHECK, found)];
    }
    wrong
}

/// What is read of forwarding: the switches' values, where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// `net.ipv4.ip_forward`.
    pub ipv4: Option<String>,
    /// `net.ipv6.conf.all.forwarding`.
    pub ipv6: Option<String>,
}

impl Forwarding {
    /// As this namespace has it.
    pub fn read() -> Self {
        let read = |path: &str| {
            let text = fs::read_to_string(Path::new("/proc/sys/net").join(path)).ok();
            text.map(|text| text.trim().to_owned())
        };
        Self {
            ipv4: read("ipv4/ip_forward"),
            ipv6: read("ipv6/conf/all/forwarding"),
        }
    }

    /// Whether pods get further than their node; `ipv6` says whether they have IPv6 addresses.
    pub fn judge(&self, ipv6: bool) -> Vec<Finding> {
        const CHECK: &str = "forwarding";
        let mut findings = Vec::new();
        let mut on = Vec::new();
        let needed = [
            ("net.ipv4.ip_forward", &self.ipv4, true),
            ("net.ipv6.conf.all.forwarding", &self.ipv6, ipv6),
        ];
        for (name, value, needed) in needed {
            match value.as_deref() {
                Some("1") => on.push(name),
                _ if !needed => {}
                Some(value) => findings.push(Finding::fail(
                    CHECK,
                    format!("{name} is {value}, not 1: pods reach nothing outside of their bridge"),
                    format!("`sysctl -w {name}=1`, and in /etc/sysctl.d for the next boot"),
                )),
                None => findings.push(Finding::warn(
                    CHECK,
                    format!("{name} can't be read"),
                    "see that /proc/sys is there",
                )),
            }
        }
        if findings.is_empty() {
            let verb = if on.len() == 1 { "is" } else { "are" };
            findings.push(Finding::ok(CHECK, format!("{} {verb} 1", on.join(" and "))));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::enforce::host::BRIDGE_SWITCHES;

    #[test]
    fn each_switch_that_is_off_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let findings = judge_bridged(directory.path(), Filtered::WHOLLY);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].found.contains("not loaded"), "{findings:?}");
        let set = |values: [&str; 2]| {
            for (switch, value) in BRIDGE_SWITCHES.iter().zip(values) {
                fs::write(directory.path().join(switch), value).unwrap();
            }
            judge_bridged(directory.path(), Filtered::default())
        };
        let findings = set(["0\n", "1\n"]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Fail);
        let found = "net.bridge.bridge-nf-call-iptables is 0, not 1: policies between pods of this node are not enforced";
        assert_eq!(findings[0].found, found);
        let advice = findings[0].advice.as_deref();
        assert_eq!(advice, Some("run `selvedge node-setup`"));
        assert_eq!(set(["0", "0"]).len(), 2);
        assert_eq!(set(["1\n", "1\n"])[0].status, Status::Ok);
        set(["0\n", "0\n"]);
        let own = judge_bridged(directory.path(), Filtered::WHOLLY);
        assert_eq!(own[0].status, Status::Ok);
        let half = Filtered {
            ipv4: true,
            ipv6: false,
        };
        assert_eq!(judge_bridged(directory.path(), half).len(), 1);
    }

    #[test]
    fn forwarding_is_needed_for_the_families_there_are() {
        let forwarding = |ipv4: &str, ipv6: &str| Forwarding {
            ipv4: Some(ipv4.to_owned()),
            ipv6: Some(ipv6.to_owned()),
        };
        let status = |forwarding: Forwarding, ipv6| forwarding.judge(ipv6)[0].status;
        assert_eq!(status(forwarding("1", "1"), true), Status::Ok);
        assert_eq!(status(forwarding("1", "0"), false), Status::Ok);
        assert_eq!(status(forwarding("1", "0"), true), Status::Fail);
        assert_eq!(status(forwarding("0", "1"), false), Status::Fail);
        assert_eq!(status(Forwarding::default(), false), Status::Warn);
    }
}
