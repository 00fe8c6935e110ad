//! One kind of objects, listed and watched for ever.
//!
//! Not kube-runtime's watcher, because a node's firewall must not go back in time nor stand still: lists are always
//! consistent ones (that watcher begins at resourceVersion 0, what any cache may have), HTTP 410 on a watch leads to a new
//! list, and so does a server whose data has gone back; one that asks to be left alone (429, 503) is, and a stream that has
//! fallen silent is made anew.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use form_urlencoded::Serializer;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::sync::{Notify, mpsc};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use tracing::{debug, warn};

use super::access::{ApiError, Connection, unreachable};
use super::answer::{self, Entry, Line};
use crate::cluster::object::{ObjectKey, ObjectKind};
use crate::limits;

/// Objects a page.
const PAGE: usize = 250;

/// How long the server shall keep a watch up; between this and twice this.
const WATCH: Duration = Duration::from_secs(240);

/// A stream that lived so long was a good one, whatever became of it.
const GOOD: Duration = Duration::from_secs(5);

/// The first wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between two attempts, and the longest that a server is left alone for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Within this time after a server is back all nodes list anew, one here and one there.
const SOON: Duration = Duration::from_secs(1);

/// So many streaming lists in a row that are not finished, and the next ones are asked for in pages.
const STREAMED_LISTS: u32 = 3;

/// So many senseless answers in a row to a watch from one version, and the objects are listed anew; so they are where nobody can
/// tell that often whether the server has gone back.
const STRIKES: u32 = 3;

/// So often in a row a page is asked for again where the server wants to be left alone for no longer than [`PAUSE`]: to begin
/// the list anew would load it more.
const PAGE_TRIES: u32 = 5;

/// A stream that is there again and says nothing for so long has told all that was missed: a server sends that at once.
const CAUGHT: Duration = Duration::from_millis(500);

/// So many failures at most count from the time when the server was away, once it is back.
const FAILURES_WHEN_BACK: u32 = 2;

/// The longest that a list waits for its next page.
const PAUSE: Duration = Duration::from_secs(5);

/// What is told of a kind.
#[derive(Debug)]
pub enum News {
    /// An object is there, or has changed.
    Applied(Box<Entry>),
    /// An object is gone.
    Deleted(Box<Entry>),
    /// Everything there is has been told.
    Listed {
        /// The keys of all of it.
        keys: BTreeSet<ObjectKey>,
        /// The names of what has no key, because it can't be read.
        unreadable: BTreeSet<String>,
    },
    /// Nothing can be heard at present.
    Lost(ApiError),
    /// It can again.
    Found,
    /// Since it can again, all that was missed has been told.
    Caught,
    /// Nothing has changed.
    Heard,
    /// The stream has ended and is made anew.
    Restarted,
}

/// Follows one kind.
pub struct Follower {
    /// The way to the server.
    pub connection: Connection,
    /// The kind.
    pub kind: ObjectKind,
    /// Only the object of this name.
    pub only: Option<String>,
    /// How long a stream may be silent. Servers send bookmarks about every minute where anything changes.
    pub silence: Duration,
    /// Told when a server that was away answers, so that the kinds come back together.
    pub back: Arc<Notify>,
    /// Where the news go.
    pub sender: mpsc::Sender<(ObjectKind, News)>,
}

/// That nobody listens any more.
struct Deaf;

/// Why an attempt ended.
enum End {
    Failed(ApiError),
    Deaf,
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<Deaf> for End {
    fn from(_: Deaf) -> Self {
        Self::Deaf
    }
}

/// What is known between attempts.
#[derive(Default)]
struct State {
    /// Up to which version everything has been told; `None` until there was a whole list.
    version: Option<String>,
    /// Whether the server has refused a streaming list, or has not finished any.
    paged: bool,
    /// Streaming lists in a row that were not finished.
    unfinished: u32,
    /// Failures since the last success.
    failures: u32,
    /// Senseless answers since the last sensible one.
    strikes: u32,
    /// Whether the loss has been told.
    lost: bool,
    /// Whether there may be something that was missed by it.
    behind: bool,
    /// Whether the server could not be reached when it was last asked.
    away: bool,
    /// Whether it is there again since this attempt.
    back: bool,
    /// Whether the server's data may be older than what it told before: it was away, or has told nothing for long.
    doubtful: bool,
}

impl State {
    /// Takes note of a senseless answer.
    fn strike(&mut self) {
        self.strikes += 1;
        if self.strikes >= STRIKES {
            self.strikes = 0;
            self.version = None;
        }
    }
}

impl Follower {
    /// Follows until nobody listens.
    pub async fn follow(self) {
        let mut state = State::default();
        loop {
            let started = Instant::now();
            let listing = state.version.is_none();
            // From here on: another kind may be answered while this one still waits for an answer.
            let woken = self.back.notified();
            let outcome = self.attempt(&mut state).await;
            let back = std::mem::take(&mut state.back);
            let error = match outcome {
                Ok(()) if listing && state.paged => continue,
                Ok(()) => {
                    if self.tell(News::Restarted).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(End::Deaf) => return,
                Err(End::Failed(error)) => error,
            };
            if started.elapsed() >= GOOD {
                state.failures = 0;
            }
            let wait = self.judge(&mut state, &error, back).await;
            let wakes = error.retry_after().is_none() && !back;
            debug!(kind = self.kind.name(), ?wait, "{error}");
            if self.tell(News::Restarted).await.is_err() {
                return;
            }
            // One broken stream is no news: servers restart, and load balancers cut.
            if state.failures > 1 && !error.is_gone() && !std::mem::replace(&mut state.lost, true) {
                state.behind = true;
                let lost = News::Lost(error);
                if self.tell(lost).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = woken, if wakes => tokio::time::sleep(wait.min(SOON).mul_f64(fastrand::f64())).await,
            }
        }
    }

    /// Lists everything once, in pages.
    ///
    /// # Errors
    /// [`ApiError`] when a page can't be had.
    pub async fn list_once(self) -> Result<(), ApiError> {
        match self.list(&mut State::default()).await {
            Ok(()) | Err(End::Deaf) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }

    /// What an error means for the next attempt, and that the server is there again, if so; the answer is how long to wait
    /// before it.
    async fn judge(&self, state: &mut State, error: &ApiError, back: bool) -> Duration {
        let streamed = state.version.is_none() && !state.paged;
        if streamed
            && matches!(
                error,
                ApiError::Refused {
                    code: 400 | 422,
                    ..
                }
            )
        {
            // The server has no streaming lists, or not for us.
            state.paged = true;
            return Duration::ZERO;
        }
        if back {
            // It is there: how long it was not has little say in this.
            state.failures = state.failures.min(FAILURES_WHEN_BACK);
        }
        state.failures = state.failures.saturating_add(1);
        if error.is_unauthorized() {
            self.connection.renew().await;
        }
        if error.is_gone() {
            if state.version.take().is_some() {
                // Where the server was away, what it forgot is asked for soon, however long it was.
                return match back || state.failures > 1 {
                    false => Duration::ZERO,
                    true => SOON.mul_f64(fastrand::f64()),
                };
            }
        } else if error.is_senseless() {
            state.strike();
        }
        let wait = FIRST_WAIT
            .saturating_mul(2_u32.saturating_pow(state.failures - 1))
            .min(LONGEST_WAIT);
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_WAIT);
        // Nodes that fail together shall not come back together.
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
            .max(asked.mul_f64(1.0 + fastrand::f64() / 4.0))
    }

    /// One list, or one watch to its end.
    async fn attempt(&self, state: &mut State) -> Result<(), End> {
        if state.doubtful {
            self.compare(state).await?;
        }
        if state.version.is_none() && state.paged {
            return self.list(state).await;
        }
        self.watch(state).await
    }

    /// Takes note of whether the server has answered.
    fn answered<T>(&self, state: &mut State, answer: &Result<T, ApiError>) {
        match answer {
            Err(ApiError::Unreachable { .. }) => {
                (state.away, state.doubtful) = (true, true);
                if state.version.is_some() {
                    // One that comes back may be of another version, which has streaming lists.
                    (state.paged, state.unfinished) = (false, 0);
                }
            }
            _ => {
                if std::mem::take(&mut state.away) {
                    state.back = true;
                    self.back.notify_waiters();
                }
            }
        }
    }

    /// Looks whether the server's data is older than what it has told before, as after a restore from a backup. It takes a
    /// watch from a version of its future and is silent until it gets there; what it told by then would be missed.
    async fn compare(&self, state: &mut State) -> Result<(), End> {
        let Some(version) = &state.version else {
            state.doubtful = false;
            return Ok(());
        };
        let told = number(version);
        let newest = match self.connection.get_all(&self.path(&[("limit", "1")])).await {
            // An object so large says nothing of the version.
            Err(ApiError::TooLarge) => None,
            answer => number(&answer::page(self.kind, &answer?)?.version),
        };
        state.doubtful = false;
        let (Some(newest), Some(told)) = (newest, told) else {
            state.strike();
            return Ok(());
        };
        if newest < told {
            warn!(
                kind = self.kind.name(),
                "the API server is at version {newest} and was at {told}, as after a restore: everything is listed anew"
            );
            state.version = None;
        }
        Ok(())
    }

    async fn list(&self, state: &mut State) -> Result<(), End> {
        let mut listing = Listing::default();
        let mut next: Option<String> = None;
        let mut page_size = PAGE;
        let mut refusals = 0;
        loop {
            let limit = page_size.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(next.as_deref().map(|token| ("continue", token)));
            let answer = self.connection.get_all(&self.path(&query)).await;
            self.answered(state, &answer);
            let bytes = match answer {
                // Of larger objects, fewer at a time.
                Err(ApiError::TooLarge) if page_size > 1 => {
                    page_size /= 4;
                    continue;
                }
                Err(error) if refusals < PAGE_TRIES && self.pauses(&error).await => {
                    refusals += 1;
                    continue;
                }
                bytes => bytes?,
            };
            let page = answer::page(self.kind, &bytes)?;
            drop(bytes);
            refusals = 0;
            self.found(state).await?;
            for entry in page.entries {
                listing.note(&entry)?;
                self.tell(News::Applied(Box::new(entry))).await?;
            }
            next = page.next;
            if next.is_none() {
                self.tell(listing.end()).await?;
                state.behind = false;
                state.version = Some(page.version);
                state.failures = 0;
                return Ok(());
            }
        }
    }

    /// Leaves a server alone that asks for a moment; whether it does.
    async fn pauses(&self, error: &ApiError) -> bool {
        let Some(asked) = error.retry_after().filter(|asked| *asked <= PAUSE) else {
            return false;
        };
        debug!(kind = self.kind.name(), ?asked, "a page: {error}");
        tokio::time::sleep(asked.mul_f64(1.0 + fastrand::f64() / 4.0)).await;
        true
    }

    async fn watch(&self, state: &mut State) -> Result<(), End> {
        let seconds = WATCH.mul_f64(1.0 + fastrand::f64()).as_secs().to_string();
        let mut query = vec![
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds),
        ];
        match &state.version {
            Some(version) => query.push(("resourceVersion", version)),
            None => query.extend([
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
            ]),
        }
        let answer = self.connection.get(&self.path(&query)).await;
        self.answered(state, &answer);
        let body = answer?;
        self.found(state).await?;
        let mut listing = state.version.is_none().then(Listing::default);
        let mut lines = lines(body);
        let started = Instant::now();
        let mut heard = false;
        if listing.is_some() {
            state.unfinished += 1;
            // Some never end one (kubernetes/kubernetes#122805): the next ones are in pages.
            state.paged = state.unfinished >= STREAMED_LISTS;
        }
        loop {
            // A list tells by its end.
            let catching_up = state.behind && listing.is_none();
            let patience = if catching_up { CAUGHT } else { self.silence };
            let line = match tokio::time::timeout(patience, lines.next()).await {
                Err(_) if catching_up => {
                    state.behind = false;
                    self.tell(News::Caught).await?;
                    continue;
                }
                // What cut it off may be a server that is another one by now.
                Ok(Some(line)) => line.inspect_err(|_| state.doubtful = true)?,
                Ok(None) if listing.is_none() && (heard || started.elapsed() >= GOOD) => {
                    return Ok(());
                }
                Ok(None) => {
                    let reason = "the stream ended before it told anything".to_owned();
                    return Err(ApiError::Unreachable { reason }.into());
                }
                // Nothing may have happened; whether the server is there, the next request will tell.
                Err(_) if listing.is_none() => {
                    state.doubtful |= !heard;
                    return Ok(());
                }
                Err(_) => {
                    let reason = format!("it fell silent for {:?} in a list", self.silence);
                    return Err(ApiError::Unreachable { reason }.into());
                }
            };
            if line.is_empty() {
                continue;
            }
            let version = match answer::line(self.kind, line.as_bytes())? {
                Line::Error(error) => return Err(error.into()),
                Line::Applied(entry) => {
                    if let Some(listing) = &mut listing {
                        listing.note(&entry)?;
                    }
                    let version = entry.version.clone();
                    self.tell(News::Applied(Box::new(entry))).await?;
                    version
                }
                Line::Deleted(entry) => {
                    let version = entry.version.clone();
                    self.tell(News::Deleted(Box::new(entry))).await?;
                    version
                }
                Line::Bookmark { version, listed } => {
                    let news = match listing.take() {
                        Some(listing) if listed => {
                            (state.unfinished, state.paged) = (0, false);
                            state.behind = false;
                            listing.end()
                        }
                        unfinished => {
                            listing = unfinished;
                            News::Heard
                        }
                    };
                    self.tell(news).await?;
                    version
                }
            };
            heard = true;
            state.strikes = 0;
            if catching_up && started.elapsed() >= GOOD {
                // It goes on and on: what comes now is new.
                state.behind = false;
                self.tell(News::Caught).await?;
            }
            // Until the list is whole there is no version to go on from.
            if listing.is_none() {
                state.failures = 0;
                if !version.is_empty() {
                    state.version = Some(version);
                }
            }
        }
    }

    fn path(&self, query: &[(&str, &str)]) -> String {
        path(self.kind, self.only.as_deref(), query)
    }

    /// Tells that the server has answered.
    async fn found(&self, state: &mut State) -> Result<(), Deaf> {
        let news = match std::mem::take(&mut state.lost) {
            true => News::Found,
            false => News::Heard,
        };
        self.tell(news).await
    }

    async fn tell(&self, news: News) -> Result<(), Deaf> {
        let sent = self.sender.send((self.kind, news)).await;
        sent.map_err(|_| Deaf)
    }
}

/// What a list has told so far.
#[derive(Default)]
struct Listing {
    keys: BTreeSet<ObjectKey>,
    unreadable: BTreeSet<String>,
    /// How many objects, with repetitions.
    told: usize,
}

impl Listing {
    /// # Errors
    /// [`ApiError::Nonsense`] for more objects than any cluster has: the list may never end.
    fn note(&mut self, entry: &Entry) -> Result<(), ApiError> {
        match entry.key() {
            Some(key) => drop(self.keys.insert(key)),
            None => drop(self.unreadable.insert(entry.name())),
        }
        self.told += 1;
        match self.told <= limits::OBJECTS {
            true => Ok(()),
            false => Err(ApiError::Nonsense {
                reason: format!("a list of more than {} objects", limits::OBJECTS),
            }),
        }
    }

    fn end(self) -> News {
        News::Listed {
            keys: self.keys,
            unreadable: self.unreadable,
        }
    }
}

/// A version as a number, which those of Kubernetes are.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// The lines of a body.
fn lines(body: Body) -> impl futures_util::Stream<Item = Result<String, ApiError>> + Unpin {
    let parts = body.into_data_stream().map_err(io::Error::other);
    let reader = StreamReader::new(parts);
    FramedRead::new(reader, LinesCodec::new_with_max_length(limits::LINE)).map_err(|error| {
        match error {
            LinesCodecError::MaxLineLengthExceeded => ApiError::Nonsense {
                reason: format!("a line of more than {} MiB", limits::LINE >> 20),
            },
            LinesCodecError::Io(error) => unreachable(&error),
        }
    })
}

/// The path and query of a request for a kind's objects, or for the one of a name.
pub(super) fn path(kind: ObjectKind, only: Option<&str>, query: &[(&str, &str)]) -> String {
    let version = kind.api_version();
    let root = if version.contains('/') { "apis" } else { "api" };
    let path = format!("/{root}/{version}/{}?", kind.resource());
    let query_start = path.len();
    let mut path = Serializer::for_suffix(path, query_start);
    path.extend_pairs(query);
    if let Some(name) = only {
        path.append_pair("fieldSelector", &format!("metadata.name={name}"));
    }
    path.finish()
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
