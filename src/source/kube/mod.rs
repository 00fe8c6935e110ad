//! The API server as a source: pods, namespaces, policies and this node, listed and watched.
//!
//! ```text
//!  follow (one a kind) ─ News ─ watch ─ Update ─▶ daemon
//!    └ access: requests, credentials              └ report: Events on objects that aren't enforced as written
//!    └ answer, trim: JSON, of which only what is kept becomes values
//! ```
//!
//! Guarantees: nothing is told to be gone unless the server said so, in a watch or by a whole list that lacks it; an
//! API server that is away changes nothing, and what happened meanwhile is told when it is back.

pub mod access;
pub mod answer;
mod check;
mod follow;
mod report;
mod trim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

pub use access::{Access, AccessError, ApiError, Connection};
use answer::Entry;
pub use check::check;
use follow::{Follower, News};
use report::Reporter;

use super::notice::Notice;
use super::snapshot::{Snapshot, SourceProblem};
use super::update::Update;
use crate::cluster::object::{Event, ObjectKey, ObjectKind};
use crate::observe::{ErrorKind, Observer};

/// How long a stream may be silent before it is made anew, if nothing else is said. Servers send a bookmark about
/// every minute, if anything has changed.
pub const SILENCE: Duration = Duration::from_secs(120);

/// News that may wait to be taken; more, and the streams wait.
const WAITING: usize = 4096;

/// The news of so many objects become one update, at most.
const BURST: usize = 1024;

/// Follows the cluster, and hands `send` an [`Update`] whenever something has changed, until it says false. Of the
/// nodes only `node` is followed. What `notices` say becomes Kubernetes Events.
pub async fn watch(
    connection: Connection,
    node: &str,
    silence: Duration,
    observer: Arc<Observer>,
    mut notices: mpsc::Receiver<Notice>,
    mut send: impl FnMut(Update) -> bool,
) {
    let (sender, mut news) = mpsc::channel(WAITING);
    let mut followers = JoinSet::new();
    let back = Arc::new(Notify::new());
    for kind in ObjectKind::ALL {
        let follower = Follower {
            connection: connection.clone(),
            kind,
            only: (kind == ObjectKind::Node).then(|| node.to_owned()),
            silence,
            back: back.clone(),
            sender: sender.clone(),
        };
        followers.spawn(follower.follow());
    }
    drop(sender);
    let mut state = State::new(Reporter::start(connection, observer.clone()), observer);
    loop {
        let mut burst = Vec::new();
        tokio::select! {
            _ = followers.join_next() => return, // which they don't, but by a panic
            count = news.recv_many(&mut burst, BURST) => if count == 0 {
                return;
            },
            Some(notice) = notices.recv() => state.reporter.tell(notice),
        }
        if let Some(update) = state.take(burst)
            && !send(update)
        {
            return;
        }
    }
}

/// What of objects can't be read, by their names.
type Problems = BTreeMap<String, (Option<ObjectKey>, ObjectKind, Vec<SourceProblem>)>;

/// What has been heard.
struct State {
    listed: BTreeSet<ObjectKind>,
    lost: BTreeMap<ObjectKind, String>,
    /// The reasons of losses by which something may have been missed that has not been told yet.
    behind: BTreeMap<ObjectKind, String>,
    problems: Problems,
    reporter: Reporter,
    observer: Arc<Observer>,
}

impl State {
    fn new(reporter: Reporter, observer: Arc<Observer>) -> Self {
        Self {
            listed: BTreeSet::new(),
            lost: BTreeMap::new(),
            behind: BTreeMap::new(),
            problems: BTreeMap::new(),
            reporter,
            observer,
        }
    }

    fn synced(&self) -> bool {
        self.listed.len() == ObjectKind::ALL.len()
    }

    /// What news come to; nothing, where they change nothing.
    fn take(&mut self, burst: Vec<(ObjectKind, News)>) -> Option<Update> {
        let at = Instant::now();
        let metrics = &self.observer.metrics;
        let mut events = Vec::new();
        let mut changed = false;
        let synced = self.synced();
        for (kind, news) in burst {
            if !matches!(news, News::Lost(_) | News::Restarted) {
                metrics.api_contact(kind);
            }
            match news {
                News::Applied(entry) => {
                    if note(&mut self.problems, &self.reporter, kind, &entry) {
                        changed = true;
                        if !entry.problems().is_empty() {
                            metrics.error(ErrorKind::Decode);
                        }
                    }
                    events.extend(
                        entry
                            .result
                            .ok()
                            .map(|decoded| Event::Apply(decoded.object)),
                    );
                }
                News::Deleted(entry) => {
                    changed |= self.problems.remove(&entry.name()).is_some();
                    if let Some(key) = entry.key() {
                        let uid = (!entry.uid.is_empty()).then(|| entry.uid.as_str().into());
                        events.push(Event::Delete { key, uid });
                    }
                }
                News::Listed { keys, unreadable } => {
                    let before = self.problems.len();
                    self.problems.retain(|name, (key, of, _)| {
                        *of != kind
                            || match key {
                                Some(key) => keys.contains(key),
                                None => unreadable.contains(name),
                            }
                    });
                    changed |= self.problems.len() != before;
                    changed |= self.behind.remove(&kind).is_some();
                    if !self.listed.insert(kind) {
                        metrics.relisted(kind);
                    }
                    // At the first list, too: one before it may have broken off, and what it told of may be gone.
                    events.push(Event::Retain { kind, keys });
                }
                News::Lost(error) => {
                    metrics.error(ErrorKind::Api);
                    self.lost.insert(kind, error.to_string());
                    self.behind.insert(kind, error.to_string());
                    changed = true;
                }
                News::Found => changed |= self.lost.remove(&kind).is_some(),
                News::Caught => changed |= self.behind.remove(&kind).is_some(),
                News::Heard => {}
                News::Restarted => metrics.watch_restarted(kind),
            }
        }
        let news = changed || !events.is_empty() || self.synced() != synced;
        news.then(|| Update {
            at,
            events,
            problems: changed.then(|| self.standing()),
            synced: self.synced(),
            behind: self.behind(),
        })
    }

    fn behind(&self) -> Option<String> {
        let mut kinds = [ObjectKind::NetworkPolicy, ObjectKind::Namespace].iter();
        kinds.find_map(|kind| self.behind.get(kind)).cloned()
    }

    fn standing(&self) -> Vec<SourceProblem> {
        let effect = match self.synced() {
            true => "what is known stays in force",
            false => "the rules stay as they are until everything is known",
        };
        // One line, whatever the number of kinds that suffer from the same.
        let lost: BTreeSet<&String> = self.lost.values().collect();
        let lost = lost.into_iter().map(|reason| {
            SourceProblem::new(
                "the API server can't be read",
                format!("{reason}; {effect}"),
            )
        });
        let objects = self
            .problems
            .values()
            .flat_map(|(_, _, lines)| lines.clone());
        lost.chain(objects).collect()
    }
}

/// Takes note of what of an object can't be read; the answer is whether that has changed.
fn note(problems: &mut Problems, reporter: &Reporter, kind: ObjectKind, entry: &Entry) -> bool {
    let found = entry.problems();
    if found.is_empty() {
        return !problems.is_empty() && problems.remove(&entry.name()).is_some();
    }
    let name = entry.name();
    let lines: Vec<SourceProblem> = found
        .iter()
        .map(|problem| SourceProblem::new(&name, problem))
        .collect();
    if problems.get(&name).is_some_and(|known| known.2 == lines) {
        return false;
    }
    reporter.report(entry);
    problems.insert(name, (entry.key(), kind, lines));
    true
}

/// Lists everything once, all nodes among it.
///
/// # Errors
/// [`ApiError`] when a list can't be had.
pub async fn list(connection: &Connection) -> Result<Snapshot, ApiError> {
    let mut snapshot = Snapshot::default();
    for kind in ObjectKind::ALL {
        let (sender, mut news) = mpsc::channel(WAITING);
        let follower = Follower {
            connection: connection.clone(),
            kind,
            only: None,
            silence: SILENCE,
            back: Arc::default(),
            sender,
        };
        let take = async {
            while let Some((_, news)) = news.recv().await {
                let News::Applied(entry) = news else { continue };
                let name = entry.name();
                for problem in entry.problems() {
                    snapshot.problems.push(SourceProblem::new(&name, problem));
                }
                match entry.result {
                    Ok(decoded) => snapshot.insert_live(decoded.object),
                    Err(_) => snapshot.unread = true,
                }
            }
        };
        let (listed, ()) = tokio::join!(follower.list_once(), take);
        listed?;
    }
    Ok(snapshot)
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
