//! The bodies of the fuzz targets: each takes bytes, whatever they are, does with them what the daemon does with what
//! others write, and panics where a promise is broken.
//!
//! The fuzz crate runs them under libFuzzer (`make fuzz`); the lab's test `fuzz` runs them over the seeds, and over
//! what has once broken one of them.

mod cluster;
mod cni;
mod manifests;
mod netlink;
mod policies;
mod stream;

pub use cni::cni;
pub use manifests::manifests;
pub use netlink::netlink;
pub use policies::policies;
pub use stream::stream;

use std::path::PathBuf;

use self::cluster::NODES;
use selvedge::cluster::Text;
use selvedge::compile::{Host, compile};
use selvedge::index::Index;
use selvedge_nft::{Dataplane, Fake, IfName, Ruleset, diff};
use tempfile::TempDir;

/// The host that rulesets are compiled for.
fn host() -> Host {
    let [bridge, port] = ["cni0", "veth0"].map(|name| IfName::new(name).unwrap());
    Host::new(bridge, [port])
}

/// The first node's ruleset, made from nothing.
fn fresh(index: &Index) -> Ruleset {
    compile(index, &Text::from(NODES[0]), &host())
}

/// Brings a kernel to a ruleset by one transaction, which it must take.
fn commit(kernel: &mut Fake, ruleset: &Ruleset) {
    let transaction = diff(&kernel.ruleset(), ruleset);
    kernel.commit(&transaction).unwrap();
    assert_eq!(kernel.ruleset(), *ruleset);
}

/// A directory in memory, where there is such a place.
fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => TempDir::new_in(memory).unwrap(),
        false => TempDir::new().unwrap(),
    }
}
