//! The command line: parse, dispatch, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge::cli::main(std::env::args_os())
}
