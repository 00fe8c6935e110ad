//! Rulesets as nft's own text.
//!
//! [`list`] is what `nft -s list ruleset` prints for the tables once they are loaded, byte for byte, in the dialect of
//! nft 1.0.6 (Debian 12). [`script`] is what `nft -f` loads, in one transaction that replaces the tables.
//!
//! What nft prints in an order of its own is printed in that order: elements by value, concatenated ones by their bytes
//! from the last to the first. Two things depend on history and not on the ruleset, so `list` gives what a fresh load
//! gives: objects stand in order of creation (here by name, as `script` makes them), and so do the elements of sets that
//! are both interval and concatenated (here by key).
//!
//! nft rewrites some rules that it reads, and `list` does not follow it there. Write these forms only as it prints them:
//! a match that only states what a later field implies (`meta l4proto tcp` before `tcp dport`, `ether type ip` before
//! `ip saddr`) is dropped; `meta l4proto tcp th dport 80` becomes `tcp dport 80`; two neighbouring comparisons of the
//! ports of one header with a single value become one (`sport` first; `th sport` and `th dport` in no readable form); a
//! `>=` right before a `<=`, or a `<` before a `>`, is shown as one range, even where the fields are not the same. The
//! prefix of a `log` must not contain a `$`, which `nft -f` takes for a variable.
//!
//! Who owns a table is listed as later versions do (`flags owner,persist`): nft 1.0.6 prints the first of the two alone,
//! beside the name of a process that has the owner's port for its number. A script says nothing of it: that version can't
//! read `persist`, and nft gives up what it owns when it ends.
//!
//! nft's grammar has no way to quote the name of an object: see [`is_reserved`].

mod names;
mod set;
mod statement;
mod table;
#[cfg(test)]
mod tests;
mod transaction;
mod value;

use std::fmt;

use crate::name::Comment;
use crate::ruleset::{Ruleset, Table, TableId};

pub use self::names::is_reserved;

/// Who reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Printed as `nft -s list` does.
    List,
    /// Loaded by `nft -f`: also on a host without `/etc/protocols`.
    Script,
}

/// The text that makes these tables what they are here, whatever they were before, when `nft -f` loads it.
///
/// Other tables are left alone. Loading it is one transaction. Rules with a [`crate::Statement::Foreign`] become
/// comments.
pub fn script(ruleset: &Ruleset) -> String {
    let mut out = String::new();
    for (id, table) in &ruleset.tables {
        // The first line makes the second one possible where the table does not exist yet.
        out.push_str(&format!("table {id}\ndelete table {id}\n"));
        out.push_str(&show(|f| table::table(f, id, table, Style::Script)));
    }
    out
}

/// The text that `nft -s list ruleset` prints for these tables.
pub fn list(ruleset: &Ruleset) -> String {
    let mut out = String::new();
    for (id, table) in &ruleset.tables {
        out.push_str(&list_table(id, table));
    }
    out
}

/// The text that `nft -s list table FAMILY NAME` prints for one table.
pub fn list_table(id: &TableId, table: &Table) -> String {
    show(|f| table::table(f, id, table, Style::List))
}

fn show(print: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> String {
    Shown(print).to_string()
}

/// A comment between quotes. It has none itself, unless it stands for something that could not be read.
struct Quoted<'a>(&'a Comment);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.as_str().replace('"', "'"))
    }
}

/// Something to print, as a value.
pub(crate) struct Shown<F>(pub(crate) F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}
