//! What names what: the references the kernel counts, and lets nothing go while they are above zero.

use crate::name::{Comment, Name};
use crate::rule::{Rule, Statement, Verdict};
use crate::ruleset::{Chain, Elements, Set};

/// An object of the same table that a rule or map element names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference<'a> {
    /// A chain, by jump or goto.
    Chain(&'a Name),
    /// A set or verdict map, by lookup.
    Set(&'a Name),
    /// A named counter.
    Counter(&'a Name),
}

impl<'a> Reference<'a> {
    /// The object's name.
    pub(crate) fn name(self) -> &'a Name {
        match self {
            Self::Chain(name) | Self::Set(name) | Self::Counter(name) => name,
        }
    }
}

impl Statement {
    pub(crate) fn reference(&self) -> Option<Reference<'_>> {
        match self {
            Self::Lookup { set, .. } => Some(Reference::Set(set)),
            Self::VerdictMap { map, .. } => Some(Reference::Set(map)),
            Self::NamedCounter(counter) => Some(Reference::Counter(counter)),
            Self::Verdict(verdict) => verdict.chain().map(Reference::Chain),
            _ => None,
        }
    }
}

impl Rule {
    pub(crate) fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.statements.iter().filter_map(Statement::reference)
    }
}

impl Chain {
    pub(crate) fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.rules.iter().flat_map(Rule::references)
    }

    /// Whether a rule was not understood when it was read: it may name anything.
    pub(crate) fn has_foreign(&self) -> bool {
        self.rules
            .iter()
            .flat_map(|rule| &rule.statements)
            .any(|statement| matches!(statement, Statement::Foreign(_)))
    }
}

impl Elements {
    /// The verdicts of a verdict map; none of a set.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let entries = match self {
            Self::Verdicts(entries) => Some(entries),
            Self::Keys(_) | Self::Ranges(_) => None,
        };
        entries
            .into_iter()
            .flatten()
            .map(|(_, entry)| &entry.verdict)
    }
}

impl Set {
    /// Whether what is in it was not understood when it was read: a map's elements may name any chain.
    pub(crate) fn is_foreign(&self) -> bool {
        self.header
            .comment
            .as_ref()
            .is_some_and(Comment::is_foreign)
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.elements
            .verdicts()
            .filter_map(Verdict::chain)
            .map(Reference::Chain)
    }
}
