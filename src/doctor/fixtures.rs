//! Short forms of surveys, for the tests of what is made of them.

use selvedge_nft::{Survey, SurveyedBase, SurveyedChain, SurveyedTable};

/// A table with its chains: `ip filter`.
pub fn table(id: &str, chains: impl IntoIterator<Item = SurveyedChain>) -> SurveyedTable {
    let (family, name) = id.split_once(' ').unwrap();
    SurveyedTable {
        family: family.to_owned(),
        name: name.to_owned(),
        owner: None,
        chains: chains.into_iter().collect(),
        sets: Vec::new(),
    }
}

pub fn survey(tables: impl IntoIterator<Item = SurveyedTable>) -> Survey {
    Survey {
        tables: tables.into_iter().collect(),
    }
}

/// A chain that others call; `jumps` are the chains it calls itself.
pub fn chain(name: &str, drops: usize, jumps: &[&str]) -> SurveyedChain {
    SurveyedChain {
        name: name.to_owned(),
        rules: drops + jumps.len(),
        drops,
        jumps: jumps.iter().map(|name| (*name).to_owned()).collect(),
        ..SurveyedChain::default()
    }
}

/// A filter chain at a hook.
pub fn base(name: &str, hook: &'static str, policy_drops: bool, jumps: &[&str]) -> SurveyedChain {
    SurveyedChain {
        base: Some(SurveyedBase {
            kind: "filter".to_owned(),
            hook,
            priority: 0,
            drops: policy_drops,
        }),
        ..chain(name, 0, jumps)
    }
}
