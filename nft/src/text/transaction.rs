//! Operations in words, and transactions as scripts.

use std::fmt;

use super::{Quoted, Shown, Style, set, statement, table};
use crate::name::Comment;
use crate::ruleset::{Elements, SetHeader};
use crate::transaction::{Op, Transaction};

/// The operation in a few words, for errors and logs: `add 3 elements to set inet selvedge pods-4`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable { table, .. } => write!(f, "add table {table}"),
            Self::AdoptTable { table } => write!(f, "adopt table {table}"),
            Self::DeleteTable { table } => write!(f, "delete table {table}"),
            Self::AddCounter { table, name, .. } => write!(f, "add counter {table} {name}"),
            Self::DeleteCounter { table, name } => write!(f, "delete counter {table} {name}"),
            Self::AddSet {
                table, name, kind, ..
            } => write!(f, "add {} {table} {name}", set_word(kind)),
            Self::DeleteSet { table, name } => write!(f, "delete set {table} {name}"),
            Self::AddElements {
                table,
                name,
                elements,
                ..
            } => {
                write!(f, "add {} to ", count(elements))?;
                write!(f, "{} {table} {name}", set_word(elements))
            }
            Self::DeleteElements {
                table,
                name,
                elements,
                ..
            } => {
                write!(f, "delete {} from ", count(elements))?;
                write!(f, "{} {table} {name}", set_word(elements))
            }
            Self::AddChain { table, name, .. } => write!(f, "add chain {table} {name}"),
            Self::DeleteChain { table, name } => write!(f, "delete chain {table} {name}"),
            Self::FlushChain { table, name } => write!(f, "flush chain {table} {name}"),
            Self::AddRule { table, chain, rule } => {
                write!(f, "add rule \"")?;
                statement::rule(f, rule, Style::List)?;
                write!(f, "\" to chain {table} {chain}")
            }
        }
    }
}

fn count(elements: &Elements) -> impl fmt::Display {
    let count = elements.len();
    Shown(move |f: &mut fmt::Formatter<'_>| {
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} element{plural}")
    })
}

fn set_word(kind: &Elements) -> &'static str {
    match kind {
        Elements::Verdicts(_) => "map",
        Elements::Keys(_) | Elements::Ranges(_) => "set",
    }
}

/// The transaction as a script for `nft -f`: one command an operation, one line a command.
///
/// What must not exist yet is made with `create`, except counters, for which nft's grammar has only `add`. nft owns
/// nothing beyond its own end: who may change a table is left out.
impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| {
            command(f, op)?;
            f.write_str("\n")
        })
    }
}

fn command(f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::AddTable { table, comment, .. } => {
            write!(f, "create table {table}")?;
            braced_comment(f, comment.as_ref())
        }
        Op::AddCounter { counter, .. } => {
            write!(f, "{op}")?;
            braced_comment(f, counter.comment.as_ref())
        }
        Op::AddSet {
            table,
            name,
            header,
            kind,
            size,
        } => {
            write!(f, "create {} {table} {name} {{ type ", set_word(kind))?;
            set::set_type(f, &header.key, kind)?;
            f.write_str("; ")?;
            if let Some(size) = size {
                write!(f, "size {size}; ")?;
            }
            if let Elements::Ranges(_) = kind {
                f.write_str("flags interval; ")?;
            }
            comment(f, header.comment.as_ref())?;
            f.write_str("}")
        }
        Op::AddElements {
            table,
            name,
            header,
            elements,
        } => {
            write!(f, "create element {table} {name} {{ ")?;
            set::elements(f, &header.key, elements, Style::Script, None)?;
            f.write_str(" }")
        }
        Op::DeleteElements {
            table,
            name,
            header,
            elements,
        } => {
            write!(f, "delete element {table} {name} {{ ")?;
            keys(f, header, elements)?;
            f.write_str(" }")
        }
        Op::AddChain {
            table,
            name,
            base,
            comment,
        } => {
            write!(f, "create chain {table} {name}")?;
            let Some(base) = base else {
                return braced_comment(f, comment.as_ref());
            };
            f.write_str(" { ")?;
            table::base_chain(f, table.family, base)?;
            f.write_str(" ")?;
            self::comment(f, comment.as_ref())?;
            f.write_str("}")
        }
        Op::AddRule { table, chain, rule } => {
            write!(f, "add rule {table} {chain} ")?;
            statement::rule(f, rule, Style::Script)
        }
        Op::AdoptTable { .. } => write!(f, "# {op}"),
        Op::DeleteTable { .. }
        | Op::DeleteCounter { .. }
        | Op::DeleteSet { .. }
        | Op::DeleteChain { .. }
        | Op::FlushChain { .. } => write!(f, "{op}"),
    }
}

/// The keys alone: of a map's entries nft deletes by key.
fn keys(f: &mut fmt::Formatter<'_>, header: &SetHeader, elements: &Elements) -> fmt::Result {
    match elements {
        Elements::Verdicts(entries) => {
            let keys = Elements::Keys(entries.keys().copied().collect());
            set::elements(f, &header.key, &keys, Style::Script, None)
        }
        Elements::Keys(_) | Elements::Ranges(_) => {
            set::elements(f, &header.key, elements, Style::Script, None)
        }
    }
}

fn braced_comment(f: &mut fmt::Formatter<'_>, comment: Option<&Comment>) -> fmt::Result {
    if comment.is_some() {
        f.write_str(" { ")?;
        self::comment(f, comment)?;
        f.write_str("}")?;
    }
    Ok(())
}

fn comment(f: &mut fmt::Formatter<'_>, comment: Option<&Comment>) -> fmt::Result {
    match comment {
        Some(comment) => write!(f, "comment {}; ", Quoted(comment)),
        None => Ok(()),
    }
}
