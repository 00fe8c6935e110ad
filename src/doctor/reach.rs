//! Whether nftables can be reached, and with what permissions.

use std::io;

use nix::errno::Errno;
use selvedge_nft::{DataplaneError, Kernel, Survey};

use super::Finding;
use super::system::Powers;

const CHECK: &str = "nftables";

/// Asks this namespace's nftables for all that they hold.
///
/// # Errors
/// When they can't be reached or read.
pub fn survey() -> Result<Survey, DataplaneError> {
    Kernel::open()?.survey()
}

/// What it means that they can be reached, or can't.
pub fn judge(survey: Result<&Survey, &DataplaneError>, powers: Powers) -> Finding {
    let error = match survey {
        Ok(survey) => {
            return Finding::ok(
                CHECK,
                format!(
                    "reachable over netlink, with CAP_NET_ADMIN; tables here: {}",
                    survey.tables.len()
                ),
            );
        }
        Err(error) => error,
    };
    let source = match error {
        DataplaneError::Unreachable { source, .. } | DataplaneError::Refused { source, .. } => {
            Some(source)
        }
        DataplaneError::Malformed { .. } | DataplaneError::Interrupted { .. } => None,
    };
    Finding::fail(CHECK, error.to_string(), advice(source, powers))
}

fn advice(source: Option<&io::Error>, powers: Powers) -> &'static str {
    let errno = source
        .and_then(io::Error::raw_os_error)
        .map(Errno::from_raw);
    match errno {
        Some(Errno::EPERM | Errno::EACCES) if !powers.net_admin => {
            "run it as root, or with the capability NET_ADMIN (in a pod: securityContext.capabilities.add)"
        }
        Some(Errno::EPERM | Errno::EACCES) if powers.filtered => {
            "CAP_NET_ADMIN is there, so a seccomp filter or a security module refuses, or it is of another user namespace: use the profile RuntimeDefault, and no user namespace"
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "CAP_NET_ADMIN is there, so a security module (AppArmor, SELinux) refuses, or it is of another user namespace: look into the kernel's log, and use no user namespace"
        }
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) if powers.filtered => {
            "a seccomp filter refuses netlink sockets, or the kernel is without nfnetlink: use the profile RuntimeDefault, and load the module nf_tables"
        }
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL) => {
            "load the kernel module nf_tables (`modprobe nf_tables`), or use a kernel with CONFIG_NF_TABLES"
        }
        _ => "try again; if it stays so, please report it",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn refused(errno: Errno, powers: Powers) -> String {
        let error = DataplaneError::Unreachable {
            doing: "testing",
            source: errno.into(),
        };
        let finding = judge(Err(&error), powers);
        assert_eq!(finding.status, Status::Fail);
        finding.advice.unwrap()
    }

    #[test]
    fn each_refusal_has_its_advice() {
        let powerless = Powers::default();
        let powerful = Powers {
            net_admin: true,
            filtered: false,
        };
        let filtered = Powers {
            net_admin: true,
            filtered: true,
        };
        assert!(refused(Errno::EPERM, powerless).contains("NET_ADMIN"));
        assert!(refused(Errno::EPERM, powerful).contains("AppArmor"));
        assert!(refused(Errno::EACCES, filtered).contains("seccomp"));
        assert!(refused(Errno::EPROTONOSUPPORT, powerful).contains("modprobe nf_tables"));
        assert!(refused(Errno::EPROTONOSUPPORT, filtered).contains("seccomp"));
        assert!(judge(Ok(&Survey::default()), powerful).status == Status::Ok);
    }
}
