//! Addresses and CIDRs as the API stores them.
//!
//! Older Kubernetes accepted leading zeros in decimal octets (`010.0.0.0/8` is `10.0.0.0/8`, never octal), IPv4 in
//! its IPv6-mapped form, and CIDRs with host bits; such objects are still stored and mean what they meant then
//! (k8s.io/utils/net, `ParseIPSloppy` and `ParseCIDRSloppy`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// A text that is no address or no CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseError {
    /// The text.
    pub text: String,
    /// What it was meant to be, with an example.
    pub expected: &'static str,
}

/// Reads an address. One in IPv6-mapped form is the IPv4 address it maps.
///
/// # Errors
/// [`ParseError`] when the text is neither an IPv4 nor an IPv6 address; zones (`%eth0`) are not accepted.
pub fn parse_ip(text: &str) -> Result<IpAddr, ParseError> {
    match address(text) {
        Some(address) => Ok(address.to_canonical()),
        None => Err(ParseError {
            text: text.to_owned(),
            expected: "an IP address such as 10.0.0.1 or fd00::1",
        }),
    }
}

/// Reads a CIDR and clears its host bits. One in IPv6-mapped form, of at least 96 bits, is the IPv4 network it maps.
///
/// # Errors
/// [`ParseError`] when the text is not an address, a slash, and a length that the address's family has.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, ParseError> {
    cidr(text).ok_or_else(|| ParseError {
        text: text.to_owned(),
        expected: "a CIDR such as 10.0.0.0/8 or fd00::/64",
    })
}

fn cidr(text: &str) -> Option<IpNetwork> {
    let (address_text, length) = text.split_once('/')?;
    let length = decimal(length)?;
    match address(address_text)? {
        IpAddr::V4(v4) => v4_network(v4, length),
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), length.checked_sub(96)) {
            (Some(v4), Some(length)) => v4_network(v4, length),
            _ => {
                let net = Ipv6Network::new(v6, length).ok()?;
                Some(IpNetwork::V6(Ipv6Network::new(net.network(), length).ok()?))
            }
        },
    }
}

fn v4_network(address: Ipv4Addr, length: u8) -> Option<IpNetwork> {
    let net = Ipv4Network::new(address, length).ok()?;
    Some(IpNetwork::V4(Ipv4Network::new(net.network(), length).ok()?))
}

/// The address as it is written, mapped or not.
fn address(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return octets(text).map(IpAddr::V4);
    }
    if !text.contains('.') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let (head, tail) = text.rsplit_once(':')?;
    let plain = format!("{head}:{}", octets(tail)?);
    plain.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn octets(text: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        *byte = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(bytes))
}

/// A decimal number with any number of leading zeros; no sign, no space.
fn decimal(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match text.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_and_leading_zeros_are_cleared() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("010.0.0.0/8", "10.0.0.0/8"),
            ("192.168.001.000/024", "192.168.1.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("fd00::1/64", "fd00::/64"),
            ("::/0", "::/0"),
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:010.1.0.0/128", "10.1.0.0/32"),
            ("::ffff:10.0.0.0/80", "::/80"),
        ] {
            assert_eq!(parse_cidr(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_cidr_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "0x0a.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "fd00::/129",
            "fe80::1%eth0/64",
            "::ffff:10.0.0.0/300",
            "ten",
        ] {
            assert!(parse_cidr(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_are_canonical() {
        assert_eq!(parse_ip("010.1.02.3").unwrap().to_string(), "10.1.2.3");
        assert_eq!(parse_ip("::ffff:10.1.2.3").unwrap().to_string(), "10.1.2.3");
        assert_eq!(parse_ip("FD00::0A").unwrap().to_string(), "fd00::a");
        for text in ["", "10.1.2", "10.1.2.3/32", "fe80::1%eth0", "10.1.2.-3"] {
            assert!(parse_ip(text).is_err(), "{text:?}");
        }
    }
}
