//! The command line as a person meets it: what goes where, and the exit codes.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::path::Path;
use std::process::{Command, Output, Stdio};

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: {}}\n";
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n";

fn selvedge(arguments: &[&str]) -> Output {
    selvedge_in(&[], arguments)
}

/// Runs it with these environment variables.
fn selvedge_in(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(arguments)
        .env_remove("NODE_NAME")
        .env_remove("RUST_LOG")
        .env_remove("SELVEDGE_LOG")
        .env_remove("SELVEDGE_LOG_FORMAT")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts a failure: its exit code, nothing on stdout, one line on stderr with these words.
fn fails(arguments: &[&str], code: i32, words: &[&str]) {
    let output = selvedge(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("selvedge: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_usage_is_one_line_and_exit_code_2() {
    fails(&["enforce"], 2, &["enforce", "--help"]);
    fails(&["render"], 2, &["DIR"]);
    fails(&["render", "x"], 2, &["--node"]);
    fails(
        &["run", "--node", "a", "--kubeconfig", "/no/such/config"],
        2,
        &["/no/such/config"],
    );
    fails(&["run", "--source", "x", "--node", ""], 2, &["--node"]);
    fails(
        &["render", "x", "--node", "a", "--bridge", "no/such"],
        2,
        &["no/such", "bridge"],
    );
    fails(&["completion", "cobol"], 2, &["cobol", "bash"]);
    let run = ["run", "--source", "x", "--node", "a"];
    for (flag, value, word) in [
        ("--new-pods", "maybe", "block"),
        ("--anti-spoof", "yes", "off"),
        ("--pod-cidr", "10.244.1.0", "10.244.1.0/24"),
        ("--pod-cidr", "10.244.1.0/33", "10.244.1.0/24"),
        ("--pod-cidr", "::/0", "--pod-cidr"),
    ] {
        fails(&[&run[..], &[flag, value]].concat(), 2, &[value, word]);
    }
    fails(
        &[
            "run",
            "--source",
            "x",
            "--node",
            "a",
            "--log-level",
            "a=b=c",
        ],
        2,
        &["a=b=c"],
    );
}

#[test]
fn the_log_is_set_up_by_the_environment_too() {
    let run = ["run", "--source", "/no/such/directory", "--node", "a"];
    let said = |environment: &[(&str, &str)], more: &[&str]| {
        let output = selvedge_in(environment, &[&run[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{environment:?}");
        text(&output.stderr)
    };
    let refused = said(&[("SELVEDGE_LOG_FORMAT", "yaml")], &[]);
    assert!(
        refused.contains("yaml") && refused.contains("json"),
        "{refused}"
    );
    for (name, value) in [("SELVEDGE_LOG_FORMAT", "json"), ("SELVEDGE_LOG", "debug")] {
        for more in [&[][..], &["-v"], &["--log-format", "text"]] {
            let stderr = said(&[(name, value)], more);
            assert!(
                stderr.contains("/no/such/directory"),
                "{name} {more:?}: {stderr}"
            );
        }
    }
    // The command line counts for more.
    let stderr = said(
        &[("SELVEDGE_LOG_FORMAT", "json")],
        &["--log-format", "yaml"],
    );
    assert!(stderr.contains("yaml"), "{stderr}");
}

#[test]
fn help_and_version_are_answers() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help", "run"],
        &["run", "--help"],
        &["render", "--help"],
        &["cleanup", "--help"],
        &["node-setup", "--help"],
        &["completion", "bash"],
        &["completion", "zsh"],
        &["completion", "fish"],
    ] {
        let output = selvedge(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    let output = selvedge(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage"));
}

#[test]
fn a_source_that_is_not_there_is_bad_input() {
    fails(
        &["render", "/no/such/directory", "--node", "node-a"],
        2,
        &["/no/such/directory", "No such file"],
    );
}

#[test]
fn a_node_that_is_not_there_is_bad_input_and_the_others_are_listed() {
    let node_b = NODE.replace("node-a", "node-b");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {nodeName: node-c}\n";
    let input = directory(&[("a.yaml", NODE), ("b.yaml", &node_b), ("c.yaml", pod)]);
    let source = as_str(input.path());
    fails(
        &["render", source, "--node", "node-x"],
        2,
        &["node-x", "node-a, node-b, node-c"],
    );
    let empty = directory(&[]);
    let source = as_str(empty.path());
    fails(&["render", source, "--node", "node-a"], 2, &["no nodes"]);
}

#[test]
fn a_sound_directory_renders_without_a_word() {
    let input = directory(&[("node.yaml", NODE), ("policy.yaml", POLICY)]);
    let output = selvedge(&["render", as_str(input.path()), "--node", "node-a"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let again = selvedge(&["render", as_str(input.path()), "--node", "node-a"]);
    assert_eq!(output.stdout, again.stdout);
}

#[test]
fn problems_are_findings_one_line_each_and_the_rest_is_rendered() {
    let sound = directory(&[("node.yaml", NODE), ("policy.yaml", POLICY)]);
    let expected = selvedge(&["render", as_str(sound.path()), "--node", "node-a"]).stdout;
    for (name, content, words) in [
        ("bad.yaml", "kind: [Pod\n", "bad.yaml:"),
        ("bad.json", "{", "bad.json:1"),
        (
            "bad.yaml",
            "apiVersion: v1\nkind: Pod\n",
            "bad.yaml:1: Pod (no name): metadata.name: missing",
        ),
        ("bad.yaml", "a: 1\na: 2\n", "bad.yaml:2"),
    ] {
        let input = directory(&[
            ("node.yaml", NODE),
            ("policy.yaml", POLICY),
            (name, content),
        ]);
        let output = selvedge(&["render", as_str(input.path()), "--node", "node-a"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{content:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(text(&output.stdout), text(&expected), "{content:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}
