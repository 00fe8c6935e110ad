use std::fs;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::cluster::object::{Event, Object};

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

fn watched(root: &Path) -> Receiver<Update> {
    let (sender, updates) = channel();
    watch(root.to_owned(), move |update| sender.send(update).is_ok()).unwrap();
    updates
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

/// What an update says is wrong.
fn problems(update: &Update) -> Vec<SourceProblem> {
    update.problems.clone().unwrap_or_default()
}

/// The events until an update says `name`, applied or deleted; then what was said of it.
fn until(updates: &Receiver<Update>, name: &str) -> (bool, Update) {
    loop {
        let update = updates.recv_timeout(PATIENCE).unwrap();
        let said = update.events.iter().find_map(|event| match event {
            Event::Apply(Object::Node(node)) if &*node.name == name => Some(true),
            Event::Delete { key, .. } if key.to_string() == format!("Node {name}") => Some(false),
            _ => None,
        });
        if let Some(applied) = said {
            return (applied, update);
        }
    }
}

#[test]
fn the_first_update_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..50 {
        let name = format!("n{n}");
        fs::write(directory.path().join(format!("{name}.yaml")), node(&name)).unwrap();
    }
    let update = watched(directory.path()).recv_timeout(PATIENCE).unwrap();
    assert!(update.synced);
    assert_eq!(update.events.len(), 50);
}

#[test]
fn an_empty_directory_is_a_complete_answer() {
    let directory = tempfile::tempdir().unwrap();
    let update = watched(directory.path()).recv_timeout(PATIENCE).unwrap();
    assert!(update.synced && update.events.is_empty() && problems(&update).is_empty());
}

#[test]
fn every_way_to_change_a_file_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let updates = watched(directory.path());
    updates.recv_timeout(PATIENCE).unwrap();
    // Written in place.
    fs::write(path("a.yaml"), node("a1")).unwrap();
    assert!(until(&updates, "a1").0);
    fs::write(path("a.yaml"), node("a2")).unwrap();
    assert!(until(&updates, "a2").0);
    // Renamed over, as editors do.
    fs::write(path(".a.yaml.swp"), node("a3")).unwrap();
    fs::rename(path(".a.yaml.swp"), path("a.yaml")).unwrap();
    assert!(until(&updates, "a3").0);
    // In a directory that is new, and one below it.
    fs::create_dir_all(path("sub/deep")).unwrap();
    fs::write(path("sub/deep/b.yaml"), node("b1")).unwrap();
    assert!(until(&updates, "b1").0);
    fs::write(path("sub/deep/b.yaml"), node("b2")).unwrap();
    assert!(until(&updates, "b2").0);
    // A directory renamed away and replaced.
    fs::rename(path("sub"), path(".gone")).unwrap();
    assert!(!until(&updates, "b2").0);
    fs::create_dir_all(path("sub/deep")).unwrap();
    fs::write(path("sub/deep/b.yaml"), node("b3")).unwrap();
    assert!(until(&updates, "b3").0);
    // Deleted.
    fs::remove_file(path("a.yaml")).unwrap();
    assert!(!until(&updates, "a3").0);
}

#[test]
fn a_config_map_swap_is_seen() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("..1")).unwrap();
    fs::write(path("..1/n.yaml"), node("n1")).unwrap();
    symlink("..1", path("..data")).unwrap();
    symlink("..data/n.yaml", path("n.yaml")).unwrap();
    let updates = watched(directory.path());
    assert!(until(&updates, "n1").0);
    for (number, name) in [("..2", "n2"), ("..3", "n3")] {
        fs::create_dir(path(number)).unwrap();
        fs::write(path(number).join("n.yaml"), node(name)).unwrap();
        symlink(number, path("..tmp")).unwrap();
        fs::rename(path("..tmp"), path("..data")).unwrap();
        assert!(until(&updates, name).0);
    }
}

#[test]
fn an_edit_behind_a_symlink_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("real.yaml");
    fs::write(&target, node("n1")).unwrap();
    std::os::unix::fs::symlink(&target, directory.path().join("n.yaml")).unwrap();
    let updates = watched(directory.path());
    assert!(until(&updates, "n1").0);
    fs::write(&target, node("n2")).unwrap();
    assert!(until(&updates, "n2").0);
}

#[test]
fn a_directory_may_appear_later_and_vanish_without_opening_anything() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("not/yet");
    let updates = watched(&root);
    let update = updates.recv_timeout(PATIENCE).unwrap();
    assert!(!update.synced && update.events.is_empty());
    assert!(problems(&update)[0].as_str().contains("waiting for it"));
    // As `mv` puts a whole directory in place.
    let made = directory.path().join("made");
    fs::create_dir(&made).unwrap();
    fs::write(made.join("n.yaml"), node("n1")).unwrap();
    fs::create_dir(directory.path().join("not")).unwrap();
    fs::rename(&made, &root).unwrap();
    let (_, update) = until(&updates, "n1");
    assert!(update.synced && problems(&update).is_empty());
    fs::rename(&root, &made).unwrap();
    let update = updates.recv_timeout(PATIENCE).unwrap();
    assert!(update.events.is_empty());
    assert!(problems(&update)[0].as_str().contains("stays in force"));
    fs::rename(&made, &root).unwrap();
    let update = updates.recv_timeout(PATIENCE).unwrap();
    assert!(update.events.is_empty() && problems(&update).is_empty());
}

#[test]
fn a_single_file_is_followed_through_replacement() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("one.yaml");
    fs::write(&file, node("n1")).unwrap();
    let updates = watched(&file);
    assert!(until(&updates, "n1").0);
    fs::write(directory.path().join("new"), node("n2")).unwrap();
    fs::rename(directory.path().join("new"), &file).unwrap();
    assert!(until(&updates, "n2").0);
}

#[test]
fn a_hundred_edits_end_in_the_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("n.yaml");
    let updates = watched(directory.path());
    updates.recv_timeout(PATIENCE).unwrap();
    for n in 0..=100 {
        fs::write(&file, node(&format!("n{n}"))).unwrap();
    }
    assert!(until(&updates, "n100").0);
}

#[test]
fn a_file_that_stays_empty_is_said_and_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("n.yaml");
    fs::write(&file, node("n1")).unwrap();
    let updates = watched(directory.path());
    assert!(until(&updates, "n1").0);
    fs::write(&file, "").unwrap();
    let update = updates.recv_timeout(PATIENCE).unwrap();
    assert!(update.events.is_empty());
    let problems = problems(&update);
    let all: Vec<&str> = problems.iter().map(SourceProblem::as_str).collect();
    assert!(
        all.iter().any(|p| p.contains("the file is empty")),
        "{all:?}"
    );
}
