//! The fuzz targets over their seeds, and over what has once broken one of them. `make fuzz` looks for more.

#![allow(clippy::unwrap_used)] // a test may stop

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The files below a directory, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()),
        Err(_) => return Vec::new(),
    };
    let mut files: Vec<PathBuf> = entries.collect();
    files.sort();
    files
}

/// Runs a target over its seeds and regressions.
fn run(name: &str, target: fn(&[u8])) {
    let mut count = 0;
    for kind in ["seeds", "regressions"] {
        for path in files(&Path::new(HERE).join("fuzz").join(kind).join(name)) {
            eprintln!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
    }
    println!("{name}: {count} inputs");
    assert!(count > 0, "{name} has no inputs");
}

#[test]
fn manifests() {
    // The cases of the golden tests are its seeds: as they are, and edited into nothing but their first half.
    let cases = files(&Path::new(HERE).join("../tests/cases"));
    let cases = cases.iter().map(|case| case.join("in.yaml"));
    let examples = files(&Path::new(HERE).join("../examples/shop"));
    let mut count = 0;
    for path in cases.chain(examples).filter(|path| path.is_file()) {
        let text = fs::read(&path).unwrap();
        for choice in [0, 2] {
            let edited = [&[choice], text.as_slice(), &[0x1d], &text[..text.len() / 2]];
            targets::manifests(&edited.concat());
        }
        count += 1;
    }
    println!("manifests: {count} seeds");
    assert!(count > 30, "{count}");
    for path in files(&Path::new(HERE).join("fuzz/regressions/manifests")) {
        eprintln!("{}", path.display());
        targets::manifests(&fs::read(path).unwrap());
    }
}

#[test]
fn policies() {
    run("policies", targets::policies);
}

#[test]
fn stream() {
    run("stream", targets::stream);
}

#[test]
fn netlink() {
    run("netlink", targets::netlink);
}

#[test]
fn cni() {
    run("cni", targets::cni);
}
