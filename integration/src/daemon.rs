//! A program that runs in the background of a test: its output is kept and can be read while it runs, and it cannot
//! outlive the test.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::error::{During, Error};
use crate::netns::NsCommand;

/// A running child. Dropping it kills it (SIGKILL) and waits for its end.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
    holder: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<ExitStatus>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `pick` finds something or the time is over.
    fn wait<T>(&self, timeout: Duration, mut pick: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(found) = pick(&state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Daemon {
    pub(crate) fn start(what: NsCommand) -> Result<Self, Error> {
        let name = what.describe();
        let mut command = Command::new("setpriv");
        what.prepare(&mut command);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(what.words())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shared = Arc::new(Shared::default());
        let (started, result) = mpsc::channel();
        // The parent of `pdeathsig` is the thread that spawned, not the process: this one stays until the child's end.
        let holder = what.netns().spawn({
            let shared = shared.clone();
            move || match command.spawn() {
                Ok(child) => {
                    let _ = started.send(Ok(child.id()));
                    hold(child, &shared);
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let id = match result.recv() {
            Ok(id) => id.during(&format!("start {name}"))?,
            // The holder could not enter the namespace and dropped the channel.
            Err(_) => match holder.join() {
                Ok(Err(error)) => return Err(error),
                _ => return Err(Error::invalid(format!("cannot start {name}"))),
            },
        };
        let holder = thread::Builder::new()
            .spawn(move || drop(holder.join()))
            .during("start a thread")?;
        Ok(Self {
            name,
            pid: Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX)),
            shared,
            holder: Some(holder),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().stdout).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().stderr).into_owned()
    }

    /// Its exit status, once it has ended.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.shared.lock().exit
    }

    /// Waits until its output (either stream) contains `text`.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the end of its standard error, when the time is over or it exits without having said it.
    pub fn wait_for_output(&self, text: &str, timeout: Duration) -> Result<(), Error> {
        let found = self.shared.wait(timeout, |state| {
            let said = contains(&state.stdout, text) || contains(&state.stderr, text);
            (said || state.exit.is_some()).then_some(said)
        });
        match found {
            Some(true) => Ok(()),
            _ => Err(self.silence(text, timeout)),
        }
    }

    /// That it did not say `text`, and what it said last.
    fn silence(&self, text: &str, timeout: Duration) -> Error {
        let stderr = self.stderr();
        let last: Vec<_> = stderr.lines().rev().take(3).collect();
        Error::Timeout {
            what: format!(
                "{:?} from {}; it said: {}",
                text,
                self.name,
                last.into_iter().rev().collect::<Vec<_>>().join(" | ")
            ),
            after: timeout,
        }
    }

    /// How many bytes it has written to standard error so far.
    pub fn said(&self) -> usize {
        self.shared.lock().stderr.len()
    }

    /// Waits until what it writes to standard error after the first `mark` bytes contains `text`; the answer is how
    /// many bytes there are up to its end.
    ///
    /// # Errors
    /// As [`wait_for_output`](Self::wait_for_output).
    pub fn wait_for_output_after(
        &self,
        mark: usize,
        text: &str,
        timeout: Duration,
    ) -> Result<usize, Error> {
        let found = self.shared.wait(timeout, |state| {
            let new = state.stderr.get(mark..).unwrap_or_default();
            let at = new
                .windows(text.len().max(1))
                .position(|w| w == text.as_bytes());
            let end = at.map(|at| mark + at + text.len());
            (end.is_some() || state.exit.is_some()).then_some(end)
        });
        found.flatten().ok_or_else(|| self.silence(text, timeout))
    }

    /// Sends a signal; nothing happens when it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        // The lock keeps the holder from reaping it meanwhile, after which the pid may be another's.
        let state = self.shared.lock();
        if state.exit.is_some() {
            return Ok(());
        }
        kill(self.pid, signal).during(&format!("send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus, Error> {
        self.shared
            .wait(timeout, |state| state.exit)
            .ok_or_else(|| Error::Timeout {
                what: format!("the end of {}", self.name),
                after: timeout,
            })
    }

    /// SIGTERM, then waits for its end.
    pub fn terminate(&self, timeout: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

/// Reads both pipes to their end and waits for the child; runs on the thread that spawned it.
fn hold(mut child: Child, shared: &Arc<Shared>) {
    let readers = [
        child
            .stdout
            .take()
            .map(|pipe| keep(pipe, shared, |state| &mut state.stdout)),
        child
            .stderr
            .take()
            .map(|pipe| keep(pipe, shared, |state| &mut state.stderr)),
    ];
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
    // What it wrote last is in the pipes; a grandchild that holds them open must not hold us.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline && readers.iter().flatten().any(|r| !r.is_finished()) {
        thread::sleep(Duration::from_millis(2));
    }
    let mut state = shared.lock();
    let exit = child
        .wait()
        .unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
    state.exit = Some(exit);
    shared.changed.notify_all();
}

fn keep(
    mut pipe: impl Read + Send + 'static,
    shared: &Arc<Shared>,
    stream: fn(&mut State) -> &mut Vec<u8>,
) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let read = buffer.get(..length).unwrap_or_default();
                    stream(&mut shared.lock()).extend_from_slice(read);
                    shared.changed.notify_all();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|w| w == text.as_bytes())
}
