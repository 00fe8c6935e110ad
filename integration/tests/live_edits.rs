//! What happens to packets when the manifests of a running daemon are edited, in each way that files are edited.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use selvedge_lab::stage::{self, Manifests, PodManifest, committed, node, policy};
use selvedge_lab::{Daemon, Error, Lab, Pod, Probe, Protocol, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

const DENY: &str = "{podSelector: {matchLabels: {app: db}}}";
const ALLOW: &str = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";

/// A web and a db on one node, and a directory without policies.
struct Stage {
    manifests: Manifests,
    web: Pod,
    db: Pod,
    daemon: Daemon,
    lab: Lab,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let manifests = Manifests::new()?;
        manifests.put("node.yaml", node(1))?;
        manifests.put("web.yaml", PodManifest::new("shop/web", 1, 2, "app: web"))?;
        manifests.put("db.yaml", PodManifest::new("shop/db", 1, 3, "app: db"))?;
        let lab = manifests.lab()?.build()?;
        let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
        db.listen(Protocol::Tcp, 80)?;
        let daemon = stage::daemon(&lab.node("node-1")?, manifests.path())?;
        Ok(Self {
            manifests,
            web,
            db,
            daemon,
            lab,
        })
    }

    /// Whether web reaches db, over both families alike.
    fn reaches(&self) -> Result<bool, Error> {
        let to = self.db.addresses().iter();
        let probes: Vec<Probe> = to.map(|to| Probe::tcp(*to, 80)).collect();
        let outcomes = self.web.probe_all(&probes)?;
        let allowed = outcomes.iter().filter(|one| one.is_allowed()).count();
        let denied = outcomes.iter().filter(|one| one.is_denied()).count();
        assert!(
            allowed == probes.len() || denied == probes.len(),
            "{outcomes:?}"
        );
        Ok(allowed > 0)
    }

    fn edit(&self, edit: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        committed(&[&self.daemon], edit)
    }
}

fn io(result: std::io::Result<()>) -> Result<(), Error> {
    result.map_err(|source| Error::Io {
        what: "edit a manifest".to_owned(),
        source,
    })
}

#[test]
fn a_new_file_is_enforced_and_a_deleted_one_no_longer() -> Result<(), Error> {
    let stage = Stage::new()?;
    assert!(stage.reaches()?);
    stage.edit(|| stage.manifests.put("deny.yaml", policy("shop/deny", DENY)))?;
    assert!(!stage.reaches()?);
    stage.edit(|| {
        stage
            .manifests
            .put("allow.yaml", policy("shop/allow", ALLOW))
    })?;
    assert!(stage.reaches()?);
    stage.edit(|| stage.manifests.remove("allow.yaml"))?;
    assert!(!stage.reaches()?);
    stage.edit(|| stage.manifests.remove("deny.yaml"))?;
    assert!(stage.reaches()?);
    Ok(())
}

#[test]
fn a_file_may_be_replaced_written_over_or_emptied_and_written() -> Result<(), Error> {
    let stage = Stage::new()?;
    let file = stage.manifests.path().join("policy.yaml");
    stage.edit(|| stage.manifests.put("policy.yaml", policy("shop/p", DENY)))?;
    assert!(!stage.reaches()?);
    // Another file takes its name.
    stage.edit(|| stage.manifests.put("policy.yaml", policy("shop/p", ALLOW)))?;
    assert!(stage.reaches()?);
    // The same file, with other content.
    stage.edit(|| io(fs::write(&file, policy("shop/p", DENY))))?;
    assert!(!stage.reaches()?);
    // An editor that moves the old file away first: for a moment there is none.
    let backup = stage.manifests.path().join("policy.yaml~");
    stage.edit(|| {
        io(fs::rename(&file, &backup))?;
        io(fs::write(&file, policy("shop/p", ALLOW)))
    })?;
    wait_until("the new content", PATIENCE, || stage.reaches())?;
    // Its name says that it is no manifest any more.
    stage.edit(|| {
        io(fs::rename(
            &file,
            stage.manifests.path().join("policy.yaml.off"),
        ))
    })?;
    assert!(stage.reaches()?);
    Ok(())
}

#[test]
fn a_file_that_can_not_be_read_any_more_keeps_its_policies_in_force() -> Result<(), Error> {
    let stage = Stage::new()?;
    let both = policy("shop/deny", DENY) + &policy("shop/other", "{podSelector: {}}");
    stage.edit(|| stage.manifests.put("deny.yaml", &both))?;
    assert!(!stage.reaches()?);
    for broken in ["kind: [", "\0", "{\"kind\": \"Pod\"", "- a: b\n c: d\n"] {
        let mark = stage.daemon.said();
        stage.manifests.put("deny.yaml", broken)?;
        let said = "shop/deny and 1 more of before stay in force";
        stage.daemon.wait_for_output_after(mark, said, PATIENCE)?;
        assert!(!stage.reaches()?, "{broken:?}");
        // The rest of the directory is still followed.
        let allow = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}";
        stage.edit(|| stage.manifests.put("more.yaml", policy("shop/more", allow)))?;
        stage.edit(|| stage.manifests.remove("more.yaml"))?;
        let mark = stage.daemon.said();
        stage.manifests.put("deny.yaml", &both)?;
        stage
            .daemon
            .wait_for_output_after(mark, "no longer so", PATIENCE)?;
    }
    stage.edit(|| stage.manifests.remove("deny.yaml"))?;
    assert!(stage.reaches()?);
    let said = stage.daemon.stderr();
    assert!(said.contains("deny.yaml:1:"), "{said}");
    Ok(())
}

#[test]
fn a_directory_that_is_swapped_as_a_config_map_is() -> Result<(), Error> {
    let stage = Stage::new()?;
    let mount = stage.manifests.path().join("mount");
    // As the kubelet does: data in a dated directory, `..data` points to it, the files' names point into `..data`.
    let publish = |version: &str, spec: &str| {
        io(fs::create_dir(mount.join(version)))?;
        io(fs::write(
            mount.join(version).join("policy.yaml"),
            policy("shop/p", spec),
        ))?;
        io(symlink(version, mount.join("..data_tmp")))?;
        io(fs::rename(mount.join("..data_tmp"), mount.join("..data")))
    };
    stage.edit(|| {
        io(fs::create_dir(&mount))?;
        publish("..1", DENY)?;
        io(symlink("..data/policy.yaml", mount.join("policy.yaml")))
    })?;
    assert!(!stage.reaches()?);
    stage.edit(|| publish("..2", ALLOW))?;
    io(fs::remove_dir_all(mount.join("..1")))?;
    assert!(stage.reaches()?);
    stage.edit(|| publish("..3", DENY))?;
    io(fs::remove_dir_all(mount.join("..2")))?;
    assert!(!stage.reaches()?);
    // One file, once: not again through the directory that it is in.
    let said = stage.daemon.stderr();
    assert!(!said.contains("is also in"), "{said}");
    Ok(())
}

#[test]
fn the_source_may_go_before_the_daemon() -> Result<(), Error> {
    let stage = Stage::new()?;
    let node = stage.lab.node("node-1")?;
    assert_eq!(stage.daemon.terminate(PATIENCE)?.code(), Some(0));
    let place = stage.manifests.path().join("place");
    io(fs::create_dir(&place))?;
    for name in ["node.yaml", "web.yaml", "db.yaml"] {
        io(fs::rename(
            stage.manifests.path().join(name),
            place.join(name),
        ))?;
    }
    let daemon = stage::daemon(&node, &place)?;
    committed(&[&daemon], || {
        io(fs::write(
            place.join("deny.yaml"),
            policy("shop/deny", DENY),
        ))
    })?;
    assert!(!stage.reaches()?);
    // Without its source a daemon takes nothing back.
    let mark = daemon.said();
    io(fs::rename(&place, stage.manifests.path().join("gone")))?;
    daemon.wait_for_output_after(mark, "stays in force", PATIENCE)?;
    assert!(!stage.reaches()?);
    Ok(())
}
