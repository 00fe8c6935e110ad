//! Where objects come from: the API server, or a directory of manifests.
//!
//! ```text
//!  files ─ document ─ decode, salvage ─ Snapshot ─ diff ─ Event
//!    └ watch (inotify) says when to look again
//! ```
//!
//! - [`kube`]: the API server, listed and watched · [`update`]: what either source tells · [`notice`]: what it is told
//! - [`document`]: YAML and JSON texts as documents
//! - [`decode`]: a document's objects, cut down; `salvage` for NetworkPolicies
//! - [`files`]: a file or directory as a [`Snapshot`]
//! - [`workloads`]: Deployments and the like, as the pods of their templates
//! - [`watch`]: snapshots as events, for as long as the directory changes
//!
//! Guarantee: nothing opens by accident. What a file gave before stays in force while it can't be read; it goes when
//! the file is deleted, or read without it.

pub mod decode;
pub mod document;
pub mod files;
pub mod kube;
pub mod notice;
mod salvage;
pub mod snapshot;
pub mod update;
pub mod watch;
pub mod workloads;

pub use files::{Files, Reading, SourceError};
pub use notice::{Notice, Standing};
pub use snapshot::{Origin, Snapshot, SourceProblem, diff};
pub use update::Update;
