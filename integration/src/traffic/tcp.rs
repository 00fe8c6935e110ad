//! One established TCP connection on which numbered messages go out at a steady pace and come back in order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::Worker;
use crate::error::{During, Error};
use crate::topology::host::Host;

const MESSAGE: usize = 8;
/// How long answers may take after the last message was sent.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long opening the connection may take.
const OPENING: Duration = Duration::from_secs(5);

/// What a [`TcpFlow`] saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpCounts {
    /// Messages handed to the kernel whole.
    pub sent: u64,
    /// Messages that came back, in order and unchanged.
    pub answered: u64,
    /// The connection's end, if it ended before it was asked to.
    pub error: Option<String>,
    /// The longest time without an answer while at least one was due.
    pub longest_stall: Duration,
    /// Segments that the client's kernel sent again on this connection; None when the connection has failed.
    pub retransmits: Option<u64>,
}

/// An established TCP connection under load.
#[derive(Debug)]
pub struct TcpFlow {
    worker: Worker<TcpCounts>,
    answered: Arc<AtomicU64>,
    local: SocketAddr,
}

impl TcpFlow {
    /// Connects `from` to a server of the lab and sends a message each `pace` from then on.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection doesn't come about within five seconds.
    pub fn start(
        from: &Host,
        to: impl Into<IpAddr>,
        port: u16,
        pace: Duration,
    ) -> Result<Self, Error> {
        let to = SocketAddr::new(to.into(), port);
        let name = from.name().to_owned();
        let answered = Arc::new(AtomicU64::new(0));
        let socket = from.netns().run(|| connect(to))?;
        let socket = socket.during(&format!("connect {} to {to}", from.name()))?;
        let local = socket.local_addr().during("read a socket's address")?;
        let local = local
            .as_socket()
            .ok_or_else(|| Error::invalid("a TCP socket has an IP address"))?;
        let (ready, started) = mpsc::channel();
        let worker = Worker::start(from, {
            let answered = answered.clone();
            move |stop| {
                let _ = ready.send(());
                let mut flow = Flow::new(socket, answered);
                let error = flow.exchange(pace, stop).err().map(|e| e.to_string());
                let retransmits = match error {
                    None => Some(retransmits(local).during(&format!("ask ss in {name}"))?),
                    Some(_) => None,
                };
                Ok(TcpCounts {
                    sent: flow.sent,
                    answered: flow.answered.load(Ordering::Relaxed),
                    error,
                    longest_stall: flow.longest_stall,
                    retransmits,
                })
            }
        })?;
        let _ = started.recv();
        Ok(Self {
            worker,
            answered,
            local,
        })
    }

    /// Messages that have come back so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the connection has ended by itself; `stop` tells why.
    pub fn has_ended(&self) -> bool {
        self.worker.has_ended()
    }

    /// The client's address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends no more, waits up to five seconds for the answers that are due, and returns the counts.
    pub fn stop(self) -> Result<TcpCounts, Error> {
        self.worker.stop()
    }
}

fn connect(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.connect_timeout(&to.into(), OPENING)?;
    socket.set_tcp_nodelay(true)?;
    // The server says its name first.
    socket.set_read_timeout(Some(OPENING))?;
    let mut byte = [0];
    loop {
        (&socket).read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

struct Flow {
    socket: Socket,
    sent: u64,
    answered: Arc<AtomicU64>,
    unwritten: Vec<u8>,
    unread: Vec<u8>,
    last_progress: Instant,
    longest_stall: Duration,
}

impl Flow {
    fn new(socket: Socket, answered: Arc<AtomicU64>) -> Self {
        Self {
            socket,
            sent: 0,
            answered,
            unwritten: Vec::new(),
            unread: Vec::new(),
            last_progress: Instant::now(),
            longest_stall: Duration::ZERO,
        }
    }

    fn exchange(&mut self, pace: Duration, stop: &AtomicBool) -> io::Result<()> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if self.unwritten.is_empty() && next <= Instant::now() {
                self.ask();
                next += pace;
                // After a stall the pace goes on from now; nothing is made up for.
                next = next.max(Instant::now());
            }
            self.turn(next)?;
        }
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.due() && Instant::now() < deadline {
            self.turn(deadline.min(Instant::now() + Duration::from_millis(50)))?;
        }
        Ok(())
    }

    fn due(&self) -> bool {
        !self.unwritten.is_empty() || self.sent > self.answered.load(Ordering::Relaxed)
    }

    fn ask(&mut self) {
        if !self.due() {
            self.last_progress = Instant::now();
        }
        self.unwritten.extend(self.sent.to_be_bytes());
    }

    /// Writes and reads what goes, then waits until something more goes or `until` has come.
    fn turn(&mut self, until: Instant) -> io::Result<()> {
        self.write()?;
        self.read()?;
        if self.due() {
            self.longest_stall = self.longest_stall.max(self.last_progress.elapsed());
        }
        let mut events = PollFlags::POLLIN;
        if !self.unwritten.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        let left = until.saturating_duration_since(Instant::now());
        // A stop is looked for now and then.
        let left = left.min(Duration::from_millis(50)) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match self.socket.write(&self.unwritten) {
                Ok(length) => {
                    self.unwritten.drain(..length);
                    if self.unwritten.is_empty() {
                        self.sent += 1;
                    }
                }
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self
                    .unread
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            let whole = self.unread.len() - self.unread.len() % MESSAGE;
            for message in self
                .unread
                .drain(..whole)
                .collect::<Vec<_>>()
                .chunks(MESSAGE)
            {
                let expected = self.answered.load(Ordering::Relaxed);
                if message != expected.to_be_bytes() {
                    return Err(io::Error::other(format!(
                        "answer {expected} came back as {message:?}"
                    )));
                }
                self.answered.store(expected + 1, Ordering::Relaxed);
                self.longest_stall = self.longest_stall.max(self.last_progress.elapsed());
                self.last_progress = Instant::now();
            }
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The connection's total of retransmitted segments, as `ss -ti` prints it: `retrans:0/3`, absent when zero.
///
/// Asked from inside the namespace: the calling thread stands there.
fn retransmits(local: SocketAddr) -> io::Result<u64> {
    let output = std::process::Command::new("ss")
        .args(["-tinHO", "sport", "=", &format!(":{}", local.port())])
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.trim().is_empty() {
        return Err(io::Error::other(format!(
            "no connection from {local}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(text
        .split_whitespace()
        .find_map(|word| {
            word.strip_prefix("retrans:")?
                .split_once('/')?
                .1
                .parse()
                .ok()
        })
        .unwrap_or(0))
}
