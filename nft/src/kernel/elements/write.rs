//! Elements into messages.

use std::io;

use super::{
    INTERVAL_END, LIST_ELEMENT, data, element, invalid, key_len, list, successor, verdict_attr,
};
use crate::kernel::expr::verdict_number;
use crate::kernel::userdata;
use crate::kernel::wire::{self, Header};
use crate::name::{Comment, Name};
use crate::rule::Verdict;
use crate::ruleset::{Elements, SetHeader};
use crate::value::Key;

/// A message's list of elements is one attribute of at most 65,535 bytes. The largest element, a verdict with a chain's
/// name and a comment, has less than 600; a range's two are never parted.
const LIST_BYTES: usize = 64_000;

/// What to do with the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
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
pub(in super::super) fn encode(
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
