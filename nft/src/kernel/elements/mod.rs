//! Set elements as netlink attributes, written straight into the batch and read straight from the dump: a million of
//! them would be hundreds of MiB as libnftnl's objects.
//!
//! A range of a plain interval set is two elements to the kernel: its first key, and the key after its last one marked
//! as an end; none at the top of the space. A range of a concatenation is one element with two keys.

mod read;
mod write;

use std::io;

use nftnl::nftnl_sys::libc;

use crate::ruleset::SetHeader;
use crate::value::Key;

pub(super) use read::{Dump, Outcome};
pub(super) use write::{Change, encode};

/// `NFTA_SET_ELEM_LIST_*`.
mod list {
    pub(super) const TABLE: u16 = 1;
    pub(super) const SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
}
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_*`.
mod element {
    pub(super) const KEY: u16 = 1;
    pub(super) const DATA: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const USER_DATA: u16 = 6;
    pub(super) const PAD: u16 = 8;
    pub(super) const KEY_END: u16 = 10;
}
/// `NFTA_DATA_*`.
mod data {
    pub(super) const VALUE: u16 = 1;
    pub(super) const VERDICT: u16 = 2;
}
/// `NFTA_VERDICT_*`.
mod verdict_attr {
    pub(super) const CODE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
}

const INTERVAL_END: u32 = libc::NFT_SET_ELEM_INTERVAL_END as u32;

/// The width of a set's key in bytes; an error for one that no [`Key`] can have.
pub(super) fn key_len(header: &SetHeader) -> io::Result<usize> {
    let len = match &header.key[..] {
        [single] => single.len(),
        several => several.iter().map(|datatype| datatype.padded_len()).sum(),
    };
    if len == 0 || len > Key::MAX {
        return Err(invalid("a set's key has 1 to 24 bytes"));
    }
    Ok(len)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// The key after this one; `None` after the last.
fn successor(key: &Key) -> Option<Key> {
    step(key, 0xff, 0, |byte| byte + 1)
}

/// The key before this one; `None` before the first.
fn predecessor(key: &Key) -> Option<Key> {
    step(key, 0, 0xff, |byte| byte - 1)
}

/// Adds or subtracts one from a key as a number: bytes that are `limit` wrap to `wrapped`, the first other one steps.
fn step(key: &Key, limit: u8, wrapped: u8, by: fn(u8) -> u8) -> Option<Key> {
    let mut bytes = [0; Key::MAX];
    let len = key.as_bytes().len();
    let bytes = &mut bytes[..len];
    bytes.copy_from_slice(key.as_bytes());
    for byte in bytes.iter_mut().rev() {
        if *byte != limit {
            *byte = by(*byte);
            return Key::from_bytes(bytes).ok();
        }
        *byte = wrapped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::wire::{self, Header};
    use super::*;
    use crate::name::Name;
    use crate::ruleset::Elements;
    use crate::value::Datatype;
    use std::net::Ipv4Addr;

    fn key(a: u8, b: u8, c: u8, d: u8) -> Key {
        Key::from(Ipv4Addr::new(a, b, c, d))
    }

    /// Encodes elements of an IPv4 set and reads the messages back as the kernel would dump them.
    fn there_and_back(elements: &Elements) -> (usize, Outcome) {
        let header = Header {
            kind: wire::nft_message(libc::NFT_MSG_NEWSETELEM),
            flags: 0,
            family: 1,
            seq: 1,
            resource: 0,
        };
        let set = SetHeader {
            key: vec![Datatype::Ipv4Addr],
            comment: None,
        };
        let name = Name::new("s").unwrap();
        let mut out = Vec::new();
        let names = (&name, &name);
        let starts = encode(&mut out, header, names, &set, elements, Change::Add).unwrap();
        let mut dump = Dump::default();
        for message in wire::messages(&out) {
            dump.take(message.unwrap()).unwrap();
        }
        (starts.len(), dump.finish(&elements.none(), &set.key))
    }

    #[test]
    fn keys_step_across_bytes_and_stop_at_the_ends() {
        assert_eq!(successor(&key(10, 0, 0, 255)), Some(key(10, 0, 1, 0)));
        assert_eq!(predecessor(&key(10, 0, 1, 0)), Some(key(10, 0, 0, 255)));
        assert_eq!(successor(&key(255, 255, 255, 255)), None);
        assert_eq!(predecessor(&key(0, 0, 0, 0)), None);
    }

    #[test]
    fn ranges_that_touch_or_reach_an_end_of_the_space_stay_apart() {
        let ranges = Elements::Ranges(
            [
                (key(0, 0, 0, 0), key(0, 0, 0, 0)),
                (key(10, 0, 0, 0), key(10, 0, 0, 127)),
                (key(10, 0, 0, 128), key(10, 0, 0, 255)),
                (key(255, 0, 0, 0), key(255, 255, 255, 255)),
            ]
            .into_iter()
            .collect(),
        );
        let (_, Outcome::Elements(back)) = there_and_back(&ranges) else {
            panic!("not read back");
        };
        assert_eq!(back, ranges);
    }

    #[test]
    fn many_elements_are_cut_into_messages_within_an_attribute() {
        let keys = (0..20_000u32).map(|n| Key::from(Ipv4Addr::from(n)));
        let keys = Elements::Keys(keys.collect());
        let (messages, Outcome::Elements(back)) = there_and_back(&keys) else {
            panic!("not read back");
        };
        assert_eq!(back, keys);
        assert!(messages > 1);
    }
}
