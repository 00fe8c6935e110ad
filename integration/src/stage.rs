//! A lab made from a cluster's objects, enforced: by the pipeline in this process, or by the daemon itself.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use ipnet::IpNet;
use selvedge::cluster::Text;
use selvedge::compile::{self, Host as CompileHost};
use selvedge::index::Index;
use selvedge::source::Files;
use selvedge_nft::{Committed, Dataplane, IfName, Kernel, Ruleset, diff};

use crate::daemon::Daemon;
use crate::error::Error;
use crate::netns::NsCommand;
use crate::topology::Lab;
use crate::topology::builder::{LabBuilder, NodeSpec};
use crate::topology::node::Node;
use crate::topology::pod::PodSpec;

pub mod live;
mod manifests;

pub use manifests::{Manifests, PodManifest, namespace, node, policy};

/// How long a daemon may take to enforce what it was told.
const PATIENCE: Duration = Duration::from_secs(20);

/// The index of the manifests in a file or directory.
///
/// # Errors
/// When it can't be read at all; what is wrong within it is the policies' own business.
pub fn index_of(manifests: &Path) -> Result<Index, Error> {
    let reading = Files::new(manifests)
        .read(Duration::ZERO)
        .map_err(|error| Error::invalid(error.to_string()))?;
    Ok(reading.snapshot.index())
}

/// A lab's description with the nodes and pods of a cluster. Pods without an address of their own are left out.
///
/// The lab gives the nodes their addresses in order: 192.168.50.11 and fd50::11 for the first.
pub fn lab_of(index: &Index) -> LabBuilder {
    let mut lab = Lab::builder();
    for node in index.nodes() {
        let cidrs = node.pod_cidrs.iter();
        let cidrs = cidrs.filter_map(|net| IpNet::new(net.ip(), net.prefix()).ok());
        lab = lab.node(NodeSpec::new(&node.name).pod_cidrs(cidrs));
    }
    for pod in index.pods() {
        let addresses: Vec<_> = index.addresses(pod).iter().collect();
        let node = pod.node.as_ref().and_then(|name| index.node(name));
        if let (Some(node), false) = (node, addresses.is_empty()) {
            let name = format!("{}/{}", pod.namespace, pod.name);
            lab = lab.pod_spec(PodSpec::new(&name, &node.name).addresses(addresses));
        }
    }
    lab
}

/// What a node's kernel holds of Selvedge's tables, as somebody who is not their owner reads them.
pub fn held(node: &Node) -> Result<Ruleset, Error> {
    let held = node
        .netns()
        .run(|| Kernel::open()?.read(&compile::tables()))?;
    held.map_err(|e: selvedge_nft::DataplaneError| Error::invalid(e.to_string()))
}

/// What the ruleset of a lab's node depends on beside the cluster.
///
/// # Errors
/// When an interface's name is none, which the lab rules out.
pub fn host_of(lab: &Lab, node: &Node) -> Result<CompileHost, Error> {
    let ifname = |name: &str| IfName::new(name).map_err(|e| Error::invalid(e.to_string()));
    let pods = lab.pods();
    let local = pods.iter().filter(|pod| pod.node().name() == node.name());
    let ports = local.map(|pod| ifname(pod.veth()));
    let ports = ports.collect::<Result<Vec<_>, _>>()?;
    Ok(CompileHost::new(ifname("cni0")?, ports))
}

/// Compiles the cluster for every node of the lab and programs it, as a daemon on each would.
///
/// # Errors
/// When a kernel refuses.
pub fn enforce(lab: &Lab, index: &Index) -> Result<BTreeMap<String, Ruleset>, Error> {
    let mut rulesets = BTreeMap::new();
    for node in lab.nodes() {
        let host = host_of(lab, node)?;
        let ruleset = compile::compile(index, &Text::from(node.name()), &host);
        program(node, &ruleset)?;
        rulesets.insert(node.name().to_owned(), ruleset);
    }
    Ok(rulesets)
}

/// Makes a node's kernel hold this ruleset, by the difference to what it has, and reads it back.
///
/// # Errors
/// When the kernel refuses, or reads back as something else.
pub fn program(node: &Node, ruleset: &Ruleset) -> Result<Committed, Error> {
    let outcome = node.netns().run(|| {
        let mut kernel = Kernel::open()?;
        let tables = compile::tables();
        let current = kernel.read(&tables)?;
        let committed = kernel.commit(&diff(&current, ruleset))?;
        Ok((committed, kernel.read(&tables)?))
    })?;
    let (committed, now) =
        outcome.map_err(|e: selvedge_nft::DataplaneError| Error::invalid(e.to_string()))?;
    if now != *ruleset {
        let left = diff(&now, ruleset);
        return Err(Error::invalid(format!(
            "the kernel of {} reads back another ruleset; between them: {left:?}",
            node.name()
        )));
    }
    Ok(committed)
}

/// `selvedge run` on a node, for these manifests.
///
/// # Errors
/// When it can't be built.
pub fn run_command(node: &Node, manifests: &Path) -> Result<NsCommand, Error> {
    let command = selvedge(node)?
        .args(["run", "--node", node.name(), "--source"])
        .arg(manifests);
    Ok(command)
}

/// `selvedge` in a node's namespace, without arguments yet.
///
/// # Errors
/// When it can't be built.
pub fn selvedge(node: &Node) -> Result<NsCommand, Error> {
    Ok(node.netns().command(binary()?).env("SELVEDGE_LOG", "info"))
}

/// Starts `selvedge run` on a node and waits until it enforces.
///
/// # Errors
/// When it ends, or does not commit.
pub fn daemon(node: &Node, manifests: &Path) -> Result<Daemon, Error> {
    let daemon = run_command(node, manifests)?.daemon()?;
    // Said whether or not the first commit had anything to send.
    daemon.wait_for_output("the policies are in force", PATIENCE)?;
    Ok(daemon)
}

/// What nft lists, without what it says of tables' owners: a daemon that is gone and the one that follows differ in that.
pub fn unowned(listing: &str) -> String {
    let lines = listing.lines().filter(|line| {
        let flags = line.strip_prefix("\tflags");
        !flags.is_some_and(|flags| flags.trim().is_empty() || flags.contains("owner"))
    });
    let lines = lines.map(|line| match line.split_once(" progname ") {
        Some((table, _)) if table.starts_with("table ") => table.trim_end_matches(" #"),
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Makes an edit and waits until each of the daemons has committed what follows from it.
///
/// # Errors
/// The edit's own, and when one of them commits nothing.
pub fn committed(
    daemons: &[&Daemon],
    edit: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let marks: Vec<usize> = daemons.iter().map(|daemon| daemon.said()).collect();
    edit()?;
    daemons.iter().zip(marks).try_for_each(|(daemon, mark)| {
        daemon
            .wait_for_output_after(mark, "committed: ", PATIENCE)
            .map(drop)
    })
}

/// The CNI plugin, as it is installed: built by `.ci/plugin` in the profile that this program was built in.
///
/// # Errors
/// When it can't be built.
pub fn plugin() -> Result<&'static Path, Error> {
    static PLUGIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PLUGIN.get_or_init(|| {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let profile = profile()?;
        let mut script = Command::new(root.join(".ci/plugin"));
        script.args(profile.ends_with("release").then_some("--release"));
        script.env("CARGO_TARGET_DIR", profile.parent().unwrap_or(&profile));
        let output = script.output().map_err(|e| format!(".ci/plugin: {e}"))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("the CNI plugin could not be built: {stderr}"));
        }
        let path = String::from_utf8_lossy(&output.stdout);
        Ok(PathBuf::from(path.trim()))
    });
    match built {
        Ok(path) => Ok(path),
        Err(reason) => Err(Error::invalid(reason.clone())),
    }
}

/// Where cargo puts what it builds in this program's profile.
fn profile() -> Result<PathBuf, String> {
    let here = env::current_exe().map_err(|e| e.to_string())?;
    let mut directories = here.ancestors();
    let profile = directories.find(|path| path.join("deps").is_dir());
    let profile = profile.ok_or("this program stands in no cargo target directory")?;
    Ok(profile.to_owned())
}

/// The daemon's binary: the one that `SELVEDGE_BINARY` names, as `make test` does with the one it has just built, or
/// else one built now in the profile that this program was built in.
///
/// # Errors
/// When it can't be built.
pub fn binary() -> Result<&'static Path, Error> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("SELVEDGE_BINARY").map(PathBuf::from) {
            let missing = || format!("SELVEDGE_BINARY is {}, which is no file", path.display());
            return path.is_file().then(|| path.clone()).ok_or_else(missing);
        }
        let profile = profile()?;
        let release = profile.ends_with("release");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "selvedge",
            "--bin",
            "selvedge",
        ]);
        cargo.args(release.then_some("--release"));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo
            .arg("--target-dir")
            .arg(profile.parent().unwrap_or(&profile));
        let status = cargo.status().map_err(|e| format!("cargo: {e}"))?;
        let binary = profile.join("selvedge");
        let good = status.success() && binary.is_file();
        good.then_some(binary)
            .ok_or_else(|| "cargo could not build selvedge".to_owned())
    });
    match built {
        Ok(path) => Ok(path),
        Err(reason) => Err(Error::invalid(reason.clone())),
    }
}
