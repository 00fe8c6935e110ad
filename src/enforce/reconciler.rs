//! Events in, ruleset out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use selvedge_nft::{Dataplane, Ownership, Ruleset};

use super::attached::{Attached, Attaching};
use super::committer::{Committer, Outcome};
use super::inherited::Inherited;
use super::parting::Parting;
use super::quarantine::Quarantine;
use super::revocation::Concern;
use super::standing::Standing;
use crate::cluster::Text;
use crate::cluster::object::{Event, Pod};
use crate::cni::{Id, Record};
use crate::compile::{Closing, Compiler, Host, tables};
use crate::index::Index;
use crate::observe::{Counts, Observer};
use crate::policy::Direction;
use crate::source::Notice;

/// One change that the ruleset may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of the cluster.
    Cluster(Event),
    /// Of the host's bridge and its ports.
    Host(Host),
    /// Of what the CNI plugin has attached.
    Attaching(Attaching),
}

/// Keeps a dataplane's ruleset as the cluster's policies ask for.
#[derive(Debug)]
pub struct Reconciler<D> {
    index: Index,
    attached: Attached,
    parting: Parting,
    inherited: Inherited,
    quarantine: Quarantine,
    /// The host, but for what is attached to it.
    host: Host,
    anti_spoof: bool,
    compiler: Compiler,
    closing: Closing,
    committer: Committer<D>,
    warnings: Standing,
    /// When the oldest change came that no commit has followed yet.
    oldest: Option<Instant>,
    node: Text,
    observer: Arc<Observer>,
}

impl<D: Dataplane> Reconciler<D> {
    /// A reconciler for the node of this name, with an empty cluster, which tells nobody. Nothing is read or sent yet.
    pub fn new(dataplane: D, node: Text, host: Host) -> Self {
        Self {
            index: Index::new(),
            attached: Attached::new(node.clone()),
            parting: Parting::default(),
            inherited: Inherited::default(),
            quarantine: Quarantine::default(),
            host: host.clone(),
            anti_spoof: true,
            compiler: Compiler::new(node.clone(), host),
            closing: Closing::default(),
            committer: Committer::new(dataplane, tables()),
            warnings: Standing::default(),
            oldest: None,
            node,
            observer: Observer::new(),
        }
    }

    /// Tells `observer` how much is known of the cluster, of commits, and of the time from a change to its commit.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<Observer>) -> Self {
        self.committer = self.committer.observed_by(observer.clone());
        self.observer = observer;
        self
    }

    /// Whose the tables are to be; see [`Committer::with_ownership`].
    #[must_use]
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.committer = self.committer.with_ownership(ownership);
        self
    }

    /// Whether pods are kept from sending with false addresses, where it is known which port is whose; they are if this is
    /// not called.
    #[must_use]
    pub fn with_anti_spoof(mut self, on: bool) -> Self {
        self.anti_spoof = on;
        self
    }

    /// Says when a change came that is to be taken in next; of several, the oldest counts. The time from there to the
    /// acknowledgement is observed by the [`Self::step`] whose commit follows from it, be it after failures. The first
    /// commit is not: it waits for everything to be known.
    pub fn heard(&mut self, at: Instant) {
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }

    /// Takes changes in without acting on them: before everything is known that a first commit needs.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) -> bool {
        let mut any = false;
        for change in changes {
            any = true;
            match change {
                Change::Cluster(event) => {
                    if let Some(event) = self.quarantine.admit(event) {
                        let parting = &mut self.parting;
                        let apply = |index: &mut Index, event| parting.apply(index, event, now);
                        self.attached.pass(&mut self.index, event, apply);
                    }
                }
                Change::Host(host) => {
                    self.host = host;
                    self.compiler.set_host(self.host_now());
                }
                Change::Attaching(attaching) => self.attached.apply(&mut self.index, attaching),
            }
        }
        if any {
            self.count();
        }
        any
    }

    /// Whether the pod of an attachment has its addresses in what the next [`Self::step`] commits.
    pub fn is_attached(&self, id: &Id) -> bool {
        self.attached.is_in_index(&self.index, id)
    }

    /// The pods of this node that are known.
    pub fn pods_here(&self) -> impl Iterator<Item = &Pod> {
        self.index.pods_on(&self.node)
    }

    /// What is known of an attachment.
    pub fn attachment(&self, id: &Id) -> Option<&Record> {
        self.attached.record(id)
    }

    /// How many attachments are in use.
    pub fn attachments_in_use(&self) -> usize {
        self.attached.in_use()
    }

    /// The attachments that have changed since the last call; none where nothing is left of one.
    pub fn take_unsaved(&mut self) -> Vec<(Id, Option<Record>)> {
        self.attached.take_unsaved()
    }

    /// Hears what others have done to the tables; whether a [`Self::step`] is due that puts it right.
    pub fn listen(&mut self) -> bool {
        self.committer.listen()
    }

    /// Whom commits may have taken permission from since the last call, and the ruleset in force; see
    /// [`Committer::take_concern`].
    pub fn take_concern(&mut self) -> Option<(Concern, &Ruleset)> {
        self.committer.take_concern()
    }

    /// The pod that has an address, as `namespace/name`.
    pub fn pod_at(&self, address: IpAddr) -> Option<String> {
        let pod = self.index.owner(address)?;
        Some(format!("{}/{}", pod.namespace, pod.name))
    }

    /// Takes a burst of changes in, and makes the dataplane follow in at most one transaction. With no changes it
    /// is the retry of what failed, and of what was refused.
    pub fn step(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) -> Outcome {
        let changed = self.take(changes, now);
        if self.inherited.is_unknown() {
            match self.committer.look(now) {
                Ok(held) => self.inherited.take_up(held, now),
                Err(retry_at) => return Outcome::Retry(retry_at),
            }
        }
        self.inherited.follow(&self.index, &self.node, now);
        self.quarantine.forget_gone(&self.index);
        let reopened = self.quarantine.open_due(&mut self.index, now);
        let first = !self.committer.settled();
        let mut outcome = self.follow(changed || reopened, now);
        while matches!(outcome, Outcome::Retry(_)) && self.close_offenders(now) {
            outcome = self.follow(true, now);
        }
        match outcome {
            Outcome::Retry(_) => {}
            Outcome::Unchanged => self.oldest = None,
            Outcome::Committed(_) => {
                if let Some(oldest) = self.oldest.take().filter(|_| !first) {
                    self.observer.metrics.event_in_force(oldest.elapsed());
                }
            }
        }
        if !matches!(outcome, Outcome::Retry(_)) {
            self.quarantine.accepted();
        }
        self.count();
        outcome
    }

    /// What the owners of objects should be told since the last call: which the kernel refuses, and takes again.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.quarantine.take_notices()
    }

    /// When a [`Self::step`] without news is due, for what was refused.
    pub fn next_trial(&self) -> Option<Instant> {
        self.quarantine.next()
    }

    /// The host, with what the compiler is to know of what is attached to it.
    fn host_now(&self) -> Host {
        let mut host = self.attached.host(&self.index, &self.host);
        if !self.anti_spoof {
            host.attached.clear();
        }
        host
    }

    /// Makes the dataplane follow the index.
    fn follow(&mut self, changed: bool, now: Instant) -> Outcome {
        let refused = self.quarantine.pods();
        self.compiler
            .set_closed(self.inherited.closed().union(&refused).cloned().collect());
        if self.attached.take_changed() {
            self.compiler.set_host(self.host_now());
        }
        let desired = self.compiler.update(&mut self.index);
        if let Some(warnings) = self.compiler.new_warnings() {
            self.warnings.update(warnings);
        }
        let outcome = self.committer.reconcile(&desired, changed, now);
        if let Some(in_force) = self.committer.endangered()
            && let Some(closing) = self.closing.follow(in_force)
        {
            self.committer.stand_by(closing);
        }
        outcome
    }

    /// Closes the policies and pods that the dataplane refuses objects of; whether there is something new to try.
    fn close_offenders(&mut self, now: Instant) -> bool {
        let Some((object, reason)) = self.committer.offender() else {
            return false;
        };
        let mut any = false;
        for key in self.compiler.owners(object) {
            any |= self.quarantine.close(&mut self.index, &key, reason, now);
        }
        if let Some(pod) = self.compiler.pod_of(object) {
            any |= self.quarantine.close_pod(pod, reason, now);
        }
        if any {
            self.committer.try_at_once(now);
        }
        any
    }

    /// Tells how much is known. It costs the same for any cluster.
    fn count(&self) {
        self.observer.metrics.cluster(Counts {
            policies: self.index.policy_count(),
            policy_problems: self.index.policy_problem_count(),
            unmet_ports: self.warnings.len(),
            refused_policies: self.quarantine.policies(),
            closed_pods: self.compiler.closed(),
            namespaces: self.index.namespace_count(),
            pods: self.index.pod_count(),
            local_pods: self.index.pod_count_on(&self.node),
            isolated_ingress: self.compiler.isolated(Direction::Ingress),
            isolated_egress: self.compiler.isolated(Direction::Egress),
        });
    }
}

#[cfg(test)]
#[path = "reconciler_tests.rs"]
mod tests;
