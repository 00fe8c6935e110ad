//! What a source tells the daemon.

use std::time::Instant;

use super::snapshot::SourceProblem;
use crate::cluster::object::Event;

/// What a source has to say, whenever it has something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// When it was heard.
    pub at: Instant,
    /// What has changed. Up to the first update that is synced they bring everything there is.
    pub events: Vec<Event>,
    /// All that is wrong with the source now; `None` where that has not changed.
    pub problems: Option<Vec<SourceProblem>>,
    /// Whether everything has been read once; false while there is nothing that can be read yet.
    pub synced: bool,
    /// Why there may be policies, or namespaces that they speak of, that can't be heard of at present; `None` where they can.
    pub behind: Option<String>,
}
