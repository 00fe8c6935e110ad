//! Tables and chains.

use std::fmt;

use super::{Quoted, Style, names, set, statement};
use crate::name::Name;
use crate::ruleset::{
    BaseChain, Chain, ChainPolicy, Counter, Family, Hook, Ownership, Table, TableId,
};

pub(super) fn table(
    f: &mut fmt::Formatter<'_>,
    id: &TableId,
    table: &Table,
    style: Style,
) -> fmt::Result {
    writeln!(f, "table {id} {{")?;
    let flags = match table.ownership {
        _ if style == Style::Script => None,
        Ownership::Anyone => None,
        Ownership::Own | Ownership::Other(_) => Some("owner,persist"),
        Ownership::Orphan => Some("persist"),
    };
    if let Some(flags) = flags {
        writeln!(f, "\tflags {flags}")?;
    }
    if let Some(comment) = &table.comment {
        writeln!(f, "\tcomment {}", Quoted(comment))?;
    }
    let mut first = true;
    let mut separate = |f: &mut fmt::Formatter<'_>| {
        f.write_str(if std::mem::take(&mut first) { "" } else { "\n" })
    };
    for (name, counter) in &table.counters {
        separate(f)?;
        self::counter(f, name, counter)?;
    }
    for (name, set) in &table.sets {
        separate(f)?;
        set::set(f, name, set, style)?;
    }
    for (name, chain) in &table.chains {
        separate(f)?;
        self::chain(f, id.family, name, chain, style)?;
    }
    f.write_str("}\n")
}

fn counter(f: &mut fmt::Formatter<'_>, name: &Name, counter: &Counter) -> fmt::Result {
    writeln!(f, "\tcounter {name} {{")?;
    if let Some(comment) = &counter.comment {
        writeln!(f, "\t\tcomment {}", Quoted(comment))?;
    }
    f.write_str("\t}\n")
}

fn chain(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    name: &Name,
    chain: &Chain,
    style: Style,
) -> fmt::Result {
    writeln!(f, "\tchain {name} {{")?;
    if let Some(comment) = &chain.comment {
        writeln!(f, "\t\tcomment {}", Quoted(comment))?;
    }
    if let Some(base) = &chain.base {
        f.write_str("\t\t")?;
        base_chain(f, family, base)?;
        f.write_str("\n")?;
    }
    for rule in &chain.rules {
        f.write_str("\t\t")?;
        statement::rule(f, rule, style)?;
        f.write_str("\n")?;
    }
    f.write_str("\t}\n")
}

/// `type filter hook forward priority filter - 6; policy accept;`.
pub(crate) fn base_chain(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    base: &BaseChain,
) -> fmt::Result {
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    let policy = match base.policy {
        ChainPolicy::Accept => "accept",
        ChainPolicy::Drop => "drop",
    };
    let priority = names::priority(family, base.hook, base.priority);
    write!(
        f,
        "type filter hook {hook} priority {priority}; policy {policy};"
    )
}
