//! The demo is a test itself; this is that it passes, fits a screen, and fails when it should.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use selvedge_lab::stage;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

fn demo(selvedge: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg(selvedge)
        .arg(EXAMPLES)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn it_tells_its_story_on_a_screen_or_two() {
    let output = demo(stage::binary().unwrap());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    assert!(stdout.lines().count() <= 110, "{stdout}");
    for line in stdout.lines() {
        assert!(line.chars().count() <= 100, "too long: {line}");
    }
    assert!(!stdout.contains('\x1b'), "colours without a terminal");
}

/// A daemon that enforces something else than what it was given: the demo notices, in both directions.
#[test]
fn what_is_not_as_the_policies_say_ends_it() {
    let selvedge = stage::binary().unwrap().display();
    let directory = tempfile::tempdir().unwrap();
    let shop = directory.path().join("shop");
    fs::create_dir(&shop).unwrap();
    for file in ["cluster.yaml", "policies.yaml"] {
        let text = fs::read_to_string(format!("{EXAMPLES}/shop/{file}")).unwrap();
        let text = text
            .replace("- port: 5432", "- port: 5433")
            .replace(", except: [10.244.0.0/16]", "");
        fs::write(shop.join(file), text).unwrap();
    }
    let liar = directory.path().join("selvedge");
    let shop = shop.display();
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2 $4\" = 'run --node --source' ] || exit 2\nexec {selvedge} run --node \"$3\" --source {shop}\n"
    );
    fs::write(&liar, script).unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();

    let output = demo(&liar);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for line in [
        "shop/api-0 to shop/db-0 TCP 5432 (at 10.244.2.4): expected allowed, was denied",
        "dev/sandbox-0 to shop/web-0 TCP 80 (at 10.244.1.2): expected denied, was connected to shop/web-0",
    ] {
        assert!(stderr.contains(line), "{line:?} is not in {stderr}");
    }
    assert!(
        !stderr.contains("fd00:10:244:1::2): expected denied"),
        "{stderr}"
    );
}

#[test]
fn bad_usage_and_a_daemon_that_is_not_there_are_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr).lines().count(), 1);

    let output = demo(Path::new("/no/such/selvedge"));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("/no/such/selvedge"), "{stderr}");
}
