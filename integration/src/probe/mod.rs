//! Can this host reach that address? Asked with real sockets from inside the host's namespace.
//!
//! - [`engine`]: all of a host's probes at once, nonblocking
//! - [`flight`]: one of them
//! - [`responder`]: the servers that answer them
//! - [`answer`]: what they answer
//! - [`neighbours`]: whether the machine's tables were large enough
//! - [`sctp`], [`icmp`]: the packets of protocols for which the kernel gives raw sockets only

pub(crate) mod answer;
pub(crate) mod engine;
pub(crate) mod flight;
pub(crate) mod icmp;
pub(crate) mod neighbours;
pub(crate) mod responder;
pub(crate) mod sctp;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// How long a probe waits before silence means [`Outcome::Denied`]: longer than TCP's first retransmission (1 s).
pub const DEFAULT_WINDOW: Duration = Duration::from_millis(1200);

/// A protocol to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A TCP handshake, then the server's name.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// An INIT and its INIT ACK.
    Sctp,
    /// An echo request and its reply; has no port.
    Icmp,
}

impl fmt::Display for Protocol {
    /// As Kubernetes writes them: `TCP`, `UDP`, `SCTP`, `ICMP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Icmp => "ICMP",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Protocol::Tcp),
            "UDP" => Ok(Protocol::Udp),
            "SCTP" => Ok(Protocol::Sctp),
            "ICMP" => Ok(Protocol::Icmp),
            _ => Err(Error::invalid(format!("{text:?} is not a protocol"))),
        }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The other side answered.
    Connected {
        /// The name of the lab's server that answered; ICMP and foreign servers name nobody.
        by: Option<String>,
    },
    /// The network let it through, but nobody serves there: a RST, an ABORT, port or protocol unreachable came back.
    Refused,
    /// Silence, until the window was over and every server had looked at all that had reached it.
    Denied,
    /// No verdict: the probe could not be made (no route, no such address family) or met another network error.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether the network let the packet through: connected or refused.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Outcome::Connected { .. } | Outcome::Refused)
    }

    /// Whether it met silence.
    pub fn is_denied(&self) -> bool {
        *self == Outcome::Denied
    }

    /// Who answered, if a server of the lab did.
    pub fn answered_by(&self) -> Option<&str> {
        match self {
            Outcome::Connected { by } => by.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Connected { by: Some(name) } => write!(f, "connected to {name}"),
            Outcome::Connected { by: None } => f.write_str("connected"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::Denied => f.write_str("denied"),
            Outcome::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// One probe, to be made by a [`Host`](crate::Host).
///
/// A link-local or multicast IPv6 address is reached over the host's [`interface`](crate::Host::interface) unless
/// another is named.
#[derive(Debug, Clone)]
pub struct Probe {
    pub(crate) protocol: Protocol,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) source: Option<IpAddr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) interface: Option<String>,
    pub(crate) window: Duration,
}

impl Probe {
    /// A probe; ICMP ignores the port.
    pub fn new(protocol: Protocol, to: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            protocol,
            to: to.into(),
            port,
            source: None,
            source_port: None,
            interface: None,
            window: DEFAULT_WINDOW,
        }
    }

    /// A TCP connection.
    pub fn tcp(to: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Protocol::Tcp, to, port)
    }

    /// A UDP datagram.
    pub fn udp(to: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Protocol::Udp, to, port)
    }

    /// An SCTP INIT.
    pub fn sctp(to: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(Protocol::Sctp, to, port)
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn icmp(to: impl Into<IpAddr>) -> Self {
        Self::new(Protocol::Icmp, to, 0)
    }

    /// Sends from this port instead of a free one (conntrack sees the same flow again).
    pub fn from_port(mut self, port: u16) -> Self {
        self.source_port = Some(port);
        self
    }

    /// Sends from this address of the host instead of the one that the kernel chooses.
    pub fn from_address(mut self, address: impl Into<IpAddr>) -> Self {
        self.source = Some(address.into());
        self
    }

    /// The interface for link-local and multicast addresses.
    pub fn over(mut self, interface: &str) -> Self {
        self.interface = Some(interface.to_owned());
        self
    }

    /// How long to wait before silence means denied (default [`DEFAULT_WINDOW`]).
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    pub(crate) fn is_sctp(&self) -> bool {
        self.protocol == Protocol::Sctp
    }
}

/// The name that stands before the first newline of an answer.
pub(crate) fn name_in(answer: &[u8]) -> Option<String> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let name = std::str::from_utf8(answer.get(..end)?).ok()?;
    Some(name.to_owned())
}
