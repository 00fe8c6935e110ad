//! The socket that the plugin asks on: one request a connection, bounded in size, number and time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_cni::protocol::{self, LONGEST_LINE, Reply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::socket::{self, SocketError};
use super::{Command, Reason, Record, Refusal, Store};
use crate::observe::{CniCommand, CniOutcome, Observer};

/// What clients are allowed.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How many connections may be about to say what they want; the newest is always heard, and the oldest cut for it.
    unheard: usize,
    /// How many requests may be waited for.
    waiting: usize,
    /// How long a request may take to arrive, or a reply to be taken.
    line: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unheard: 64,
            waiting: 1024,
            line: Duration::from_secs(5),
        }
    }
}

/// The longest that an ADD is waited for, whatever it asks for.
const LONGEST_PATIENCE: Duration = Duration::from_secs(120);

/// How long everything else is: the plugin has given up by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The loop has not come to it yet.
    Heard,
    /// What stands in its way at the moment, in one line.
    Waiting(String),
    /// This is what came of it.
    Done(Result<(), Refusal>),
}

/// A request, as the loop gets it.
#[derive(Debug)]
pub struct Ask {
    /// What is asked for.
    pub command: Command,
    /// Where its progress is told. It is closed when nobody waits any more.
    pub progress: watch::Sender<Progress>,
}

/// The socket, and what is kept beside it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    limits: Limits,
}

impl Server {
    /// Listens on `path`; requests wait until [`Server::serve`]. With it come what is kept beside the socket: the store, the
    /// attachments in it, and what of it can't be read.
    ///
    /// # Errors
    /// [`SocketError`]. It has to be called within a runtime.
    pub fn bind(path: &Path) -> Result<(Self, Store, Vec<Record>, Vec<String>), SocketError> {
        let listener = socket::listen(path)?;
        let failed = |source| SocketError::Listen {
            path: path.to_owned(),
            source,
        };
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let directory: PathBuf = socket::store_of(path);
        let opened = Store::open(directory.clone());
        let (store, records, problems) = opened.map_err(|source| SocketError::Store {
            path: directory,
            source,
        })?;
        let server = Self {
            listener,
            limits: Limits::default(),
        };
        Ok((server, store, records, problems))
    }

    /// Hands every request to `send` and answers it when its progress comes to an end, or its time does. It ends when `send`
    /// says false.
    pub async fn serve(self, observer: Arc<Observer>, send: impl Fn(Ask) -> bool) {
        let limits = self.limits;
        let (asks, mut asked) = tokio::sync::mpsc::channel(1);
        let waiting = Arc::new(Semaphore::new(limits.waiting));
        let mut unheard: VecDeque<oneshot::Sender<()>> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                ask = asked.recv() => match ask.map(&send) {
                    Some(true) => continue,
                    _ => return,
                },
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("a connection of the CNI plugin can't be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // The socket's mode says the same; this holds whatever becomes of it.
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 => {}
                _ => {
                    warn!("somebody who is not root has tried the CNI socket");
                    continue;
                }
            }
            unheard.retain(|connection| !connection.is_closed());
            while unheard.len() >= limits.unheard {
                unheard.pop_front();
            }
            let (keep, cut) = oneshot::channel();
            unheard.push_back(keep);
            let connection = Connection {
                stream: BufReader::new(stream),
                limits,
                waiting: waiting.clone(),
                observer: observer.clone(),
            };
            let asks = asks.clone();
            tokio::spawn(async move {
                let ask = |ask| async move { asks.send(ask).await.is_ok() };
                connection.serve(cut, ask).await;
            });
        }
    }
}

struct Connection {
    stream: BufReader<UnixStream>,
    limits: Limits,
    waiting: Arc<Semaphore>,
    observer: Arc<Observer>,
}

impl Connection {
    async fn serve<F: Future<Output = bool>>(
        mut self,
        cut: oneshot::Receiver<()>,
        ask: impl FnOnce(Ask) -> F,
    ) {
        let line = tokio::select! {
            line = timeout(self.limits.line, line(&mut self.stream)) => line,
            // Its sender is dropped when its room is needed.
            _ = cut => return,
        };
        let Ok(line) = line else { return };
        let started = Instant::now();
        let request = line.and_then(|line| protocol::request(&line));
        let metrics = &self.observer.metrics;
        let result = match request {
            Err(refusal) => {
                warn!("the CNI plugin's request is refused: {refusal}");
                metrics.cni_request(CniCommand::Unknown, CniOutcome::Malformed);
                Err(refusal)
            }
            Ok(command) => {
                let kind = CniCommand::of(&command);
                let about = about(&command);
                let (result, outcome) = self.wait(command, ask).await;
                metrics.cni_request(kind, outcome);
                let took = started.elapsed();
                match &result {
                    Ok(()) => {
                        if kind == CniCommand::Add {
                            metrics.cni_add(took);
                        }
                        debug!(took_us = took.as_micros(), "CNI {about}: done");
                    }
                    Err(refusal) => warn!("CNI {about}: {refusal}"),
                }
                result
            }
        };
        if let Ok(reply) = protocol::line(&Reply::from(result)) {
            // Whoever is not there any more needs none.
            let _ = timeout(self.limits.line, self.stream.write_all(&reply)).await;
        }
    }

    async fn wait<F: Future<Output = bool>>(
        &self,
        command: Command,
        ask: impl FnOnce(Ask) -> F,
    ) -> (Result<(), Refusal>, CniOutcome) {
        let not_ready = |text: String| Err(Refusal::new(Reason::NotReady, text));
        let Ok(_place) = self.waiting.try_acquire() else {
            let text = "too many requests wait already".to_owned();
            return (not_ready(text), CniOutcome::Refused);
        };
        let patience = match &command {
            Command::Add { patience, .. } => Duration::from_millis(*patience).min(LONGEST_PATIENCE),
            _ => PATIENCE,
        };
        let (progress, mut told) = watch::channel(Progress::Heard);
        let stopping = || not_ready("the daemon is stopping".to_owned());
        if !ask(Ask { command, progress }).await {
            return (stopping(), CniOutcome::Refused);
        }
        let done = told.wait_for(|progress| matches!(progress, Progress::Done(_)));
        let outcome = timeout(patience, done).await.map(|done| done.is_ok());
        let last = told.borrow().clone();
        match (last, outcome) {
            (Progress::Done(Ok(())), _) => (Ok(()), CniOutcome::Done),
            (Progress::Done(Err(refusal)), _) => (Err(refusal), CniOutcome::Refused),
            (_, Ok(_)) => (stopping(), CniOutcome::Refused),
            (Progress::Heard, Err(_)) => {
                let text = "the daemon is busy".to_owned();
                (not_ready(text), CniOutcome::Late)
            }
            (Progress::Waiting(text), Err(_)) => (not_ready(text), CniOutcome::Late),
        }
    }
}

/// Reads a line, without more of it than a request may have.
async fn line(stream: &mut BufReader<UnixStream>) -> Result<Vec<u8>, Refusal> {
    let malformed = |text: String| Refusal::new(Reason::Malformed, text);
    let mut line = Vec::new();
    let mut bounded = stream.take(LONGEST_LINE as u64 + 1);
    let read = bounded.read_until(b'\n', &mut line).await;
    read.map_err(|error| malformed(format!("it can't be read: {error}")))?;
    match line.last() {
        Some(b'\n') => Ok(line),
        _ if line.len() > LONGEST_LINE => {
            Err(malformed(format!("it is longer than {LONGEST_LINE} bytes")))
        }
        _ => Err(malformed("it ends within a line".to_owned())),
    }
}

/// What a request is about, for the log.
fn about(command: &Command) -> String {
    let name = command.name();
    match command {
        Command::Add { attachment, .. } | Command::Check { attachment } => {
            let pod = &attachment.pod;
            let addresses = attachment.addresses.iter();
            let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
            format!(
                "{name} of pod {}/{} at {}",
                pod.namespace,
                pod.name,
                addresses.join(" and ")
            )
        }
        Command::Del { id } => format!("{name} of container {}", id.container),
        Command::Gc { network, .. } => format!("{name} of network {network}"),
        Command::Status => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
