//! Runs a program on a kernel that seems to have no netfilter: `deny-netlink PROGRAM ARGUMENT…`.
//!
//! A seccomp filter answers `socket(AF_NETLINK, …, NETLINK_NETFILTER)` with EPROTONOSUPPORT, as a kernel built without
//! nfnetlink does; everything else goes through.
#![forbid(unsafe_code)]

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [program, arguments @ ..] = words.as_slice() else {
        eprintln!("usage: deny-netlink PROGRAM ARGUMENT…");
        return ExitCode::from(2);
    };
    if let Err(error) = filter().and_then(|filter| Ok(apply_filter(&filter)?)) {
        eprintln!("deny-netlink: {error}");
        return ExitCode::from(3);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("deny-netlink: {}: {error}", program.to_string_lossy());
    ExitCode::from(3)
}

fn filter() -> Result<BpfProgram, Box<dyn Error>> {
    let is = |argument, value: i32| {
        let value = u64::try_from(value)?;
        Ok::<_, Box<dyn Error>>(SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value,
        )?)
    };
    let netfilter = SeccompRule::new(vec![
        is(0, libc::AF_NETLINK)?,
        is(2, libc::NETLINK_NETFILTER)?,
    ])?;
    let filter = SeccompFilter::new(
        [(libc::SYS_socket, vec![netfilter])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(libc::EPROTONOSUPPORT)?),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}
