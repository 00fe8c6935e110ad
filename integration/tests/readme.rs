//! The README's commands work as printed.
//!
//! In a `console` block, `$ ` begins a command; what follows, up to the next one, is what it prints. A line that is only
//! `…` stands for any lines, and `…` within a line for any text.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use selvedge_lab::stage;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A command and the lines that it prints.
struct Example {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut within = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            within = line == "```console";
        } else if let (true, Some(command)) = (within, line.strip_prefix("$ ")) {
            examples.push(Example {
                line: number + 1,
                command: command.to_owned(),
                output: Vec::new(),
            });
        } else if within {
            let example = examples.last_mut();
            let example = example.unwrap_or_else(|| panic!("line {}: no command", number + 1));
            example.output.push(line.to_owned());
        }
    }
    examples
}

/// Whether lines are as printed; `…` is anything.
fn agree(printed: &[String], lines: &[&str]) -> bool {
    match (printed.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((gap, rest)), _) if gap == "…" => {
            (0..=lines.len()).any(|skipped| agree(rest, &lines[skipped..]))
        }
        (Some((first, rest)), Some((line, lines))) => agrees(first, line) && agree(rest, lines),
        _ => false,
    }
}

fn agrees(printed: &str, line: &str) -> bool {
    match printed.split_once('…') {
        None => printed == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.into_iter().any(|at| agrees(after, &rest[at..]))
        }),
    }
}

/// A directory with programs: `selvedge`, and a `make` that makes the demo without building it.
fn programs(directory: &Path, selvedge: &Path) {
    symlink(selvedge, directory.join("selvedge")).unwrap();
    let demo = env!("CARGO_BIN_EXE_demo");
    let make = directory.join("make");
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = demo ] || exit 2\nexec {demo} \"$(which selvedge)\" examples\n"
    );
    fs::write(&make, script).unwrap();
    fs::set_permissions(make, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_command_of_the_readme_works_as_printed() {
    let text = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let examples = examples(&text);
    assert!(examples.len() > 5, "the README has hardly any commands");
    let selvedge = stage::binary().unwrap();
    // Where commands may write: a checkout's examples and manifests, and nothing else of it.
    let checkout = tempfile::tempdir().unwrap();
    for directory in ["examples", "manifests"] {
        let from = format!("{ROOT}/{directory}");
        symlink(from, checkout.path().join(directory)).unwrap();
    }
    let tools = tempfile::tempdir().unwrap();
    programs(tools.path(), selvedge);
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}:/usr/sbin:/sbin", tools.path().display());

    let mut wrong = BTreeMap::new();
    for example in &examples {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {}", example.command)])
            .current_dir(checkout.path())
            .env("PATH", &path)
            .env_remove("NODE_NAME")
            .env_remove("RUST_LOG")
            .env_remove("SELVEDGE_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        if !agree(&example.output, &lines) {
            wrong.insert(example.line, format!("$ {}\n{output}", example.command));
        }
    }
    let wrong: Vec<String> = wrong
        .iter()
        .map(|(line, text)| format!("README.md:{line} prints something else:\n{text}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_gap_is_any_text_and_any_lines_and_nothing_else_is() {
    let printed = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(agree(&printed("a\n…\nd"), &["a", "b", "c", "d"]));
    assert!(agree(&printed("a\n…\nd"), &["a", "d"]));
    assert!(!agree(&printed("a\n…\nd"), &["a", "b"]));
    assert!(!agree(&printed("a"), &["a", "b"]));
    assert!(!agree(&printed("a\nb"), &["a"]));
    assert!(agrees("took … ms", "took 1.5 ms"));
    assert!(agrees("… INFO x=… y=…", "now INFO x=1 y=2"));
    assert!(!agrees("took … ms", "took 1.5 s"));
    assert!(!agrees("took", "took 1"));
}
