//! The operations themselves; that they lead to the desired ruleset in a kernel is tested with [`crate::fake`].

use crate::arbitrary;
use crate::diff;
use proptest::prelude::*;

proptest! {
    #[test]
    fn equal_rulesets_differ_in_nothing((a, _) in arbitrary::pair()) {
        prop_assert!(diff(&a, &a).is_empty());
    }
}
