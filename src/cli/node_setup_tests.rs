//! Tests of `selvedge node-setup`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn only_what_is_off_is_switched_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = |switch| directory.path().join(switch);
    fs::write(path(BRIDGE_SWITCHES[0]), "0\n").unwrap();
    fs::write(path(BRIDGE_SWITCHES[1]), "1\n").unwrap();
    let said = set(directory.path()).unwrap();
    assert_eq!(
        said,
        "net.bridge.bridge-nf-call-iptables set to 1 (it was 0)\n\
         net.bridge.bridge-nf-call-ip6tables is 1 already\n"
    );
    let first = fs::read_to_string(path(BRIDGE_SWITCHES[0])).unwrap();
    assert_eq!(first, "1");
}

#[test]
fn a_switch_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = set(directory.path()).unwrap_err();
    assert!(error.contains("bridge-nf-call-iptables"), "{error}");
}

#[test]
fn the_kernel_says_where_modprobe_is() {
    let directory = tempfile::tempdir().unwrap();
    let setting = directory.path().join("modprobe");
    assert_eq!(kernels_modprobe(&setting), Path::new("/sbin/modprobe"));
    fs::write(&setting, "\n").unwrap();
    assert_eq!(kernels_modprobe(&setting), Path::new("/sbin/modprobe"));
    fs::write(&setting, "/run/current-system/sw/bin/modprobe\n").unwrap();
    let nixos = Path::new("/run/current-system/sw/bin/modprobe");
    assert_eq!(kernels_modprobe(&setting), nixos);
}

/// A root directory with a shell, and a `modprobe` that is this script of it.
fn node(script: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let within = |path: &str| root.path().join(path.trim_start_matches('/'));
    let libraries = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let libraries = libraries.split_whitespace();
    for file in libraries
        .filter(|word| word.starts_with('/'))
        .chain(["/bin/sh"])
    {
        fs::create_dir_all(within(file).parent().unwrap()).unwrap();
        fs::copy(file, within(file)).unwrap();
    }
    fs::create_dir(within("/sbin")).unwrap();
    fs::write(within("/sbin/modprobe"), script).unwrap();
    fs::set_permissions(within("/sbin/modprobe"), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// Runs the `modprobe` of that root. Another test's child has a copy of what was open here until its exec, and what somebody
/// may write to can't be run.
fn load_settled(root: &Path, modprobe: &Path) -> io::Result<Output> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match load_within(root, modprobe) {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline =>
            {
                thread::yield_now();
            }
            output => return output,
        }
    }
}

#[test]
fn the_nodes_own_modprobe_runs_in_the_nodes_root() {
    let script = "#!/bin/sh\necho \"$(pwd) $*\" > /called\necho > /switches\n";
    let root = node(script);
    let output = load_settled(root.path(), Path::new("/sbin/modprobe"));
    assert_eq!(loaded(output, &root.path().join("switches")), Ok(()));
    let called = fs::read_to_string(root.path().join("called")).unwrap();
    assert_eq!(called, "/ br_netfilter\n");
    // This process still stands in its own root.
    assert!(root.path().is_dir());
}

#[test]
fn why_the_module_is_not_loaded_is_said() {
    let nowhere = Path::new("/nonexistent");
    let root = node("#!/bin/sh\necho 'Module br_netfilter not found.' >&2\nexit 1\n");
    let reason = |output| loaded(output, nowhere).unwrap_err();
    let said = reason(load_settled(root.path(), Path::new("/sbin/modprobe")));
    assert!(said.contains("(Module br_netfilter not found.)"), "{said}");
    assert!(said.contains("run `modprobe br_netfilter`"), "{said}");
    let said = reason(load_within(root.path(), Path::new("/bin/modprobe")));
    assert!(
        said.contains("modprobe can't be run: No such file"),
        "{said}"
    );
    let said = reason(load_within(nowhere, Path::new("/sbin/modprobe")));
    assert!(said.contains("modprobe can't be run: "), "{said}");
    let root = node("#!/bin/sh\n");
    let said = reason(load_settled(root.path(), Path::new("/sbin/modprobe")));
    assert!(said.contains("no net.bridge switches"), "{said}");
}
