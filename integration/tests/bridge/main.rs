//! What pods of one node can do to each other over their bridge, where no address and no IP hook stands in the way.
//!
//! - [`detours`]: link-local, multicast and broadcast addresses, which no policy can name
//! - [`discovery`]: neighbour discovery passes, router advertisements and redirects never do
//! - [`guard`]: frames that carry no IP
//! - [`midstream`]: TCP segments of connections that nobody knows
//! - [`raw`]: all of it, from an isolated pod and to one · [`spoof`]: a neighbour's address
//! - [`found`]: which bridge is the pods', and whether its packets meet netfilter at all

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

mod detours;
mod discovery;
mod found;
mod guard;
mod midstream;
mod raw;
mod spoof;

use std::time::Duration;

use selvedge_lab::stage::{self, Manifests, PodManifest, node, policy};
use selvedge_lab::{Daemon, Error, Lab, Node, Pod};

/// For what shall come; what doesn't is a failure after this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// For frames and answers that shall not come, on one machine.
const SILENCE: Duration = Duration::from_millis(400);

/// Isolates `shop/db` in both directions, and admits nobody.
const ISOLATE_DB: &str = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}";

/// Pods `shop/web` and `shop/db` on one node with its daemon, and no policy yet.
struct Stage {
    manifests: Manifests,
    lab: Lab,
    node: Node,
    web: Pod,
    db: Pod,
    daemon: Daemon,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let manifests = manifests()?;
        let lab = manifests.lab()?.build()?;
        let daemon = stage::daemon(&lab.node("node-1")?, manifests.path())?;
        Self::of(manifests, lab, daemon)
    }

    fn of(manifests: Manifests, lab: Lab, daemon: Daemon) -> Result<Self, Error> {
        let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
        Ok(Self {
            manifests,
            node: lab.node("node-1")?,
            lab,
            web,
            db,
            daemon,
        })
    }

    /// Puts a policy in force: `shop/db` must be isolated by it, or by none before.
    fn enforce(&self, spec: &str) -> Result<(), Error> {
        stage::committed(&[&self.daemon], || {
            self.manifests
                .put("policy.yaml", policy("shop/policy", spec))
        })
    }

    /// Takes the policy back.
    fn release(&self) -> Result<(), Error> {
        stage::committed(&[&self.daemon], || self.manifests.remove("policy.yaml"))
    }
}

/// What a named frame has for payload: no name is part of another's.
fn payload(name: &str) -> Vec<u8> {
    format!("<{name}>").into_bytes()
}

/// Sends frames from one pod, each with its name as [`payload`], and gives the names of those that arrive at the other.
/// As many as are `due` are waited for; any more have [`SILENCE`] to come.
fn arriving(
    from: &Pod,
    to: &Pod,
    frames: &[(String, Vec<u8>)],
    due: usize,
) -> Result<Vec<String>, Error> {
    let (socket, capture) = (from.frame_socket()?, to.capture()?);
    for (_, frame) in frames {
        socket.send(frame)?;
    }
    let mut seen = vec![false; frames.len()];
    for (window, enough) in [(PATIENCE, due), (SILENCE, frames.len())] {
        let have = |seen: &[bool]| seen.iter().filter(|seen| **seen).count() >= enough;
        if have(&seen) {
            continue;
        }
        capture.wait_for(window, |got| {
            for ((name, _), seen) in frames.iter().zip(&mut seen) {
                let wanted = payload(name);
                *seen |= got.windows(wanted.len()).any(|part| part == wanted);
            }
            have(&seen)
        })?;
    }
    let arrived = frames.iter().zip(seen).filter(|(_, seen)| *seen);
    Ok(arrived.map(|((name, _), _)| name.clone()).collect())
}

fn names(frames: &[(String, Vec<u8>)]) -> Vec<String> {
    frames.iter().map(|(name, _)| name.clone()).collect()
}

fn manifests() -> Result<Manifests, Error> {
    let manifests = Manifests::new()?;
    let text = node(1)
        + &PodManifest::new("shop/web", 1, 2, "app: web").to_string()
        + &PodManifest::new("shop/db", 1, 3, "app: db").to_string();
    manifests.put("cluster.yaml", text)?;
    Ok(manifests)
}
