//! What Selvedge knows of the cluster: small values, interned where they repeat.
//!
//! - [`object`]: pods, namespaces and nodes, and the events that bring them
//! - [`labels`]: label sets · [`selector`]: what selects them
//! - [`cidr`]: address blocks as ranges · [`parse`]: addresses as the API stores them · [`port`]: protocols and
//!   named ports

pub mod cidr;
pub mod labels;
pub mod object;
pub mod parse;
pub mod port;
pub mod selector;

/// A text that many objects share: a name, a label's key or value. Equal texts are one allocation, freed with the
/// last of them.
pub type Text = internment::ArcIntern<str>;
