//! The difference between random rulesets, carried out by the kernel, by the fake, and by nft from text: one result.

use proptest::prelude::*;
use selvedge_nft::{Dataplane, Fake, Kernel, Ruleset, TableId, arbitrary, diff, text};

use crate::lab::{in_namespace, list, load};

fn tables(ruleset: &Ruleset) -> Vec<TableId> {
    ruleset.tables.keys().cloned().collect()
}

/// Goes from nothing to `a` to `b` and back to nothing over netlink; the answers are what the kernel has at `b`, as
/// read back and as listed.
fn over_netlink(a: &Ruleset, b: &Ruleset) -> (Ruleset, String) {
    let mut kernel = Kernel::open().unwrap();
    let mut fake = Fake::default();
    let all: Vec<TableId> = tables(a).into_iter().chain(tables(b)).collect();
    let mut step = |from: &Ruleset, to: &Ruleset| {
        let transaction = diff(from, to);
        kernel.commit(&transaction).unwrap();
        fake.commit(&transaction).unwrap();
        let now = kernel.read(&all).unwrap();
        assert_eq!(now, fake.read(&all).unwrap());
        now
    };
    assert_eq!(step(&Ruleset::default(), a), *a);
    let now = step(a, b);
    let listed = list();
    assert_eq!(step(b, &Ruleset::default()), Ruleset::default());
    (now, listed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn kernel_fake_and_nft_end_in_the_same_ruleset((a, b) in arbitrary::pair()) {
        let (now, listed) = in_namespace(|| over_netlink(&a, &b));
        prop_assert_eq!(&now, &b);
        let loaded = in_namespace(|| {
            load(&text::script(&b));
            list()
        });
        // Objects are listed in the order they were made in, which is another: compare the words.
        let words = |text: &str| {
            let mut words: Vec<String> = text.split([' ', '\n', '\t', ',']).map(str::to_owned).collect();
            words.sort_unstable();
            words.retain(|word| !word.is_empty());
            words
        };
        prop_assert_eq!(words(&listed), words(&loaded));
    }
}
