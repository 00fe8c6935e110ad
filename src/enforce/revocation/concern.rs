//! Whom a commit may have taken permission from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use selvedge_nft::{
    Chain, Datatype, Elements, Family, Key, Name, Op, Rule, Ruleset, Statement, Table, TableId,
    Transaction, Value, Verdict,
};

use crate::compile::is_withheld;

/// So many addresses are named; more are everyone.
const MOST: usize = 1000;

/// Whose connections are to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Concern {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those from or to these addresses.
    These(BTreeSet<IpAddr>),
    /// All that the node's rules have a say in.
    Everyone,
}

impl Concern {
    /// Whether there is nothing to look at.
    pub fn is_nobody(&self) -> bool {
        *self == Self::Nobody
    }

    /// Whether the connection is to be looked at.
    #[cfg(test)]
    pub fn involves(&self, entry: &selvedge_nft::Entry) -> bool {
        match self {
            Self::Nobody => false,
            Self::These(addresses) => {
                addresses.contains(&entry.original.source)
                    || addresses.contains(&entry.reply.source)
            }
            Self::Everyone => true,
        }
    }

    /// Adds one address.
    pub fn add(&mut self, address: IpAddr) {
        match self {
            Self::Nobody => *self = Self::These([address].into()),
            Self::These(addresses) => {
                addresses.insert(address);
                if addresses.len() > MOST {
                    *self = Self::Everyone;
                }
            }
            Self::Everyone => {}
        }
    }

    /// Adds all of another.
    pub fn join(&mut self, other: Self) {
        match (&*self, other) {
            (Self::Everyone, _) | (_, Self::Nobody) => {}
            (Self::Nobody, other) => *self = other,
            (_, Self::Everyone) => *self = Self::Everyone,
            (Self::These(_), Self::These(addresses)) => {
                for address in addresses {
                    self.add(address);
                }
            }
        }
    }
}

/// Whom a transaction from one ruleset to another may have taken permission from. It costs what the transaction deletes
/// and, where it rewrites chains, the dispatch maps: this node's pods.
///
/// It rests on how rulesets are compiled: rules look sets of addresses up to accept, or to drop who is in none; those that
/// drop who is in one are about withheld addresses, or about isolated pods, who are in the dispatch maps, too. A verdict
/// map holds for a pod's address the chain that decides about it.
pub fn concerned(before: &Ruleset, transaction: &Transaction, after: &Ruleset) -> Concern {
    let mut concern = Concern::Nobody;
    let mut rewritten = BTreeSet::new();
    for op in &transaction.ops {
        match op {
            // The port guard of the bridge knows no connections.
            op if op.table().family != Family::Inet => {}
            Op::AddTable { .. } | Op::DeleteTable { .. } | Op::AddChain { base: Some(_), .. } => {
                return Concern::Everyone;
            }
            // Who is newly isolated, or by another chain than before. Who is only deleted is isolated no more.
            Op::AddElements {
                header,
                elements: Elements::Verdicts(entries),
                ..
            } => entries
                .keys()
                .for_each(|key| add_key(&mut concern, key, &header.key)),
            // Who may use an address no more, and who may again.
            Op::AddElements {
                name,
                header,
                elements: Elements::Keys(keys),
                ..
            } if is_withheld(name) => keys
                .iter()
                .for_each(|key| add_key(&mut concern, key, &header.key)),
            Op::DeleteElements { name, .. } if is_withheld(name) => {}
            Op::DeleteElements {
                header, elements, ..
            } => match elements {
                Elements::Verdicts(_) => {}
                Elements::Keys(keys) => {
                    for key in keys {
                        add_key(&mut concern, key, &header.key);
                        if concern == Concern::Everyone {
                            return concern;
                        }
                    }
                }
                Elements::Ranges(_) => return Concern::Everyone,
            },
            // A set that is made anew may have lost anything.
            Op::DeleteSet { table, name } => {
                let table = after.tables.get(table);
                if table.is_some_and(|table| table.sets.contains_key(name)) {
                    return Concern::Everyone;
                }
            }
            // A chain is rewritten, or made anew where its comment changes. One that goes for good was named by chains and
            // maps that change in the same transaction.
            Op::FlushChain { table, name } | Op::DeleteChain { table, name } => {
                let chain = |ruleset: &Ruleset| chain(ruleset, table, name).cloned();
                let (old, new) = (chain(before), chain(after));
                if new.is_none() {
                    continue;
                }
                let base = |chain: &Option<Chain>| chain.as_ref().is_some_and(|c| c.base.is_some());
                if base(&old) || base(&new) {
                    let same = old.as_ref().zip(new.as_ref());
                    if same.is_some_and(|(old, new)| differ_by_withheld(old, new)) {
                        continue;
                    }
                    return Concern::Everyone;
                }
                let opens = match (&old, &new, after.tables.get(table)) {
                    (Some(old), Some(new), Some(table)) => only_opens(old, new, table),
                    _ => false,
                };
                if !opens {
                    rewritten.insert((table.clone(), name.clone()));
                }
            }
            // What is new is named by chains and maps that change in the same transaction.
            _ => {}
        }
    }
    for (id, table) in &after.tables {
        let names: BTreeSet<&Name> = rewritten
            .iter()
            .filter(|(of, _)| of == id)
            .map(|(_, name)| name)
            .collect();
        if !names.is_empty() {
            add_users(&mut concern, table, &names);
        }
    }
    concern
}

/// Adds the addresses that verdict maps send to one of these chains, directly or by a jump.
fn add_users(concern: &mut Concern, table: &Table, chains: &BTreeSet<&Name>) {
    let calls = |name: &Name| {
        let rules = table.chains.get(name).map(|chain| chain.rules.as_slice());
        let mut called = rules.unwrap_or_default().iter().filter_map(target);
        called.any(|name| chains.contains(name))
    };
    for set in table.sets.values() {
        let Elements::Verdicts(entries) = &set.elements else {
            continue;
        };
        for (key, entry) in entries {
            let chain = entry.verdict.chain();
            if chain.is_some_and(|name| chains.contains(name) || calls(name)) {
                add_key(concern, key, &set.header.key);
            }
        }
    }
}

/// Adds the address that a key begins with; one of another kind may be about anybody.
fn add_key(concern: &mut Concern, key: &Key, types: &[Datatype]) {
    let values = key.values(types);
    match values.as_deref().and_then(<[Value]>::first) {
        Some(Value::Ipv4(address)) => concern.add((*address).into()),
        Some(Value::Ipv6(address)) => concern.add((*address).into()),
        _ => concern.join(Concern::Everyone),
    }
}

/// Whether two chains differ in nothing but rules about withheld addresses, whose elements tell whom they concern.
fn differ_by_withheld(old: &Chain, new: &Chain) -> bool {
    let withheld = |statement: &Statement| match statement {
        Statement::Lookup { set, .. } => is_withheld(set),
        _ => false,
    };
    let others = |chain: &Chain| {
        let rules = chain.rules.iter();
        let others = rules.filter(|rule| !rule.statements.iter().any(withheld));
        others.cloned().collect::<Vec<Rule>>()
    };
    old.base == new.base && others(old) == others(new)
}

/// Whether all that the old chain had is there still, in its order, and what came in between does nothing but accept.
fn only_opens(old: &Chain, new: &Chain, table: &Table) -> bool {
    let mut old = old.rules.iter().peekable();
    let accepts = |rule: &Rule| matches!(verdict(rule), Some(Verdict::Accept));
    let added_is_open = new.rules.iter().all(|rule| {
        if old.peek().is_some_and(|old| **old == *rule) {
            old.next();
            return true;
        }
        let chain = target(rule).and_then(|name| table.chains.get(name));
        accepts(rule) || chain.is_some_and(|chain| chain.rules.iter().all(accepts))
    });
    added_is_open && old.next().is_none()
}

/// What a rule says in the end.
fn verdict(rule: &Rule) -> Option<&Verdict> {
    match rule.statements.last() {
        Some(Statement::Verdict(verdict)) => Some(verdict),
        _ => None,
    }
}

/// The chain that a rule calls.
fn target(rule: &Rule) -> Option<&Name> {
    verdict(rule)?.chain()
}

fn chain<'a>(ruleset: &'a Ruleset, table: &TableId, name: &Name) -> Option<&'a Chain> {
    let table = ruleset.tables.get(table)?;
    table.chains.get(name).map(|chain| &**chain)
}

#[cfg(test)]
#[path = "concern_tests.rs"]
mod tests;
