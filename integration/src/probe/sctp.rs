//! Just enough SCTP to see whether it passes: INIT, INIT ACK and ABORT (RFC 9260), with right checksums, because
//! conntrack drops wrong ones as invalid.

use crc::{CRC_32_ISCSI, Crc};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
/// ABORT without the T bit: its verification tag is the INIT's, as RFC 9260, 8.4 (3) wants it. With the bit conntrack
/// takes the packet for invalid, and no answer to anything.
const TAG_NOT_REFLECTED: u8 = 0;
const STATE_COOKIE: u16 = 7;

/// The packets this module knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Opens an association.
    Init {
        /// The tag that the answer must carry.
        tag: u32,
    },
    /// Answers an INIT; our cookie is the server's name.
    InitAck {
        /// The server's own tag.
        tag: u32,
        /// The state cookie.
        cookie: Vec<u8>,
    },
    /// Nobody listens on this port.
    Abort,
}

/// An SCTP packet with one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub source: u16,
    pub destination: u16,
    pub verification_tag: u32,
    pub chunk: Chunk,
}

impl Packet {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.verification_tag.to_be_bytes());
        bytes.extend([0; 4]);
        match &self.chunk {
            Chunk::Init { tag } => put_init(&mut bytes, INIT, *tag, None),
            Chunk::InitAck { tag, cookie } => put_init(&mut bytes, INIT_ACK, *tag, Some(cookie)),
            Chunk::Abort => bytes.extend([ABORT, TAG_NOT_REFLECTED, 0, 4]),
        }
        // RFC 9260, appendix A: the checksum is sent least significant byte first.
        let checksum = CRC32C.checksum(&bytes).to_le_bytes();
        if let Some(field) = bytes.get_mut(8..12) {
            field.copy_from_slice(&checksum);
        }
        bytes
    }

    /// Reads a packet; None for anything else than the three chunks, or a wrong checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut zeroed = bytes.to_vec();
        zeroed.get_mut(8..12)?.fill(0);
        if bytes.get(8..12)? != CRC32C.checksum(&zeroed).to_le_bytes() {
            return None;
        }
        let chunk = match *bytes.get(12)? {
            INIT => Chunk::Init {
                tag: read_u32(bytes, 16)?,
            },
            INIT_ACK => Chunk::InitAck {
                tag: read_u32(bytes, 16)?,
                cookie: read_cookie(bytes.get(32..)?),
            },
            ABORT => Chunk::Abort,
            _ => return None,
        };
        Some(Self {
            source: read_u16(bytes, 0)?,
            destination: read_u16(bytes, 2)?,
            verification_tag: read_u32(bytes, 4)?,
            chunk,
        })
    }

    /// What a server answers to this INIT: INIT ACK with its name, or ABORT where it doesn't listen.
    pub(crate) fn answer(&self, name: Option<&str>) -> Option<Self> {
        let Chunk::Init { tag } = self.chunk else {
            return None;
        };
        let chunk = match name {
            Some(name) => Chunk::InitAck {
                tag: tag.wrapping_add(1).max(1),
                cookie: format!("{name}\n").into_bytes(),
            },
            None => Chunk::Abort,
        };
        Some(Self {
            source: self.destination,
            destination: self.source,
            verification_tag: tag,
            chunk,
        })
    }
}

fn put_init(bytes: &mut Vec<u8>, kind: u8, tag: u32, cookie: Option<&[u8]>) {
    let cookie_length = cookie.map_or(0, |cookie| cookie.len() + 4);
    let length = u16::try_from(20 + cookie_length).unwrap_or(u16::MAX);
    bytes.extend([kind, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    bytes.extend(65_536_u32.to_be_bytes()); // receiver window
    bytes.extend(1_u16.to_be_bytes()); // outbound streams
    bytes.extend(1_u16.to_be_bytes()); // inbound streams
    bytes.extend(tag.to_be_bytes()); // initial TSN: any
    if let Some(cookie) = cookie {
        bytes.extend(STATE_COOKIE.to_be_bytes());
        let length = u16::try_from(cookie_length).unwrap_or(u16::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(cookie);
        // Parameters and chunks end on four-byte borders.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}

fn read_cookie(parameters: &[u8]) -> Vec<u8> {
    if read_u16(parameters, 0) != Some(STATE_COOKIE) {
        return Vec::new();
    }
    let length = usize::from(read_u16(parameters, 2).unwrap_or(0));
    parameters.get(4..length).unwrap_or_default().to_vec()
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_and_its_answers_survive_the_wire() {
        let init = Packet {
            source: 40_000,
            destination: 9999,
            verification_tag: 0,
            chunk: Chunk::Init { tag: 0xdead_beef },
        };
        assert_eq!(Packet::decode(&init.encode()), Some(init.clone()));
        for name in [Some("shop/web"), None] {
            let answer = init.answer(name).unwrap();
            assert_eq!(answer.verification_tag, 0xdead_beef);
            assert_eq!(answer.destination, 40_000);
            assert_eq!(Packet::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn a_wrong_checksum_is_nothing() {
        let init = Packet {
            source: 1,
            destination: 2,
            verification_tag: 0,
            chunk: Chunk::Init { tag: 7 },
        };
        let mut bytes = init.encode();
        bytes[17] ^= 1;
        assert_eq!(Packet::decode(&bytes), None);
        for length in 0..bytes.len() {
            assert_eq!(Packet::decode(&bytes[..length]), None);
        }
    }

    #[test]
    fn the_checksum_is_castagnoli_least_significant_byte_first() {
        // RFC 3720, B.4: 32 bytes of zeros
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
    }
}
