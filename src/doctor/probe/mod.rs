//! The proof that this kernel enforces policies on bridged packets: real packets between two pods of one bridge, in
//! throwaway network namespaces, under the rules that the compiler makes for a small cluster.
//!
//! - `network`: the namespaces, their bridge and addresses · `cluster`: the pods and policies, compiled
//! - `packets`: what is sent, and whether it arrives

mod cluster;
mod network;
mod packets;

use std::fmt;

use selvedge_nft::{Dataplane, Kernel, Ruleset, diff};

use super::Finding;
use super::namespace::{NamespaceError, apart};
use cluster::Policy;
use network::Network;
use packets::{Packets, Way};

const CHECK: &str = "probe";

/// How to prove it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether bridged packets meet netfilter in the probe's own namespace. Without, the probe must fail: for tests.
    pub bridged: bool,
}

/// Why nothing could be proven.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// No namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// rtnetlink refused something.
    #[error("{doing}: {source}")]
    Links {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: rtnetlink::Error,
    },
    /// nftables refused the rules.
    #[error(transparent)]
    Rules(#[from] selvedge_nft::DataplaneError),
    /// The cluster could not be made.
    #[error("{0}")]
    Cluster(String),
}

/// What is sent when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There are no rules.
    Before,
    /// A policy allows it.
    Allowed,
    /// No policy allows it.
    Denied,
    /// It belongs to a connection that was opened while a policy allowed it.
    Kept,
    /// The same anew, when no policy allows it any more.
    Closed,
    /// Frames that are neither IP nor ARP, without rules.
    FrameBefore,
    /// The same, with rules.
    Frame,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Before,
        Self::Allowed,
        Self::Denied,
        Self::Kept,
        Self::Closed,
        Self::FrameBefore,
        Self::Frame,
    ];

    /// Whether it is to arrive.
    const fn arrives(self) -> bool {
        match self {
            Self::Before | Self::Allowed | Self::Kept | Self::FrameBefore => true,
            Self::Denied | Self::Closed | Self::Frame => false,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Before => "without rules, a packet between pods of one bridge",
            Self::Allowed => "a packet that a policy allows",
            Self::Denied => "a packet that no policy allows",
            Self::Kept => "a packet of a connection that was opened before its policy went",
            Self::Closed => "a new connection after its policy went",
            Self::FrameBefore => "without rules, a VLAN-tagged frame",
            Self::Frame => "with the port guard, a VLAN-tagged frame",
        }
    }
}

/// What one packet did.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    step: Step,
    way: Way,
    arrived: bool,
}

/// What was seen, and what could not be tried.
#[derive(Debug, Default)]
struct Proof {
    seen: Vec<Seen>,
    untried: Vec<String>,
}

/// Proves it, a line each.
pub fn run(options: &Options) -> Vec<Finding> {
    attempt(options).unwrap_or_else(|found| vec![Finding::fail(CHECK, found, ADVICE)])
}

/// The same, but that it can't be tried is a warning: it says nothing about what the node's rules do, and a daemon that
/// did not start for it would leave the node without any.
pub fn run_or_warn(options: &Options) -> Vec<Finding> {
    attempt(options).unwrap_or_else(|found| vec![Finding::warn(CHECK, found, ADVICE)])
}

const ADVICE: &str = "run it as root (in a pod: privileged), with br_netfilter loaded";

/// What was proven, or why nothing was.
fn attempt(options: &Options) -> Result<Vec<Finding>, String> {
    let bridged = options.bridged;
    let unproven = |error: &dyn fmt::Display| format!("nothing is proven: {error}");
    match apart(move || prove(bridged)) {
        Ok(Ok(proof)) => Ok(judge(&proof)),
        Ok(Err(error)) => Err(unproven(&error)),
        Err(error) => Err(unproven(&error)),
    }
}

/// One finding for each step, of all ways where they did the same.
fn judge(proof: &Proof) -> Vec<Finding> {
    let mut findings = Vec::new();
    for step in Step::ALL {
        let of = |right: bool| -> Vec<String> {
            let seen = proof.seen.iter().filter(|seen| seen.step == step);
            let seen = seen.filter(|seen| (seen.arrived == step.arrives()) == right);
            seen.map(|seen| seen.way.to_string()).collect()
        };
        let (right, wrong) = (of(true), of(false));
        if !right.is_empty() {
            let does = if step.arrives() {
                "arrives"
            } else {
                "is dropped"
            };
            let found = format!("{} {does} ({})", step.what(), right.join(", "));
            findings.push(Finding::ok(CHECK, found));
        }
        if !wrong.is_empty() {
            let does = if step.arrives() { "is lost" } else { "ARRIVES" };
            let found = format!("{} {does} ({})", step.what(), wrong.join(", "));
            findings.push(Finding::fail(CHECK, found, advice(step)));
        }
    }
    for reason in &proof.untried {
        findings.push(Finding::warn(
            CHECK,
            format!("not tried: {reason}"),
            "nothing, if this node does without it",
        ));
    }
    if proof.seen.is_empty() {
        findings.push(Finding::fail(
            CHECK,
            "nothing is proven: no packet could be sent",
            ADVICE,
        ));
    }
    findings
}

const fn advice(step: Step) -> &'static str {
    match step {
        Step::Before | Step::FrameBefore => {
            "the probe's own bridge does not carry packets, so nothing is proven; please report it"
        }
        Step::Denied | Step::Closed => {
            "this kernel does not enforce policies between pods of one node: see that br_netfilter works, and try another kernel"
        }
        Step::Allowed | Step::Kept => {
            "this kernel drops what policies allow; please report it with the kernel's release"
        }
        Step::Frame => {
            "pods can pass by the policies with VLAN tags on this kernel; please report it"
        }
    }
}

/// Sends everything. The calling thread is lost to its namespaces.
fn prove(bridged: bool) -> Result<Proof, ProbeError> {
    let mut proof = Proof::default();
    let network = Network::build(bridged, &mut proof.untried)?;
    let mut packets = Packets::open(&network)?;
    let (seen, untried) = (&mut proof.seen, &mut proof.untried);
    packets.both(&network, seen, Step::Before, Step::Before)?;
    packets.frame(seen, Step::FrameBefore, untried)?;

    let mut rules = Rules::open(&network)?;
    rules.enforce(Policy::Allow)?;
    packets.both(&network, seen, Step::Allowed, Step::Denied)?;
    packets.frame(seen, Step::Frame, untried)?;
    let kept = packets.connect(&network)?;

    rules.enforce(Policy::Close)?;
    kept.send(seen)?;
    packets.reconnect(&network, seen)?;
    Ok(proof)
}

/// The rules of the probe's node.
struct Rules {
    kernel: Kernel,
    held: Ruleset,
}

impl Rules {
    fn open(network: &Network) -> Result<Self, ProbeError> {
        network.node.enter()?;
        Ok(Self {
            kernel: Kernel::open()?,
            held: Ruleset::default(),
        })
    }

    fn enforce(&mut self, policy: Policy) -> Result<(), ProbeError> {
        let wanted = cluster::ruleset(policy)?;
        self.kernel.commit(&diff(&self.held, &wanted))?;
        self.held = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn seen(step: Step, way: Way, arrived: bool) -> Seen {
        Seen { step, way, arrived }
    }

    #[test]
    fn a_packet_that_arrives_against_the_rules_fails_loudly() {
        let proof = Proof {
            seen: vec![
                seen(Step::Denied, Way::Ipv4, false),
                seen(Step::Denied, Way::Ipv6, true),
            ],
            untried: Vec::new(),
        };
        let findings = judge(&proof);
        let said: Vec<_> = findings
            .iter()
            .map(|finding| (finding.status, finding.found.as_str()))
            .collect();
        let expected = [
            (
                Status::Ok,
                "a packet that no policy allows is dropped (IPv4)",
            ),
            (
                Status::Fail,
                "a packet that no policy allows ARRIVES (IPv6)",
            ),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_probe_without_packets_proves_nothing() {
        let findings = judge(&Proof::default());
        assert_eq!(findings[0].status, Status::Fail);
        let lost = Proof {
            seen: vec![seen(Step::Before, Way::Ipv4, false)],
            untried: vec!["IPv6: off".to_owned()],
        };
        let findings = judge(&lost);
        assert_eq!(findings[0].status, Status::Fail);
        assert_eq!(findings[1].status, Status::Warn);
    }
}
