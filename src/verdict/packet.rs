//! Packets as netfilter's expressions see them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use selvedge_nft::{Field, IfName, TcpFlags, Value, ct_state};

use super::connection::{Connection, Transport};
use crate::cluster::port::Protocol;

/// A packet at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The interface it came in by; the kernel reads none as the empty name.
    pub iifname: Option<IfName>,
    /// The interface it goes out by, likewise.
    pub oifname: Option<IfName>,
    /// The EtherType on the wire; none where the hook has no link layer.
    pub ether_type: Option<u16>,
    /// The network layer.
    pub network: Network,
    /// The transport layer; none in a later fragment, or where there is no network layer.
    pub transport: Option<TransportHeader>,
    /// The bits of [`ct_state`].
    pub ct_state: u32,
}

/// The addresses of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4 {
        /// The source.
        saddr: Ipv4Addr,
        /// The destination.
        daddr: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// The source.
        saddr: Ipv6Addr,
        /// The destination.
        daddr: Ipv6Addr,
    },
    /// Neither.
    Other,
}

/// A transport header, as far as rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportHeader {
    /// The IP protocol number.
    pub protocol: u8,
    /// The first four bytes: the two ports, or an ICMP message's type, code and checksum.
    pub head: [u8; 4],
    /// The flags of a TCP segment.
    pub tcp_flags: Option<TcpFlags>,
}

const ICMP: u8 = 1;
const TCP: u8 = Protocol::Tcp.number();
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

impl TransportHeader {
    /// A header with ports; for TCP that of a segment with these flags.
    pub fn ports(protocol: Protocol, source: u16, destination: u16, flags: TcpFlags) -> Self {
        let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
        Self {
            protocol: protocol.number(),
            head: [a, b, c, d],
            tcp_flags: (protocol == Protocol::Tcp).then_some(flags),
        }
    }

    /// An ICMPv6 message.
    pub fn icmpv6(kind: u8, checksum: u16) -> Self {
        Self::icmp(ICMPV6, kind, checksum)
    }

    fn icmp(protocol: u8, kind: u8, checksum: u16) -> Self {
        let [c, d] = checksum.to_be_bytes();
        Self {
            protocol,
            head: [kind, 0, c, d],
            tcp_flags: None,
        }
    }
}

impl Packet {
    /// A packet between two addresses, with no interfaces; `None` when the addresses are of different families.
    pub fn new(
        from: IpAddr,
        to: IpAddr,
        transport: TransportHeader,
        ct_state: u32,
    ) -> Option<Self> {
        let network = match (from, to) {
            (IpAddr::V4(saddr), IpAddr::V4(daddr)) => Network::V4 { saddr, daddr },
            (IpAddr::V6(saddr), IpAddr::V6(daddr)) => Network::V6 { saddr, daddr },
            _ => return None,
        };
        Some(Self {
            iifname: None,
            oifname: None,
            ether_type: None,
            network,
            transport: Some(transport),
            ct_state,
        })
    }

    /// The first packet of a connection. Where a message has no ports, `bytes` are what stands in their place.
    pub fn opening(connection: &Connection, bytes: u16) -> Option<Self> {
        let transport = match connection.transport() {
            Transport::Tcp(port) => {
                TransportHeader::ports(Protocol::Tcp, bytes, port, TcpFlags::SYN)
            }
            Transport::Udp(port) => TransportHeader::ports(Protocol::Udp, bytes, port, TcpFlags(0)),
            Transport::Sctp(port) => {
                TransportHeader::ports(Protocol::Sctp, bytes, port, TcpFlags(0))
            }
            Transport::Icmp if connection.to().is_ipv4() => {
                TransportHeader::icmp(ICMP, ECHO_REQUEST, bytes)
            }
            Transport::Icmp => TransportHeader::icmp(ICMPV6, ECHO_REQUEST_V6, bytes),
            Transport::Other(protocol) => TransportHeader {
                protocol,
                ..TransportHeader::icmp(protocol, 0, bytes)
            },
        };
        Self::new(connection.from(), connection.to(), transport, ct_state::NEW)
    }

    /// The value of a field; `None` where the packet has no such field, which ends the rule that asks for it, also one
    /// that asks for a difference.
    pub(super) fn field(&self, field: Field) -> Option<FieldValue> {
        let value = |value: Value| {
            let mut bytes = [0; 16];
            let len = value.write(&mut bytes);
            Some(FieldValue { bytes, len })
        };
        let interface = |name: Option<IfName>| match name {
            Some(name) => value(Value::IfName(name)),
            // nft_meta_store_ifname: no device is the empty name, which equals none and differs from all.
            None => Some(FieldValue {
                bytes: [0; 16],
                len: 16,
            }),
        };
        let header = || self.transport;
        let of = |protocol: u8| header().filter(|h| h.protocol == protocol);
        let source = |h: TransportHeader| {
            let [a, b, ..] = h.head;
            value(Value::Service(u16::from_be_bytes([a, b])))
        };
        let destination = |h: TransportHeader| {
            let [.., c, d] = h.head;
            value(Value::Service(u16::from_be_bytes([c, d])))
        };
        match (field, self.network) {
            (Field::IpSaddr, Network::V4 { saddr, .. }) => value(Value::Ipv4(saddr)),
            (Field::IpDaddr, Network::V4 { daddr, .. }) => value(Value::Ipv4(daddr)),
            (Field::Ip6Saddr, Network::V6 { saddr, .. }) => value(Value::Ipv6(saddr)),
            (Field::Ip6Daddr, Network::V6 { daddr, .. }) => value(Value::Ipv6(daddr)),
            (Field::IpSaddr | Field::IpDaddr | Field::Ip6Saddr | Field::Ip6Daddr, _) => None,
            // What is no packet of a connection is not made here.
            (Field::ArpSaddrIp | Field::NdTarget, _) => None,
            (Field::TcpSport, _) => source(of(TCP)?),
            (Field::TcpDport, _) => destination(of(TCP)?),
            (Field::UdpSport, _) => source(of(Protocol::Udp.number())?),
            (Field::UdpDport, _) => destination(of(Protocol::Udp.number())?),
            (Field::SctpSport, _) => source(of(Protocol::Sctp.number())?),
            (Field::SctpDport, _) => destination(of(Protocol::Sctp.number())?),
            (Field::ThSport, _) => source(header()?),
            (Field::ThDport, _) => destination(header()?),
            (Field::IcmpType, _) => value(Value::IcmpType(of(ICMP)?.head[0])),
            (Field::Icmpv6Type, _) => value(Value::Icmpv6Type(of(ICMPV6)?.head[0])),
            (Field::EtherType, _) => value(Value::EtherType(self.ether_type?)),
            (Field::MetaL4proto, _) => value(Value::Proto(header()?.protocol)),
            (Field::Iifname, _) => interface(self.iifname),
            (Field::Oifname, _) => interface(self.oifname),
        }
    }

    /// The flags of a TCP segment.
    pub(super) fn tcp_flags(&self) -> Option<TcpFlags> {
        self.transport.filter(|h| h.protocol == TCP)?.tcp_flags
    }
}

/// A field's bytes as the kernel compares them.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldValue {
    bytes: [u8; 16],
    len: usize,
}

impl FieldValue {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// As one field of a concatenation: padded with zeros to a whole register.
    pub fn padded(&self) -> &[u8] {
        let len = self.len.next_multiple_of(4);
        self.bytes.get(..len).unwrap_or_default()
    }
}
