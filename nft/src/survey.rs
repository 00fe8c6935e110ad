//! What a network namespace's nftables hold, of everyone and in every family: enough to tell whose it is and whether it
//! drops packets. Read only; nothing here can be committed.
//!
//! iptables-nft's tables are among them, with the chains that iptables knows by the same names.

use std::collections::{BTreeMap, BTreeSet};

/// Everything, in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The tables.
    pub tables: Vec<SurveyedTable>,
}

/// A table of any family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurveyedTable {
    /// The family, as nft calls it: `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub family: String,
    /// The name.
    pub name: String,
    /// The port of the netlink socket whose owner alone may change it, where there is one.
    pub owner: Option<u32>,
    /// The chains.
    pub chains: Vec<SurveyedChain>,
    /// The names of its named sets and maps.
    pub sets: Vec<String>,
}

/// A chain, and what its rules may do to a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurveyedChain {
    /// The name.
    pub name: String,
    /// Where the kernel calls it; `None` for one that only other chains call.
    pub base: Option<SurveyedBase>,
    /// How many rules it has.
    pub rules: usize,
    /// How many of them drop or reject packets, or hand them to a program without which they are dropped.
    pub drops: usize,
    /// How many hand packets to a program, and let them pass where there is none.
    pub queues: usize,
    /// The chains that its rules jump or go to by name.
    pub jumps: BTreeSet<String>,
    /// Whether it goes to chains that maps name, or drops what maps say.
    pub maps: bool,
}

/// How a base chain is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurveyedBase {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook: `prerouting`, `input`, `forward`, `output`, `postrouting`; `other` for those of no IP or bridge family.
    pub hook: &'static str,
    /// The priority.
    pub priority: i32,
    /// Whether its policy is to drop.
    pub drops: bool,
}

impl Survey {
    /// The table of this family and name.
    pub fn table(&self, family: &str, name: &str) -> Option<&SurveyedTable> {
        self.tables
            .iter()
            .find(|table| table.family == family && table.name == name)
    }
}

impl SurveyedTable {
    /// The chains that packets can get to from a hook. Where a map says which chain comes next, that may be any.
    pub fn called(&self) -> BTreeSet<&str> {
        let by_name: BTreeMap<&str, &SurveyedChain> = self
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain))
            .collect();
        let mut called = BTreeSet::new();
        let mut next: Vec<&SurveyedChain> = self
            .chains
            .iter()
            .filter(|chain| chain.base.is_some())
            .collect();
        while let Some(chain) = next.pop() {
            if !called.insert(chain.name.as_str()) {
                continue;
            }
            if chain.maps {
                return by_name.into_keys().collect();
            }
            let jumps = chain.jumps.iter();
            next.extend(jumps.filter_map(|name| by_name.get(name.as_str()).copied()));
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, base: bool, jumps: &[&str]) -> SurveyedChain {
        SurveyedChain {
            name: name.to_owned(),
            base: base.then(SurveyedBase::default),
            jumps: jumps.iter().map(|name| (*name).to_owned()).collect(),
            ..SurveyedChain::default()
        }
    }

    #[test]
    fn chains_are_called_from_hooks_only() {
        let mut table = SurveyedTable {
            chains: vec![
                chain("FORWARD", true, &["A", "gone"]),
                chain("A", false, &["B"]),
                // A circle that no kernel would take ends all the same.
                chain("B", false, &["A"]),
                chain("LEFT", false, &["OVER"]),
                chain("OVER", false, &[]),
            ],
            ..SurveyedTable::default()
        };
        assert_eq!(table.called(), ["A", "B", "FORWARD"].into());
        table.chains[1].maps = true;
        assert_eq!(table.called().len(), 5);
    }
}
