//! One probe under way: its socket, what it sends, and what an answer means.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::PollFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::sctp::{Chunk, Packet};
use super::{Outcome, Probe, Protocol, icmp, name_in};
use crate::random::random;

/// What tells one flow of a raw socket from the next. What is drawn at random comes again while connection tracking still
/// knows the flow before, and then passes as a part of that one.
static NEXT: LazyLock<AtomicU16> =
    LazyLock::new(|| AtomicU16::new(u16::try_from(random() & 0xffff).unwrap_or(0)));

fn next() -> u16 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A probe under way.
pub(super) struct Flight {
    pub(super) index: usize,
    pub(super) socket: Socket,
    to: SockAddr,
    /// Multicast and broadcast are answered from another address than the one asked, so their sockets aren't connected.
    connected: bool,
    kind: Kind,
}

enum Kind {
    Tcp { established: bool, heard: Vec<u8> },
    Udp,
    Sctp { init: Packet },
    Icmp { v4: bool, id: u16 },
}

impl Flight {
    /// Opens the socket, in the calling thread's namespace, and sends the first packet.
    pub(super) fn start(index: usize, probe: &Probe, interface: &str) -> io::Result<Self> {
        let interface = probe.interface.as_deref().unwrap_or(interface);
        let domain = Domain::for_address(SocketAddr::new(probe.to, 0));
        let v4 = probe.to.is_ipv4();
        let (kind, socket_type, protocol) = match probe.protocol {
            Protocol::Tcp => {
                let kind = Kind::Tcp {
                    established: false,
                    heard: Vec::new(),
                };
                (kind, Type::STREAM, libc::IPPROTO_TCP)
            }
            Protocol::Udp => (Kind::Udp, Type::DGRAM, libc::IPPROTO_UDP),
            Protocol::Sctp => {
                let init = Packet {
                    // raw sockets have no ports of their own
                    source: probe
                        .source_port
                        .unwrap_or_else(|| 32_768 + next() % 28_000),
                    destination: probe.port,
                    verification_tag: 0,
                    chunk: Chunk::Init {
                        tag: u32::try_from(random() & 0x7fff_ffff).unwrap_or(0) | 1,
                    },
                };
                (Kind::Sctp { init }, Type::RAW, libc::IPPROTO_SCTP)
            }
            Protocol::Icmp => {
                let id = next();
                let protocol = if v4 {
                    libc::IPPROTO_ICMP
                } else {
                    libc::IPPROTO_ICMPV6
                };
                (Kind::Icmp { v4, id }, Type::RAW, protocol)
            }
        };
        let socket = Socket::new(domain, socket_type, Some(protocol.into()))?;
        socket.set_nonblocking(true)?;
        let connected = !is_multicast_or_broadcast(probe.to);
        if !connected {
            socket.set_broadcast(true)?;
        }
        bind_source(&socket, probe)?;
        let port = if socket_type == Type::RAW {
            0
        } else {
            probe.port
        };
        let to = socket_address(probe.to, port, interface)?;
        let mut flight = Self {
            index,
            socket,
            to: to.into(),
            connected,
            kind,
        };
        if matches!(flight.kind, Kind::Tcp { .. }) {
            // A RST at the end: neither side keeps the port in TIME_WAIT.
            flight.socket.set_linger(Some(Duration::ZERO))?;
            match flight.socket.connect(&flight.to) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
        } else {
            if connected {
                flight.socket.connect(&flight.to)?;
            }
            flight.send()?;
        }
        Ok(flight)
    }

    /// What to poll for.
    pub(super) fn events(&self) -> PollFlags {
        match self.kind {
            Kind::Tcp {
                established: false, ..
            } => PollFlags::POLLOUT,
            _ => PollFlags::POLLIN,
        }
    }

    /// Sends the request (again). TCP's kernel does that itself.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let request = match &self.kind {
            Kind::Tcp { .. } => return Ok(()),
            Kind::Udp => b"probe".to_vec(),
            Kind::Sctp { init } => init.encode(),
            Kind::Icmp { v4, id } => icmp::request(*v4, *id, 1),
        };
        let sent = if self.connected {
            self.socket.send(&request)
        } else {
            self.socket.send_to(&request, &self.to)
        };
        match sent {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads what has come; the outcome, if that decides it.
    pub(super) fn advance(&mut self) -> Option<Outcome> {
        if let Kind::Tcp { established, .. } = &mut self.kind
            && !*established
        {
            match self.socket.take_error() {
                Ok(None) => *established = true,
                Ok(Some(error)) | Err(error) => return Some(outcome_of(&error)),
            }
        }
        let mut buffer = [0; 2048];
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Some(match self.kind {
                        // It was connected; that it ended so early says nothing about the network.
                        Kind::Tcp { .. } => Outcome::Connected { by: None },
                        _ => outcome_of(&error),
                    });
                }
            };
            let read = buffer.get(..length).unwrap_or_default();
            if let Some(outcome) = self.judge(read) {
                return Some(outcome);
            }
        }
    }

    fn judge(&mut self, read: &[u8]) -> Option<Outcome> {
        match &mut self.kind {
            Kind::Tcp { heard, .. } => {
                heard.extend_from_slice(read);
                let by = name_in(heard);
                (by.is_some() || read.is_empty()).then_some(Outcome::Connected { by })
            }
            Kind::Udp => Some(Outcome::Connected { by: name_in(read) }),
            Kind::Sctp { init } => {
                let message = if self.to.is_ipv4() {
                    icmp::after_ipv4_header(read)?
                } else {
                    read
                };
                let answer = Packet::decode(message)?;
                let Chunk::Init { tag } = init.chunk else {
                    return None;
                };
                let ours = answer.destination == init.source
                    && answer.source == init.destination
                    && answer.verification_tag == tag;
                match answer.chunk {
                    _ if !ours => None,
                    Chunk::InitAck { cookie, .. } => Some(Outcome::Connected {
                        by: name_in(&cookie),
                    }),
                    Chunk::Abort => Some(Outcome::Refused),
                    Chunk::Init { .. } => None,
                }
            }
            Kind::Icmp { v4, id } => {
                let message = if *v4 {
                    icmp::after_ipv4_header(read)?
                } else {
                    read
                };
                icmp::is_reply(*v4, *id, message).then_some(Outcome::Connected { by: None })
            }
        }
    }

    /// The outcome when nothing more came.
    pub(super) fn when_silent(&self) -> Outcome {
        match self.kind {
            Kind::Tcp {
                established: true, ..
            } => Outcome::Connected { by: None },
            _ => Outcome::Denied,
        }
    }
}

fn bind_source(socket: &Socket, probe: &Probe) -> io::Result<()> {
    if probe.source.is_none() && probe.source_port.is_none() {
        return Ok(());
    }
    let any = match probe.to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let raw = socket.r#type()? == Type::RAW;
    let port = if raw {
        0
    } else {
        probe.source_port.unwrap_or(0)
    };
    // A port that is nobody's choice must not be another probe's, too.
    socket.set_reuse_address(probe.source_port.is_some())?;
    socket.bind(&SocketAddr::new(probe.source.unwrap_or(any), port).into())
}

/// The address with the scope that link-local and multicast IPv6 addresses need.
fn socket_address(to: IpAddr, port: u16, interface: &str) -> io::Result<SocketAddr> {
    match to {
        IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast() => {
            let scope = if_nametoindex(interface)?;
            Ok(SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => Ok(SocketAddr::new(to, port)),
    }
}

fn is_multicast_or_broadcast(to: IpAddr) -> bool {
    match to {
        IpAddr::V6(address) => address.is_multicast(),
        // A subnet's broadcast address cannot be told from a host's by itself; .255 is never a pod of the lab's /24s.
        IpAddr::V4(address) => {
            address.is_multicast() || address.is_broadcast() || address.octets()[3] == 255
        }
    }
}

/// What a socket's error says about the network.
pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // RST or port unreachable; protocol unreachable (IPv4), unknown next header (IPv6)
        Some(libc::ECONNREFUSED | libc::ENOPROTOOPT | libc::EPROTO) => Outcome::Refused,
        Some(libc::ETIMEDOUT) => Outcome::Denied,
        _ => Outcome::Failed {
            reason: error.to_string(),
        },
    }
}
