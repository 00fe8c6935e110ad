//! Against the real nft, in network namespaces of their own.

use crate::testing::{handmade, namespace};
use crate::text::{list, script};

#[test]
fn nft_lists_what_the_script_loads() {
    let ruleset = handmade();
    let listed = namespace(&[&script(&ruleset)]).unwrap();
    assert_eq!(listed, list(&ruleset));
}

#[test]
fn loading_a_script_again_changes_nothing() {
    let ruleset = handmade();
    let script = script(&ruleset);
    assert_eq!(namespace(&[&script, &script]).unwrap(), list(&ruleset));
}
