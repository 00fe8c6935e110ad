//! Rules into expressions, the way nft 1.0.6 does it, so that both list alike.
//!
//! A field brings its dependency (`meta nfproto`, `meta l4proto`) unless an earlier field of the rule has. A match that
//! is written out (`meta l4proto tcp`) is never taken for one: nft would then print, and we would read back, less than
//! was written.

use std::io;

use super::expr::{Base, Cmp, Data, Expr, MetaKey, Reg, Source};
use crate::rule::{Field, Operand, Operator, Rule, Statement};
use crate::ruleset::Family;
use crate::value::{Datatype, Key, Value};

/// The network protocol that the rule is known to be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Net {
    V4,
    V6,
    Arp,
}

impl Net {
    /// `NFPROTO_*`, as tables of family inet see it; ARP they never do.
    pub(super) const fn nfproto(self) -> Option<u8> {
        match self {
            Self::V4 => Some(2),
            Self::V6 => Some(10),
            Self::Arp => None,
        }
    }

    /// `ETH_P_*`.
    pub(super) const fn ether_type(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
            Self::Arp => 0x0806,
        }
    }

    /// The protocol with this data for `meta nfproto`.
    pub(super) fn from_nfproto(data: &Data) -> Option<Self> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|net| net.nfproto().is_some_and(|n| data.as_bytes() == [n]))
    }

    /// The protocol with this EtherType, in network order.
    pub(super) fn from_ether_type(data: &Data) -> Option<Self> {
        [Self::V4, Self::V6, Self::Arp]
            .into_iter()
            .find(|net| data.as_bytes() == net.ether_type().to_be_bytes())
    }
}

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// Where `tcp flags` are.
pub(super) const TCP_FLAGS: Source = Source::Payload {
    base: Base::Transport,
    offset: 13,
    len: 1,
};

/// Where the EtherType is.
pub(super) const ETHER_TYPE: Source = Source::Payload {
    base: Base::Link,
    offset: 12,
    len: 2,
};

/// Where a field is.
pub(super) fn source(field: Field) -> Source {
    let (base, offset) = match field {
        Field::IpSaddr => (Base::Network, 12),
        Field::IpDaddr => (Base::Network, 16),
        Field::Ip6Saddr => (Base::Network, 8),
        Field::Ip6Daddr => (Base::Network, 24),
        Field::ArpSaddrIp => (Base::Network, 14),
        Field::TcpSport | Field::UdpSport | Field::SctpSport | Field::ThSport => {
            (Base::Transport, 0)
        }
        Field::TcpDport | Field::UdpDport | Field::SctpDport | Field::ThDport => {
            (Base::Transport, 2)
        }
        Field::IcmpType | Field::Icmpv6Type => (Base::Transport, 0),
        Field::NdTarget => (Base::Transport, 8),
        Field::EtherType => return ETHER_TYPE,
        Field::MetaL4proto => return Source::Meta(MetaKey::L4proto),
        Field::Iifname => return Source::Meta(MetaKey::Iifname),
        Field::Oifname => return Source::Meta(MetaKey::Oifname),
    };
    let len = field.datatype().len() as u32;
    Source::Payload { base, offset, len }
}

/// The network protocol a field belongs to.
fn net_of(field: Field) -> Option<Net> {
    match field {
        Field::IpSaddr | Field::IpDaddr | Field::IcmpType => Some(Net::V4),
        Field::Ip6Saddr | Field::Ip6Daddr | Field::Icmpv6Type => Some(Net::V6),
        Field::ArpSaddrIp => Some(Net::Arp),
        _ => None,
    }
}

/// The transport protocol a field belongs to.
fn transport_of(field: Field) -> Option<u8> {
    match field {
        Field::TcpSport | Field::TcpDport => Some(TCP),
        Field::UdpSport | Field::UdpDport => Some(UDP),
        Field::SctpSport | Field::SctpDport => Some(SCTP),
        Field::IcmpType => Some(ICMP),
        Field::Icmpv6Type => Some(ICMPV6),
        _ => None,
    }
}

/// The data of a value.
fn data(value: &Value) -> Result<Data, io::Error> {
    let mut bytes = [0; 16];
    let len = value.write(&mut bytes);
    Data::new(&bytes[..len]).ok_or_else(|| invalid("a value without bytes"))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// The expressions of a rule of a table of this family.
///
/// # Errors
/// `InvalidInput` for a rule that nft's language or the kernel does not have, or that would not read back as it was.
pub(super) fn rule(family: Family, rule: &Rule) -> io::Result<Vec<Expr>> {
    let mut encoder = Encoder {
        family,
        net: None,
        transport: None,
        explicit_transport: false,
        out: Vec::with_capacity(rule.statements.len() * 3),
    };
    for statement in &rule.statements {
        encoder.statement(statement)?;
        encoder.explicit_transport = matches!(
            statement,
            Statement::Match {
                field: Field::MetaL4proto,
                op: Operator::Eq,
                operand: Operand::Value(Value::Proto(TCP | UDP | SCTP)),
            }
        );
    }
    Ok(encoder.out)
}

struct Encoder {
    family: Family,
    /// What earlier dependencies have established.
    net: Option<Net>,
    /// As `net`.
    transport: Option<u8>,
    /// Whether the statement before was `meta l4proto tcp` or the like.
    explicit_transport: bool,
    out: Vec<Expr>,
}

impl Encoder {
    fn statement(&mut self, statement: &Statement) -> io::Result<()> {
        let expr = match statement {
            Statement::Match { field, op, operand } => {
                return self.comparison(*field, *op, operand);
            }
            Statement::TcpFlags { mask, op, value } => {
                let op = match op {
                    Operator::Eq => Cmp::Eq,
                    Operator::Neq => Cmp::Neq,
                    _ => return Err(invalid("tcp flags are compared with == or !=")),
                };
                self.require_transport(TCP);
                self.load(TCP_FLAGS, Reg::FIRST);
                self.out.push(Expr::Mask {
                    mask: Data::byte(mask.0),
                });
                let data = Data::byte(value.0);
                Expr::Cmp { op, data }
            }
            Statement::CtState(bits) => {
                if *bits == 0 {
                    return Err(invalid("ct state without a state"));
                }
                let data = |number: u32| {
                    Data::new(&number.to_ne_bytes()).ok_or_else(|| invalid("no state"))
                };
                self.load(Source::CtState, Reg::FIRST);
                self.out.push(Expr::Mask { mask: data(*bits)? });
                Expr::Cmp {
                    op: Cmp::Neq,
                    data: data(0)?,
                }
            }
            Statement::Lookup { key, set, inverted } => {
                self.key(key)?;
                Expr::Lookup {
                    set: set.clone(),
                    inverted: *inverted,
                    verdict: false,
                }
            }
            Statement::VerdictMap { key, map } => {
                self.key(key)?;
                Expr::Lookup {
                    set: map.clone(),
                    inverted: false,
                    verdict: true,
                }
            }
            Statement::Counter => Expr::Counter,
            Statement::NamedCounter(name) => Expr::NamedCounter(name.clone()),
            Statement::Limit { rate, unit, burst } => {
                if *rate == 0 || *burst == 0 {
                    return Err(invalid("a limit's rate and burst are at least 1"));
                }
                Expr::Limit {
                    rate: *rate,
                    unit: *unit,
                    burst: *burst,
                }
            }
            Statement::Log { group, prefix } => Expr::Log {
                group: *group,
                prefix: prefix.clone(),
            },
            Statement::Verdict(verdict) => Expr::Verdict(verdict.clone()),
            Statement::Foreign(_) => {
                return Err(invalid("a foreign statement can be read but not written"));
            }
        };
        self.out.push(expr);
        Ok(())
    }

    fn comparison(&mut self, field: Field, op: Operator, operand: &Operand) -> io::Result<()> {
        let datatype = field.datatype();
        let fits = |value: &Value| {
            if value.datatype() == datatype {
                data(value)
            } else {
                Err(invalid("a field is compared with a value of another type"))
            }
        };
        match operand {
            Operand::Value(value) => {
                let op = match op {
                    Operator::Eq => Cmp::Eq,
                    Operator::Neq => Cmp::Neq,
                    _ if datatype == Datatype::IfName => {
                        return Err(invalid("interface names have no order"));
                    }
                    Operator::Lt => Cmp::Lt,
                    Operator::Gt => Cmp::Gt,
                    Operator::Lte => Cmp::Lte,
                    Operator::Gte => Cmp::Gte,
                };
                let data = fits(value)?;
                self.field(field, Reg::FIRST)?;
                self.out.push(Expr::Cmp { op, data });
            }
            Operand::Range(from, to) => {
                let (from, to) = (fits(from)?, fits(to)?);
                if datatype == Datatype::IfName || from.as_bytes() > to.as_bytes() {
                    return Err(invalid("a range goes from a number to one that is no less"));
                }
                self.field(field, Reg::FIRST)?;
                match op {
                    Operator::Eq => {
                        let (low, high) = (Cmp::Gte, Cmp::Lte);
                        self.out.push(Expr::Cmp {
                            op: low,
                            data: from,
                        });
                        self.out.push(Expr::Cmp { op: high, data: to });
                    }
                    Operator::Neq => self.out.push(Expr::NotInRange { from, to }),
                    _ => return Err(invalid("a range is compared with == or !=")),
                }
            }
            Operand::Prefix(value, bits) => self.prefix(field, op, &fits(value)?, *bits)?,
        }
        // What is written out stands for nothing else: a field after it brings its own dependency.
        match field {
            Field::MetaL4proto => self.transport = None,
            Field::EtherType => self.net = None,
            _ => {}
        }
        Ok(())
    }

    /// A prefix of whole bytes is a shorter field; any other is masked.
    fn prefix(&mut self, field: Field, op: Operator, value: &Data, bits: u8) -> io::Result<()> {
        let op = match op {
            Operator::Eq => Cmp::Eq,
            Operator::Neq => Cmp::Neq,
            _ => return Err(invalid("a prefix is compared with == or !=")),
        };
        let whole = value.as_bytes().len() * 8;
        let address = matches!(field.datatype(), Datatype::Ipv4Addr | Datatype::Ipv6Addr);
        if !address || bits == 0 || usize::from(bits) >= whole {
            return Err(invalid(
                "a prefix is shorter than its address and not empty",
            ));
        }
        let mask = prefix_mask(value, bits);
        let host = value.as_bytes().iter().zip(mask.as_bytes());
        if host.into_iter().any(|(byte, mask)| byte & !mask != 0) {
            return Err(invalid("a prefix has host bits"));
        }
        self.field(field, Reg::FIRST)?;
        let mut data = *value;
        if bits.is_multiple_of(8) {
            let short = usize::from(bits / 8);
            data = Data::new(&value.as_bytes()[..short]).ok_or_else(|| invalid("no prefix"))?;
            if let Some(Expr::Load {
                source: Source::Payload { len, .. },
                ..
            }) = self.out.last_mut()
            {
                *len = short as u32;
            }
        } else {
            self.out.push(Expr::Mask { mask });
        }
        self.out.push(Expr::Cmp { op, data });
        Ok(())
    }

    /// Puts a key's fields into registers, one after the other; the dependencies of all come first.
    fn key(&mut self, fields: &[Field]) -> io::Result<()> {
        let len: usize = match fields {
            [] => return Err(invalid("a lookup without a field")),
            [single] => single.datatype().len(),
            several => several.iter().map(|f| f.datatype().padded_len()).sum(),
        };
        if len > Key::MAX {
            return Err(invalid("a key has at most 24 bytes"));
        }
        if fields.contains(&Field::NdTarget) {
            return Err(invalid(
                "what nft takes for a number is in no set of addresses",
            ));
        }
        for field in fields {
            self.require(*field)?;
        }
        for field in fields {
            // Two fields of one key may not contradict one another: the later dependency would hide the first.
            let any_transport = matches!(field, Field::ThSport | Field::ThDport);
            let clash = net_of(*field).is_some_and(|net| self.net != Some(net))
                || transport_of(*field).is_some_and(|t| self.transport != Some(t))
                || any_transport && self.transport.is_some();
            if clash {
                return Err(invalid("a key's fields belong to different protocols"));
            }
        }
        let mut at = 0;
        for field in fields {
            let to = Reg::new(at).ok_or_else(|| invalid("a key needs more than 16 registers"))?;
            self.load(source(*field), to);
            at += field.datatype().padded_len() / 4;
        }
        Ok(())
    }

    fn field(&mut self, field: Field, to: Reg) -> io::Result<()> {
        self.require(field)?;
        self.load(source(field), to);
        Ok(())
    }

    fn load(&mut self, source: Source, to: Reg) {
        self.out.push(Expr::Load { source, to });
    }

    /// Writes the dependencies of a field that are not established yet.
    fn require(&mut self, field: Field) -> io::Result<()> {
        if field == Field::EtherType && self.family != Family::Bridge {
            return Err(invalid("ether type is for bridge tables"));
        }
        if field == Field::NdTarget && self.transport != Some(ICMPV6) {
            return Err(invalid("a target is that of an icmpv6 type"));
        }
        if net_of(field) == Some(Net::Arp) && self.transport.is_some()
            || transport_of(field).is_some() && self.net == Some(Net::Arp)
        {
            return Err(invalid("arp has no transport protocol"));
        }
        let any_transport = matches!(field, Field::ThSport | Field::ThDport);
        if any_transport && (self.transport.is_some() || self.explicit_transport) {
            return Err(invalid(
                "th after a transport protocol reads as that protocol's port: name it",
            ));
        }
        if let Some(net) = net_of(field)
            && self.net != Some(net)
        {
            let ether_type = &net.ether_type().to_be_bytes();
            let (source, data) = match self.family {
                Family::Inet => (
                    Source::Meta(MetaKey::Nfproto),
                    net.nfproto().map(Data::byte),
                ),
                // nft takes the EtherType on the wire for icmp and arp, and the one netfilter sees for addresses.
                Family::Bridge if transport_of(field).is_some() || net == Net::Arp => {
                    (ETHER_TYPE, Data::new(ether_type))
                }
                Family::Bridge => (Source::Meta(MetaKey::Protocol), Data::new(ether_type)),
            };
            let data = data.ok_or_else(|| invalid("arp is for bridge tables"))?;
            self.load(source, Reg::FIRST);
            self.out.push(Expr::Cmp { op: Cmp::Eq, data });
            self.net = Some(net);
        }
        if let Some(transport) = transport_of(field) {
            self.require_transport(transport);
        }
        Ok(())
    }

    fn require_transport(&mut self, transport: u8) {
        if self.transport == Some(transport) {
            return;
        }
        self.load(Source::Meta(MetaKey::L4proto), Reg::FIRST);
        self.out.push(Expr::Cmp {
            op: Cmp::Eq,
            data: Data::byte(transport),
        });
        self.transport = Some(transport);
    }
}

/// The mask of the first `bits` bits, as long as `value`.
pub(super) fn prefix_mask(value: &Data, bits: u8) -> Data {
    let mut mask = [0u8; Data::MAX];
    let len = value.as_bytes().len();
    for (index, byte) in mask.iter_mut().enumerate().take(len) {
        let left = usize::from(bits).saturating_sub(index * 8).min(8);
        *byte = !(0xffu16 >> left) as u8;
    }
    Data::new(&mask[..len]).unwrap_or(*value)
}
