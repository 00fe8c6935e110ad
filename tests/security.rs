//! docs/security.md names tests for what it says: they exist.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    // `path/of/file.rs`: `name_of_test`
    let mut named = 0;
    for (before, after) in page.split(".rs`: `").zip(page.split(".rs`: `").skip(1)) {
        let file = format!("{}.rs", before.rsplit('`').next().unwrap());
        let test = after.split('`').next().unwrap();
        let source = fs::read_to_string(root.join(&file));
        let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(
            source.contains(&format!("fn {test}(")),
            "{file} has no {test}"
        );
        named += 1;
    }
    assert!(named > 15, "{named}");
}
