//! Values, ranges and prefixes.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Style;
use super::names;
use crate::value::Value;

/// One value: by its name where it has one.
pub(super) fn value(f: &mut fmt::Formatter<'_>, value: &Value, style: Style) -> fmt::Result {
    let name = match (value, style) {
        (Value::Proto(n), Style::List) => names::protocol(*n),
        (Value::Proto(n), Style::Script) => names::protocol_keyword(*n),
        (Value::IcmpType(n), _) => names::icmp_type(*n),
        (Value::Icmpv6Type(n), _) => names::icmpv6_type(*n),
        (Value::EtherType(n), _) => names::ether_type(*n),
        _ => None,
    };
    match name {
        Some(name) => f.write_str(name),
        None => number(f, value),
    }
}

/// One value as a number, as nft prints the bounds of a range.
fn number(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Ipv4(address) => write!(f, "{address}"),
        Value::Ipv6(address) => ipv6(f, *address),
        Value::Proto(n) | Value::IcmpType(n) | Value::Icmpv6Type(n) => write!(f, "{n}"),
        Value::Service(n) => write!(f, "{n}"),
        Value::EtherType(n) => write!(f, "{n:#06x}"),
        Value::IfName(name) => write!(f, "\"{name}\""),
    }
}

/// As glibc prints it, which knows the long forgotten `::a.b.c.d` where Rust does not.
fn ipv6(f: &mut fmt::Formatter<'_>, address: Ipv6Addr) -> fmt::Result {
    match u32::try_from(address.to_bits()) {
        Ok(low @ 0x1_0000..) => write!(f, "::{}", Ipv4Addr::from_bits(low)),
        _ => write!(f, "{address}"),
    }
}

/// All values from the first to the second.
pub(super) fn range(f: &mut fmt::Formatter<'_>, first: &Value, last: &Value) -> fmt::Result {
    number(f, first)?;
    f.write_str("-")?;
    number(f, last)
}

pub(super) fn prefix(f: &mut fmt::Formatter<'_>, network: &Value, length: u8) -> fmt::Result {
    number(f, network)?;
    write!(f, "/{length}")
}

/// An element of an interval set, or a field of one: a value, a prefix where it is one, or a range.
pub(super) fn interval(
    f: &mut fmt::Formatter<'_>,
    first: &Value,
    last: &Value,
    style: Style,
) -> fmt::Result {
    if first == last {
        return value(f, first, style);
    }
    match common_prefix(first, last) {
        Some(length) => prefix(f, first, length),
        None => range(f, first, last),
    }
}

/// The length of the prefix that covers exactly these addresses.
fn common_prefix(first: &Value, last: &Value) -> Option<u8> {
    let (first, last, width) = match (first, last) {
        (Value::Ipv4(first), Value::Ipv4(last)) => {
            (first.to_bits().into(), last.to_bits().into(), 32)
        }
        (Value::Ipv6(first), Value::Ipv6(last)) => (first.to_bits(), last.to_bits(), 128),
        _ => return None,
    };
    let hosts: u128 = first ^ last;
    // All host bits, and no others: zero in the first address and one in the last.
    let aligned = hosts & hosts.wrapping_add(1) == 0 && first & hosts == 0;
    let bits = 128 - hosts.leading_zeros();
    aligned.then(|| u8::try_from(width - bits).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::show;

    #[test]
    fn only_aligned_ranges_are_prefixes() {
        let text = |first: [u8; 4], last: [u8; 4]| {
            let (first, last) = (Value::Ipv4(first.into()), Value::Ipv4(last.into()));
            show(|f| interval(f, &first, &last, Style::List))
        };
        assert_eq!(text([10, 0, 0, 0], [10, 255, 255, 255]), "10.0.0.0/8");
        assert_eq!(text([0, 0, 0, 0], [255, 255, 255, 255]), "0.0.0.0/0");
        assert_eq!(text([10, 0, 0, 4], [10, 0, 0, 5]), "10.0.0.4/31");
        assert_eq!(text([10, 0, 0, 5], [10, 0, 0, 6]), "10.0.0.5-10.0.0.6");
        assert_eq!(text([10, 0, 0, 1], [10, 0, 0, 3]), "10.0.0.1-10.0.0.3");
        assert_eq!(text([10, 0, 0, 4], [10, 0, 0, 4]), "10.0.0.4");
    }

    #[test]
    fn ipv6_reads_as_glibc_prints_it() {
        let text = |address: &str| {
            let value = Value::Ipv6(address.parse().unwrap());
            show(|f| number(f, &value))
        };
        for address in [
            "::",
            "::1",
            "::1.2.3.4",
            "::0.2.0.0",
            "::ffff:1.2.3.4",
            "1:0:0:2::3",
        ] {
            assert_eq!(text(address), address);
        }
    }
}
