//! Messages into elements.

use std::collections::BTreeMap;

use super::{INTERVAL_END, data, element, list, predecessor, verdict_attr};
use crate::kernel::expr::verdict;
use crate::kernel::userdata;
use crate::kernel::wire::{Attr, Malformed, Message};
use crate::name::Comment;
use crate::rule::Verdict;
use crate::ruleset::{Elements, MapEntry};
use crate::value::{Datatype, Key};

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
pub(in super::super) struct Dump {
    elements: Vec<Element>,
    /// Why the set is none that [`Elements`] can hold, once that is seen.
    foreign: Option<&'static str>,
}

/// What became of a dump.
#[derive(Debug)]
pub(in super::super) enum Outcome {
    /// The elements.
    Elements(Elements),
    /// They are none that this crate would write.
    Foreign(&'static str),
    /// The kernel gave an element twice: it moved them while they were dumped, and another may be missing.
    Torn,
}

impl Dump {
    /// Takes the elements of one message in.
    pub(in super::super) fn take(&mut self, message: Message<'_>) -> Result<(), Malformed> {
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
    pub(in super::super) fn finish(self, kind: &Elements, key: &[Datatype]) -> Outcome {
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
