//! The reconciler: keeps what the kernel enforces equal to what the policies ask for.
//!
//! ```text
//!  source ─┐
//!  cni ────┼ daemon (the loop) ─ Reconciler ─ index, compile ─ Committer ─ diff ─ Dataplane
//!  links ──┘                                                      └ read back after an error, retry
//! ```
//!
//! - [`daemon`]: what `selvedge run` does · [`settings`]: what it is told
//! - [`reconciler`]: events in, ruleset out · [`committer`]: ruleset in, kernel acknowledged
//! - [`attached`]: what the CNI plugin says of pods, on its way into the index · `cni`: who waits for it
//! - `parting`: policies that are gone before the pods of their namespace · `inherited`: those that were so at the start
//! - `quarantine`: policies and pods' chains that the kernel refuses to take
//! - [`revocation`]: connections that were open when their permission went
//! - `hearing`: what others do to the tables
//! - [`lock`]: one writer a network namespace
//! - [`links`]: the host's interfaces from rtnetlink · [`host`]: which of them are the pods', and what else must be so
//! - `serving`: health and metrics, once their address is free
//! - [`standing`]: problems logged when they come and when they go · [`summary`]: a transaction in one line

pub mod attached;
mod cni;
pub mod committer;
pub mod daemon;
mod hearing;
pub mod host;
mod inherited;
pub mod links;
pub mod lock;
#[cfg(test)]
mod observed_tests;
mod parting;
mod quarantine;
pub mod reconciler;
pub mod revocation;
mod serving;
pub mod settings;
pub mod standing;
pub mod summary;

pub use committer::{Committer, Outcome};
pub use daemon::{run, run_on};
pub use lock::{Lock, LockError};
pub use reconciler::{Change, Reconciler};
pub use settings::{DaemonError, Settings, Source};
