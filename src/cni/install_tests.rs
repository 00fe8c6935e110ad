use std::collections::BTreeMap;

use super::*;
use crate::cni::conflist::OnUnreachable;

const FLANNELS: &str = "{\n  \"name\": \"cbr0\",\n  \"cniVersion\": \"0.3.1\",\n  \"plugins\": [\n    {\n      \"type\": \"flannel\"\n    }\n  ]\n}\n";

struct Node {
    _directory: tempfile::TempDir,
    places: Places,
    binary: PathBuf,
    entry: Entry,
}

/// The head of a 64-bit ELF file with program headers of these types.
fn elf(headers: &[u32]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01".to_vec();
    bytes.resize(64, 0);
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = u8::try_from(headers.len()).unwrap();
    for header in headers {
        bytes.extend(header.to_le_bytes());
        bytes.resize(bytes.len() + 52, 0);
    }
    bytes
}

fn node() -> Node {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let places = Places {
        binaries: path.join("bin"),
        configurations: path.join("net.d"),
    };
    fs::create_dir(&places.binaries).unwrap();
    fs::create_dir(&places.configurations).unwrap();
    let binary = path.join("selvedge-cni");
    fs::write(&binary, elf(&[1, 2])).unwrap();
    let socket = PathBuf::from("/run/selvedge/cni.sock");
    Node {
        binary,
        places,
        entry: Entry::new(socket, 10, OnUnreachable::Fail),
        _directory: directory,
    }
}

impl Node {
    fn conf(&self, name: &str) -> PathBuf {
        self.places.configurations.join(name)
    }

    fn install(&self) -> Result<Vec<String>, InstallError> {
        self.places.install(&self.binary, &self.entry)
    }

    /// Everything in the two directories.
    fn files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let all = [&self.places.binaries, &self.places.configurations];
        let paths = all.into_iter().flat_map(|path| entries(path).unwrap());
        let read = |path: PathBuf| {
            let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
            let bytes = fs::read(&path).unwrap();
            (path, (mode, bytes))
        };
        paths.map(read).collect()
    }
}

#[test]
fn it_is_installed_once_and_taken_away_without_a_trace() {
    let node = node();
    let path = node.conf("10-flannel.conflist");
    fs::write(&path, FLANNELS).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = node.files();
    assert_eq!(node.install().unwrap().len(), 3);
    let installed = node.files();
    let text = fs::read_to_string(&path).unwrap();
    assert!(conflist::has_plugin(&text).unwrap());
    assert_eq!(installed[&path].0, 0o640);
    assert_eq!(fs::read_to_string(backup_of(&path)).unwrap(), FLANNELS);
    assert_eq!(installed[&node.places.binaries.join(PLUGIN)].0, 0o755);
    assert_eq!(node.places.in_its_way(), None);
    // The backup is nothing that a runtime reads.
    let backup = backup_of(&path);
    assert_eq!(backup.extension().unwrap(), "before-selvedge");

    assert!(node.install().unwrap().is_empty());
    assert_eq!(node.files(), installed);
    assert_eq!(node.places.uninstall().unwrap().len(), 4);
    assert_eq!(node.files(), before);
    assert!(node.places.uninstall().unwrap().is_empty());
}

#[test]
fn when_flannel_writes_its_file_anew_it_is_put_in_again() {
    let node = node();
    let path = node.conf("10-flannel.conflist");
    fs::write(&path, FLANNELS).unwrap();
    node.install().unwrap();
    let newer = FLANNELS.replace("0.3.1", "1.0.0");
    fs::write(&path, &newer).unwrap();
    assert_eq!(node.install().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(backup_of(&path)).unwrap(), newer);
    // Other options are no new configuration of Flannel's.
    let entry = Entry::new(PathBuf::from("/run/b.sock"), 5, OnUnreachable::Pass);
    assert_eq!(node.places.install(&node.binary, &entry).unwrap().len(), 2);
    assert_eq!(fs::read_to_string(backup_of(&path)).unwrap(), newer);
    // A newer plugin takes the place of the one that is there.
    fs::write(&node.binary, elf(&[1, 2, 6])).unwrap();
    assert_eq!(node.places.install(&node.binary, &entry).unwrap().len(), 1);
    node.places.uninstall().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn what_runtimes_read_first_has_the_plugin_whatever_flannel_writes() {
    let node = node();
    let (path, own) = (node.conf("10-flannel.conflist"), node.conf(OWN));
    fs::write(&path, FLANNELS).unwrap();
    node.install().unwrap();
    let with = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::read_to_string(&own).unwrap(), with);
    assert!(entries(&node.places.configurations).unwrap()[0] == own);
    // It starts, and is about to write.
    fs::write(&path, "").unwrap();
    node.install().unwrap_err();
    fs::write(&path, &FLANNELS[..40]).unwrap();
    node.install().unwrap_err();
    assert_eq!(fs::read_to_string(&own).unwrap(), with);
    fs::write(&path, FLANNELS.replace("cbr0", "cbr1")).unwrap();
    assert_eq!(node.places.in_its_way(), None);
    node.install().unwrap();
    assert_eq!(
        fs::read_to_string(&own).unwrap(),
        with.replace("cbr0", "cbr1")
    );
    // Somebody else's hand is put right.
    fs::remove_file(&own).unwrap();
    assert_eq!(node.install().unwrap().len(), 1);
    assert_eq!(node.places.in_use(), Ok(own.clone()));
    // A list that is gone for a moment, before another one is there, changes nothing.
    fs::remove_file(&path).unwrap();
    node.install().unwrap_err();
    assert!(own.exists());
    // Where Flannel makes room for another network, so does the copy.
    fs::write(
        node.conf("10-other.conflist"),
        "{\"plugins\": [{\"type\": \"bridge\"}]}",
    )
    .unwrap();
    node.install().unwrap_err();
    assert!(!own.exists());
    assert!(node.places.in_use().unwrap_err().contains("10-other"));
}

/// A node that has been moved to another network may still have Flannel's list.
#[test]
fn another_network_that_comes_before_flannel_s_stays_before_it() {
    let node = node();
    fs::write(node.conf("10-flannel.conflist"), FLANNELS).unwrap();
    node.install().unwrap();
    let calico = node.conf("10-calico.conflist");
    fs::write(&calico, "{\"plugins\": [{\"type\": \"calico\"}]}").unwrap();
    node.install().unwrap();
    assert!(!node.conf(OWN).exists());
    let noted = node.places.in_its_way().unwrap();
    assert!(noted.contains("10-calico.conflist comes before"), "{noted}");
    assert!(node.places.in_use().unwrap_err().contains("10-calico"));
    // After it, it is in nobody's way.
    fs::rename(&calico, node.conf("20-calico.conflist")).unwrap();
    node.install().unwrap();
    assert_eq!(node.places.in_use(), Ok(node.conf(OWN)));
    assert_eq!(node.places.in_its_way(), None);
}

#[test]
fn pods_start_by_it_where_it_is_in_what_is_read_first() {
    let node = node();
    let not = |part: &str| {
        let reason = node.places.in_use().unwrap_err();
        assert!(reason.contains(part), "{reason}");
    };
    not("there is no configuration in");
    fs::write(node.conf("10-flannel.conflist"), FLANNELS).unwrap();
    not("10-flannel.conflist is read first, and selvedge-cni is not in it");
    node.install().unwrap();
    assert_eq!(node.places.in_use(), Ok(node.conf(OWN)));
    fs::write(node.conf("00-multus.conf"), "{\"type\": \"multus\"}").unwrap();
    assert_eq!(node.places.in_use(), Ok(node.conf(OWN)));
    fs::write(node.conf("00-another.conf"), "{\"type\": \"bridge\"}").unwrap();
    not("00-another.conf is read first");
    fs::write(node.conf("00-another.conf"), "{").unwrap();
    not("00-another.conf: it is no CNI configuration list");
    fs::remove_file(node.conf("00-another.conf")).unwrap();
    fs::remove_file(node.places.binary()).unwrap();
    not("there is no ");
}

#[test]
fn what_is_no_configuration_at_all_is_in_nobody_s_way() {
    let node = node();
    fs::write(node.conf("10-flannel.conflist"), FLANNELS).unwrap();
    fs::write(node.conf("20-binary.conflist"), b"\xff\xfe").unwrap();
    fs::create_dir(node.conf("30-directory.conflist")).unwrap();
    std::os::unix::fs::symlink("nowhere", node.conf("40-dangling.conflist")).unwrap();
    fs::write(node.conf("50-long.conflist"), vec![b' '; 2 << 20]).unwrap();
    assert_eq!(node.install().unwrap().len(), 3);
    assert_eq!(node.install().unwrap(), [""; 0]);
    let said = node.places.uninstall().unwrap();
    assert_eq!(said.len(), 4, "{said:?}");
    let text = fs::read_to_string(node.conf("10-flannel.conflist")).unwrap();
    assert_eq!(text, FLANNELS);
    assert!(!node.places.binary().exists());
}

#[test]
fn what_does_not_fit_is_said_in_one_line_and_changes_nothing() {
    let node = node();
    let path = node.conf("10-flannel.conflist");
    let fails = |part: &str| {
        let before = node.files();
        let error = node.install().unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
        assert_eq!(node.files(), before);
    };
    fails("there is no configuration of Flannel");
    fs::write(&path, "{\"plugins\": [").unwrap();
    fails("10-flannel.conflist: it is no CNI configuration list");
    fs::write(&path, b"\xff\xfe").unwrap();
    fails("10-flannel.conflist can't be read");
    fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    fails("10-flannel.conflist can't be read");
    fs::write(&path, "{\"plugins\": [{\"type\": \"bridge\"}]}").unwrap();
    fails("is another network's");
    fs::write(&path, FLANNELS).unwrap();
    fs::write(node.conf("05-other.conf"), "{}").unwrap();
    let noted = node.places.in_its_way().unwrap();
    assert!(noted.contains("05-other.conf comes before"), "{noted}");

    for (bytes, part) in [
        (elf(&[1, 3, 2]), "it is linked dynamically"),
        (elf(&[1])[..66].to_vec(), "it is cut off"),
        (elf(&[1])[..40].to_vec(), "it is cut off"),
        (b"#!/bin/sh\n".to_vec(), "it is no 64-bit ELF file"),
        (Vec::new(), "it is no 64-bit ELF file"),
    ] {
        fs::write(&node.binary, bytes).unwrap();
        fails(part);
    }
    fs::remove_file(&node.binary).unwrap();
    fails("selvedge-cni can't be read: No such file");
    fs::write(&node.binary, elf(&[1])).unwrap();
    fs::remove_dir_all(&node.places.binaries).unwrap();
    let error = node.install().unwrap_err().to_string();
    assert!(
        error.contains("bin/selvedge-cni can't be written"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), FLANNELS);
    fs::remove_dir_all(&node.places.configurations).unwrap();
    let error = node.install().unwrap_err().to_string();
    assert!(error.contains("net.d can't be read"), "{error}");
}

#[test]
fn a_link_stays_one_and_a_pipe_holds_nothing_up() {
    let node = node();
    let elsewhere = node.places.binaries.join("flannels");
    fs::write(&elsewhere, FLANNELS).unwrap();
    let link = node.conf("10-flannel.conflist");
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let pipe = node.conf("05-pipe.conflist");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(node.install().unwrap().len(), 2, "no copy before the pipe");
    let is_link = |path: &Path| fs::symlink_metadata(path).unwrap().is_symlink();
    assert!(is_link(&link));
    let there = fs::read_to_string(&elsewhere).unwrap();
    assert!(there.contains(PLUGIN), "{there}");
    node.places.uninstall().unwrap();
    assert!(is_link(&link));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), FLANNELS);
}
