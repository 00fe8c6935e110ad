//! The log: to stderr, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::Failure;

/// How the log is written.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How log lines are written, to stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// What is logged: error, warn, info, debug, trace, or a filter such as selvedge=debug; RUST_LOG counts too
    #[arg(long, value_name = "LEVEL", env = "SELVEDGE_LOG")]
    log_level: Option<String>,
    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "log_level")]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line an event
    Text,
    /// One JSON object an event
    Json,
}

impl Options {
    /// Starts logging.
    pub(super) fn install(&self) -> Result<(), Failure> {
        let filter = match (&self.log_level, self.verbose) {
            (_, 1) => "selvedge=debug,info".to_owned(),
            (_, 2..) => "trace".to_owned(),
            (Some(level), 0) => level.clone(),
            (None, 0) => std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
        };
        let filter = EnvFilter::try_new(&filter).map_err(|error| {
            Failure::Input(format!("the log level {filter:?} is none: {error}"))
        })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr);
        let installed = match self.log_format {
            Format::Text => builder
                .with_target(false)
                .with_ansi(io::stderr().is_terminal())
                .try_init(),
            Format::Json => builder.json().flatten_event(true).try_init(),
        };
        installed.map_err(Failure::input)
    }
}
