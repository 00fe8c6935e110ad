//! The log: to stderr, as text for people or JSON for machines.

use std::fmt;
use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::Failure;

type Log = Box<dyn Subscriber + Send + Sync>;

// By default the group bears the type's name, which other modules' options have too.
/// How the log is written.
#[derive(Debug, Args)]
#[group(id = "log")]
pub(super) struct Options {
    /// How log lines are written, to stderr
    #[arg(
        long,
        value_name = "FORMAT",
        env = "SELVEDGE_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: Format,
    /// What is logged: error, warn, info, debug, trace, or a filter such as selvedge=debug; RUST_LOG counts too
    #[arg(long, value_name = "LEVEL", env = "SELVEDGE_LOG")]
    log_level: Option<String>,
    /// Log more, whatever the level: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count)]
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
        let terminal = io::stderr().is_terminal();
        let subscriber = self.subscriber(terminal, io::stderr)?;
        tracing::subscriber::set_global_default(subscriber).map_err(Failure::input)
    }

    fn subscriber<W>(&self, terminal: bool, writer: W) -> Result<Log, Failure>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let filter = match (&self.log_level, self.verbose) {
            // -v counts for more than the level, which may be from the environment.
            (_, 1) => "selvedge=debug,info".to_owned(),
            (_, 2..) => "trace".to_owned(),
            (Some(level), 0) => level.clone(),
            (None, 0) => std::env::var("RUST_LOG").unwrap_or_default(),
        };
        let filter = match filter.trim() {
            // A variable that is set to nothing says nothing.
            "" => parse("info")?,
            filter => parse(filter)?,
        };
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(writer);
        Ok(match self.log_format {
            Format::Text => Box::new(builder.with_target(false).with_ansi(terminal).finish()),
            Format::Json => Box::new(builder.json().flatten_event(true).finish()),
        })
    }
}

/// A level, or a filter of targets and levels.
fn parse(text: &str) -> Result<EnvFilter, Failure> {
    let wrong = |reason: &dyn fmt::Display| {
        Failure::Input(format!(
            "the log level {text:?} is none: {reason}; it is error, warn, info, debug, trace or off, or a filter such as selvedge=debug"
        ))
    };
    // A word alone is also a filter's target, of which all is logged, and of all others nothing.
    let words = text.split(',').map(str::trim);
    let mut words = words.filter(|word| !word.contains(['=', '[', ':', '_']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(wrong(&format_args!("there is no {word:?}")));
    }
    match text.parse::<LevelFilter>() {
        // What a library says of a connection that it could not make is said better by who wanted it.
        Ok(level) => EnvFilter::try_new(format!("{level},kube_client=off")),
        Err(_) => EnvFilter::try_new(text),
    }
    .map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written to it, by all its clones.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that come of one event of each level.
    fn written(log_format: Format, log_level: Option<&str>, verbose: u8) -> Vec<String> {
        let options = Options {
            log_format,
            log_level: log_level.map(str::to_owned),
            verbose,
        };
        let page = Page::default();
        let writer = page.clone();
        let subscriber = options.subscriber(false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(pods = 3, "an \"event\"");
            tracing::debug!("a detail");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = written(Format::Json, Some("debug"), 0);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["message"], "an \"event\"");
        assert_eq!(first["pods"], 3);
        assert_eq!(first["level"], "INFO");
        assert!(first["timestamp"].is_string());
    }

    #[test]
    fn text_is_one_line_an_event_without_colours_in_a_file() {
        let lines = written(Format::Text, Some("info"), 0);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with(" INFO an \"event\" pods=3"), "{lines:?}");
        assert!(!lines[0].contains('\x1b'));
    }

    #[test]
    fn a_level_that_is_none_is_said() {
        for text in ["warning", "xx", "selvedge=debug,verbose", "selvedge=loud"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in [
            "WARN",
            "info",
            "off",
            "selvedge=debug",
            "selvedge::source=trace,warn",
        ] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn verbose_counts_for_more_than_the_level() {
        assert_eq!(written(Format::Text, Some("error"), 0).len(), 0);
        assert_eq!(written(Format::Text, Some("error"), 1).len(), 2);
        assert_eq!(written(Format::Text, Some("error"), 2).len(), 2);
    }
}
