//! A packet's way over the nodes: which node's hooks it meets, by which interfaces.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use selvedge_nft::{Family, Hook, IfName, Ruleset};

use super::endpoint::{End, is_own_address, is_shared, is_shared_source};
use super::packet::{Network, Packet};
use super::ruleset::{Walk, WalkError, walk};
use crate::cluster::Text;
use crate::index::Index;

/// What is in force on a node.
#[derive(Debug, Clone, Copy)]
pub struct NodeRules<'a> {
    /// The compiled ruleset.
    pub ruleset: &'a Ruleset,
    /// The pods' bridge.
    pub bridge: IfName,
    /// The bridge's port that the sender is behind, if it is a pod of this node.
    pub port: Option<IfName>,
    /// The interface to other nodes' pods.
    pub overlay: IfName,
    /// The interface to everybody else.
    pub uplink: IfName,
}

/// The nodes that decided on a packet, in order; none where it met no hook of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journey {
    /// Each node, with what its hooks said.
    pub hops: Vec<Hop>,
}

/// A node on a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: Text,
    /// Its hooks, in order: the bridge's for what comes from a pod, then hook forward.
    pub walks: Vec<Walk>,
}

impl Hop {
    /// Whether the node let the packet pass.
    pub fn accepted(&self) -> bool {
        self.walks.iter().all(|walk| walk.accepted)
    }
}

impl Journey {
    /// Whether the packet arrives.
    pub fn accepted(&self) -> bool {
        self.hops.iter().all(Hop::accepted)
    }
}

impl fmt::Display for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hops.is_empty() {
            f.write_str("no node's rules are asked")?;
        }
        for hop in &self.hops {
            writeln!(f, "on {}:", hop.node)?;
            for walk in &hop.walks {
                writeln!(f, "{walk}")?;
            }
        }
        Ok(())
    }
}

const ETHER_IP: u16 = 0x0800;
const ETHER_IP6: u16 = 0x86dd;

/// Sends a packet from its source to its destination, over hook forward of the source pod's node and of the destination
/// pod's: one hop where that is one node. What a node sends or receives itself meets no hook forward there.
///
/// Nodes that `nodes` does not have let everything pass.
///
/// # Errors
/// [`WalkError`] when a ruleset is none that the kernel would have taken.
pub fn journey(
    index: &Index,
    nodes: &BTreeMap<Text, NodeRules<'_>>,
    packet: &Packet,
) -> Result<Journey, WalkError> {
    let (from, to): (IpAddr, IpAddr) = match packet.network {
        Network::V4 { saddr, daddr } => (saddr.into(), daddr.into()),
        Network::V6 { saddr, daddr } => (saddr.into(), daddr.into()),
        Network::Other => return Ok(Journey::default()),
    };
    let (from, to) = (End::of(index, from), End::of(index, to));
    let mut journey = Journey::default();
    // What a node sends or receives itself meets no hook forward there.
    let is_node = |name: &Text, end: &End<'_>| {
        let node = index.node(name);
        end.pod.is_none() && node.is_some_and(|node| is_own_address(node, end.address))
    };
    let node_of = |end: &End<'_>| end.node().cloned();
    // A packet to an address that pods share on the bridge, or from one, stays on the bridge.
    let bridged = match (node_of(&from), node_of(&to)) {
        (Some(one), Some(two)) => one == two,
        (Some(one), None) => is_shared(index.node(&one), to.address),
        (None, Some(_)) => is_shared_source(from.address),
        (None, None) => false,
    };
    let interface = |end: &End<'_>, rules: &NodeRules<'_>| {
        let a_node = || index.nodes().any(|node| is_own_address(node, end.address));
        match end.pod {
            Some(_) => rules.overlay,
            None if a_node() => rules.overlay,
            None => rules.uplink,
        }
    };
    let mut hop = |name: &Text, iif: Option<IfName>, oif: Option<IfName>, sent_here: bool| {
        let Some(rules) = nodes.get(name) else {
            return Ok(());
        };
        let mut packet = packet.clone();
        packet.iifname = Some(iif.unwrap_or_else(|| interface(&from, rules)));
        packet.oifname = Some(oif.unwrap_or_else(|| interface(&to, rules)));
        let mut walks = Vec::new();
        if sent_here && let Some(port) = rules.port {
            let mut frame = packet.clone();
            frame.iifname = Some(port);
            frame.oifname = None;
            frame.ether_type = Some(match packet.network {
                Network::V6 { .. } => ETHER_IP6,
                _ => ETHER_IP,
            });
            walks.push(walk(
                rules.ruleset,
                Family::Bridge,
                Hook::Prerouting,
                &frame,
            )?);
        }
        walks.push(walk(rules.ruleset, Family::Inet, Hook::Forward, &packet)?);
        journey.hops.push(Hop {
            node: name.clone(),
            walks,
        });
        Ok(())
    };
    let bridge = |name: &Text| nodes.get(name).map(|rules| rules.bridge);
    match (node_of(&from), node_of(&to)) {
        (Some(node), _) if bridged => hop(&node, bridge(&node), bridge(&node), true)?,
        (None, Some(node)) if bridged => hop(&node, bridge(&node), bridge(&node), true)?,
        (source, destination) => {
            if let Some(node) = source.filter(|node| !is_node(node, &to)) {
                hop(&node, bridge(&node), None, true)?;
            }
            if let Some(node) = destination.filter(|node| !is_node(node, &from)) {
                hop(&node, None, bridge(&node), false)?;
            }
        }
    }
    Ok(journey)
}
