//! The kernel's expressions as values: what a rule is made of between nft's language and netlink.

use nftnl::nftnl_sys::libc;

use crate::name::{Comment, Name};
use crate::rule::{LimitUnit, Verdict};

/// `NFT_OBJECT_COUNTER`.
pub(super) const OBJECT_COUNTER: u32 = 1;

/// One of the sixteen 32-bit registers in which expressions leave data for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reg(u8);

impl Reg {
    /// How many there are.
    pub(super) const COUNT: usize = 16;
    /// The first one.
    pub(super) const FIRST: Self = Self(0);

    /// The register with this index, if there is one.
    pub(super) fn new(index: usize) -> Option<Self> {
        (index < Self::COUNT).then_some(Self(index as u8))
    }

    /// netlink's number. Where one of the four 128-bit registers begins, its number is taken, as nft and the kernel do.
    pub(super) fn number(self) -> u32 {
        let index = u32::from(self.0);
        if index.is_multiple_of(4) {
            1 + index / 4
        } else {
            8 + index
        }
    }

    /// The register with netlink's number; `None` for the verdict register and numbers that are none.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        let index = match number {
            1..=4 => (number - 1) * 4,
            8..=23 => number - 8,
            _ => return None,
        };
        Some(Self(index as u8))
    }
}

/// Bytes that an expression compares or masks with: at most those of the widest value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Data {
    bytes: [u8; Data::MAX],
    len: u8,
}

impl Data {
    /// The most bytes: those of an IPv6 address or interface name.
    pub(super) const MAX: usize = 16;

    /// The data with these bytes, 1 to [`Data::MAX`] of them.
    pub(super) fn new(from: &[u8]) -> Option<Self> {
        if from.is_empty() || from.len() > Self::MAX {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        bytes[..from.len()].copy_from_slice(from);
        Some(Self {
            bytes,
            len: from.len() as u8,
        })
    }

    /// One byte.
    pub(super) const fn byte(value: u8) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[0] = value;
        Self { bytes, len: 1 }
    }

    /// As many bytes of zero as `self` has.
    pub(super) const fn zeros(self) -> Self {
        Self {
            bytes: [0; Self::MAX],
            len: self.len,
        }
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// All [`Data::MAX`] bytes, zeros after the end.
    pub(super) fn padded(&self) -> &[u8; Data::MAX] {
        &self.bytes
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// The header that a payload offset counts from (`NFT_PAYLOAD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Link,
    Network,
    Transport,
}

impl Base {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Link => libc::NFT_PAYLOAD_LL_HEADER as u32,
            Self::Network => libc::NFT_PAYLOAD_NETWORK_HEADER as u32,
            Self::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Link, Self::Network, Self::Transport];
        all.into_iter().find(|base| base.number() == number)
    }
}

/// The keys of `meta` that are read (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetaKey {
    Protocol,
    Iifname,
    Oifname,
    Nfproto,
    L4proto,
}

impl MetaKey {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Protocol => libc::NFT_META_PROTOCOL as u32,
            Self::Iifname => libc::NFT_META_IIFNAME as u32,
            Self::Oifname => libc::NFT_META_OIFNAME as u32,
            Self::Nfproto => libc::NFT_META_NFPROTO as u32,
            Self::L4proto => libc::NFT_META_L4PROTO as u32,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        let all = [
            Self::Protocol,
            Self::Iifname,
            Self::Oifname,
            Self::Nfproto,
            Self::L4proto,
        ];
        all.into_iter().find(|key| key.number() == number)
    }
}

/// What is put into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Meta(MetaKey),
    Payload { base: Base, offset: u32, len: u32 },
    CtState,
}

/// A comparison (`NFT_CMP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cmp {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

impl Cmp {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Eq => libc::NFT_CMP_EQ as u32,
            Self::Neq => libc::NFT_CMP_NEQ as u32,
            Self::Lt => libc::NFT_CMP_LT as u32,
            Self::Lte => libc::NFT_CMP_LTE as u32,
            Self::Gt => libc::NFT_CMP_GT as u32,
            Self::Gte => libc::NFT_CMP_GTE as u32,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        let all = [
            Self::Eq,
            Self::Neq,
            Self::Lt,
            Self::Lte,
            Self::Gt,
            Self::Gte,
        ];
        all.into_iter().find(|op| op.number() == number)
    }
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// `meta`, `payload` or `ct` into a register.
    Load { source: Source, to: Reg },
    /// `bitwise`: the first register and a mask, in place.
    Mask { mask: Data },
    /// `cmp` of the first register.
    Cmp { op: Cmp, data: Data },
    /// `range` over the first register: outside of it (inside is two `cmp`).
    NotInRange { from: Data, to: Data },
    /// `lookup` of what the registers from the first on hold.
    Lookup {
        set: Name,
        inverted: bool,
        /// Whether the set is a verdict map and its verdict is applied.
        verdict: bool,
    },
    /// `immediate` of a verdict.
    Verdict(Verdict),
    /// `counter`.
    Counter,
    /// `objref` to a counter.
    NamedCounter(Name),
    /// `limit` of packets.
    Limit {
        rate: u64,
        unit: LimitUnit,
        burst: u32,
    },
    /// `log` to an nflog group, with the defaults for all else.
    Log { group: u16, prefix: Option<Comment> },
    /// One that this crate does not write, in libnftnl's words.
    Other(String),
}

/// Seconds of a unit, as netlink carries it.
pub(super) const fn seconds(unit: LimitUnit) -> u64 {
    match unit {
        LimitUnit::Second => 1,
        LimitUnit::Minute => 60,
        LimitUnit::Hour => 3600,
        LimitUnit::Day => 86400,
    }
}

/// The unit of so many seconds.
pub(super) const fn unit(seconds: u64) -> Option<LimitUnit> {
    match seconds {
        1 => Some(LimitUnit::Second),
        60 => Some(LimitUnit::Minute),
        3600 => Some(LimitUnit::Hour),
        86400 => Some(LimitUnit::Day),
        _ => None,
    }
}

/// The code of a verdict (`NF_*`, `NFT_*`), as a 32-bit pattern.
pub(super) const fn verdict_number(verdict: &Verdict) -> u32 {
    let code = match verdict {
        Verdict::Accept => libc::NF_ACCEPT,
        Verdict::Drop => libc::NF_DROP,
        Verdict::Return => libc::NFT_RETURN,
        Verdict::Continue => libc::NFT_CONTINUE,
        Verdict::Jump(_) => libc::NFT_JUMP,
        Verdict::Goto(_) => libc::NFT_GOTO,
    };
    code as u32
}

/// The verdict with this code and chain; `None` for one that [`Verdict`] can't say.
pub(super) fn verdict(number: u32, name: Option<&str>) -> Option<Verdict> {
    let chain = |chain: Option<&str>| Name::new(chain?).ok();
    Some(match number.cast_signed() {
        libc::NF_ACCEPT => Verdict::Accept,
        libc::NF_DROP => Verdict::Drop,
        libc::NFT_RETURN => Verdict::Return,
        libc::NFT_CONTINUE => Verdict::Continue,
        libc::NFT_JUMP => Verdict::Jump(chain(name)?),
        libc::NFT_GOTO => Verdict::Goto(chain(name)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_the_numbers_that_nft_gives_them() {
        let numbers: Vec<u32> = (0..6).map(|i| Reg::new(i).unwrap().number()).collect();
        assert_eq!(numbers, [1, 9, 10, 11, 2, 13]);
        for index in 0..Reg::COUNT {
            let reg = Reg::new(index).unwrap();
            assert_eq!(Reg::from_number(reg.number()), Some(reg));
        }
        assert_eq!(Reg::from_number(0), None);
        assert_eq!(Reg::from_number(8), Some(Reg::FIRST));
        assert_eq!(Reg::new(16), None);
    }
}
