//! The fake against diff, and both against the real kernel.

use proptest::prelude::*;

use crate::arbitrary;
use crate::dataplane::Dataplane;
use crate::diff;
use crate::fake::Fake;
use crate::ruleset::Ruleset;
use crate::testing::{namespace, sorted_listing};
use crate::text::{list, script};

/// A kernel that holds the ruleset.
fn holding(ruleset: &Ruleset) -> Fake {
    let mut fake = Fake::new();
    fake.commit(&diff(&Ruleset::default(), ruleset)).unwrap();
    fake
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn a_difference_leads_from_one_ruleset_to_the_other((a, b) in arbitrary::pair()) {
        let mut fake = holding(&a);
        prop_assert_eq!(&fake.ruleset(), &a);
        fake.commit(&diff(&a, &b)).unwrap();
        prop_assert_eq!(fake.ruleset(), b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
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
}
