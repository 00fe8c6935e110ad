//! Numbered datagrams at a steady rate, each to be answered: what is lost is known exactly.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::AsFd;

use super::Worker;
use crate::error::{During, Error};
use crate::topology::host::Host;

/// How long late answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a [`UdpStream`] saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpCounts {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Different datagrams that were answered, late ones included.
    pub answered: u64,
    /// ICMP errors and failed calls.
    pub errors: u64,
    /// The numbers of the first hundred datagrams without an answer, counted from 0.
    pub missing: Vec<u64>,
}

impl UdpCounts {
    /// Datagrams without an answer.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

/// A stream of questions and answers from one UDP socket.
#[derive(Debug)]
pub struct UdpStream {
    worker: Worker<UdpCounts>,
    answered: Arc<AtomicU64>,
}

impl UdpStream {
    /// Sends `rate` datagrams a second from `from` to a server of the lab. One socket, one conntrack entry.
    pub fn start(from: &Host, to: impl Into<IpAddr>, port: u16, rate: u32) -> Result<Self, Error> {
        let to = SocketAddr::new(to.into(), port);
        let answered = Arc::new(AtomicU64::new(0));
        let socket = from.netns().run(|| open(to))?;
        let socket = socket.during(&format!("open a UDP socket from {} to {to}", from.name()))?;
        let worker = Worker::start(from, {
            let (answered, host) = (answered.clone(), from.clone());
            move |stop| Ok(Stream::new(socket, answered).exchange(rate.max(1), stop, &host))
        })?;
        Ok(Self { worker, answered })
    }

    /// Datagrams answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends no more, waits until the servers have caught up and up to two seconds more for late answers, and returns the
    /// counts.
    pub fn stop(self) -> Result<UdpCounts, Error> {
        self.worker.stop()
    }
}

fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    // A client that is scheduled late must not lose answers.
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    Ok(socket)
}

struct Stream {
    socket: UdpSocket,
    /// Whether each datagram was answered.
    seen: Vec<bool>,
    answered: Arc<AtomicU64>,
    errors: u64,
}

impl Stream {
    fn new(socket: UdpSocket, answered: Arc<AtomicU64>) -> Self {
        Self {
            socket,
            seen: Vec::new(),
            answered,
            errors: 0,
        }
    }

    fn exchange(mut self, rate: u32, stop: &AtomicBool, host: &Host) -> UdpCounts {
        let pace = Duration::from_secs(1) / rate;
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if next <= now {
                self.send();
                // Behind by more than a tenth of a second: go on from now rather than send a burst.
                next =
                    (next + pace).max(now.checked_sub(Duration::from_millis(100)).unwrap_or(now));
            }
            self.receive();
            self.wait(next.saturating_duration_since(Instant::now()));
        }
        // A server that is behind loses nothing.
        host.registry().catch_up();
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.answered.load(Ordering::Relaxed) < self.sent() && Instant::now() < deadline {
            self.wait(Duration::from_millis(20));
            self.receive();
        }
        let missing = self.seen.iter().zip(0..).filter(|(seen, _)| !**seen);
        UdpCounts {
            sent: self.sent(),
            answered: self.answered.load(Ordering::Relaxed),
            errors: self.errors,
            missing: missing.map(|(_, number)| number).take(100).collect(),
        }
    }

    fn sent(&self) -> u64 {
        u64::try_from(self.seen.len()).unwrap_or(u64::MAX)
    }

    fn send(&mut self) {
        match self.socket.send(&self.sent().to_be_bytes()) {
            Ok(_) => self.seen.push(false),
            // Not sent, so not lost.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.errors += 1,
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let answer = buffer.get(..length).unwrap_or_default();
                    if let Some(number) = number_in(answer)
                        && let Some(seen @ false) = self.seen.get_mut(number)
                    {
                        *seen = true;
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.errors += 1,
            }
        }
    }

    fn wait(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        let timeout =
            PollTimeout::try_from(time.min(Duration::from_millis(50)) + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX);
        let _ = poll(
            &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    }
}

/// The number at the end of an answer `name\n` + datagram.
fn number_in(answer: &[u8]) -> Option<usize> {
    let number = answer.last_chunk::<8>()?;
    usize::try_from(u64::from_be_bytes(*number)).ok()
}
