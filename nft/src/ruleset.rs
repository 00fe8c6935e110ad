//! Rulesets as values: tables with their chains, sets, verdict maps and counters.
//!
//! Everything large is shared: a clone costs nothing, and two rulesets that come from one another compare by what
//! changed between them.

use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::name::{Comment, Name};
use crate::rule::{Rule, Verdict};
use crate::value::{Datatype, Key};

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames on bridges.
    Bridge,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

/// What tells tables apart: family and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// The family.
    pub family: Family,
    /// The name.
    pub name: Name,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Some tables, by family and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The tables.
    pub tables: OrdMap<TableId, Arc<Table>>,
}

impl Ruleset {
    /// The same tables, all of this ownership. It costs the same however much is in them.
    #[must_use]
    pub fn with_ownership(&self, ownership: Ownership) -> Self {
        let own = |table: &Table| Table {
            ownership,
            ..table.clone()
        };
        let tables = self.tables.iter();
        let tables = tables.map(|(id, table)| (id.clone(), Arc::new(own(table))));
        Self {
            tables: tables.collect(),
        }
    }
}

/// A table. Sets and verdict maps share one space of names; chains and counters have one each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Who may change it.
    pub ownership: Ownership,
    /// The comment.
    pub comment: Option<Comment>,
    /// The named counters.
    pub counters: OrdMap<Name, Arc<Counter>>,
    /// The sets and verdict maps.
    pub sets: OrdMap<Name, Arc<Set>>,
    /// The chains.
    pub chains: OrdMap<Name, Arc<Chain>>,
}

/// Who may change a table, or flush it with the whole ruleset. Everyone may read it.
///
/// A table belongs to a netlink socket, not to a process: the one that made or adopted it, until it is closed. `persist`
/// makes the table outlive it, and can't be given to a table that is there, nor taken from it (`nf_tables_updtable`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Everyone.
    #[default]
    Anyone,
    /// The one who reads or commits it, alone (`flags owner,persist`). An [`Self::Orphan`] afterwards.
    Own,
    /// Everyone, until somebody adopts it: its owner is gone (`flags persist`).
    Orphan,
    /// The owner of the socket with this port, alone: somebody else. It can be read, but not desired.
    Other(u32),
}

/// A named counter. Its figures are state, not configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counter {
    /// The comment.
    pub comment: Option<Comment>,
}

/// A chain and its rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel calls the chain; `None` for one that only other chains call.
    pub base: Option<BaseChain>,
    /// The comment.
    pub comment: Option<Comment>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// How a base chain is attached; all are of type filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseChain {
    /// The hook.
    pub hook: Hook,
    /// The priority; lower ones come first. `filter` is 0 in family inet and -200 in family bridge.
    pub priority: i32,
    /// What happens to a packet at the end of the chain.
    pub policy: ChainPolicy,
}

/// A netfilter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// A base chain's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainPolicy {
    /// The packet goes on.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// A set or verdict map: what it is, and its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What cannot change without making the set anew.
    pub header: SetHeader,
    /// The elements. Their kind (keys, ranges, verdicts) tells the set's flags.
    pub elements: Elements,
}

/// The immutable part of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// The key's type; several for a concatenation. Together at most [`Key::MAX`] bytes.
    pub key: Vec<Datatype>,
    /// The comment.
    pub comment: Option<Comment>,
}

/// The elements of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elements {
    /// A plain set: its keys.
    Keys(OrdSet<Key>),
    /// `flags interval`: first key → last key, both included. Ranges are disjoint. For a concatenation the two
    /// keys are the bounds field by field.
    Ranges(OrdMap<Key, Key>),
    /// A verdict map.
    Verdicts(OrdMap<Key, MapEntry>),
}

/// The value of a key in a verdict map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapEntry {
    /// The verdict.
    pub verdict: Verdict,
    /// The element's comment.
    pub comment: Option<Comment>,
}

impl Elements {
    /// How many elements there are (a range is one).
    pub fn len(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.len(),
            Self::Ranges(ranges) => ranges.len(),
            Self::Verdicts(entries) => entries.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No elements, of the same kind.
    #[must_use]
    pub fn none(&self) -> Self {
        match self {
            Self::Keys(_) => Self::Keys(OrdSet::new()),
            Self::Ranges(_) => Self::Ranges(OrdMap::new()),
            Self::Verdicts(_) => Self::Verdicts(OrdMap::new()),
        }
    }
}
