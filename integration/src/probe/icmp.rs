//! Echo requests and replies, for raw sockets.

/// An echo request. The kernel fills in the checksum for IPv6, we do for IPv4.
pub(crate) fn request(v4: bool, id: u16, sequence: u16) -> Vec<u8> {
    let kind = if v4 { 8 } else { 128 };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(b"selvedge lab");
    if v4 {
        let sum = checksum(&bytes).to_be_bytes();
        if let Some(field) = bytes.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
    }
    bytes
}

/// Whether a message (without IP header) is a reply to a request with this id.
pub(crate) fn is_reply(v4: bool, id: u16, message: &[u8]) -> bool {
    let kind = if v4 { 0 } else { 129 };
    message.first() == Some(&kind) && message.get(4..6) == Some(&id.to_be_bytes())
}

/// What follows the IP header, which raw IPv4 sockets deliver too.
pub(crate) fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let words = packet.first()? & 0x0f;
    packet.get(usize::from(words) * 4..)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([high, low]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        assert_eq!(checksum(&request(true, 0x1234, 7)), 0);
    }
}
