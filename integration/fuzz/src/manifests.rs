//! Files of manifests, to events, to rulesets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use selvedge::source::{Files, Snapshot, diff};
use selvedge_nft::Fake;

/// Separates what the file is from what it becomes: no YAML or JSON has it.
const EDIT: u8 = 0x1d;

/// The first byte says whether the file is JSON and whether workloads stand for their pods; then comes what it holds
/// and, after [`EDIT`], what it holds later.
///
/// Nothing panics, each problem is one line, a second look finds the same, and the events of the edit lead to the same
/// ruleset as the file read afresh.
pub fn manifests(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let name = if choice & 1 == 0 { "a.yaml" } else { "a.json" };
    let directory = super::directory();
    let path = directory.path().join(name);
    let mut files = match choice & 2 {
        0 => Files::new(directory.path()),
        _ => Files::with_workloads(directory.path()),
    };
    let mut before = Snapshot::default();
    let mut index = before.index();
    let mut kernel = Fake::new();
    for text in text.splitn(2, |byte| *byte == EDIT) {
        let after = look(&mut files, &path, text);
        for event in diff(&before, &after) {
            index.apply(event);
        }
        let ruleset = super::fresh(&index);
        assert_eq!(ruleset, super::fresh(&after.index()));
        super::commit(&mut kernel, &ruleset);
        before = after;
    }
}

fn look(files: &mut Files, path: &Path, text: &[u8]) -> Snapshot {
    fs::write(path, text).unwrap();
    let first = files.read(Duration::ZERO).unwrap();
    for problem in &first.snapshot.problems {
        assert!(!problem.as_str().contains(char::is_control), "{problem}");
    }
    let second = files.read(Duration::ZERO).unwrap();
    assert_eq!(first.snapshot, second.snapshot);
    second.snapshot
}
