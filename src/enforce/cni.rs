//! Who waits for an attachment to be in force, and when it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use selvedge_nft::Dataplane;
use tracing::{info, warn};

use super::attached::{Attaching, MOST_IN_USE};
use super::host::Link;
use super::reconciler::{Change, Reconciler};
use super::standing::Standing;
use crate::cluster::object::Pod;
use crate::cni::{
    Ask, Attachment, Command, Id, PodId, Progress, Reason, Record, Refusal, Server, SocketError,
    Store,
};
use crate::observe::{ErrorKind, Observer};

/// The plugin's requests that are not answered yet, and what is kept of attachments.
#[derive(Debug)]
pub(super) struct Cni {
    store: Store,
    waiting: Vec<Waiting>,
    /// Whether anything was asked since attachments were kept last.
    asked: bool,
    /// What could not be kept as it is now, and why.
    unkept: BTreeMap<Id, String>,
    /// Whether it was said once that everything is known.
    settled: bool,
    /// Why policies can't be heard of at present, and the pods that were known by then.
    behind: Option<(String, BTreeSet<PodId>)>,
    problems: Standing,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct Waiting {
    /// What must be in force first; none where it is what has changed already.
    attached: Option<Attachment>,
    ask: Ask,
}

impl Cni {
    /// Listens for the plugin on a socket and hands what it asks for to what `way` makes, once there is a socket; that says when
    /// nobody takes it any more. The change that comes with it is what was known before.
    pub fn start<S: Fn(Ask) -> bool + Send + Sync + 'static>(
        socket: &Path,
        observer: &Arc<Observer>,
        way: impl FnOnce() -> S,
    ) -> Result<(Self, Change), SocketError> {
        let (server, store, records, problems) = Server::bind(socket)?;
        tokio::task::spawn(server.serve(observer.clone(), way()));
        for problem in problems {
            observer.metrics.error(ErrorKind::Attachment);
            warn!("{problem}");
        }
        let (socket, attachments) = (socket.display(), records.len());
        info!(%socket, attachments, "the CNI plugin is heard");
        let restore = Change::Attaching(Attaching::Restore(records));
        Ok((Self::new(store, observer.clone()), restore))
    }

    fn new(store: Store, observer: Arc<Observer>) -> Self {
        Self {
            store,
            waiting: Vec::new(),
            asked: false,
            unkept: BTreeMap::new(),
            settled: false,
            behind: None,
            problems: Standing::default(),
            observer,
        }
    }

    /// Takes a request; the answer is what it changes.
    pub fn take<D: Dataplane>(&mut self, ask: Ask, reconciler: &Reconciler<D>) -> Option<Change> {
        let (attached, change) = match &ask.command {
            Command::Status => {
                tell(&ask, self.status());
                return None;
            }
            Command::Check { attachment } => {
                tell(&ask, check(attachment, reconciler));
                return None;
            }
            Command::Add { attachment, .. } => {
                let known = reconciler.attachment(&attachment.id).is_some();
                if !known && reconciler.attachments_in_use() >= MOST_IN_USE {
                    let text = format!("there are {MOST_IN_USE} attachments already");
                    tell(&ask, Err(Refusal::new(Reason::NotReady, text)));
                    return None;
                }
                let attach = Attaching::Attach(Box::new(attachment.clone()));
                (Some(attachment.clone()), attach)
            }
            Command::Del { id } => (None, Attaching::Detach(id.clone())),
            Command::Gc { network, valid } => {
                (None, Attaching::Retain(network.clone(), valid.clone()))
            }
        };
        self.asked = true;
        self.waiting.push(Waiting { attached, ask });
        Some(Change::Attaching(change))
    }

    /// Takes note of why policies can't be heard of at present, if they can't: a pod that comes meanwhile may have some that
    /// nobody knows.
    pub fn hears<D: Dataplane>(&mut self, behind: Option<String>, reconciler: &Reconciler<D>) {
        self.behind = behind.map(|reason| {
            let known = self.behind.take().map(|(_, known)| known);
            (reason, known.unwrap_or_else(|| ids(reconciler.pods_here())))
        });
    }

    /// Everything is known, with the host's interfaces where they can be. What that changes, the first time.
    pub fn settle(&mut self, links: Option<&[Link]>) -> Option<Change> {
        let first = !std::mem::replace(&mut self.settled, true);
        let names = links.map(|links| links.iter().map(|link| link.name.clone()).collect());
        first.then(|| Change::Attaching(Attaching::Settle(names)))
    }

    /// Says to those who wait how far it is. `in_force` says whether the kernel has acknowledged what the reconciler knows.
    pub fn tell<D: Dataplane>(&mut self, reconciler: &mut Reconciler<D>, in_force: bool) {
        let mut changed = reconciler.take_unsaved();
        if std::mem::take(&mut self.asked) || !changed.is_empty() {
            let again = self
                .unkept
                .keys()
                .filter(|id| !changed.iter().any(|(other, _)| other == *id));
            let again = again.map(|id| (id.clone(), reconciler.attachment(id).cloned()));
            changed.extend(again.collect::<Vec<_>>());
        }
        self.keep(changed);
        let mut waiting = std::mem::take(&mut self.waiting);
        // A channel is closed when its time is over.
        waiting
            .retain(|one| !one.ask.progress.is_closed() && !self.over(one, reconciler, in_force));
        self.waiting = waiting;
    }

    /// Whether somebody need not wait any more; they are told.
    fn over<D: Dataplane>(
        &self,
        waiting: &Waiting,
        reconciler: &Reconciler<D>,
        in_force: bool,
    ) -> bool {
        let wait = |text: String| {
            waiting.ask.progress.send_replace(Progress::Waiting(text));
            false
        };
        if let Some(attachment) = &waiting.attached {
            let id = &attachment.id;
            let current = reconciler.attachment(id);
            if current.is_none_or(|record| record.detached) {
                let text = "it has been detached meanwhile";
                tell(&waiting.ask, Err(Refusal::new(Reason::NotReady, text)));
                return true;
            }
            if let Some(reason) = self.unkept.get(id) {
                let text = format!("it can't be kept for the next daemon: {reason}");
                tell(&waiting.ask, Err(Refusal::new(Reason::NotReady, text)));
                return true;
            }
            if !reconciler.is_attached(id) {
                let pod = &attachment.pod;
                let uid = match pod.uid.is_empty() {
                    true => String::new(),
                    false => format!(" with UID {}", pod.uid),
                };
                return wait(format!(
                    "the API has not shown pod {}/{}{uid} on this node yet",
                    pod.namespace, pod.name
                ));
            }
        }
        if let (Some(attachment), Some((reason, known))) = (&waiting.attached, &self.behind)
            && !known.contains(&attachment.pod)
        {
            return wait(format!(
                "the pod's policies can't be known at present: {reason}"
            ));
        }
        if !in_force {
            return wait("the kernel has not acknowledged the pod's rules yet".to_owned());
        }
        tell(&waiting.ask, Ok(()));
        true
    }

    /// Keeps these as they are now.
    fn keep(&mut self, changed: Vec<(Id, Option<Record>)>) {
        if changed.is_empty() {
            return;
        }
        for (id, record) in changed {
            let kept = match record {
                Some(record) => self.store.put(&record),
                None => self.store.remove(&id),
            };
            match kept {
                Ok(()) => drop(self.unkept.remove(&id)),
                Err(error) => {
                    self.observer.metrics.error(ErrorKind::Attachment);
                    self.unkept.insert(id, error.to_string());
                }
            }
        }
        let lines = self.unkept.iter().map(|(id, reason)| {
            let container = &id.container;
            format!("the attachment of container {container} can't be kept: {reason}")
        });
        self.problems.update(lines.collect::<Vec<_>>());
    }

    /// Whether an ADD could succeed.
    fn status(&self) -> Result<(), Refusal> {
        let report = self.observer.health.report();
        match report.ready() {
            true => Ok(()),
            false => Err(Refusal::new(Reason::NotReady, report.reasons().join("; "))),
        }
    }
}

/// Whom the pods are, also to a runtime that doesn't say their UIDs.
fn ids<'a>(pods: impl Iterator<Item = &'a Pod>) -> BTreeSet<PodId> {
    pods.flat_map(|pod| {
        [&*pod.uid, ""].map(|uid| PodId {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: uid.to_owned(),
        })
    })
    .collect()
}

/// Whether an attachment is as it was when it was made.
fn check<D: Dataplane>(attachment: &Attachment, reconciler: &Reconciler<D>) -> Result<(), Refusal> {
    let unknown = |text: &str| Err(Refusal::new(Reason::Unknown, text));
    match reconciler.attachment(&attachment.id) {
        None => unknown("the daemon does not know of this attachment"),
        Some(record) if record.detached => unknown("this attachment has ended"),
        Some(record) if !is_still(&record.attachment, attachment) => {
            unknown("the daemon knows of another attachment of this container")
        }
        Some(_) => Ok(()),
    }
}

/// Whether an attachment is, by the whole list's result, what it was when it was made; plugins that came later may have
/// added interfaces.
fn is_still(made: &Attachment, now: &Attachment) -> bool {
    let all_in = |some: &[String], all: &[String]| some.iter().all(|name| all.contains(name));
    made.id == now.id
        && made.pod == now.pod
        && made.addresses == now.addresses
        && all_in(&made.interfaces, &now.interfaces)
}

fn tell(ask: &Ask, result: Result<(), Refusal>) {
    ask.progress.send_replace(Progress::Done(result));
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;
