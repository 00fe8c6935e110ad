//! The plugin as container runtimes run it: the environment and standard input in, JSON and an exit code out.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use selvedge_cni::plugin;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let answer = plugin::run(environment, &mut io::stdin().lock());
    for note in &answer.notes {
        // There is nowhere to say that it can't be said.
        let _ = writeln!(io::stderr(), "selvedge-cni: {note}");
    }
    let written = writeln!(io::stdout(), "{}", answer.stdout);
    match (answer.success, written) {
        (true, Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
