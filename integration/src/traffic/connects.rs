//! New TCP connections at a steady pace, each closed as soon as its fate is known.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::Worker;
use crate::error::Error;
use crate::probe::DEFAULT_WINDOW;
use crate::random::random;
use crate::topology::host::Host;

/// What [`Connects`] saw. Every attempt is in exactly one of the counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectCounts {
    /// Handshakes completed.
    pub connected: u64,
    /// Met silence for a whole window.
    pub denied: u64,
    /// Answered by a RST.
    pub refused: u64,
    /// Failed otherwise (no route, no free port).
    pub failed: u64,
    /// Why the first of those failed.
    pub failure: Option<String>,
    /// The longest handshake of those completed.
    pub slowest: Duration,
}

impl ConnectCounts {
    /// All attempts.
    pub fn attempts(&self) -> u64 {
        self.connected + self.denied + self.refused + self.failed
    }
}

/// New connections in the background.
#[derive(Debug)]
pub struct Connects {
    worker: Worker<ConnectCounts>,
    live: Arc<Live>,
}

#[derive(Debug, Default)]
struct Live {
    connected: AtomicU64,
    denied: AtomicU64,
    /// When the oldest of the attempts under way began, or would have begun.
    oldest: Mutex<Option<Instant>>,
}

impl Connects {
    /// Starts a connection from `from` each `pace`, without waiting for those before it, with the window of a probe.
    pub fn start(
        from: &Host,
        to: impl Into<IpAddr>,
        port: u16,
        pace: Duration,
    ) -> Result<Self, Error> {
        Self::start_with_window(from, to, port, pace, DEFAULT_WINDOW)
    }

    /// Like [`start`](Self::start), where silence for `window` counts as denied.
    pub fn start_with_window(
        from: &Host,
        to: impl Into<IpAddr>,
        port: u16,
        pace: Duration,
        window: Duration,
    ) -> Result<Self, Error> {
        let to = SocketAddr::new(to.into(), port);
        let live = Arc::new(Live::default());
        let worker = Worker::start(from, {
            let live = live.clone();
            move |stop| Ok(run(to, pace, window, stop, &live))
        })?;
        Ok(Self { worker, live })
    }

    /// Handshakes completed so far.
    pub fn connected(&self) -> u64 {
        self.live.connected.load(Ordering::Relaxed)
    }

    /// Attempts denied so far.
    pub fn denied(&self) -> u64 {
        self.live.denied.load(Ordering::Relaxed)
    }

    /// Whether the fate of each attempt that began before this instant is known, and in the counts.
    pub fn knows_all_before(&self, instant: Instant) -> bool {
        let oldest = self.live.oldest.lock();
        oldest
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|oldest| oldest > instant)
    }

    /// Starts no more, waits for those under way, and returns the counts.
    pub fn stop(self) -> Result<ConnectCounts, Error> {
        self.worker.stop()
    }
}

struct Attempt {
    socket: Socket,
    since: Instant,
}

fn run(
    to: SocketAddr,
    pace: Duration,
    window: Duration,
    stop: &AtomicBool,
    live: &Live,
) -> ConnectCounts {
    let mut counts = ConnectCounts::default();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut next = Instant::now();
    let mut ports = Ports::new();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if stopping && attempts.is_empty() {
            return counts;
        }
        if !stopping && next <= Instant::now() {
            let since = Instant::now();
            match open(to, &mut ports) {
                Ok(socket) => attempts.push(Attempt { socket, since }),
                Err(error) => count(&mut counts, Err(error), Duration::ZERO),
            }
            next = (next + pace).max(Instant::now());
        }
        let soon = Instant::now() + Duration::from_millis(50);
        let until = if stopping { soon } else { next.min(soon) };
        wait(&attempts, until.saturating_duration_since(Instant::now()));
        attempts.retain(|attempt| {
            let Some(fate) = attempt.fate(window) else {
                return true;
            };
            count(&mut counts, fate, attempt.since.elapsed());
            false
        });
        live.connected.store(counts.connected, Ordering::Relaxed);
        live.denied.store(counts.denied, Ordering::Relaxed);
        let oldest = attempts.first().map_or_else(Instant::now, |one| one.since);
        *live.oldest.lock().unwrap_or_else(PoisonError::into_inner) = Some(oldest);
    }
}

fn count(counts: &mut ConnectCounts, fate: io::Result<()>, took: Duration) {
    match fate {
        Ok(()) => {
            counts.connected += 1;
            counts.slowest = counts.slowest.max(took);
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => counts.refused += 1,
            Some(libc::ETIMEDOUT) => counts.denied += 1,
            _ => {
                counts.failed += 1;
                counts.failure.get_or_insert_with(|| error.to_string());
            }
        },
    }
}

/// Source ports in turn. What the kernel picks at random comes again within seconds, while connection tracking still knows
/// the connection before, and may take the new one's handshake for a senseless part of it.
struct Ports(u16);

/// The first of them, and how many.
const PORTS: (u16, u16) = (32_768, 28_000);

impl Ports {
    fn new() -> Self {
        let anywhere = u16::try_from(random() % u64::from(PORTS.1)).unwrap_or_default();
        Self(anywhere)
    }

    /// Binds a socket to the next one that is free, however many others of this host hold in a row.
    fn bind(&mut self, socket: &Socket, any: IpAddr) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..PORTS.1 {
            self.0 = (self.0 + 1) % PORTS.1;
            outcome = socket.bind(&SocketAddr::new(any, PORTS.0 + self.0).into());
            let taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
            if !outcome.as_ref().is_err_and(taken) {
                break;
            }
        }
        outcome
    }
}

fn open(to: SocketAddr, ports: &mut Ports) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    ports.bind(&socket, any)?;
    // Closing sends a RST, so that thousands of connections leave no port in TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

impl Attempt {
    /// None while it is still open.
    fn fate(&self, window: Duration) -> Option<io::Result<()>> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO) == Ok(1) {
            return Some(match self.socket.take_error() {
                Ok(None) => Ok(()),
                Ok(Some(error)) | Err(error) => Err(error),
            });
        }
        let silent = self.since.elapsed() >= window;
        silent.then(|| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)))
    }
}

fn wait(attempts: &[Attempt], time: Duration) {
    let mut fds: Vec<PollFd> = attempts
        .iter()
        .map(|attempt| PollFd::new(attempt.socket.as_fd(), PollFlags::POLLOUT))
        .collect();
    let timeout =
        PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut fds, timeout);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::During;
    use crate::netns::Netns;

    #[test]
    fn a_run_of_ports_in_use_is_passed() -> Result<(), Error> {
        let last_hundred = || Ports(PORTS.1 - 100);
        let ports = Netns::new("ports")?.run(|| -> io::Result<Vec<Option<u16>>> {
            let bind = |ports: &mut Ports| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                ports.bind(&socket, IpAddr::from([0; 4])).map(|()| socket)
            };
            let mut ports = last_hundred();
            let mut held = (0..200)
                .map(|_| bind(&mut ports))
                .collect::<io::Result<Vec<_>>>()?;
            held.push(bind(&mut last_hundred())?);
            held.iter()
                .map(|socket| Ok(socket.local_addr()?.as_socket().map(|it| it.port())))
                .collect()
        })?;
        let ports = ports.during("bind two hundred ports")?;
        assert_eq!(ports.last(), Some(&Some(PORTS.0 + 101)), "{ports:?}");
        Ok(())
    }
}
