//! `selvedge completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Done, Failure, print};

const EXAMPLES: &str = "\
Examples:
  selvedge completion bash > /etc/bash_completion.d/selvedge
  source <(selvedge completion zsh)";

/// Print a script that makes a shell complete selvedge's arguments.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut Arguments::command(),
            "selvedge",
            &mut script,
        );
        print(&String::from_utf8_lossy(&script))
    }
}
