//! The command line: arguments are checked here, and acted on in one file a subcommand.
//!
//! Results go to stdout; problems, one line each, and the log go to stderr. Exit codes: 0 done (or yes), 1 findings
//! (or no), 2 bad usage or input, 3 the kernel can't be reached.

mod can;
mod cleanup;
mod cluster;
mod cni;
mod completion;
mod doctor;
mod log;
mod manifests;
mod matrix;
mod node_setup;
mod question;
mod render;
mod run;
mod signals;
mod terminal;
mod why;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use selvedge_nft::IfName;

const EXAMPLES: &str = "\
Examples:
  selvedge render ./examples --node node-a            what node-a would enforce, as an nft script
  selvedge render ./examples --node node-a | nft -c -f -
  selvedge can shop/web-0 shop/db-0 --port tcp/5432 -f ./examples      may it? exit code 0 or 1
  selvedge why shop/web-0 shop/db-0 --port tcp/5432 -f ./examples      and which policy says so?
  selvedge matrix -f ./examples                       who reaches whom
  selvedge node-setup                                 once a node: bridged packets meet netfilter
  selvedge doctor --probe                             what is missing on this node?
  selvedge run --source ./examples --node node-a      enforce, and follow every edit
  selvedge cni install                                no pod starts before its policies are in force
  selvedge cleanup                                    stop enforcing

Exit codes: 0 done or yes, 1 findings or no, 2 bad usage or input, 3 the kernel can't be reached.";

/// Enforces Kubernetes NetworkPolicy on a node, beside Flannel, with nftables.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Render(render::Render),
    Can(can::Can),
    Why(why::Why),
    Matrix(matrix::Matrix),
    Cleanup(cleanup::Cleanup),
    Cni(cni::Cni),
    NodeSetup(node_setup::NodeSetup),
    Doctor(doctor::Doctor),
    Completion(completion::Completion),
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Nothing else to say.
    Clean,
    /// There were findings.
    Findings,
}

/// Why a command could not do what it was asked, in one line.
#[derive(Debug)]
enum Failure {
    /// Bad usage or input.
    Input(String),
    /// The kernel can't be reached, or somebody else holds it.
    Unreachable(String),
}

impl Failure {
    fn input(error: impl fmt::Display) -> Self {
        Self::Input(error.to_string())
    }

    fn unreachable(error: impl fmt::Display) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Parses the arguments (the program's name first), does what they say, and gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => dispatch(arguments.command),
        // Help and version were asked for.
        Err(error) if !error.use_stderr() => print(&error.render().to_string()),
        Err(error)
            if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            warn(error.render());
            return ExitCode::from(2);
        }
        Err(error) => Err(Failure::Input(usage(&error))),
    };
    match result {
        Ok(Done::Clean) => ExitCode::SUCCESS,
        Ok(Done::Findings) => ExitCode::from(1),
        Err(Failure::Input(text)) => {
            complain(text);
            ExitCode::from(2)
        }
        Err(Failure::Unreachable(text)) => {
            complain(text);
            ExitCode::from(3)
        }
    }
}

fn dispatch(command: Command) -> Result<Done, Failure> {
    match command {
        Command::Run(run) => run.execute(),
        Command::Render(render) => render.execute(),
        Command::Can(can) => can.execute(),
        Command::Why(why) => why.execute(),
        Command::Matrix(matrix) => matrix.execute(),
        Command::Cleanup(cleanup) => cleanup.execute(),
        Command::Cni(cni) => cni.execute(),
        Command::NodeSetup(setup) => setup.execute(),
        Command::Doctor(doctor) => doctor.execute(),
        Command::Completion(completion) => completion.execute(),
    }
}

/// clap's message in one line: what is wrong, and where to read on.
fn usage(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let paragraph: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let text = paragraph.join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    format!("{text} (selvedge --help says more)")
}

/// Writes a result. That nobody reads it any more (`| head`) is no failure.
fn print(text: &str) -> Result<Done, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Done::Clean),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Done::Clean),
        Err(error) => Err(Failure::Input(format!("stdout can't be written: {error}"))),
    }
}

/// Writes lines to stderr as they are. There is nowhere to say that it can't be written.
fn warn(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn complain(text: impl fmt::Display) {
    warn(format_args!("selvedge: {text}"));
}

/// An interface's name, for clap.
fn interface(text: &str) -> Result<IfName, String> {
    IfName::new(text).map_err(|error| error.reason.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }
}
