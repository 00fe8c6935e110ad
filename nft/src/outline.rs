//! What a table comes to, in little.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use crate::name::Name;
use crate::refs::Reference;
use crate::rule::Verdict;
use crate::ruleset::{Elements, MapEntry, Set, Table};

impl Table {
    /// The table with these chains, what their rules name, and no more. `shorten` makes of each verdict map one whose
    /// elements lead to no chain, as [`Set::without_chains`] does. It costs the same however much is in the table besides.
    #[must_use]
    pub fn outline(
        &self,
        chains: &[Name],
        mut shorten: impl FnMut(&Name, &Arc<Set>) -> Arc<Set>,
    ) -> Self {
        let mut outline = Self {
            ownership: self.ownership,
            comment: self.comment.clone(),
            ..Self::default()
        };
        let mut open: Vec<&Name> = chains.iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            let Some(chain) = self.chains.get(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            outline.chains.insert(name.clone(), chain.clone());
            for reference in chain.references() {
                match reference {
                    Reference::Chain(name) => open.push(name),
                    Reference::Counter(name) => {
                        if let Some(counter) = self.counters.get(name) {
                            outline.counters.insert(name.clone(), counter.clone());
                        }
                    }
                    Reference::Set(name) => {
                        if let Some(set) = self
                            .sets
                            .get(name)
                            .filter(|_| !outline.sets.contains_key(name))
                        {
                            let set = match set.elements {
                                Elements::Verdicts(_) => shorten(name, set),
                                Elements::Keys(_) | Elements::Ranges(_) => set.clone(),
                            };
                            outline.sets.insert(name.clone(), set);
                        }
                    }
                }
            }
        }
        outline
    }
}

impl Set {
    /// The same, where each element of a verdict map that leads to a chain has this verdict instead; `None` leaves it out.
    #[must_use]
    pub fn without_chains(&self, instead: Option<&Verdict>) -> Self {
        let Elements::Verdicts(entries) = &self.elements else {
            return self.clone();
        };
        let entries = entries.iter().filter_map(|(key, entry)| {
            let verdict = match entry.verdict.chain() {
                Some(_) => instead?.clone(),
                None => entry.verdict.clone(),
            };
            let comment = entry.comment.clone();
            Some((*key, MapEntry { verdict, comment }))
        });
        Self {
            header: self.header.clone(),
            elements: Elements::Verdicts(entries.collect::<OrdMap<_, _>>()),
        }
    }
}
