//! Problems that last: one line in the log when they come, one when they are gone, none between.

use std::collections::BTreeSet;

use tracing::{info, warn};

/// The problems of one kind that stand.
#[derive(Debug, Default)]
pub struct Standing {
    lines: BTreeSet<String>,
}

impl Standing {
    /// Takes what stands now, and logs the difference.
    pub fn update(&mut self, now: impl IntoIterator<Item = String>) {
        let now: BTreeSet<String> = now.into_iter().collect();
        for line in now.difference(&self.lines) {
            warn!("{line}");
        }
        for line in self.lines.difference(&now) {
            info!("no longer so: {line}");
        }
        self.lines = now;
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
