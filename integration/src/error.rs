//! What can go wrong while a lab is built or used.
//!
//! A packet that does not arrive is no error: that is an [`Outcome`](crate::Outcome).

use std::io;
use std::time::Duration;

/// An error of the lab itself. Every text is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Network namespaces need CAP_SYS_ADMIN.
    #[error("the lab needs root: it makes network namespaces (run this as root)")]
    NotRoot,
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, e.g. `open /proc/thread-self/ns/net`.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program such as `ip` or `nft` exited with an error.
    #[error("{program} in namespace {namespace}: {status}: {stderr}")]
    Program {
        /// The program and its arguments.
        program: String,
        /// The lab's name of the namespace.
        namespace: String,
        /// The exit status as text.
        status: String,
        /// What it said, on one line.
        stderr: String,
    },
    /// A name that the lab does not have.
    #[error("the lab has no {kind} {name}")]
    Unknown {
        /// `node`, `pod` or `outsider`.
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
    /// The lab was asked for something that cannot be built.
    #[error("{what}")]
    Invalid {
        /// Why it cannot.
        what: String,
    },
    /// An API server refused.
    #[error("{what}: {code} {reason}: {message}")]
    Api {
        /// Method and path.
        what: String,
        /// The HTTP status.
        code: u16,
        /// The `Status` object's reason, e.g. `NotFound`.
        reason: String,
        /// Its message.
        message: String,
    },
    /// Something awaited did not come.
    #[error("waited {after:?} for {what}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
    },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Error::Invalid { what: what.into() }
    }
}

/// Adds what was being done to an I/O error.
pub(crate) trait During<T> {
    fn during(self, what: &str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: &str) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            what: what.to_owned(),
            source: source.into(),
        })
    }
}
