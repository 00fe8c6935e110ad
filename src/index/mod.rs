//! Who selects whom, kept as events come.

use crate::cluster::object::Event;

/// The cluster as policy sees it.
#[derive(Debug, Default)]
pub struct Index {}

impl Index {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: Event) {
        let _ = event;
    }

    /// Whether a node of this name is known.
    pub fn has_node(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}
