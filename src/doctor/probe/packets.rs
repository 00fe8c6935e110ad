//! What is sent, and whether it arrives.
//!
//! That something does not arrive is told without waiting for it: what is allowed is sent behind it, the same way.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

use super::cluster::{CLIENT, OPEN, SERVER, SHUT};
use super::network::{Network, POD_LINK, system};
use super::{ProbeError, Seen, Step};

/// How long something that is to arrive may take; on one bridge it is there at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a handshake is waited for that is to fail, in both families at once.
const SILENCE: Duration = Duration::from_millis(150);

/// For a packet that was sent before another one and comes after it.
const GRACE: Duration = Duration::from_millis(20);

/// How a packet travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// UDP over IPv4.
    Ipv4,
    /// UDP over IPv6.
    Ipv6,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// A frame of 802.1Q.
    Vlan,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Tcp4 => "TCP over IPv4",
            Self::Tcp6 => "TCP over IPv6",
            Self::Vlan => "802.1Q",
        })
    }
}

/// The sockets of both pods.
pub(super) struct Packets {
    servers: Vec<Server>,
    frames: Result<Frames, Errno>,
}

/// The server's sockets of one family.
struct Server {
    client: IpAddr,
    address: IpAddr,
    open: UdpSocket,
    shut: UdpSocket,
    listener: TcpListener,
}

impl Server {
    fn open(client: IpAddr, address: IpAddr) -> io::Result<Self> {
        let open = UdpSocket::bind((address, OPEN))?;
        let shut = UdpSocket::bind((address, SHUT))?;
        open.set_read_timeout(Some(PATIENCE))?;
        shut.set_read_timeout(Some(GRACE))?;
        let listener = TcpListener::bind((address, OPEN))?;
        Ok(Self {
            client,
            address,
            open,
            shut,
            listener,
        })
    }

    fn ways(&self) -> (Way, Way) {
        match self.address {
            IpAddr::V4(_) => (Way::Ipv4, Way::Tcp4),
            IpAddr::V6(_) => (Way::Ipv6, Way::Tcp6),
        }
    }

    fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.address, OPEN)
    }
}

impl Packets {
    /// Opens the sockets, each in its namespace.
    pub(super) fn open(network: &Network) -> Result<Self, ProbeError> {
        network.server.enter()?;
        let mut pairs = vec![(IpAddr::V4(CLIENT.0), IpAddr::V4(SERVER.0))];
        if network.ipv6 {
            pairs.push((IpAddr::V6(CLIENT.1), IpAddr::V6(SERVER.1)));
        }
        let servers = pairs
            .into_iter()
            .map(|(client, server)| Server::open(client, server))
            .collect::<io::Result<_>>()
            .map_err(system("opening the server's sockets"))?;
        let receiver = packet_socket();
        network.client.enter()?;
        Ok(Self {
            servers,
            frames: Frames::open(receiver),
        })
    }

    /// Sends to both ports in each family; what the packets are, by their ports.
    pub(super) fn both(
        &mut self,
        network: &Network,
        seen: &mut Vec<Seen>,
        open: Step,
        shut: Step,
    ) -> Result<(), ProbeError> {
        network.client.enter()?;
        for server in &self.servers {
            // A new socket each time: a new connection to the kernel.
            let client =
                UdpSocket::bind((server.client, 0)).map_err(system("a client's socket"))?;
            for port in [SHUT, OPEN] {
                let sent = client.send_to(b"?", (server.address, port));
                sent.map_err(system("sending a packet"))?;
            }
            let way = server.ways().0;
            let arrived = arrives(&server.open)?;
            seen.push(Seen {
                step: open,
                way,
                arrived,
            });
            let arrived = arrives(&server.shut)?;
            if open != shut || !arrived {
                seen.push(Seen {
                    step: shut,
                    way,
                    arrived,
                });
            }
        }
        Ok(())
    }

    /// Sends a tagged frame.
    pub(super) fn frame(
        &mut self,
        seen: &mut Vec<Seen>,
        step: Step,
        untried: &mut Vec<String>,
    ) -> Result<(), ProbeError> {
        let outcome = match &self.frames {
            Ok(frames) => frames.pass(step.arrives()),
            Err(errno) => Err(*errno),
        };
        match outcome {
            Ok(arrived) => seen.push(Seen {
                step,
                way: Way::Vlan,
                arrived,
            }),
            Err(errno) => {
                let reason = format!("frames with VLAN tags ({})", errno.desc());
                if !untried.contains(&reason) {
                    untried.push(reason);
                }
            }
        }
        Ok(())
    }

    /// Opens a TCP connection in each family, which must be allowed.
    pub(super) fn connect(&self, network: &Network) -> Result<Kept, ProbeError> {
        network.client.enter()?;
        let mut connections = Vec::new();
        for server in &self.servers {
            let way = server.ways().1;
            let Ok(client) = TcpStream::connect_timeout(&server.listens_at(), PATIENCE) else {
                connections.push((way, None));
                continue;
            };
            let (accepted, _) = server.listener.accept().map_err(system("a connection"))?;
            for stream in [&client, &accepted] {
                let set = stream.set_read_timeout(Some(PATIENCE));
                set.map_err(system("a connection's patience"))?;
            }
            connections.push((way, Some((client, accepted))));
        }
        Ok(Kept(connections))
    }

    /// Tries to open TCP connections that no policy allows.
    pub(super) fn reconnect(
        &self,
        network: &Network,
        seen: &mut Vec<Seen>,
    ) -> Result<(), ProbeError> {
        network.client.enter()?;
        // A thread is born into the namespace of the one that makes it.
        let outcomes = thread::scope(|scope| {
            let threads: Vec<_> = self
                .servers
                .iter()
                .map(|server| {
                    let connect =
                        || TcpStream::connect_timeout(&server.listens_at(), SILENCE).is_ok();
                    (server.ways().1, scope.spawn(connect))
                })
                .collect();
            threads
                .into_iter()
                // A thread that panicked has proven nothing: as if it had got through.
                .map(|(way, thread)| (way, thread.join().unwrap_or(true)))
                .collect::<Vec<_>>()
        });
        seen.extend(outcomes.into_iter().map(|(way, arrived)| Seen {
            step: Step::Closed,
            way,
            arrived,
        }));
        Ok(())
    }
}

/// TCP connections that were allowed when they began, with both their ends; `None` where that failed.
pub(super) struct Kept(Vec<(Way, Option<(TcpStream, TcpStream)>)>);

impl Kept {
    /// Sends both ways.
    pub(super) fn send(self, seen: &mut Vec<Seen>) -> Result<(), ProbeError> {
        for (way, ends) in self.0 {
            let arrived = ends.is_some_and(|(mut client, mut server)| {
                carries(&mut client, &mut server) && carries(&mut server, &mut client)
            });
            let step = Step::Kept;
            seen.push(Seen { step, way, arrived });
        }
        Ok(())
    }
}

fn carries(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut byte = [0];
    from.write_all(b"s").is_ok() && to.read_exact(&mut byte).is_ok() && byte == *b"s"
}

/// Whether a datagram comes within the socket's patience.
fn arrives(socket: &UdpSocket) -> Result<bool, ProbeError> {
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Ok(true),
        Err(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            Ok(false)
        }
        Err(source) => Err(system("receiving a packet")(source)),
    }
}

/// Sockets for whole frames, from the client's interface to the server's.
struct Frames {
    sender: OwnedFd,
    interface: LinkAddr,
    receiver: OwnedFd,
}

/// A broadcast with a VLAN tag, of an EtherType for local experiments.
const HEAD: [u8; 18] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x81, 0, 0, 5, 0x88, 0xb5,
];

/// What it carries: as much as the shortest frame has room for.
const MARK: [u8; 42] = *b"selvedge probe selvedge probe selvedge pro";

fn packet_socket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )
}

impl Frames {
    /// The receiver hears all of its namespace. The sender is opened in the calling thread's.
    fn open(receiver: Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        let receiver = receiver?;
        let interface = getifaddrs()?
            .filter(|interface| interface.interface_name == POD_LINK)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or(Errno::ENODEV)?;
        let sender = packet_socket()?;
        bind(sender.as_raw_fd(), &interface)?;
        Ok(Self {
            sender,
            interface,
            receiver,
        })
    }

    /// Sends the frame and says whether it comes, which is waited for if it is to.
    fn pass(&self, expected: bool) -> Result<bool, Errno> {
        while recv(self.receiver.as_raw_fd(), &mut [0; 128], MsgFlags::empty()).is_ok() {}
        sendto(
            self.sender.as_raw_fd(),
            &[&HEAD[..], &MARK].concat(),
            &self.interface,
            MsgFlags::empty(),
        )?;
        let patience = if expected { PATIENCE } else { GRACE };
        let end = Instant::now() + patience;
        loop {
            let mut frame = [0; 128];
            match recv(self.receiver.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(len) if frame[..len].windows(MARK.len()).any(|part| part == MARK) => {
                    return Ok(true);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                    let fd = PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN);
                    poll(&mut [fd], timeout)?;
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}
