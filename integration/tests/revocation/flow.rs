//! Connections that are watched: by what has come back on each so far.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use selvedge_lab::{Error, Host, Lab, Protocol, wait_until};
use socket2::{SockRef, TcpKeepalive};

const PACE: Duration = Duration::from_millis(10);
const OPENING: Duration = Duration::from_secs(20);
/// The time from one keepalive to the next, and to the end when it is not answered.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// From the last answer on a connection until its end, where only keepalives go on.
pub const UNTIL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server pushes to a client.
const PUSHING: Duration = Duration::from_secs(600);

/// What a client does once the connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// It asks all the time, and the server answers.
    Asks,
    /// It says nothing more, and the server pushes.
    Listens,
    /// Neither says anything more; the client's kernel sends TCP keepalives.
    KeepsAlive,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub to: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

/// An open connection. Dropping it closes it.
pub struct Flow {
    name: String,
    talk: Talk,
    got: Arc<Got>,
    /// When its kernel gave the connection up.
    timed_out: Arc<OnceLock<Instant>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// What has come back on a connection.
#[derive(Default)]
struct Got {
    bytes: AtomicU64,
    /// When the kernel got the last of them, however late they were read.
    last: Mutex<Option<Instant>>,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    fn open(ends: Ends) -> io::Result<Self> {
        let socket = Self::connect(ends)?;
        setsockopt(&socket.fd(), sockopt::ReceiveTimestampns, &true)?;
        Ok(socket)
    }

    fn connect(ends: Ends) -> io::Result<Self> {
        let to = SocketAddr::new(ends.to, ends.port);
        if ends.protocol == Protocol::Tcp {
            let stream = TcpStream::connect_timeout(&to, OPENING)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            return Ok(Self::Tcp(stream));
        }
        let any: IpAddr = match ends.to {
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        socket.send(b"x")?;
        Ok(Self::Udp(socket))
    }

    /// Whatever comes of it: a dead connection is known by what does not come back.
    fn send(&mut self) {
        let _ = match self {
            Self::Tcp(stream) => stream.write(b"x"),
            Self::Udp(socket) => socket.send(b"x"),
        };
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }

    /// Takes all that waits, and adds it up in `got`.
    fn receive(&self, got: &Got) -> io::Result<()> {
        let (mut buffer, mut control) = ([0; 4096], nix::cmsg_space!(TimeSpec));
        loop {
            let (fd, flags) = (self.fd().as_raw_fd(), MsgFlags::empty());
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let read = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags);
            let read = match read.map_err(io::Error::from) {
                // The end of a stream.
                Ok(read) if read.bytes == 0 => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let stamp = read.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            });
            let waited =
                stamp.and_then(|at| SystemTime::now().duration_since(UNIX_EPOCH + at).ok());
            let now = Instant::now();
            let came = now.checked_sub(waited.unwrap_or_default());
            *got.last.lock().unwrap() = Some(came.unwrap_or(now));
            let bytes = u64::try_from(read.bytes).unwrap_or(0);
            got.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Has the kernel ask each second whether the other end is there, and give up at the first silence.
    fn keep_alive(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self else {
            return Ok(());
        };
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE)
            .with_retries(1);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }
}

impl Flow {
    pub fn start(from: &Host, name: String, ends: Ends, talk: Talk) -> Result<Self, Error> {
        let (got, stop) = (Arc::<Got>::default(), Arc::<AtomicBool>::default());
        let timed_out = Arc::<OnceLock<Instant>>::default();
        let socket = from.netns().run(|| {
            let socket = Socket::open(ends)?;
            if talk == Talk::KeepsAlive {
                socket.keep_alive()?;
            }
            Ok(socket)
        })?;
        let mut socket = socket.map_err(|source| Error::Io {
            what: name.clone(),
            source,
        })?;
        let thread = from.netns().spawn({
            let (got, stop, timed_out) = (got.clone(), stop.clone(), timed_out.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if talk == Talk::Asks {
                        socket.send();
                    }
                    match socket.receive(&got) {
                        Err(error) if error.kind() == ErrorKind::TimedOut => {
                            timed_out.get_or_init(Instant::now);
                        }
                        _ => {}
                    }
                    sleep(PACE);
                }
            }
        })?;
        Ok(Self {
            name,
            talk,
            got,
            timed_out,
            stop,
            thread: Some(thread),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes have come back.
    pub fn got(&self) -> u64 {
        self.got.bytes.load(Ordering::Relaxed)
    }

    /// When the last of them came.
    pub fn last(&self) -> Option<Instant> {
        *self.got.last.lock().unwrap()
    }

    /// Whether it is known by its keepalives alone.
    pub fn only_keeps_alive(&self) -> bool {
        self.talk == Talk::KeepsAlive
    }

    /// When the kernel gave it up, for want of an answer to a keepalive.
    pub fn timed_out(&self) -> Option<Instant> {
        self.timed_out.get().copied()
    }

    /// Waits until something more comes back; where only keepalives do, it must not have been given up.
    pub fn wait_until_alive(&self, patience: Duration) -> Result<(), Error> {
        if self.only_keeps_alive() {
            assert_eq!(self.timed_out(), None, "{} is dead", self.name);
            return Ok(());
        }
        let before = self.got();
        wait_until(&self.name, patience, || Ok(self.got() > before))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A server that pushes to whoever has come, over TCP and UDP, and takes no notice of what they say.
pub struct Pusher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Pusher {
    pub fn start(host: &Host, port: u16) -> Result<Self, Error> {
        let stop = Arc::<AtomicBool>::default();
        let open = || {
            let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            let (listener, socket) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
            listener.set_nonblocking(true)?;
            socket.set_nonblocking(true)?;
            Ok((listener, socket))
        };
        let opened = host.netns().run(open)?;
        let (listener, socket) = opened.map_err(|source| Error::Io {
            what: format!("listen on {}", host.name()),
            source,
        })?;
        let thread = host.netns().spawn({
            let stop = stop.clone();
            move || push(&listener, &socket, &stop)
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn push(listener: &TcpListener, socket: &UdpSocket, stop: &AtomicBool) {
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut clients: Vec<(SocketAddr, Instant)> = Vec::new();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        while let Ok((stream, _)) = listener.accept() {
            let _ = stream.set_nonblocking(true);
            let _ = stream.set_nodelay(true);
            streams.push(stream);
        }
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((_, client)) => clients.push((client, Instant::now())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The end of a client that has gone.
                Err(_) => {}
            }
        }
        streams.retain_mut(|stream| match stream.write(b"y") {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        clients.retain(|(client, since)| {
            let _ = socket.send_to(b"y", client);
            since.elapsed() < PUSHING
        });
        sleep(PACE);
    }
}

/// Opens connections from a pod to echo servers, evenly over both families, and lets them rest.
pub fn resting(
    lab: &Lab,
    from: &str,
    to: [&str; 2],
    count: usize,
) -> Result<Vec<TcpStream>, Error> {
    let from = lab.pod(from)?;
    let mut servers = Vec::new();
    for name in to {
        servers.extend(lab.pod(name)?.addresses().iter().copied());
    }
    let open = |n: usize| {
        let to = SocketAddr::new(servers[n % servers.len()], super::ECHO);
        let mut stream = TcpStream::connect_timeout(&to, OPENING)?;
        stream.set_read_timeout(Some(OPENING))?;
        // The server says its name.
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte)?;
        }
        Ok(stream)
    };
    let all = from
        .netns()
        .run(|| (0..count).map(open).collect::<io::Result<_>>())?;
    all.map_err(|source| Error::Io {
        what: "open connections that rest".to_owned(),
        source,
    })
}

/// Asserts that each still answers.
pub fn answer(streams: &[TcpStream]) -> Result<(), Error> {
    let deadline = Instant::now() + OPENING;
    let asked = |mut stream: &TcpStream| {
        let mut byte = [0];
        // Where all are dead, each is not waited for as long as the first.
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_secs(1))))?;
        stream.write_all(b"z")?;
        stream.read_exact(&mut byte)?;
        Ok::<_, io::Error>(byte == *b"z")
    };
    let dead: Vec<String> = streams
        .iter()
        .filter_map(|stream| match asked(stream) {
            Ok(true) => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    println!(
        "{} of {} resting connections answer",
        streams.len() - dead.len(),
        streams.len()
    );
    assert!(dead.is_empty(), "{dead:?}");
    Ok(())
}
