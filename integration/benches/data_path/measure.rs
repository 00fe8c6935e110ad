//! What is measured on a stand: bytes, packets and connections a second from the client to the server.
//!
//! One thread holds both ends of everything. Pods are joined by veth pairs, where a packet's whole way, the receiver's
//! queue included, is walked by the thread that sends it; so nothing is gained by a second thread but the wait for
//! each other on a machine whose cores have other work.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use selvedge_lab::{Error, Netns};
use socket2::{Domain, Socket, Type};

use crate::load::DENIED_PORT;
use crate::stand::Stand;

/// How long anything may take that takes microseconds where all is well.
const PATIENCE: Duration = Duration::from_secs(2);
/// The bytes of a datagram: a DNS question's, a game's, a metric's.
const DATAGRAM: [u8; 64] = [0; 64];
/// What a TCP connection may have under way.
const WINDOW_BYTES: usize = 200 * 1024;
/// Datagrams sent before they are taken in at the other end, whose queue holds some hundreds.
const BURST: u32 = 64;

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes a second over one established TCP connection.
    Tcp,
    /// Small datagrams a second that a sender gets to the other pod, on an established flow.
    Udp,
    /// TCP connections a second, opened, accepted and reset, to the pod's own address.
    Connections,
    /// The same by the Service's ClusterIP.
    ServiceConnections,
    /// Small datagrams a second that policies drop.
    Denied,
}

impl Figure {
    /// Those of the tables, in their order.
    pub const ALL: [Self; 4] = [
        Self::Tcp,
        Self::Udp,
        Self::Connections,
        Self::ServiceConnections,
    ];
}

/// The sockets between a stand's pods: established under the policies that are in force there.
#[derive(Debug)]
pub struct Flows {
    client: Netns,
    server: SocketAddrV4,
    service: SocketAddrV4,
    listener: TcpListener,
    stream: (TcpStream, TcpStream),
    datagrams: (UdpSocket, UdpSocket),
    denied: (UdpSocket, UdpSocket),
    buffer: Vec<u8>,
}

impl Flows {
    /// Opens them.
    pub fn open(stand: &Stand) -> Result<Self, Error> {
        let server = stand.server_address();
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, server.port());
        let listener = stand.server().run(|| listen(any))?;
        let listener = listener.map_err(during("listen in the server's namespace"))?;
        let stream = stand.client().run(|| open_stream(server, &listener))?;
        let stream = stream.map_err(during("open the TCP connection"))?;
        let receiver = stand.server().run(|| UdpSocket::bind(any))?;
        let receiver = receiver.map_err(during("bind the UDP server"))?;
        let sender = stand.client().run(|| open_datagrams(server, &receiver))?;
        let sender = sender.map_err(during("exchange a first datagram"))?;
        let denied = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
        let denied = (
            stand.client().run(|| denied(0))?,
            stand.server().run(|| denied(DENIED_PORT))?,
        );
        let denied = open_denied(denied, *server.ip()).map_err(during("bind the denied port"))?;
        Ok(Self {
            client: stand.client().clone(),
            server,
            service: stand.service_address(),
            listener,
            stream,
            datagrams: (sender, receiver),
            denied,
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Measures one figure for a while: so much a second.
    ///
    /// # Errors
    /// When something that was sent does not arrive: nothing is ever counted as a slow zero.
    pub fn measure(&mut self, figure: Figure, window: Duration) -> Result<f64, Error> {
        match figure {
            Figure::Tcp => self.stream(window).map_err(during("stream over TCP")),
            Figure::Udp => self.datagrams(window).map_err(during("send datagrams")),
            Figure::Connections => self.connections(self.server, window),
            Figure::ServiceConnections => self.connections(self.service, window),
            Figure::Denied => self.denied(window).map_err(during("send denied datagrams")),
        }
    }

    fn stream(&mut self, window: Duration) -> io::Result<f64> {
        let (sender, receiver) = (&mut self.stream.0, &mut self.stream.1);
        let (started, mut progress) = (Clock::start()?, Instant::now());
        let mut received = 0;
        loop {
            let sent = until_blocked(|| sender.write(&self.buffer))?;
            let got = until_blocked(|| receiver.read(&mut self.buffer))?;
            received += got;
            if sent + got > 0 {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                return Err(silence("bytes"));
            }
            if started.is_over(window) && received > 0 {
                return Ok(rate(received, started.worked()?));
            }
        }
    }

    /// Only the time in which datagrams are sent counts: the other end's share is another core's in a cluster.
    fn datagrams(&mut self, window: Duration) -> io::Result<f64> {
        let (sender, receiver) = (&self.datagrams.0, &self.datagrams.1);
        let started = Clock::start()?;
        let (mut sent, mut sending) = (0, Duration::ZERO);
        while sent == 0 || !started.is_over(window) {
            let burst = Clock::start()?;
            for _ in 0..BURST {
                sender.send(&DATAGRAM)?;
            }
            sending += burst.worked()?;
            sent += BURST as usize;
            for _ in 0..BURST {
                // Waits at most PATIENCE, which is never, since all of them are there.
                let length = receiver.recv(&mut self.buffer)?;
                if length != DATAGRAM.len() {
                    return Err(io::Error::other(format!("a datagram of {length} bytes")));
                }
            }
        }
        Ok(rate(sent, sending))
    }

    fn denied(&self, window: Duration) -> io::Result<f64> {
        let started = Clock::start()?;
        let mut sent = 0;
        while sent == 0 || !started.is_over(window) {
            for _ in 0..BURST {
                self.denied.0.send(&DATAGRAM)?;
            }
            sent += BURST as usize;
        }
        let rate = rate(sent, started.worked()?);
        match self.denied.1.recv(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(rate),
            Ok(_) => Err(io::Error::other("a denied datagram arrived")),
            Err(error) => Err(error),
        }
    }

    fn connections(&self, to: SocketAddrV4, window: Duration) -> Result<f64, Error> {
        let measured = self.client.run(|| -> io::Result<f64> {
            let started = Clock::start()?;
            let mut made = 0;
            while made == 0 || !started.is_over(window) {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                // No lingering: reset, so that the ports are free for the next.
                client.set_linger(Some(Duration::ZERO))?;
                connect(&client, to)?;
                let (server, _) = self.listener.accept()?;
                drop(client);
                drop(server);
                made += 1;
            }
            Ok(rate(made, started.worked()?))
        })?;
        measured.map_err(during("open connections"))
    }
}

fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(at).into())?;
    // Taken over by what it accepts: no flow waits for its window to grow.
    socket.set_recv_buffer_size(WINDOW_BYTES)?;
    socket.listen(64)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn connect(socket: &Socket, to: SocketAddrV4) -> io::Result<()> {
    // How long a connect waits too; a plain option costs less each time than to poll.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SocketAddr::from(to).into())
}

fn open_stream(to: SocketAddrV4, listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.set_send_buffer_size(WINDOW_BYTES)?;
    connect(&client, to)?;
    let (server, _) = listener.accept()?;
    let client = TcpStream::from(client);
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok((client, server))
}

/// A flow is established once a datagram went each way.
fn open_datagrams(to: SocketAddrV4, receiver: &UdpSocket) -> io::Result<UdpSocket> {
    let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    sender.connect(to)?;
    sender.set_read_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = DATAGRAM;
    sender.send(&DATAGRAM)?;
    let (_, from) = receiver.recv_from(&mut buffer)?;
    receiver.send_to(&DATAGRAM, from)?;
    sender.recv(&mut buffer)?;
    Ok(sender)
}

fn open_denied(
    sockets: (io::Result<UdpSocket>, io::Result<UdpSocket>),
    server: Ipv4Addr,
) -> io::Result<(UdpSocket, UdpSocket)> {
    let (sender, receiver) = (sockets.0?, sockets.1?);
    sender.connect((server, DENIED_PORT))?;
    receiver.set_nonblocking(true)?;
    Ok((sender, receiver))
}

/// Repeats a write or read until it would wait; the bytes that it moved.
fn until_blocked(mut step: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut moved = 0;
    loop {
        match step() {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => moved += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
            Err(error) => return Err(error),
        }
    }
}

/// The time that this thread works, softirqs on its back included, and not the time that others take its core away.
struct Clock {
    started: Instant,
    worked: Duration,
}

impl Clock {
    fn start() -> io::Result<Self> {
        Ok(Self {
            started: Instant::now(),
            worked: worked()?,
        })
    }

    fn is_over(&self, window: Duration) -> bool {
        self.started.elapsed() >= window
    }

    fn worked(&self) -> io::Result<Duration> {
        Ok(worked()?.saturating_sub(self.worked))
    }
}

fn worked() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn silence(what: &str) -> io::Error {
    io::Error::other(format!("no {what} arrived for {PATIENCE:?}"))
}

fn during(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        what: what.to_owned(),
        source,
    }
}
