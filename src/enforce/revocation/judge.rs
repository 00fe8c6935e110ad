//! Which connections the rules in force would not let begin now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use selvedge_nft::{Detail, Entry, Family, Hook, Ruleset};

use crate::cluster::port::Protocol;
use crate::verdict::packet::Packet;
use crate::verdict::ruleset::BaseChains;
use crate::verdict::{Connection, Transport};

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The rules let it begin.
    Allowed,
    /// They don't.
    Denied,
    /// They have no say in it.
    Spared,
    /// Nobody can tell.
    Unsure,
}

/// Judges by one ruleset, on one host.
#[derive(Debug)]
pub struct Judge<'a> {
    forward: BaseChains<'a>,
    own: &'a BTreeSet<IpAddr>,
}

impl<'a> Judge<'a> {
    /// A judge by this ruleset, on the host that has these addresses itself.
    pub fn new(ruleset: &'a Ruleset, own: &'a BTreeSet<IpAddr>) -> Self {
        Self {
            forward: BaseChains::of(ruleset, Family::Inet, Hook::Forward),
            own,
        }
    }

    /// Judges a connection by the packet that opens it, as hook forward would see it today: after DNAT, so sent to whom
    /// the replies come from, and before SNAT.
    pub fn judge(&self, entry: &Entry) -> Judgement {
        let (from, to) = (entry.original.source, entry.reply.source);
        // The host's own meet hooks output and input, which Selvedge leaves alone. What another connection has announced
        // (FTP's data, say) passes as related to it.
        if self.own.contains(&from) || self.own.contains(&to) || entry.expected {
            return Judgement::Spared;
        }
        let (transport, source_port) = transport(entry);
        let packet = Connection::new(from, to, transport)
            .ok()
            .and_then(|connection| Packet::opening(&connection, source_port));
        match packet.map(|packet| self.forward.walk(&packet)) {
            Some(Ok(walk)) if walk.accepted => Judgement::Allowed,
            Some(Ok(_)) => Judgement::Denied,
            Some(Err(_)) | None => Judgement::Unsure,
        }
    }
}

/// By what the connection goes, and the port of who began.
pub(super) fn transport(entry: &Entry) -> (Transport, u16) {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let number = entry.original.protocol;
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == number);
    let ports = |detail| match detail {
        Detail::Ports { source, .. } => source,
        Detail::Icmp { .. } | Detail::None => 0,
    };
    let transport = match protocol {
        Some(protocol) => Transport::new(protocol, ports(entry.reply.detail)),
        None if matches!(number, ICMP | ICMPV6) => Transport::Icmp,
        None => Transport::Other(number),
    };
    (transport, ports(entry.original.detail))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
