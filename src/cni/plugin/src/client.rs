//! The way to the daemon: one request, one answer, in bounded time whatever the other side does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::{self, Command, LONGEST_LINE, Refusal, Request, VERSION};

/// How long to wait before the next attempt to reach a daemon that is not there.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody at the other end.
    #[error("the daemon can't be reached at {}: {source}", .socket.display())]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the daemon at {} has not answered within {} s", .socket.display(), .after.as_secs_f32())]
    Silent {
        /// Where it is.
        socket: PathBuf,
        /// How long it had.
        after: Duration,
    },
    /// What it answered is no answer.
    #[error("what the daemon answers can't be understood: {reason}")]
    Garbled {
        /// Why not.
        reason: String,
    },
}

/// Whether a daemon that is not there may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It may: it is tried again until the time is over. A daemon that is being replaced is away for a moment.
    ForDaemon,
    /// Who is not there is not asked.
    No,
}

/// Asks the daemon; the answer comes within `patience`. The command is made when there is somebody to hear it, of the time
/// that is left then.
///
/// # Errors
/// [`ClientError`]; the daemon's own refusal is within the answer.
pub fn ask(
    socket: &Path,
    patience: Duration,
    wait: Wait,
    command: impl Fn(Duration) -> Command + Send + 'static,
) -> Result<Result<(), Refusal>, ClientError> {
    let deadline = Instant::now() + patience;
    let path = socket.to_owned();
    let (sender, receiver) = mpsc::channel();
    // On a thread of its own, which is left behind when the time is over: even to connect may take for ever.
    thread::spawn(move || exchange(&path, deadline, wait, command, &sender));
    let silent = || ClientError::Silent {
        socket: socket.to_owned(),
        after: patience,
    };
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left) {
            Ok(Attempt::Connected) => last = None,
            Ok(Attempt::Failed(error)) => last = Some(error),
            Ok(Attempt::Ended(outcome)) => return outcome,
            // It is silent unless it was away the last time.
            Err(_) => return Err(last.unwrap_or_else(silent)),
        }
    }
}

/// What becomes of asking.
enum Attempt {
    /// There is somebody at the other end.
    Connected,
    /// It is tried again.
    Failed(ClientError),
    Ended(Result<Result<(), Refusal>, ClientError>),
}

fn exchange(
    socket: &Path,
    deadline: Instant,
    wait: Wait,
    command: impl Fn(Duration) -> Command,
    tell: &Sender<Attempt>,
) {
    let left = || deadline.saturating_duration_since(Instant::now());
    loop {
        match once(socket, || command(left()), tell) {
            // Not there, or gone before it answered: asking again does no harm, whatever it has done already.
            Err(error @ ClientError::Unreachable { .. })
                if wait == Wait::ForDaemon && left() > 2 * PAUSE =>
            {
                let _ = tell.send(Attempt::Failed(error));
                thread::sleep(PAUSE);
            }
            outcome => {
                let _ = tell.send(Attempt::Ended(outcome));
                return;
            }
        }
    }
}

fn once(
    socket: &Path,
    command: impl FnOnce() -> Command,
    tell: &Sender<Attempt>,
) -> Result<Result<(), Refusal>, ClientError> {
    let unreachable = |source| ClientError::Unreachable {
        socket: socket.to_owned(),
        source,
    };
    let garbled = |error: serde_json::Error| ClientError::Garbled {
        reason: error.to_string(),
    };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    let _ = tell.send(Attempt::Connected);
    let request = Request {
        version: VERSION,
        command: command(),
    };
    let line = protocol::line(&request).map_err(garbled)?;
    stream.write_all(&line).map_err(unreachable)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream.take(LONGEST_LINE as u64));
    reader.read_until(b'\n', &mut answer).map_err(unreachable)?;
    if answer.is_empty() {
        return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    protocol::reply(&answer).map_err(garbled)
}
