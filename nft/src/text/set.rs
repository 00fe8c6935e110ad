//! Sets, verdict maps and their elements.

use std::fmt;

use super::statement::verdict;
use super::{Quoted, Style, value};
use crate::name::Name;
use crate::ruleset::{Elements, MapEntry, Set};
use crate::value::{Datatype, Key, Value};

/// A set or map of a table's body.
pub(super) fn set(f: &mut fmt::Formatter<'_>, name: &Name, set: &Set, style: Style) -> fmt::Result {
    let word = if matches!(set.elements, Elements::Verdicts(_)) {
        "map"
    } else {
        "set"
    };
    writeln!(f, "\t{word} {name} {{")?;
    f.write_str("\t\ttype ")?;
    set_type(f, &set.header.key, &set.elements)?;
    f.write_str("\n")?;
    if let Elements::Ranges(_) = set.elements {
        f.write_str("\t\tflags interval\n")?;
    }
    if let Some(comment) = &set.header.comment {
        writeln!(f, "\t\tcomment {}", Quoted(comment))?;
    }
    if !set.elements.is_empty() {
        f.write_str("\t\telements = { ")?;
        elements(
            f,
            &set.header.key,
            &set.elements,
            style,
            Some(per_line(&set.header.key)),
        )?;
        f.write_str(" }\n")?;
    }
    f.write_str("\t}\n")
}

/// `ipv4_addr . inet_service : verdict`.
pub(crate) fn set_type(
    f: &mut fmt::Formatter<'_>,
    key: &[Datatype],
    kind: &Elements,
) -> fmt::Result {
    for (at, datatype) in key.iter().enumerate() {
        if at > 0 {
            f.write_str(" . ")?;
        }
        f.write_str(datatype.name())?;
    }
    if let Elements::Verdicts(_) = kind {
        f.write_str(" : verdict")?;
    }
    Ok(())
}

/// How many elements nft prints on a line.
fn per_line(key: &[Datatype]) -> usize {
    match key {
        [Datatype::Ipv4Addr] => 2,
        [Datatype::InetService | Datatype::InetProto] => 5,
        _ => 1,
    }
}

/// The elements in nft's order, broken into lines of `per_line` where it is given.
pub(crate) fn elements(
    f: &mut fmt::Formatter<'_>,
    types: &[Datatype],
    elements: &Elements,
    style: Style,
    per_line: Option<usize>,
) -> fmt::Result {
    let mut at = 0;
    let mut separate = |f: &mut fmt::Formatter<'_>| {
        let separator = match (at, per_line) {
            (0, _) => "",
            (at, Some(per_line)) if at % per_line == 0 => ",\n\t\t\t     ",
            _ => ", ",
        };
        at += 1;
        f.write_str(separator)
    };
    match elements {
        Elements::Keys(keys) => sorted(types, keys.iter(), |key| key)
            .into_iter()
            .try_for_each(|key| {
                separate(f)?;
                self::key(f, types, key, style)
            }),
        Elements::Ranges(ranges) => ranges.iter().try_for_each(|(first, last)| {
            separate(f)?;
            range(f, types, first, last, style)
        }),
        Elements::Verdicts(entries) => sorted(types, entries.iter(), |(key, _)| key)
            .into_iter()
            .try_for_each(|(key, entry)| {
                separate(f)?;
                self::entry(f, types, key, entry, style)
            }),
    }
}

fn entry(
    f: &mut fmt::Formatter<'_>,
    types: &[Datatype],
    key: &Key,
    entry: &MapEntry,
    style: Style,
) -> fmt::Result {
    self::key(f, types, key, style)?;
    if let Some(comment) = &entry.comment {
        write!(f, " comment {}", Quoted(comment))?;
    }
    f.write_str(" : ")?;
    verdict(f, &entry.verdict)
}

pub(crate) fn key(
    f: &mut fmt::Formatter<'_>,
    types: &[Datatype],
    key: &Key,
    style: Style,
) -> fmt::Result {
    let Some(values) = key.values(types) else {
        // Bytes that are no values of these types: no text of nft's says that.
        return write!(f, "0x{key:?}");
    };
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            f.write_str(" . ")?;
        }
        value::value(f, value, style)?;
    }
    Ok(())
}

pub(crate) fn range(
    f: &mut fmt::Formatter<'_>,
    types: &[Datatype],
    first: &Key,
    last: &Key,
    style: Style,
) -> fmt::Result {
    let (Some(firsts), Some(lasts)) = (first.values(types), last.values(types)) else {
        return write!(f, "0x{first:?}-0x{last:?}");
    };
    for (at, (first, last)) in firsts.iter().zip(&lasts).enumerate() {
        if at > 0 {
            f.write_str(" . ")?;
        }
        value::interval(f, first, last, style)?;
    }
    Ok(())
}

/// The elements in the order of nft's listing: one value by its number in the value's own byte order, a concatenation
/// by all its bytes read as one little-endian number (`src/mergesort.c`).
fn sorted<T>(
    types: &[Datatype],
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> &Key,
) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    match types {
        [Datatype::IfName] => {
            items.sort_by_cached_key(|item| reversed(key(item).as_bytes().iter().copied()));
        }
        [_] => {}
        _ => items.sort_by_cached_key(|item| {
            let values = key(item).values(types).unwrap_or_default();
            reversed(values.iter().flat_map(unpadded))
        }),
    }
    items
}

fn unpadded(value: &Value) -> Vec<u8> {
    let mut bytes = [0; 16];
    let length = value.write(&mut bytes);
    bytes.iter().copied().take(length).collect()
}

fn reversed(bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut bytes: Vec<u8> = bytes.collect();
    bytes.reverse();
    bytes
}
