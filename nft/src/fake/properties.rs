//! Random rulesets and transactions: diff against the fake, and both against the real kernel.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::arbitrary;
use crate::dataplane::{Dataplane, DataplaneError};
use crate::diff;
use crate::fake::{Fake, errno};
use crate::ruleset::Ruleset;
use crate::testing::{namespace, sorted_listing};
use crate::text::{list, script};
use crate::transaction::Op;

fn holding(ruleset: &Ruleset) -> Fake {
    let mut fake = Fake::new();
    fake.commit(&diff(&Ruleset::default(), ruleset)).unwrap();
    fake
}

/// Few enough to be quick; each one that fails is kept and tried again.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_difference_leads_from_one_ruleset_to_the_other((a, b) in arbitrary::pair()) {
        let mut fake = holding(&a);
        prop_assert_eq!(&fake.ruleset(), &a);
        fake.commit(&diff(&a, &b)).unwrap();
        prop_assert_eq!(fake.ruleset(), b);
    }

    #[test]
    fn a_difference_leads_there_in_stages((a, b) in arbitrary::pair()) {
        let mut fake = holding(&a);
        let difference = diff(&a, &b);
        let (ahead, rest) = difference.stages();
        prop_assert_eq!(ahead.len() + rest.len(), difference.len());
        fake.commit(&ahead).unwrap();
        // Nothing that was there has changed, and nothing names what came.
        for (id, table) in &fake.ruleset().tables {
            let before = a.tables.get(id).cloned().unwrap_or_default();
            prop_assert_eq!(&table.chains, &before.chains);
            for (name, set) in &before.sets {
                prop_assert_eq!(table.sets.get(name), Some(set));
            }
        }
        fake.commit(&rest).unwrap();
        prop_assert_eq!(fake.ruleset(), b);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn nft_lists_what_it_loads(ruleset in arbitrary::ruleset()) {
        let listed = namespace(&[&script(&ruleset)]);
        prop_assert_eq!(listed, Ok(list(&ruleset)));
    }

    #[test]
    fn the_kernel_accepts_a_difference((a, b) in arbitrary::pair()) {
        let listed = namespace(&[&script(&a), &diff(&a, &b).to_string()]);
        prop_assert_eq!(listed.map(|text| sorted_listing(&text)), Ok(sorted_listing(&list(&b))));
    }

    #[test]
    fn the_fake_refuses_what_the_kernel_refuses(
        (a, b) in arbitrary::pair(),
        disorder in disorder(),
    ) {
        let mut transaction = diff(&a, &b);
        disorder.apply(&mut transaction.ops);
        let mut fake = holding(&a);
        let ours = fake.commit(&transaction);
        let theirs = namespace(&[&script(&a), &transaction.to_string()]);
        match (ours, theirs) {
            (Ok(_), Ok(listed)) => {
                prop_assert_eq!(sorted_listing(&listed), sorted_listing(&list(&fake.ruleset())));
            }
            (Err(_), Err(_)) => {}
            (Err(DataplaneError::Refused { source, index, .. }), Ok(_)) => {
                // What the text can't say: that a counter is new, or that elements are of another kind of set.
                let op = index.and_then(|index| transaction.ops.get(index));
                let inexpressible = match op {
                    Some(Op::AddCounter { .. }) => Some(errno::EEXIST),
                    Some(Op::AddElements { .. } | Op::DeleteElements { .. }) => Some(errno::EINVAL),
                    _ => None,
                };
                prop_assert!(inexpressible.is_some(), "{:?}: {}", op, source);
                prop_assert_eq!(source.raw_os_error(), inexpressible);
            }
            (ours, theirs) => prop_assert!(false, "{:?}, but {:?}", ours, theirs),
        }
    }
}

/// A way to spoil a transaction.
#[derive(Debug, Clone)]
enum Disorder {
    Lose(Index),
    Move(Index, Index),
    Repeat(Index, Index),
}

fn disorder() -> impl Strategy<Value = Disorder> {
    prop_oneof![
        any::<Index>().prop_map(Disorder::Lose),
        any::<(Index, Index)>().prop_map(|(from, to)| Disorder::Move(from, to)),
        any::<(Index, Index)>().prop_map(|(from, to)| Disorder::Repeat(from, to)),
    ]
}

impl Disorder {
    fn apply(&self, ops: &mut Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        match self {
            Self::Lose(at) => drop(ops.remove(at.index(ops.len()))),
            Self::Move(from, to) => {
                let op = ops.remove(from.index(ops.len()));
                ops.insert(to.index(ops.len() + 1), op);
            }
            Self::Repeat(from, to) => {
                let op = from.get(ops).clone();
                ops.insert(to.index(ops.len() + 1), op);
            }
        }
    }
}
