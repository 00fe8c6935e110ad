//! Tracked connections as values.

use std::io;
use std::net::IpAddr;

use crate::dataplane::DataplaneError;

/// A connection's packets in one direction, as they are where they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends them.
    pub source: IpAddr,
    /// To whom; of the same family.
    pub destination: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// What else tells connections of the protocol apart.
    pub detail: Detail,
    /// The zone that this direction alone is in, if it is.
    pub zone: Option<u16>,
}

/// What tells connections between two addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Ports (TCP, UDP, SCTP and others; GRE's keys stand here, too).
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// A query of ICMP or ICMPv6 and its answer.
    Icmp {
        /// The message's type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Its identifier.
        id: u16,
    },
    /// Nothing.
    None,
}

/// A connection that the kernel tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The packets of the end that began: before any translation of addresses.
    pub original: Tuple,
    /// The packets of the other end. Its source is who was reached, after DNAT.
    pub reply: Tuple,
    /// What tells the entry from one that took its place.
    pub id: u32,
    /// The zone of both directions; 0 where there is none.
    pub zone: u16,
    /// Whether another connection announced it (`IPS_EXPECTED`): its packets are related to that one's.
    pub expected: bool,
    /// Whether its ends have taken leave of one another: TCP's states TIME_WAIT and CLOSE.
    pub closed: bool,
}

impl Entry {
    /// Whether the address is that of the end that began, or of the one that it reached.
    pub fn involves(&self, address: IpAddr) -> bool {
        self.original.source == address || self.reply.source == address
    }
}

/// The answer to a question for entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Those that were wanted.
    pub kept: Vec<Entry>,
    /// How many could not be read.
    pub unreadable: usize,
}

impl Entries {
    /// Adds another answer's.
    pub(crate) fn add(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.unreadable += other.unreadable;
    }
}

/// Why connection tracking could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel can't be asked, or refuses.
    #[error("connection tracking can't be reached ({doing}): {source}")]
    Unreachable {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel's answer is none.
    #[error("the kernel's answer about connections can't be read: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<DataplaneError> for ConntrackError {
    fn from(error: DataplaneError) -> Self {
        match error {
            DataplaneError::Unreachable { doing, source } => Self::Unreachable { doing, source },
            other => Self::Malformed {
                reason: other.to_string(),
            },
        }
    }
}
