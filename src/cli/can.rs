//! `selvedge can`.

use clap::Args;
use serde_json::json;

use super::question::{Output, Question, family, print_json};
use super::terminal::Style;
use super::{Done, Failure, print, warn};

const EXAMPLES: &str = "\
Examples:
  selvedge can shop/web-0 shop/api-0 --port tcp/8080 -f ./examples
  selvedge can 192.168.50.200 shop/db-0 --port tcp/5432 -f ./examples && echo 'the database is open!'
  selvedge can shop/web-0 shop/api-0 --port icmp -f cluster.yaml -o json

Exit codes: 0 allowed, 1 denied, 2 bad usage or input, also where an answer is without what could not be read.";

/// Say whether a connection is allowed, from manifests alone.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Can {
    #[command(flatten)]
    question: Question,
}

impl Can {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let asked = self.question.input.load()?;
        let answer = self.question.answer(&asked.index)?;
        match self.question.input.output {
            Output::Json => {
                let connections: Vec<_> = answer
                    .connections
                    .iter()
                    .map(|(connection, verdict)| {
                        json!({
                            "from": connection.from(),
                            "to": connection.to(),
                            "allowed": verdict.allowed(),
                        })
                    })
                    .collect();
                let mut value = json!({
                    "from": answer.from,
                    "to": answer.to,
                    "port": answer.transport.to_string(),
                    "allowed": answer.allowed(),
                    "connections": connections,
                });
                asked.mark(&mut value);
                print_json(&value)?;
            }
            Output::Text => {
                let style = Style::of_stdout();
                if answer.allowed() {
                    print(&format!("{}\n", style.good("allowed")))?;
                } else {
                    print(&format!("{}\n", style.bad("denied")))?;
                }
                if answer.is_void() {
                    warn("they have no address family in common");
                }
                if answer.is_split() {
                    for (connection, verdict) in &answer.connections {
                        let word = if verdict.allowed() {
                            "allowed"
                        } else {
                            "denied"
                        };
                        warn(format_args!("over {} it is {word}", family(connection)));
                    }
                }
            }
        }
        answer.notes.iter().for_each(warn);
        asked.done(answer.done())
    }
}
