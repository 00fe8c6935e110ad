//! The container image: exactly what it holds and says, and that it runs on nothing else.
//!
//! It is made by the same script as `make image`, of the binary that the other tests run.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use selvedge_lab::{Netns, NsCommand, Signal, stage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PATIENCE: Duration = Duration::from_secs(30);

/// What is meant by small.
const LIMIT: u64 = 25 * 1024 * 1024;

/// An image, unpacked: its tar, its layout and the root directory that its layer makes.
struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = Self { directory };
        write_image(&image.tar());
        unpack(&image.tar(), &image.layout());
        unpack(&image.layer(), &image.root());
        image
    }

    fn tar(&self) -> PathBuf {
        self.directory.path().join("image.tar")
    }

    fn layout(&self) -> PathBuf {
        self.directory.path().join("layout")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.layout().join(path)).unwrap()).unwrap()
    }

    fn layer(&self) -> PathBuf {
        let docker = self.json("manifest.json");
        self.layout().join(docker[0]["Layers"][0].as_str().unwrap())
    }

    /// A command in the image's root directory, as a container runtime starts it: the root is read-only, nothing of
    /// the environment is left, it is process 1, and the only capability is NET_ADMIN (and the one that chroot asks
    /// for). There is no /proc, no /etc and no /tmp.
    fn command(&self, netns: &Netns, arguments: &[&str]) -> NsCommand {
        let script = r#"
            mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && chroot=$(command -v chroot) &&
            exec env -i setpriv --bounding-set -all,+net_admin,+sys_chroot --inh-caps -all --no-new-privs \
                "$chroot" "$0" /selvedge "$@""#;
        let command = netns.command("unshare");
        let command = command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        let command = command.args(["sh", "-c", script]).arg(self.root());
        command.args(arguments)
    }
}

fn write_image(tar: &Path) {
    let script = format!("{ROOT}/.ci/image");
    let mut command = Command::new(script);
    command.args([stage::binary().unwrap(), stage::plugin().unwrap(), tar]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn unpack(tar: &Path, directory: &Path) {
    fs::create_dir(directory).unwrap();
    let mut command = Command::new("tar");
    let command = command.arg("-xpf").arg(tar).arg("-C").arg(directory);
    assert!(command.status().unwrap().success());
}

/// The regular files below a directory, by their paths in it. Anything that is neither file nor directory is none.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else {
                assert!(kind.is_file(), "{:?} is no plain file", entry.path());
                let path = entry.path();
                let path = path.strip_prefix(directory).unwrap();
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_tar_is_an_oci_layout_and_what_docker_loads() {
    let image = Image::make();
    let layout = image.layout();
    let mut blobs: BTreeMap<String, usize> = BTreeMap::new();
    for path in files(&layout) {
        if let Some(name) = path.strip_prefix("blobs/sha256/") {
            let bytes = fs::read(layout.join(&path)).unwrap();
            assert_eq!(digest(&bytes), name);
            blobs.insert(name.to_owned(), bytes.len());
        } else {
            assert!(
                ["oci-layout", "index.json", "manifest.json"].contains(&&*path),
                "{path}"
            );
        }
    }
    assert_eq!(blobs.len(), 3);

    // A descriptor names a blob, and tells its size.
    let blob = |descriptor: &Value, media_type: &str| {
        assert_eq!(
            descriptor["mediaType"],
            format!("application/vnd.oci.image.{media_type}")
        );
        let digest = descriptor["digest"].as_str().unwrap();
        let name = digest.strip_prefix("sha256:").unwrap().to_owned();
        assert_eq!(descriptor["size"], json!(blobs[&name]), "{name}");
        format!("blobs/sha256/{name}")
    };
    let oci = image.json("oci-layout");
    assert_eq!(oci, json!({"imageLayoutVersion": "1.0.0"}));
    let index = image.json("index.json");
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let name = format!("ghcr.io/selvedge/selvedge:{VERSION}");
    let annotations =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": VERSION});
    assert_eq!(index["manifests"][0]["annotations"], annotations);

    let manifest = image.json(&blob(&index["manifests"][0], "manifest.v1+json"));
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    let config_path = blob(&manifest["config"], "config.v1+json");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer_path = blob(&manifest["layers"][0], "layer.v1.tar");
    // Docker's own list names the same blobs.
    let docker = json!([{"Config": config_path, "RepoTags": [name], "Layers": [layer_path]}]);
    assert_eq!(image.json("manifest.json"), docker);

    let config = image.json(&config_path);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = json!({"architecture": architecture, "os": "linux"});
    assert_eq!(index["manifests"][0]["platform"], platform);
    assert_eq!(config["architecture"], architecture);
    assert_eq!(config["os"], "linux");
    // The layer is not compressed, so its digest is its contents'.
    let diff_ids = json!({"type": "layers", "diff_ids": [manifest["layers"][0]["digest"]]});
    assert_eq!(config["rootfs"], diff_ids);
    assert_eq!(config["history"].as_array().unwrap().len(), 1);
    assert_eq!(config["config"]["Entrypoint"], json!(["/selvedge"]));
    assert_eq!(config["config"].as_object().unwrap().len(), 2, "and labels");
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.version"],
        VERSION
    );
}

#[test]
fn the_same_binary_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    write_image(&first);
    write_image(&second);
    let tar = fs::read(&first).unwrap();
    assert!(
        tar == fs::read(&second).unwrap(),
        "two images of one binary differ"
    );

    let mut list = Command::new("tar");
    let list = list.args(["--numeric-owner", "--utc", "--full-time", "-tvf"]);
    let list = list.arg(&first).env("LC_ALL", "C").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.lines().count() >= 6, "{list}");
    for line in list.lines() {
        assert!(line.contains(" 0/0 "), "{line}");
        assert!(line.contains(" 1970-01-01 00:00:00 "), "{line}");
    }
}

#[test]
fn it_is_small_and_holds_the_binaries_and_their_libraries_alone() {
    let image = Image::make();
    let size = fs::metadata(image.tar()).unwrap().len();
    // Without optimisation the binary alone is half as large again; `make image` holds the release to the limit itself.
    let optimised = stage::binary()
        .unwrap()
        .components()
        .any(|part| part.as_os_str() == "release");
    let limit = if optimised { LIMIT } else { 2 * LIMIT };
    assert!(size < limit, "{size} bytes");

    let mut ldd = Command::new("ldd");
    let loaded = ldd.arg(stage::binary().unwrap()).output().unwrap();
    let loaded = String::from_utf8(loaded.stdout).unwrap();
    let paths = loaded
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('/'));
    let mut expected: BTreeSet<String> = paths.map(str::to_owned).collect();
    assert!(expected.len() >= 3, "{loaded}");
    expected.extend(["selvedge", "selvedge-cni"].map(str::to_owned));
    let found = files(&image.root());
    assert_eq!(found, expected);
    for file in found {
        let mode = fs::metadata(image.root().join(&file))
            .unwrap()
            .permissions();
        // Not set-uid either.
        assert_eq!(mode.mode() & 0o7777, 0o755, "{file}");
        assert!(
            file.starts_with("selvedge") || file.contains(".so."),
            "{file}"
        );
    }
}

/// It is copied to nodes, which have other libraries.
#[test]
fn the_plugin_needs_no_library_of_the_node() {
    let image = Image::make();
    let plugin = image.root().join("selvedge-cni");
    let mut ldd = Command::new("ldd");
    let output = ldd.arg(&plugin).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("statically linked") || said.contains("not a dynamic"),
        "{said}"
    );
    let bytes = fs::read(&plugin).unwrap();
    for library in ["libnftnl", "libmnl"] {
        let found = bytes
            .windows(library.len())
            .any(|w| w == library.as_bytes());
        assert!(!found, "{library}");
    }
    // In a root directory with nothing else in it, it answers.
    let empty = tempfile::tempdir().unwrap();
    // By a program of its own: another test's child has a copy of what is open here until its exec, and what somebody may
    // write to can't be run.
    let mut copy = Command::new("cp");
    let copy = copy.arg("-p").arg(&plugin).arg(empty.path());
    assert!(copy.status().unwrap().success());
    let mut command = Command::new("chroot");
    let command = command.arg(empty.path()).arg("/selvedge-cni");
    let command = command.env_clear().env("CNI_COMMAND", "VERSION");
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = output.output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let supported = version["supportedVersions"].as_array().unwrap();
    assert!(supported.contains(&json!("1.1.0")), "{version}");
    println!("{} bytes", bytes.len());
}

#[test]
fn a_plugin_that_needs_libraries_is_put_into_no_image() {
    let directory = tempfile::tempdir().unwrap();
    let tar = directory.path().join("image.tar");
    let daemon = stage::binary().unwrap();
    let mut command = Command::new(format!("{ROOT}/.ci/image"));
    let output = command.args([daemon, daemon, &tar]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not linked statically"), "{said}");
    assert!(!output.status.success() && !tar.exists());
}

#[test]
fn the_manifests_and_the_dockerfile_say_the_same() {
    let image = Image::make();
    let docker = image.json("manifest.json");
    let name = docker[0]["RepoTags"][0].as_str().unwrap();
    for file in [
        "selvedge.yaml",
        "base/daemonset.yaml",
        "overlays/cni/plugin.yaml",
        "uninstall/daemonset.yaml",
    ] {
        let text = fs::read_to_string(format!("{ROOT}/manifests/{file}")).unwrap();
        let images = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("image: "));
        let images: BTreeSet<&str> = images.collect();
        assert_eq!(images, BTreeSet::from([name]), "{file}");
    }
    let config = image.json(docker[0]["Config"].as_str().unwrap());
    let dockerfile = fs::read_to_string(format!("{ROOT}/Dockerfile")).unwrap();
    let entrypoint = format!("ENTRYPOINT {}\n", config["config"]["Entrypoint"]);
    assert!(dockerfile.contains(&entrypoint), "{dockerfile}");
    let labels = config["config"]["Labels"].as_object().unwrap();
    assert_eq!(
        dockerfile.matches("org.opencontainers").count(),
        labels.len()
    );
    for (label, value) in labels {
        let value = if value == VERSION {
            "$VERSION"
        } else {
            value.as_str().unwrap()
        };
        let line = format!("{label}=\"{value}\"");
        assert!(dockerfile.contains(&line), "{line} is not in it");
    }
    let last = dockerfile.lines().rfind(|line| line.starts_with("FROM "));
    assert_eq!(last, Some("FROM scratch"));
}

#[test]
fn it_runs_in_an_empty_root() {
    let image = Image::make();
    let examples = image.root().join("shop");
    fs::create_dir(&examples).unwrap();
    for file in ["cluster.yaml", "policies.yaml"] {
        fs::copy(format!("{ROOT}/examples/shop/{file}"), examples.join(file)).unwrap();
    }
    let netns = Netns::new("image").unwrap();
    let run = |arguments: &[&str]| image.command(&netns, arguments).run().unwrap();
    assert_eq!(run(&["--version"]), format!("selvedge {VERSION}\n"));
    let rendered = run(&["render", "/shop", "--node", "node-1"]);
    assert!(
        rendered.contains("chain ingress/shop/web-0 {"),
        "{rendered}"
    );
    let asked = [
        "can",
        "shop/web-0",
        "shop/api-1",
        "--port",
        "tcp/8080",
        "-f",
        "/shop",
    ];
    assert_eq!(run(&asked), "allowed\n");

    let tables = || {
        let list = netns.command("nft").args(["list", "tables"]).run().unwrap();
        let lines: BTreeSet<String> = list.lines().map(str::to_owned).collect();
        lines
    };
    let ours = ["table bridge selvedge", "table inet selvedge"];
    let ours = BTreeSet::from(ours.map(str::to_owned));
    assert_eq!(
        run(&["cleanup"]),
        "nothing to remove: there is no table of Selvedge's\n"
    );
    let daemon = image.command(&netns, &["run", "--source", "/shop", "--node", "node-1"]);
    let daemon = daemon.daemon().unwrap();
    daemon
        .wait_for_output("the policies are in force", PATIENCE)
        .unwrap();
    assert_eq!(tables(), ours);
    // The kernel drops signals that a namespace's first process does not catch.
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    let child = fs::read_to_string(children).unwrap();
    let child = Pid::from_raw(child.trim().parse().unwrap());
    kill(child, Signal::SIGTERM).unwrap();
    assert_eq!(
        daemon.wait(PATIENCE).unwrap().code(),
        Some(0),
        "{}",
        daemon.stderr()
    );
    assert!(daemon.stderr().contains("the rules stay in force"));

    assert_eq!(tables(), ours);
    assert_eq!(run(&["cleanup"]).lines().count(), 2);
    assert_eq!(tables(), BTreeSet::new());
}
