//! The kernel's release, and what this process may do.

use std::fs;

use super::Finding;

/// The capabilities by their numbers in `/proc/self/status`.
const NET_ADMIN: u32 = 12;

/// Since when the kernel gives chains' comments back, without which a ruleset read back never equals its own.
const OLDEST: (u32, u32) = (5, 10);

/// What this process may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Powers {
    /// Whether it has CAP_NET_ADMIN.
    pub net_admin: bool,
    /// Whether a seccomp filter is on it.
    pub filtered: bool,
}

impl Powers {
    /// As `/proc/self/status` says; nothing, where that can't be read.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim)
        };
        let effective = field("CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        Self {
            net_admin: effective.unwrap_or(0) & (1 << NET_ADMIN) != 0,
            filtered: field("Seccomp").is_some_and(|mode| mode != "0"),
        }
    }
}

/// The kernel's release; empty where it can't be read.
pub fn release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// Whether the release is one to rely on.
pub fn judge(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Finding::fail(
            CHECK,
            format!("Linux {release}: older than 5.10, which first keeps chains' comments"),
            "update the node's kernel",
        ),
        (Some(_), Some(_)) => Finding::ok(CHECK, format!("Linux {release}")),
        _ => Finding::warn(
            CHECK,
            "the kernel's release can't be read",
            "see that /proc is there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn capabilities_and_filters_are_read() {
        let status = "Name:\tselvedge\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let all = Powers {
            net_admin: true,
            filtered: true,
        };
        assert_eq!(Powers::parse(status), all);
        let none = "CapPrm:\t0000000000001000\nCapEff:\t000001ffffffefff\nSeccomp:\t0\n";
        assert_eq!(Powers::parse(none), Powers::default());
        assert_eq!(Powers::parse(""), Powers::default());
    }

    #[test]
    fn old_kernels_fail() {
        for (release, status) in [
            ("6.18.44-fc-v657", Status::Ok),
            ("5.10.0-28-amd64", Status::Ok),
            ("5.9.16", Status::Fail),
            ("4.18.0-553.el8_10.x86_64", Status::Fail),
            ("", Status::Warn),
            ("unknown", Status::Warn),
        ] {
            assert_eq!(judge(release).status, status, "{release}");
        }
    }
}
