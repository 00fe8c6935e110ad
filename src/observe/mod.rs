//! What others may know of the daemon: metrics, and whether it lives and is ready, over HTTP.
//!
//! ```text
//!  daemon, reconciler, committer ─ tell ─> Observer ┬ Metrics ┐
//!                                                   └ Health  ┴─ asked by ─ Server: /livez /readyz /metrics
//! ```
//!
//! - [`metrics`]: what is counted · [`figures`]: what it is told · [`exposition`]: its text, in two formats
//! - `process`: the process's own figures
//! - [`health`]: what stands in the way of being ready, and whether the loop moves
//! - [`http`]: the server, on a thread of its own · `connections`: which no client can hold · [`address`]: `--http`
//!
//! Telling never blocks for longer than it takes to set a number or a line, so anyone may tell at any time.

pub mod address;
mod connections;
pub mod exposition;
pub mod figures;
pub mod health;
pub mod http;
pub mod metrics;
mod process;

#[cfg(test)]
pub(crate) mod checker;

use std::fmt;
use std::sync::Arc;

pub use address::{HttpAddress, HttpAddressError};
pub use figures::{CniCommand, CniOutcome, Counts, ErrorKind, Held};
pub use health::{Condition, Health};
pub use http::{HttpError, Server};
pub use metrics::Metrics;

/// What the daemon's parts tell what they do, and the server asks.
#[derive(Debug, Default)]
pub struct Observer {
    /// What is counted.
    pub metrics: Metrics,
    /// What stands in the way of being ready, and whether the loop moves.
    pub health: Health,
}

impl Observer {
    /// One that has been told nothing.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Takes note of an acknowledgement by the kernel: what is wanted is in force.
    pub fn in_force(&self) {
        self.metrics.in_force();
        self.health.set(Condition::Commit, []);
    }

    /// Takes note that what is wanted is not in force, and why.
    pub fn not_in_force(&self, error: impl fmt::Display) {
        let line = format!("not committed: {error}");
        self.health.set(Condition::Commit, [line]);
    }

    /// Takes note that others have deleted the ruleset and isolated pods are closed until it is back, in a line.
    pub fn closed(&self, line: String) {
        self.metrics.closed();
        self.health.set(Condition::Commit, [line]);
    }

    /// All metrics as of now, in the format OpenMetrics 1.0.
    ///
    /// # Errors
    /// [`fmt::Error`] should a metric not be able to write itself.
    pub fn open_metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.text(&self.health.report())
    }
}
