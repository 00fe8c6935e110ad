//! What an endpoint has been asked.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::api::path::Target;

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As RBAC names it: `list`, `watch`, `get`, `create` …; `other` for what is outside of the kinds, e.g. `/version`.
    pub verb: &'static str,
    /// What it was about; none outside of the kinds.
    pub target: Option<Target>,
    /// The path.
    pub path: String,
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// When it came.
    pub at: Instant,
}

impl Seen {
    /// Whether it continues a list that was begun before.
    pub fn is_next_page(&self) -> bool {
        self.query.contains_key("continue")
    }

    /// Whether it is a watch that begins with a list.
    pub fn is_streaming_list(&self) -> bool {
        self.query
            .get("sendInitialEvents")
            .is_some_and(|value| value == "true")
    }
}
