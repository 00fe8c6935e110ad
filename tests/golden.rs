//! The golden rulesets: what each case's `in.yaml` compiles to for node-1 stands in its `out.nft`, to the byte.
//!
//! `make bless` writes them anew; the difference is to be read.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge::cluster::Text;
use selvedge::compile::{Host, compile};
use selvedge::source::Files;
use selvedge_nft::{IfName, text};

#[path = "support/case_host.rs"]
mod case_host;

const NODE: &str = "node-1";

fn render(manifests: &Path) -> String {
    let reading = Files::new(manifests).read(Duration::ZERO).unwrap();
    let index = reading.snapshot.index();
    assert!(
        index.node(NODE).is_some(),
        "{} has no {NODE}",
        manifests.display()
    );
    let host = Host::new(IfName::new("cni0").unwrap(), []);
    let host = case_host::complete(host, manifests.parent().unwrap());
    text::script(&compile(&index, &Text::from(NODE), &host))
}

/// Every case, as its manifests and its golden ruleset.
fn cases() -> Vec<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cases: Vec<(PathBuf, PathBuf)> = fs::read_dir(root.join("tests/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|case| (case.join("in.yaml"), case.join("out.nft")))
        .collect();
    cases.push((root.join("examples/shop"), root.join("examples/shop.nft")));
    cases.sort();
    cases
}

#[test]
fn every_case_compiles_to_its_golden_ruleset() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut different = Vec::new();
    let cases = cases();
    assert!(cases.len() > 1, "no cases found");
    for (manifests, golden) in &cases {
        let now = render(manifests);
        if bless {
            fs::write(golden, now).unwrap();
        } else if fs::read_to_string(golden).unwrap_or_default() != now {
            different.push(golden.display().to_string());
        }
    }
    assert!(
        different.is_empty(),
        "these no longer are what the compiler gives; see `make bless`: {different:#?}"
    );
}
