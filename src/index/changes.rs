//! What changed in the index, for who keeps something derived from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::Text;
use crate::cluster::selector::PodSelector;
use crate::policy::PolicyKey;

/// A pod's namespace and name.
pub type PodKey = (Text, Text);

/// The set of things that may differ from what they were. A thing that is named may have stayed the same; one that is
/// not named has.
#[derive(Debug, Default)]
pub struct Changes {
    /// Pods that came, went, moved, or that other policies select now.
    pub pods: BTreeSet<PodKey>,
    /// Policies that came, went or were edited.
    pub policies: BTreeSet<PolicyKey>,
    /// Selectors whose members' addresses or named ports changed.
    pub selectors: BTreeMap<Arc<PodSelector>, Touched>,
    /// Nodes that came, went or were edited.
    pub nodes: BTreeSet<Text>,
}

/// Which part of a selector's members changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Touched {
    /// The members with these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// Any of them: the selector was unknown for a while.
    All,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.policies.is_empty()
            && self.selectors.is_empty()
            && self.nodes.is_empty()
    }

    pub(super) fn touch(&mut self, selector: &Arc<PodSelector>, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        let touched = self
            .selectors
            .entry(selector.clone())
            .or_insert_with(|| Touched::Addresses(BTreeSet::new()));
        if let Touched::Addresses(all) = touched {
            all.extend(addresses);
        }
    }

    pub(super) fn touch_all(&mut self, selector: &Arc<PodSelector>) {
        self.selectors.insert(selector.clone(), Touched::All);
    }
}
