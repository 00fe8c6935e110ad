//! Random rulesets that the kernel accepts and nft prints as they are, for property tests here and elsewhere.
//!
//! A ruleset is drawn in two steps: seeds say what its objects would like to name, and building them resolves that to
//! objects which are there, so that every ruleset is sound. Names come from small pools, so that two rulesets have much
//! in common and little equal.

mod build;
mod mutate;
mod rules;
mod sets;

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use self::rules::RuleSeed;
use self::sets::SetSeed;
use crate::name::{Comment, Name};
use crate::ruleset::{BaseChain, ChainPolicy, Family, Hook, Ruleset, TableId};

/// A ruleset that the kernel accepts.
pub fn ruleset() -> impl Strategy<Value = Ruleset> {
    tables().prop_map(|seeds| build::ruleset(&seeds))
}

/// Two rulesets that the kernel accepts: from nearly equal to having nothing in common. What is equal in both is shared,
/// as it is when one was made from the other.
pub fn pair() -> impl Strategy<Value = (Ruleset, Ruleset)> {
    let choices = (any::<u8>(), vec(any::<u8>(), 1..64));
    (tables(), tables(), choices).prop_map(|(first, other, (share, choices))| {
        let second = mutate::mix(&first, &other, share, &choices);
        let (first, second) = (build::ruleset(&first), build::ruleset(&second));
        let second = mutate::share(&first, &second);
        (first, second)
    })
}

/// A table before its references are resolved.
#[derive(Debug, Clone)]
struct TableSeed {
    comment: Option<Comment>,
    counters: BTreeMap<Name, Option<Comment>>,
    sets: BTreeMap<Name, SetSeed>,
    chains: BTreeMap<Name, ChainSeed>,
    /// Chains and maps call only what comes later in this order, so that there are no loops.
    order: Vec<Name>,
}

#[derive(Debug, Clone)]
struct ChainSeed {
    base: Option<BaseChain>,
    comment: Option<Comment>,
    rules: Vec<RuleSeed>,
}

fn tables() -> impl Strategy<Value = BTreeMap<TableId, TableSeed>> {
    btree_map(table_id(), table(), 0..4)
}

fn table_id() -> impl Strategy<Value = TableId> {
    let family = select(vec![Family::Inet, Family::Bridge]);
    (family, pool(&["selvedge", "t.2"])).prop_map(|(family, name)| TableId { family, name })
}

const CHAINS: [&str; 7] = [
    "egress",
    "ingress",
    "drop/me",
    "policy/shop/x",
    "ip.x",
    "set-1",
    "egress/shop/api-0",
];
const SETS: [&str; 6] = ["egress4", "pods-1-4", "cidr.2", "map/x", "ports", "x_6"];

fn table() -> impl Strategy<Value = TableSeed> {
    let order: Vec<_> = CHAINS.iter().chain(&SETS).map(|n| name(n)).collect();
    (
        option::weighted(0.3, comment()),
        btree_map(
            pool(&["denied", "egress", "c-2"]),
            option::of(comment()),
            0..3,
        ),
        btree_map(pool(&SETS), sets::set(), 0..5),
        btree_map(pool(&CHAINS), chain(), 0..7),
        Just(order).prop_shuffle(),
    )
        .prop_map(|(comment, counters, sets, chains, order)| TableSeed {
            comment,
            counters,
            sets,
            chains,
            order,
        })
}

fn chain() -> impl Strategy<Value = ChainSeed> {
    (
        option::weighted(0.3, base_chain()),
        option::weighted(0.3, comment()),
        vec(rules::rule(), 0..5),
    )
        .prop_map(|(base, comment, rules)| ChainSeed {
            base,
            comment,
            rules,
        })
}

fn base_chain() -> impl Strategy<Value = BaseChain> {
    let hooks = vec![
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];
    let priorities = vec![-300, -206, -200, -150, -100, -6, -5, 0, 7, 100, 300, 1000];
    let policies = vec![ChainPolicy::Accept, ChainPolicy::Drop];
    (select(hooks), select(priorities), select(policies)).prop_map(|(hook, priority, policy)| {
        BaseChain {
            hook,
            priority,
            policy,
        }
    })
}

fn comment() -> impl Strategy<Value = Comment> {
    let texts = [
        "app=web in ns shop",
        "a {b} #c; 'd', $e",
        "größer",
        "drop",
        &"c".repeat(Comment::MAX),
    ];
    select(texts.map(str::to_owned).to_vec())
        .prop_filter_map("a comment", |text| Comment::new(&text).ok())
}

fn pool(names: &[&str]) -> impl Strategy<Value = Name> + use<> {
    select(names.iter().map(|text| name(text)).collect::<Vec<_>>())
}

/// One of the names in this file, which are all valid.
#[allow(clippy::expect_used)]
fn name(text: &str) -> Name {
    Name::new(text).expect("a name of the pool is valid")
}
