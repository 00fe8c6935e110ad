//! Connections: what is asked of an evaluator.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::cluster::port::Protocol;

/// A protocol and, where it has ports, the port at the receiving end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp(u16),
    /// UDP.
    Udp(u16),
    /// SCTP.
    Sctp(u16),
    /// An echo request: ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
    /// Another IP protocol, by its number.
    Other(u8),
}

impl Transport {
    /// The transport of a protocol that has ports.
    pub const fn new(protocol: Protocol, port: u16) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(port),
            Protocol::Udp => Self::Udp(port),
            Protocol::Sctp => Self::Sctp(port),
        }
    }

    /// Protocol and port, of those that policies can name.
    pub const fn port(self) -> Option<(Protocol, u16)> {
        match self {
            Self::Tcp(port) => Some((Protocol::Tcp, port)),
            Self::Udp(port) => Some((Protocol::Udp, port)),
            Self::Sctp(port) => Some((Protocol::Sctp, port)),
            Self::Icmp | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Transport {
    /// As [`Transport::from_str`] reads it; other protocols as `protocol 47`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Sctp(port) => write!(f, "sctp/{port}"),
            Self::Icmp => f.write_str("icmp"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// A text that is no [`Transport`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Neither a protocol and a port nor `icmp`.
    #[error("{text:?} is not tcp/N, udp/N, sctp/N or icmp")]
    Form {
        /// The text.
        text: String,
    },
    /// The port is no port.
    #[error("port {port} is not within 1-65535")]
    Port {
        /// The port's text.
        port: String,
    },
}

impl FromStr for Transport {
    type Err = TransportError;

    /// Reads `tcp/8080`, `udp/53`, `sctp/9`, `icmp`; capitals are fine.
    fn from_str(text: &str) -> Result<Self, TransportError> {
        let lower = text.to_ascii_lowercase();
        if lower == "icmp" {
            return Ok(Self::Icmp);
        }
        let form = || TransportError::Form {
            text: text.to_owned(),
        };
        let (protocol, port) = lower.split_once('/').ok_or_else(form)?;
        let protocol = Protocol::parse(&protocol.to_ascii_uppercase()).ok_or_else(form)?;
        let digits = port.strip_prefix('-').unwrap_or(port);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        match port.parse() {
            Ok(number) if number > 0 => Ok(Self::new(protocol, number)),
            _ => Err(TransportError::Port {
                port: port.to_owned(),
            }),
        }
    }
}

/// The first packet of a connection, as hook forward sees it: after DNAT, so that `to` and the port are those of the pod
/// behind a Service, and before SNAT. Replies are no connections: they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    from: IpAddr,
    to: IpAddr,
    transport: Transport,
}

/// Two ends that no packet can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from} and {to} are not of one address family")]
pub struct MixedFamilies {
    /// The one end.
    pub from: IpAddr,
    /// The other.
    pub to: IpAddr,
}

impl Connection {
    /// A connection between two addresses.
    ///
    /// # Errors
    /// [`MixedFamilies`] when one is IPv4 and the other IPv6.
    pub fn new(from: IpAddr, to: IpAddr, transport: Transport) -> Result<Self, MixedFamilies> {
        if from.is_ipv4() == to.is_ipv4() {
            Ok(Self {
                from,
                to,
                transport,
            })
        } else {
            Err(MixedFamilies { from, to })
        }
    }

    /// Who connects.
    pub fn from(&self) -> IpAddr {
        self.from
    }

    /// To whom.
    pub fn to(&self) -> IpAddr {
        self.to
    }

    /// By what.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_read_and_print_alike() {
        for text in ["tcp/8080", "udp/53", "sctp/65535", "icmp"] {
            assert_eq!(text.parse::<Transport>().unwrap().to_string(), text);
        }
        assert_eq!("TCP/1".parse::<Transport>(), Ok(Transport::Tcp(1)));
    }

    #[test]
    fn what_is_wrong_with_a_transport_is_said() {
        for text in ["tcp/0", "tcp/65536", "udp/-1", "sctp/99999999999"] {
            let error = text.parse::<Transport>().unwrap_err();
            assert!(matches!(error, TransportError::Port { .. }), "{text}");
        }
        for text in [
            "", "tcp", "8080", "tcp/", "tcp/http", "tcp/+1", "icmp/8", "gre/1",
        ] {
            let error = text.parse::<Transport>().unwrap_err();
            assert!(matches!(error, TransportError::Form { .. }), "{text}");
        }
    }
}
