//! Rules at the level of nft's own language.
//!
//! A field brings its protocol dependency with it, as in nft's text: `tcp dport 80` matches TCP only and `ip saddr`
//! IPv4 only, in any table of family inet or bridge. The codec writes the dependency out and reads it away again.

use crate::name::{Comment, Name};
use crate::value::{Datatype, Value};

/// One rule: its statements from left to right, and its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What the rule does, in order.
    pub statements: Vec<Statement>,
    /// The comment, kept in the rule's user data as nft does.
    pub comment: Option<Comment>,
}

impl Rule {
    /// A rule without a comment.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self {
            statements: statements.into(),
            comment: None,
        }
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }
}

/// A field of the packet or of its metadata, as nft names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr` (IPv4 only).
    IpSaddr,
    /// `ip daddr` (IPv4 only).
    IpDaddr,
    /// `ip6 saddr` (IPv6 only).
    Ip6Saddr,
    /// `ip6 daddr` (IPv6 only).
    Ip6Daddr,
    /// `arp saddr ip`: the sender's IPv4 address (ARP only). Bridge tables only.
    ArpSaddrIp,
    /// `tcp sport` (TCP only).
    TcpSport,
    /// `tcp dport` (TCP only).
    TcpDport,
    /// `udp sport` (UDP only).
    UdpSport,
    /// `udp dport` (UDP only).
    UdpDport,
    /// `sctp sport` (SCTP only).
    SctpSport,
    /// `sctp dport` (SCTP only).
    SctpDport,
    /// `th sport`: bytes 0 and 1 of whatever transport header there is.
    ThSport,
    /// `th dport`: bytes 2 and 3 of whatever transport header there is.
    ThDport,
    /// `icmp type` (ICMP only).
    IcmpType,
    /// `icmpv6 type` (ICMPv6 only).
    Icmpv6Type,
    /// `@th,64,128`: what a neighbour solicitation, advertisement or redirect is about, as an address. nft 1.0.6 has no
    /// name for it and takes it for a number: it follows an `icmpv6 type`, and is never looked up.
    NdTarget,
    /// `ether type`: the EtherType on the wire, the outer tag's for a tagged frame. Bridge tables only.
    EtherType,
    /// `meta l4proto`: the transport protocol's number.
    MetaL4proto,
    /// `iifname`.
    Iifname,
    /// `oifname`.
    Oifname,
}

impl Field {
    /// The type of the field's values.
    pub const fn datatype(self) -> Datatype {
        match self {
            Self::IpSaddr | Self::IpDaddr | Self::ArpSaddrIp => Datatype::Ipv4Addr,
            Self::Ip6Saddr | Self::Ip6Daddr | Self::NdTarget => Datatype::Ipv6Addr,
            Self::TcpSport
            | Self::TcpDport
            | Self::UdpSport
            | Self::UdpDport
            | Self::SctpSport
            | Self::SctpDport
            | Self::ThSport
            | Self::ThDport => Datatype::InetService,
            Self::IcmpType => Datatype::IcmpType,
            Self::Icmpv6Type => Datatype::Icmpv6Type,
            Self::EtherType => Datatype::EtherType,
            Self::MetaL4proto => Datatype::InetProto,
            Self::Iifname | Self::Oifname => Datatype::IfName,
        }
    }
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Equal, within the range, or within the prefix.
    Eq,
    /// Not equal, outside of the range, or outside of the prefix.
    Neq,
    /// Less than, for a single value.
    Lt,
    /// Greater than, for a single value.
    Gt,
    /// Less than or equal, for a single value.
    Lte,
    /// Greater than or equal, for a single value.
    Gte,
}

/// What a field is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// One value.
    Value(Value),
    /// All values from the first to the second, both included.
    Range(Value, Value),
    /// An address and the length of the network's prefix in bits; the host bits are zero, the length is at least 1 and
    /// less than the address's.
    Prefix(Value, u8),
}

/// Bits of `tcp flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// ACK.
    pub const ACK: Self = Self(0x10);
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The bits of `ct state`, as the kernel's `NF_CT_STATE_BIT` has them.
pub mod ct_state {
    /// The packet belongs to no connection that can be told.
    pub const INVALID: u32 = 1;
    /// Part of a connection that has been seen both ways.
    pub const ESTABLISHED: u32 = 1 << 1;
    /// A new connection that belongs to another, such as an ICMP error.
    pub const RELATED: u32 = 1 << 2;
    /// The first packet of a connection.
    pub const NEW: u32 = 1 << 3;
    /// Taken from connection tracking on purpose, or never tracked.
    pub const UNTRACKED: u32 = 1 << 6;
}

/// What happens to a packet, or where evaluation goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// End this hook's base chain: the packet goes on to the next one.
    Accept,
    /// End: the packet is gone.
    Drop,
    /// Back to the calling chain; in a base chain, its policy.
    Return,
    /// On to the next rule.
    Continue,
    /// Evaluate the chain, then come back.
    Jump(Name),
    /// Evaluate the chain, then go back to where the last jump came from.
    Goto(Name),
}

impl Verdict {
    /// The chain that the verdict names.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// The unit of a `limit rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitUnit {
    /// Each second.
    Second,
    /// Each minute.
    Minute,
    /// Each hour.
    Hour,
    /// Each day.
    Day,
}

/// One statement of a rule. All but the verdicts let the rule go on where they match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `ip saddr 10.0.0.0/8`, `tcp dport 8000-8100`, `iifname != "cni0"`.
    Match {
        /// The field.
        field: Field,
        /// The comparison.
        op: Operator,
        /// The value, range or prefix, of the field's datatype.
        operand: Operand,
    },
    /// `tcp flags & (fin | syn | rst | ack) == syn` (TCP only); `op` is `Eq` or `Neq`.
    TcpFlags {
        /// The bits that are looked at.
        mask: TcpFlags,
        /// The comparison.
        op: Operator,
        /// What they must or must not be.
        value: TcpFlags,
    },
    /// `ct state established,related`: matches when any of the bits (see [`ct_state`]) is the packet's state.
    CtState(u32),
    /// `ip saddr . tcp dport @set`, `ip saddr != @set`.
    Lookup {
        /// One field, or several for a concatenation.
        key: Vec<Field>,
        /// The set of this table.
        set: Name,
        /// Whether the rule goes on where the key is *not* in the set.
        inverted: bool,
    },
    /// `ip saddr vmap @map`: applies the verdict the map has for the key; goes on where it has none.
    VerdictMap {
        /// One field, or several for a concatenation.
        key: Vec<Field>,
        /// The map of this table.
        map: Name,
    },
    /// `counter`: counts packets and bytes. Its figures are state, not configuration, and no part of the value.
    Counter,
    /// `counter name "denied"`: a named counter of this table.
    NamedCounter(Name),
    /// `limit rate 10/second burst 5 packets`: goes on while the rate is kept.
    Limit {
        /// Packets a unit; at least 1.
        rate: u64,
        /// The unit.
        unit: LimitUnit,
        /// How many packets more may come at once.
        burst: u32,
    },
    /// `log prefix "denied " group 5`: a copy of the packet's head goes to an nflog group.
    Log {
        /// The nflog group.
        group: u16,
        /// The prefix, at most 127 bytes.
        prefix: Option<Comment>,
    },
    /// A verdict.
    Verdict(Verdict),
    /// A statement read from the kernel that this crate does not write; it equals nothing that does.
    Foreign(String),
}

impl Statement {
    /// `field == value`.
    pub fn eq(field: Field, value: Value) -> Self {
        Self::Match {
            field,
            op: Operator::Eq,
            operand: Operand::Value(value),
        }
    }

    /// `field @set`.
    pub fn lookup(key: impl Into<Vec<Field>>, set: Name) -> Self {
        Self::Lookup {
            key: key.into(),
            set,
            inverted: false,
        }
    }
}

impl From<Verdict> for Statement {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}
