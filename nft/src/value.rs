//! Datatypes, values and set keys: what a field holds and what a set is keyed by.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::name::IfName;

/// A datatype of nft, as in `type ipv4_addr . inet_service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datatype {
    /// `ipv4_addr`, 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `inet_proto`, 1 byte: an IP protocol number.
    InetProto,
    /// `inet_service`, 2 bytes: a port.
    InetService,
    /// `ether_type`, 2 bytes.
    EtherType,
    /// `ifname`, 16 bytes, padded with NULs, in host order.
    IfName,
    /// `icmp_type`, 1 byte.
    IcmpType,
    /// `icmpv6_type`, 1 byte.
    Icmpv6Type,
}

impl Datatype {
    /// The width of a value in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no value is empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr | Self::IfName => 16,
            Self::InetProto | Self::IcmpType | Self::Icmpv6Type => 1,
            Self::InetService | Self::EtherType => 2,
        }
    }

    /// The width of a value as one field of a concatenation: padded to a whole 32-bit register.
    pub const fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }

    /// nft's name for the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::EtherType => "ether_type",
            Self::IfName => "ifname",
            Self::IcmpType => "icmp_type",
            Self::Icmpv6Type => "icmpv6_type",
        }
    }
}

/// One value of a [`Datatype`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// An IP protocol number.
    Proto(u8),
    /// A port.
    Service(u16),
    /// An EtherType.
    EtherType(u16),
    /// An interface's name.
    IfName(IfName),
    /// An ICMP type.
    IcmpType(u8),
    /// An ICMPv6 type.
    Icmpv6Type(u8),
}

impl Value {
    /// The value's type.
    pub const fn datatype(&self) -> Datatype {
        match self {
            Self::Ipv4(_) => Datatype::Ipv4Addr,
            Self::Ipv6(_) => Datatype::Ipv6Addr,
            Self::Proto(_) => Datatype::InetProto,
            Self::Service(_) => Datatype::InetService,
            Self::EtherType(_) => Datatype::EtherType,
            Self::IfName(_) => Datatype::IfName,
            Self::IcmpType(_) => Datatype::IcmpType,
            Self::Icmpv6Type(_) => Datatype::Icmpv6Type,
        }
    }

    /// Writes the bytes the kernel compares (network order; interface names padded with NULs) and gives their count.
    pub fn write(&self, out: &mut [u8; 16]) -> usize {
        *out = [0; 16];
        match self {
            Self::Ipv4(a) => out[..4].copy_from_slice(&a.octets()),
            Self::Ipv6(a) => *out = a.octets(),
            Self::Proto(b) | Self::IcmpType(b) | Self::Icmpv6Type(b) => out[0] = *b,
            Self::Service(n) | Self::EtherType(n) => out[..2].copy_from_slice(&n.to_be_bytes()),
            Self::IfName(n) => out[..n.as_str().len()].copy_from_slice(n.as_str().as_bytes()),
        }
        self.datatype().len()
    }

    /// Reads a value of `datatype` from the front of `bytes`; `None` when there are too few bytes or they are no such value.
    pub fn read(datatype: Datatype, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..datatype.len())?;
        Some(match datatype {
            Datatype::Ipv4Addr => Self::Ipv4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Datatype::Ipv6Addr => Self::Ipv6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            Datatype::InetProto => Self::Proto(*bytes.first()?),
            Datatype::IcmpType => Self::IcmpType(*bytes.first()?),
            Datatype::Icmpv6Type => Self::Icmpv6Type(*bytes.first()?),
            Datatype::InetService => Self::Service(u16::from_be_bytes(bytes.try_into().ok()?)),
            Datatype::EtherType => Self::EtherType(u16::from_be_bytes(bytes.try_into().ok()?)),
            Datatype::IfName => {
                let end = bytes.iter().position(|b| *b == 0)?;
                let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
                Self::IfName(IfName::new(text).ok()?)
            }
        })
    }
}

/// A key of a set or map: the bytes of one value, or of several, each padded to four bytes.
///
/// At most [`Key::MAX`] bytes, so that it fits the 64-byte buffers of libnftnl 1.2.4 and the element stays small.
/// Keys order by their bytes, which for addresses and ports is their numeric order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: [u8; Key::MAX],
    len: u8,
}

/// Values that do not make a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a set key has 1 to {max} bytes, this one has {len}", max = Key::MAX)]
pub struct KeyError {
    /// The length the key would have, in bytes.
    pub len: usize,
}

impl Key {
    /// The longest key, in bytes: an IPv6 address, a protocol and a port.
    pub const MAX: usize = 24;

    /// The key of one value or of a concatenation.
    ///
    /// # Errors
    /// [`KeyError`] when there is no value or they are together longer than [`Key::MAX`].
    pub fn new(values: &[Value]) -> Result<Self, KeyError> {
        let len = match values {
            [single] => single.datatype().len(),
            several => several.iter().map(|v| v.datatype().padded_len()).sum(),
        };
        if len == 0 || len > Self::MAX {
            return Err(KeyError { len });
        }
        let mut key = Self {
            bytes: [0; Self::MAX],
            len: len as u8,
        };
        let mut at = 0;
        for value in values {
            let mut field = [0; 16];
            let width = value.write(&mut field);
            key.bytes[at..at + width].copy_from_slice(&field[..width]);
            at += value.datatype().padded_len();
        }
        Ok(key)
    }

    /// The key with these bytes, as the kernel reports them.
    ///
    /// # Errors
    /// [`KeyError`] when there are none or more than [`Key::MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let len = bytes.len();
        if len == 0 || len > Self::MAX {
            return Err(KeyError { len });
        }
        let mut key = Self {
            bytes: [0; Self::MAX],
            len: len as u8,
        };
        key.bytes[..len].copy_from_slice(bytes);
        Ok(key)
    }

    /// The key's bytes as the kernel compares them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The key's values, when its bytes are values of these types.
    pub fn values(&self, types: &[Datatype]) -> Option<Vec<Value>> {
        if let [single] = types {
            return (single.len() == usize::from(self.len))
                .then(|| Value::read(*single, self.as_bytes()).map(|v| vec![v]))?;
        }
        let mut rest = self.as_bytes();
        let mut values = Vec::with_capacity(types.len());
        for datatype in types {
            values.push(Value::read(*datatype, rest)?);
            rest = rest.get(datatype.padded_len()..)?;
        }
        rest.is_empty().then_some(values)
    }
}

impl From<Ipv4Addr> for Key {
    fn from(address: Ipv4Addr) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[..4].copy_from_slice(&address.octets());
        Self { bytes, len: 4 }
    }
}

impl From<Ipv6Addr> for Key {
    fn from(address: Ipv6Addr) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[..16].copy_from_slice(&address.octets());
        Self { bytes, len: 16 }
    }
}

impl From<IfName> for Key {
    fn from(name: IfName) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut field = [0; 16];
        Value::IfName(name).write(&mut field);
        bytes[..16].copy_from_slice(&field);
        Self { bytes, len: 16 }
    }
}

impl From<u16> for Key {
    /// A port.
    fn from(port: u16) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[..2].copy_from_slice(&port.to_be_bytes());
        Self { bytes, len: 2 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concatenation_pads_each_field() {
        let key = Key::new(&[
            Value::Ipv4(Ipv4Addr::new(10, 244, 1, 7)),
            Value::Proto(6),
            Value::Service(8080),
        ])
        .unwrap();
        assert_eq!(
            key.as_bytes(),
            [10, 244, 1, 7, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]
        );
        let types = [
            Datatype::Ipv4Addr,
            Datatype::InetProto,
            Datatype::InetService,
        ];
        assert_eq!(key.values(&types).unwrap()[2], Value::Service(8080));
        assert_eq!(key.values(&[Datatype::Ipv4Addr]), None);
    }

    #[test]
    fn one_value_is_not_padded_and_too_many_are_refused() {
        assert_eq!(Key::from(443u16).as_bytes(), [1, 187]);
        let v6 = Value::Ipv6(Ipv6Addr::LOCALHOST);
        assert_eq!(Key::new(&[v6, v6]), Err(KeyError { len: 32 }));
        assert_eq!(Key::new(&[]), Err(KeyError { len: 0 }));
    }
}
