//! Entries as ctnetlink's attributes, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nftnl::nftnl_sys::libc;

use super::super::wire::{Attr, Attrs, Malformed, begin_nest, end_nest, put, put_u32};
use crate::conntrack::{Detail, Entry, Tuple};

/// `enum ctattr_type`.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// `enum ctattr_tuple`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;

/// `enum ctattr_ip`: source and destination.
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];

/// `enum ctattr_l4proto`: the ports, and identifier, type and code of ICMP and ICMPv6.
const PROTO_NUM: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
const PROTO_ICMP: [u16; 3] = [4, 5, 6];
const PROTO_ICMPV6: [u16; 3] = [7, 8, 9];

/// `CTA_PROTOINFO_TCP`, and its `CTA_PROTOINFO_TCP_STATE`.
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`.
const TCP_CLOSED: [u8; 2] = [7, 8];

/// `IPS_EXPECTED`.
const STATUS_EXPECTED: u32 = 1;

/// `CTA_FILTER_F_CTA_IP_SRC`, a number in the host's order.
const FILTER_SOURCE: u32 = 1;

/// `CTA_STATS_GLOBAL_ENTRIES`.
const STATS_ENTRIES: u16 = 1;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the end that began.
    Original,
    /// From the other.
    Reply,
}

/// How many entries there are.
pub(super) fn tracked(attrs: Attrs<'_>) -> Result<usize, Malformed> {
    let entries = attrs.find(STATS_ENTRIES)?;
    let entries = entries.ok_or_else(|| Malformed::new("no number of entries"))?;
    Ok(entries.u32()? as usize)
}

/// Asks for entries whose packets in this direction come from this address.
pub(super) fn put_source_filter(out: &mut Vec<u8>, direction: Direction, address: IpAddr) {
    let (tuple, flags) = match direction {
        Direction::Original => (TUPLE_ORIG, 1),
        Direction::Reply => (TUPLE_REPLY, 2),
    };
    nest(out, tuple, |out| {
        nest(out, TUPLE_IP, |out| put_address(out, 0, address));
    });
    nest(out, FILTER, |out| {
        put(out, flags, &FILTER_SOURCE.to_ne_bytes());
    });
}

/// Names one entry.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_tuple(out, TUPLE_ORIG, &entry.original);
    if entry.zone != 0 {
        put(out, ZONE, &entry.zone.to_be_bytes());
    }
    put_u32(out, ID, entry.id);
}

fn put_tuple(out: &mut Vec<u8>, kind: u16, tuple: &Tuple) {
    nest(out, kind, |out| {
        nest(out, TUPLE_IP, |out| {
            put_address(out, 0, tuple.source);
            put_address(out, 1, tuple.destination);
        });
        nest(out, TUPLE_PROTO, |out| {
            put(out, PROTO_NUM, &[tuple.protocol]);
            match tuple.detail {
                Detail::Ports {
                    source,
                    destination,
                } => {
                    put(out, PROTO_PORTS[0], &source.to_be_bytes());
                    put(out, PROTO_PORTS[1], &destination.to_be_bytes());
                }
                Detail::Icmp { kind, code, id } => {
                    let [id_attr, kind_attr, code_attr] = match tuple.source {
                        IpAddr::V4(_) => PROTO_ICMP,
                        IpAddr::V6(_) => PROTO_ICMPV6,
                    };
                    put(out, id_attr, &id.to_be_bytes());
                    put(out, kind_attr, &[kind]);
                    put(out, code_attr, &[code]);
                }
                Detail::None => {}
            }
        });
        if let Some(zone) = tuple.zone {
            put(out, TUPLE_ZONE, &zone.to_be_bytes());
        }
    });
}

fn put_address(out: &mut Vec<u8>, end: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(out, IP_V4[end], &address.octets()),
        IpAddr::V6(address) => put(out, IP_V6[end], &address.octets()),
    }
}

fn nest(out: &mut Vec<u8>, kind: u16, within: impl FnOnce(&mut Vec<u8>)) {
    let start = begin_nest(out, kind);
    within(out);
    end_nest(out, start);
}

/// Reads an entry.
pub(in crate::kernel) fn entry(attrs: Attrs<'_>) -> Result<Entry, Malformed> {
    let found = |kind| attrs.clone().find(kind);
    let tuple_at = |kind| required(found(kind)?, kind).and_then(|attr| tuple(attr));
    let status = found(STATUS)?.map_or(Ok(0), |attr| attr.u32())?;
    let state = match found(PROTOINFO)? {
        Some(info) => match info.nested().find(PROTOINFO_TCP)? {
            Some(tcp) => tcp.nested().find(TCP_STATE)?,
            None => None,
        },
        None => None,
    };
    let state = state.map(|attr| attr.u8()).transpose()?;
    Ok(Entry {
        original: tuple_at(TUPLE_ORIG)?,
        reply: tuple_at(TUPLE_REPLY)?,
        id: required(found(ID)?, ID)?.u32()?,
        zone: found(ZONE)?.map_or(Ok(0), |attr| attr.u16())?,
        expected: status & STATUS_EXPECTED != 0,
        closed: state.is_some_and(|state| TCP_CLOSED.contains(&state)),
    })
}

fn tuple(attr: Attr<'_>) -> Result<Tuple, Malformed> {
    let within = |kind| attr.nested().find(kind);
    let ip = required(within(TUPLE_IP)?, TUPLE_IP)?;
    let proto = required(within(TUPLE_PROTO)?, TUPLE_PROTO)?;
    let protocol = proto.nested().find(PROTO_NUM)?;
    let protocol = required(protocol, PROTO_NUM)?.u8()?;
    let zone = within(TUPLE_ZONE)?.map(|attr| attr.u16()).transpose()?;
    let (source, destination) = (address(ip, 0)?, address(ip, 1)?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Malformed::new(format!(
            "{source} and {destination} are of two families"
        )));
    }
    Ok(Tuple {
        source,
        destination,
        protocol,
        detail: detail(proto, protocol)?,
        zone,
    })
}

fn address(ip: Attr<'_>, end: usize) -> Result<IpAddr, Malformed> {
    if let Some(v4) = ip.nested().find(IP_V4[end])?
        && let Ok(octets) = <[u8; 4]>::try_from(v4.payload)
    {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let v6 = required(ip.nested().find(IP_V6[end])?, IP_V6[end])?;
    match <[u8; 16]>::try_from(v6.payload) {
        Ok(octets) => Ok(Ipv6Addr::from(octets).into()),
        Err(_) => Err(Malformed::new("an address that is none")),
    }
}

fn detail(proto: Attr<'_>, protocol: u8) -> Result<Detail, Malformed> {
    let found =
        |kind| -> Result<Attr<'_>, Malformed> { required(proto.nested().find(kind)?, kind) };
    let icmp = match i32::from(protocol) {
        libc::IPPROTO_ICMP => Some(PROTO_ICMP),
        libc::IPPROTO_ICMPV6 => Some(PROTO_ICMPV6),
        _ => None,
    };
    if let Some([id, kind, code]) = icmp {
        return Ok(Detail::Icmp {
            kind: found(kind)?.u8()?,
            code: found(code)?.u8()?,
            id: found(id)?.u16()?,
        });
    }
    let [source, destination] = PROTO_PORTS;
    if proto.nested().find(source)?.is_none() {
        return Ok(Detail::None);
    }
    Ok(Detail::Ports {
        source: found(source)?.u16()?,
        destination: found(destination)?.u16()?,
    })
}

fn required(attr: Option<Attr<'_>>, kind: u16) -> Result<Attr<'_>, Malformed> {
    attr.ok_or_else(|| Malformed::new(format!("there is no attribute {kind}")))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
