//! Snapshots as events, for as long as the files change.
//!
//! inotify says only that it is time to look again; what has changed is found by comparing. A burst of changes is one
//! look, [`QUIET`] after its last change but no later than [`LATEST`] after its first.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Update;
use super::files::{Files, Reading};
use super::snapshot::{Snapshot, SourceProblem, diff};

/// How long nothing must have changed before the files are read, and how old a file's last change must be.
pub const QUIET: Duration = Duration::from_millis(20);

/// How long changes may follow one another before the files are read all the same.
pub const LATEST: Duration = Duration::from_millis(200);

/// How often the files are looked at where inotify can't watch them.
const BLIND: Duration = Duration::from_secs(5);

/// Watches the files at `root` from a thread of its own and hands `send` an [`Update`] whenever something has
/// changed, first of all the first complete look at them. While there is nothing at `root`, the thread waits; updates
/// then carry the problem and no events, and what was there before stays in force. The thread ends when `send` says
/// false.
///
/// # Errors
/// When there can be no inotify instance or no thread.
pub fn watch(
    root: PathBuf,
    send: impl FnMut(Update) -> bool + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let watcher = Watcher {
        // Relative paths have no parent to watch.
        files: Files::watched(std::path::absolute(&root)?),
        inotify: Inotify::init()?,
        watched: BTreeMap::new(),
        filters: BTreeMap::new(),
        blind: Vec::new(),
        snapshot: None,
        problems: Vec::new(),
        send,
    };
    thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            let Err(Closed) = watcher.run();
        })
}

struct Watcher<S> {
    files: Files,
    inotify: Inotify,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    /// By watch descriptor: the one name whose changes matter in a directory above the root.
    filters: BTreeMap<i32, Option<OsString>>,
    /// What can't be watched.
    blind: Vec<SourceProblem>,
    snapshot: Option<Snapshot>,
    problems: Vec<SourceProblem>,
    send: S,
}

/// A burst of changes that is not over.
#[derive(Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn starting(now: Instant) -> Self {
        Self {
            first: now,
            last: now,
        }
    }

    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + LATEST)
    }
}

impl<S: FnMut(Update) -> bool> Watcher<S> {
    fn run(mut self) -> Result<Infallible, Closed> {
        let mut burst = self.look(Burst::starting(Instant::now()))?;
        loop {
            let until = match burst {
                Some(burst) => Some(burst.due()),
                None if self.blind.is_empty() => None,
                None => Some(Instant::now() + BLIND),
            };
            let changed = self.wait(until);
            let now = Instant::now();
            burst = match burst {
                Some(burst) if changed => Some(Burst { last: now, ..burst }),
                // Without a burst, only who is blind has an end of waiting.
                None if changed || until.is_some_and(|until| until <= now) => {
                    Some(Burst::starting(now))
                }
                other => other,
            };
            if let Some(due) = burst.filter(|burst| burst.due() <= now) {
                burst = self.look(due)?;
            }
        }
    }

    /// Waits until something that matters has changed, or the time is over.
    fn wait(&mut self, until: Option<Instant>) -> bool {
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                // Rounded up: a timeout of nothing would spin.
                let left = until.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return false,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "inotify can't be polled; the files are read again in 1 s");
                thread::sleep(Duration::from_secs(1));
                return true;
            }
        }
        let mut buffer = [0; 16 << 10];
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                let filter = self.filters.get(&event.wd.get_watch_descriptor_id());
                changed |= match (filter, event.name) {
                    (Some(Some(only)), Some(name)) => only == name,
                    // Overflow, or a directory itself.
                    _ => true,
                };
            }
            if !any {
                break;
            }
        }
        changed
    }

    /// Reads the files and sends what has changed. The answer is the burst to go on with, if it is not over.
    fn look(&mut self, burst: Burst) -> Result<Option<Burst>, Closed> {
        let settle = match burst.first.elapsed() < LATEST {
            true => QUIET,
            false => Duration::ZERO,
        };
        let mut reading = self.files.read(settle);
        // A directory that was not watched while it was read may have changed since.
        while self.arm(reading.as_ref().ok()) {
            reading = self.files.read(settle);
        }
        let (next, mut problems, unsettled) = match reading {
            Ok(Reading {
                snapshot,
                unsettled,
                ..
            }) => {
                let problems = snapshot.problems.clone();
                (Some(snapshot), problems, unsettled)
            }
            Err(error) => {
                let text = match &self.snapshot {
                    None => "waiting for it",
                    Some(_) => "what it gave before stays in force",
                };
                (None, vec![SourceProblem::new(error, text)], false)
            }
        };
        problems.extend(self.blind.iter().cloned());
        // The first look is not over while a file may be half written.
        if !(unsettled && self.snapshot.is_none()) {
            self.report(next, problems)?;
        }
        // A burst that has had its look begins anew: what still changes gets one every now and then, not all the time.
        let now = Instant::now();
        Ok(unsettled.then(|| match settle.is_zero() {
            true => Burst::starting(now),
            false => Burst { last: now, ..burst },
        }))
    }

    fn report(
        &mut self,
        next: Option<Snapshot>,
        problems: Vec<SourceProblem>,
    ) -> Result<(), Closed> {
        let first = self.snapshot.is_none() && next.is_some();
        let events = match &next {
            Some(next) => diff(self.snapshot.as_ref().unwrap_or(&Snapshot::default()), next),
            None => Vec::new(),
        };
        if let Some(next) = next {
            self.snapshot = Some(next);
        }
        if !first && events.is_empty() && problems == self.problems {
            return Ok(());
        }
        let changed = first || problems != self.problems;
        self.problems.clone_from(&problems);
        let update = Update {
            at: Instant::now(),
            events,
            problems: changed.then_some(problems),
            synced: self.snapshot.is_some(),
            behind: None,
        };
        match (self.send)(update) {
            true => Ok(()),
            false => Err(Closed),
        }
    }

    /// Watches the directories of a reading and the way to the root; true when one of them is new.
    fn arm(&mut self, reading: Option<&Reading>) -> bool {
        let mut wanted: BTreeMap<PathBuf, Option<OsString>> = BTreeMap::new();
        // Each directory above the root, for the next step of the way: any of them may be renamed or replaced.
        let mut path: &Path = self.files.root();
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            wanted.insert(parent.to_owned(), Some(name.to_owned()));
            path = parent;
        }
        if let Some(reading) = reading {
            let all = reading.directories.iter().map(|path| (path.clone(), None));
            wanted.extend(all);
        }
        let mut watches = self.inotify.watches();
        self.watched.retain(|path, watch| {
            let keep = wanted.contains_key(path);
            if !keep {
                // It may be gone with its directory.
                let _ = watches.remove(watch.clone());
            }
            keep
        });
        self.filters.clear();
        self.blind.clear();
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut new = false;
        for (path, filter) in wanted {
            // Again where it is watched already: the directory may be another one by now.
            match watches.add(&path, mask) {
                Ok(watch) => {
                    let id = watch.get_watch_descriptor_id();
                    // Two paths may be one directory, and the one without a filter counts.
                    let filter = match self.filters.get(&id) {
                        Some(other) if *other != filter => None,
                        _ => filter,
                    };
                    self.filters.insert(id, filter);
                    new |= self.watched.insert(path, watch.clone()) != Some(watch);
                }
                Err(error) => {
                    self.watched.remove(&path);
                    if error.kind() != io::ErrorKind::NotFound {
                        let text = format!(
                            "can't be watched: {error}; it is looked at every {} s",
                            BLIND.as_secs()
                        );
                        self.blind.push(SourceProblem::new(path.display(), text));
                    }
                }
            }
        }
        new
    }
}

/// Nobody takes updates any more.
struct Closed;

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
