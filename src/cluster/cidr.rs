//! Address blocks with exceptions, as ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// A block of addresses less its exceptions: an `ipBlock`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpBlock {
    /// The block, host bits zero.
    pub net: IpNetwork,
    /// What is taken from it, host bits zero, each within the block.
    pub except: Vec<IpNetwork>,
}

impl IpBlock {
    /// Whether `address` is in the block and in none of its exceptions.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.net.contains(address) && !self.except.iter().any(|e| e.contains(address))
    }

    /// What is left of the block, as disjoint ranges in order.
    pub fn ranges(&self) -> Vec<IpRange> {
        let holes = union(self.except.iter().map(|except| IpRange::of(*except)));
        let mut ranges = Vec::with_capacity(holes.len() + 1);
        let mut rest = Some(IpRange::of(self.net));
        for hole in holes {
            let Some(range) = rest else {
                break;
            };
            let [before, after] = range.without(hole);
            ranges.extend(before);
            rest = after;
        }
        ranges.extend(rest);
        ranges
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net)?;
        for (n, except) in self.except.iter().enumerate() {
            f.write_str(if n == 0 { " except " } else { "," })?;
            write!(f, "{except}")?;
        }
        Ok(())
    }
}

/// Addresses of one family from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpRange {
    /// IPv4, as numbers.
    V4(u32, u32),
    /// IPv6, as numbers.
    V6(u128, u128),
}

impl IpRange {
    /// The addresses of a network.
    pub fn of(net: IpNetwork) -> Self {
        match net {
            IpNetwork::V4(net) => Self::V4(net.network().to_bits(), net.broadcast().to_bits()),
            IpNetwork::V6(net) => Self::V6(net.network().to_bits(), net.broadcast().to_bits()),
        }
    }

    /// The first address.
    pub fn first(self) -> IpAddr {
        match self {
            Self::V4(first, _) => Ipv4Addr::from_bits(first).into(),
            Self::V6(first, _) => Ipv6Addr::from_bits(first).into(),
        }
    }

    /// The last address.
    pub fn last(self) -> IpAddr {
        match self {
            Self::V4(_, last) => Ipv4Addr::from_bits(last).into(),
            Self::V6(_, last) => Ipv6Addr::from_bits(last).into(),
        }
    }

    /// The length of the prefix, when the range is one network.
    pub fn prefix(self) -> Option<u8> {
        match self {
            Self::V4(first, last) => {
                let len = (first ^ last).leading_zeros();
                let host = u32::MAX.checked_shr(len).unwrap_or(0);
                (first & host == 0 && last & host == host).then_some(len as u8)
            }
            Self::V6(first, last) => {
                let len = (first ^ last).leading_zeros();
                let host = u128::MAX.checked_shr(len).unwrap_or(0);
                (first & host == 0 && last & host == host).then_some(len as u8)
            }
        }
    }

    /// What is left of the range when `hole` is taken out: what is before it, and what is behind it. Of a hole that
    /// lies outside, all of it.
    fn without(self, hole: Self) -> [Option<Self>; 2] {
        match (self, hole) {
            (Self::V4(first, last), Self::V4(from, to)) if from <= last && to >= first => [
                (from > first).then(|| Self::V4(first, from - 1)),
                (to < last).then(|| Self::V4(to + 1, last)),
            ],
            (Self::V6(first, last), Self::V6(from, to)) if from <= last && to >= first => [
                (from > first).then(|| Self::V6(first, from - 1)),
                (to < last).then(|| Self::V6(to + 1, last)),
            ],
            // Holes come in order: one that lies before leaves all to those that follow, one behind ends nothing.
            _ => [None, Some(self)],
        }
    }

    /// The range that covers both, when they overlap or touch; `next` does not start before `self`.
    fn joined(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::V4(first, last), Self::V4(from, to)) if from <= last.saturating_add(1) => {
                Some(Self::V4(first, last.max(to)))
            }
            (Self::V6(first, last), Self::V6(from, to)) if from <= last.saturating_add(1) => {
                Some(Self::V6(first, last.max(to)))
            }
            _ => None,
        }
    }
}

/// The same addresses as disjoint ranges in order, none touching the next; IPv4 first.
pub fn union(ranges: impl IntoIterator<Item = IpRange>) -> Vec<IpRange> {
    let mut sorted: Vec<IpRange> = ranges.into_iter().collect();
    sorted.sort_unstable();
    let mut joined: Vec<IpRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) => match last.joined(range) {
                Some(both) => *last = both,
                None => joined.push(range),
            },
            None => joined.push(range),
        }
    }
    joined
}

impl fmt::Display for IpRange {
    /// As nft writes it: one address, a prefix, or the two ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.last());
        match self.prefix() {
            _ if first == last => write!(f, "{first}"),
            Some(len) => write!(f, "{first}/{len}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(net: &str, except: &[&str]) -> IpBlock {
        IpBlock {
            net: net.parse().unwrap(),
            except: except.iter().map(|e| e.parse().unwrap()).collect(),
        }
    }

    fn text(ranges: &[IpRange]) -> String {
        let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        texts.join(" ")
    }

    #[test]
    fn exceptions_are_subtracted() {
        let ranges = block("10.0.0.0/8", &["10.1.0.0/16", "10.0.0.0/24"]).ranges();
        assert_eq!(
            text(&ranges),
            "10.0.1.0-10.0.255.255 10.2.0.0-10.255.255.255"
        );
    }

    #[test]
    fn an_exception_of_everything_leaves_nothing() {
        assert!(block("10.0.0.0/8", &["10.0.0.0/8"]).ranges().is_empty());
        assert!(block("::/0", &["::/1", "8000::/1"]).ranges().is_empty());
    }

    #[test]
    fn both_ends_of_the_space_are_reached() {
        assert_eq!(
            text(&block("0.0.0.0/0", &["0.0.0.0/1"]).ranges()),
            "128.0.0.0/1"
        );
        assert_eq!(
            text(&block("0.0.0.0/0", &["255.255.255.255/32"]).ranges()),
            "0.0.0.0-255.255.255.254"
        );
        assert_eq!(text(&block("::/0", &[]).ranges()), "::/0");
        assert_eq!(text(&block("::1/128", &[]).ranges()), "::1");
    }

    #[test]
    fn a_union_joins_what_overlaps_or_touches() {
        let all = [
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.128/25",
            "fd00::/64",
            "10.0.3.0/24",
        ];
        let joined = union(all.iter().map(|net| IpRange::of(net.parse().unwrap())));
        assert_eq!(text(&joined), "10.0.0.0/23 10.0.3.0/24 fd00::/64");
        assert_eq!(
            text(&union([IpRange::V4(0, u32::MAX), IpRange::V4(5, 6)])),
            "0.0.0.0/0"
        );
    }
}
