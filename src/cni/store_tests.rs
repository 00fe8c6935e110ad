use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cni::{Attachment, PodId};

pub(in crate::cni) fn record(container: &str) -> Record {
    Record {
        attachment: Attachment {
            id: Id {
                network: "cbr0".to_owned(),
                container: container.to_owned(),
                ifname: "eth0".to_owned(),
            },
            pod: PodId {
                namespace: "shop".to_owned(),
                name: "web-0".to_owned(),
                uid: "u-1".to_owned(),
            },
            interfaces: vec!["cni0".to_owned(), "veth1".to_owned()],
            addresses: vec![[10, 244, 1, 7].into()],
        },
        instead_of: Some(vec![[10, 244, 1, 6].into()]),
        detached: false,
    }
}

#[test]
fn what_was_put_is_there_again_and_what_was_removed_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("attachments");
    let (store, records, problems) = Store::open(path.clone()).unwrap();
    assert!(records.is_empty() && problems.is_empty());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let (first, mut second) = (record("a"), record("../../etc/passwd\n"));
    second.attachment.id.container = "../../etc/passwd".to_owned();
    store.put(&first).unwrap();
    store.put(&second).unwrap();
    second.detached = true;
    store.put(&second).unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let mut known = Store::open(path.clone()).unwrap().1;
    known.sort_unstable_by(|a, b| a.attachment.id.cmp(&b.attachment.id));
    assert_eq!(known, [second.clone(), first.clone()]);
    store.remove(&second.attachment.id).unwrap();
    store.remove(&second.attachment.id).unwrap();
    assert_eq!(Store::open(path).unwrap().1, [first]);
}

#[test]
fn bad_files_are_said_and_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let (store, ..) = Store::open(path.clone()).unwrap();
    let good = record("a");
    store.put(&good).unwrap();
    let name = file_name(&good.attachment.id);
    let bytes = fs::read(path.join(&name)).unwrap();
    fs::write(path.join("0.json"), b"").unwrap();
    fs::write(path.join("1.json"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(path.join("2.json"), &bytes).unwrap();
    fs::write(path.join("3.json"), vec![b'['; 100_000]).unwrap();
    fs::write(path.join("4.json"), vec![b' '; 100]).unwrap();
    fs::create_dir(path.join("5.json")).unwrap();
    let nameless = String::from_utf8(bytes.clone()).unwrap();
    fs::write(path.join("6.json"), nameless.replace("web-0", "")).unwrap();
    nix::unistd::mkfifo(&path.join("7.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(path.join(".half.json"), b"{").unwrap();
    fs::write(path.join("README"), b"not ours").unwrap();
    let (_, records, problems) = Store::open(path.clone()).unwrap();
    assert_eq!(records, [good]);
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert!(problems.iter().all(|line| !line.contains('\n')));
    assert!(path.join("2.json").exists() && path.join("README").exists());
}

#[test]
fn what_can_t_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("attachments");
    let (store, ..) = Store::open(path.clone()).unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(store.put(&record("a")).is_err());
    store.remove(&record("a").attachment.id).unwrap();
    fs::write(&path, b"").unwrap();
    assert!(Store::open(path).is_err());
}
