//! Set elements as netlink attributes, written straight into the batch and read straight from the dump: a million of
//! them would be hundreds of MiB as libnftnl's objects.
//!
//! A range of a plain interval set is two elements to the kernel: its first key, and the key after its last one marked
//! as an end; none at the top of the space. A range of a concatenation is one element with two keys.

use std::collections::BTreeMap;
use std::io;

use nftnl::nftnl_sys::libc;

use super::expr::{verdict, verdict_number};
use super::userdata;
use super::wire::{self, Attr, Header, Malformed, Message};
use crate::name::{Comment, Name};
use crate::rule::Verdict;
use crate::ruleset::{Elements, MapEntry, SetHeader};
use crate::value::{Datatype, Key};

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

/// A message's list of elements is one attribute of at most 65,535 bytes. The largest element, a verdict with a chain's
/// name and a comment, has less than 600; a range's two are never parted.
const LIST_BYTES: usize = 64_000;

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

/// What to do with the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Delete,
}

/// Writes messages of elements, as many as their lists need.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    header: Header,
    table: &'a str,
    set: &'a str,
    /// Where the message and its list begin, while there is one.
    open: Option<(usize, usize)>,
    /// Where each message begins.
    starts: Vec<usize>,
}

impl Writer<'_> {
    /// Makes room for the next element, or two that stay together.
    fn room(&mut self) {
        if let Some((_, list)) = self.open {
            if self.out.len() - list < LIST_BYTES {
                return;
            }
            self.close();
        }
        let mut header = self.header;
        header.seq += self.starts.len() as u32;
        let start = wire::begin_message(self.out, header);
        wire::put_text(self.out, list::TABLE, self.table);
        wire::put_text(self.out, list::SET, self.set);
        let list = wire::begin_nest(self.out, list::ELEMENTS);
        self.starts.push(start);
        self.open = Some((start, list));
    }

    fn close(&mut self) {
        if let Some((start, list)) = self.open.take() {
            wire::end_nest(self.out, list);
            wire::end_message(self.out, start);
        }
    }

    fn key(&mut self, kind: u16, key: &Key) {
        let nest = wire::begin_nest(self.out, kind);
        wire::put(self.out, data::VALUE, key.as_bytes());
        wire::end_nest(self.out, nest);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let nest = wire::begin_nest(self.out, element::DATA);
        let inner = wire::begin_nest(self.out, data::VERDICT);
        wire::put_u32(self.out, verdict_attr::CODE, verdict_number(verdict));
        if let Some(chain) = verdict.chain() {
            wire::put_text(self.out, verdict_attr::CHAIN, chain.as_str());
        }
        wire::end_nest(self.out, inner);
        wire::end_nest(self.out, nest);
    }

    fn element(&mut self, write: impl FnOnce(&mut Self)) {
        let nest = wire::begin_nest(self.out, LIST_ELEMENT);
        write(self);
        wire::end_nest(self.out, nest);
    }

    fn range(&mut self, change: Change, first: &Key, last: &Key) {
        let end = successor(last);
        self.element(|w| {
            w.key(element::KEY, first);
            if end.is_none() && change == Change::Add {
                // By this nft knows that no end is missing.
                wire::put(w.out, element::USER_DATA, &userdata::of_open_range());
            }
        });
        if let Some(end) = end {
            self.element(|w| {
                wire::put_u32(w.out, element::FLAGS, INTERVAL_END);
                w.key(element::KEY, &end);
            });
        }
    }
}

/// Appends the messages that add or delete elements; gives where each begins. The first has the header's sequence
/// number, the others those after it.
///
/// # Errors
/// `InvalidInput` for a key that is not of the set's type, or a range that ends before it begins.
pub(super) fn encode(
    out: &mut Vec<u8>,
    header: Header,
    (table, set): (&Name, &Name),
    set_header: &SetHeader,
    elements: &Elements,
    change: Change,
) -> io::Result<Vec<usize>> {
    let len = key_len(set_header)?;
    let check = |key: &Key| {
        if key.as_bytes().len() == len {
            Ok(())
        } else {
            Err(invalid("a key is not as long as the set's type"))
        }
    };
    let mut writer = Writer {
        out,
        header,
        table: table.as_str(),
        set: set.as_str(),
        open: None,
        starts: Vec::new(),
    };
    match elements {
        Elements::Keys(keys) => {
            for key in keys {
                check(key)?;
                writer.room();
                writer.element(|w| w.key(element::KEY, key));
            }
        }
        Elements::Ranges(ranges) => {
            for (first, last) in ranges {
                check(first)?;
                check(last)?;
                if first > last {
                    return Err(invalid("a range ends before it begins"));
                }
                writer.room();
                if set_header.key.len() > 1 {
                    writer.element(|w| {
                        w.key(element::KEY, first);
                        w.key(element::KEY_END, last);
                    });
                } else {
                    writer.range(change, first, last);
                }
            }
        }
        Elements::Verdicts(entries) => {
            for (key, entry) in entries {
                check(key)?;
                let comment = entry.comment.as_ref();
                if comment.is_some_and(Comment::is_foreign) {
                    return Err(invalid("a foreign comment can be read but not written"));
                }
                writer.room();
                writer.element(|w| {
                    w.key(element::KEY, key);
                    if change == Change::Delete {
                        return;
                    }
                    w.verdict(&entry.verdict);
                    if let Some(comment) = comment {
                        wire::put(w.out, element::USER_DATA, &userdata::of_comment(comment));
                    }
                });
            }
        }
    }
    writer.close();
    Ok(writer.starts)
}

/// One element of a dump.
#[derive(Debug)]
struct Element {
    key: Key,
    end: Option<Key>,
    flags: u32,
    verdict: Option<Verdict>,
    comment: Option<Comment>,
}

/// A dumped set's elements, as they come in.
#[derive(Debug, Default)]
pub(super) struct Dump {
    elements: Vec<Element>,
    /// Why the set is none that [`Elements`] can hold, once that is seen.
    foreign: Option<&'static str>,
}

/// What became of a dump.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The elements.
    Elements(Elements),
    /// They are none that this crate would write.
    Foreign(&'static str),
    /// The kernel gave an element twice: it moved them while they were dumped, and another may be missing.
    Torn,
}

impl Dump {
    /// Takes the elements of one message in.
    pub(super) fn take(&mut self, message: Message<'_>) -> Result<(), Malformed> {
        let Some(list) = message.attrs().find(list::ELEMENTS)? else {
            return Ok(());
        };
        for attr in list.nested() {
            if self.foreign.is_some() {
                break;
            }
            match read_element(attr?)? {
                Ok(element) => self.elements.push(element),
                Err(reason) => self.foreign = Some(reason),
            }
        }
        Ok(())
    }

    /// The elements of a set of this kind and key.
    pub(super) fn finish(self, kind: &Elements, key: &[Datatype]) -> Outcome {
        if let Some(reason) = self.foreign {
            return Outcome::Foreign(reason);
        }
        match kind {
            Elements::Keys(_) => keys(self.elements),
            Elements::Verdicts(_) => verdicts(self.elements),
            Elements::Ranges(_) if key.len() > 1 => boxes(self.elements),
            Elements::Ranges(_) => ranges(self.elements),
        }
    }
}

/// Reads an element; the inner error says why it is none of ours.
fn read_element(attr: Attr<'_>) -> Result<Result<Element, &'static str>, Malformed> {
    let (mut key, mut end, mut flags, mut verdict, mut comment) = (None, None, 0, None, None);
    for attr in attr.nested() {
        let attr = attr?;
        match attr.kind {
            element::KEY => key = Some(read_key(attr)?),
            element::KEY_END => end = Some(read_key(attr)?),
            element::FLAGS => flags = attr.u32()?,
            element::DATA => match read_verdict(attr)? {
                Some(read) => verdict = Some(read),
                None => return Ok(Err("a map to something other than our verdicts")),
            },
            element::USER_DATA => comment = userdata::comment(attr.payload),
            element::PAD => {}
            _ => return Ok(Err("elements with a timeout, counter or other extension")),
        }
    }
    if flags & !INTERVAL_END != 0 {
        return Ok(Err("an element for all other keys"));
    }
    let (key, end) = match (key, end) {
        (Some(Some(key)), None) => (key, None),
        (Some(Some(key)), Some(Some(end))) => (key, Some(end)),
        (None, _) => return Err(Malformed::new("an element without a key")),
        _ => return Ok(Err("keys longer than ours")),
    };
    Ok(Ok(Element {
        key,
        end,
        flags,
        verdict,
        comment,
    }))
}

/// The key, or `None` where it is longer than ours.
fn read_key(attr: Attr<'_>) -> Result<Option<Key>, Malformed> {
    match attr.nested().find(data::VALUE)? {
        Some(value) => Ok(Key::from_bytes(value.payload).ok()),
        None => Err(Malformed::new("a key without a value")),
    }
}

fn read_verdict(attr: Attr<'_>) -> Result<Option<Verdict>, Malformed> {
    let Some(nest) = attr.nested().find(data::VERDICT)? else {
        return Ok(None);
    };
    let Some(code) = nest.nested().find(verdict_attr::CODE)? else {
        return Err(Malformed::new("a verdict without a code"));
    };
    let chain = nest.nested().find(verdict_attr::CHAIN)?;
    let chain = chain.map(|chain| chain.text());
    Ok(verdict(code.u32()?, chain.as_deref()))
}

/// Whether elements sorted by this key have one twice.
fn has_twice<K: PartialEq>(elements: &[Element], key: impl Fn(&Element) -> K) -> bool {
    elements
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if key(a) == key(b)))
}

const RANGE_IN_PLAIN_SET: &str = "ranges in a set without";
const COMMENT_OUTSIDE_OF_MAPS: &str = "comments on elements of a plain set";

fn keys(mut elements: Vec<Element>) -> Outcome {
    elements.sort_unstable_by_key(|element| element.key);
    if has_twice(&elements, |element| element.key) {
        return Outcome::Torn;
    }
    for element in &elements {
        if element.end.is_some() || element.flags != 0 {
            return Outcome::Foreign(RANGE_IN_PLAIN_SET);
        }
        if element.comment.is_some() {
            return Outcome::Foreign(COMMENT_OUTSIDE_OF_MAPS);
        }
    }
    let keys = elements.into_iter().map(|element| element.key);
    Outcome::Elements(Elements::Keys(keys.collect()))
}

fn verdicts(mut elements: Vec<Element>) -> Outcome {
    elements.sort_unstable_by_key(|element| element.key);
    if has_twice(&elements, |element| element.key) {
        return Outcome::Torn;
    }
    let mut entries = Vec::with_capacity(elements.len());
    for element in elements {
        if element.end.is_some() || element.flags != 0 {
            return Outcome::Foreign(RANGE_IN_PLAIN_SET);
        }
        let Some(verdict) = element.verdict else {
            return Outcome::Foreign("elements of a map without a verdict");
        };
        let comment = element.comment;
        entries.push((element.key, MapEntry { verdict, comment }));
    }
    Outcome::Elements(Elements::Verdicts(entries.into_iter().collect()))
}

fn boxes(mut elements: Vec<Element>) -> Outcome {
    let corners = |element: &Element| (element.key, element.end);
    elements.sort_unstable_by_key(corners);
    if has_twice(&elements, corners) {
        return Outcome::Torn;
    }
    if has_twice(&elements, |element| element.key) {
        return Outcome::Foreign("ranges that overlap");
    }
    if elements.iter().any(|element| element.comment.is_some()) {
        return Outcome::Foreign(COMMENT_OUTSIDE_OF_MAPS);
    }
    let ranges = elements
        .into_iter()
        .map(|element| (element.key, element.end.unwrap_or(element.key)));
    Outcome::Elements(Elements::Ranges(ranges.collect()))
}

fn ranges(elements: Vec<Element>) -> Outcome {
    // Whether a range begins at the key, and whether one ends before it: where ranges touch, both.
    let mut bounds: BTreeMap<Key, (bool, bool)> = BTreeMap::new();
    for element in elements {
        let bound = bounds.entry(element.key).or_default();
        let is_end = element.flags & INTERVAL_END != 0;
        let seen = if is_end { &mut bound.1 } else { &mut bound.0 };
        if std::mem::replace(seen, true) {
            return Outcome::Torn;
        }
        if element.comment.is_some() {
            return Outcome::Foreign(COMMENT_OUTSIDE_OF_MAPS);
        }
    }
    let mut ranges = Vec::with_capacity(bounds.len());
    let mut first: Option<Key> = None;
    for (key, (begins, _)) in &bounds {
        // Either kind of bound ends the range before: nft may leave the end out where the next range begins there.
        if let (Some(first), Some(last)) = (first, predecessor(key)) {
            ranges.push((first, last));
        }
        first = begins.then_some(*key);
    }
    if let Some(first) = first
        && let Ok(top) = Key::from_bytes(&[0xff; Key::MAX][..first.as_bytes().len()])
    {
        ranges.push((first, top));
    }
    Outcome::Elements(Elements::Ranges(ranges.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn an_element_seen_twice_means_that_another_may_be_missing() {
        let element = |key| Element {
            key,
            end: None,
            flags: 0,
            verdict: None,
            comment: None,
        };
        let elements = [1, 2, 1].map(|n| element(key(10, 0, 0, n)));
        assert!(matches!(keys(elements.into()), Outcome::Torn));
        let elements = [1, 2, 1].map(|n| element(key(10, 0, 0, n)));
        assert!(matches!(ranges(elements.into()), Outcome::Torn));
    }
}
