//! The same policies in the shape that kube-router gives them (in its nftables mode), as an nft script.
//!
//! The same as kube-router's: a table of one IP family with one base chain on hook forward at priority filter; in it, for
//! each pod of the node, a rule for its address as destination and one as source, each a jump to the pod's chain, and
//! last an accept by mark; a pod's chain that drops invalid and accepts established packets itself (in a chain common to
//! all), then lets its own node in, jumps to each policy that selects the pod, rejects what no policy has marked, swaps
//! the mark and returns; a policy's chain with the rules of both directions, each a look-up of source and destination, a
//! port, and a mark; counters on all rules but those that log and mark.
//!
//! Not the same: names are readable, and there are no comments. Policies with the same peers share one set, where
//! kube-router makes one a rule (276 million elements under the largest load). The base chains on hooks input and output are left out: packets between pods never
//! meet them. Its iptables mode is not measured: there the list has up to four rules a pod, two of them for bridged
//! packets alone, and ipsets for sets.
//!
//! kube-router walks its pods in Go's random order, so where a pod stands in the list is chance: in the middle on
//! average.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::load::{CLIENT, Load, POLICIES, SERVER, port};

/// Where the measured pair stands in the list of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Half of the node's other pods come first: the average.
    Middle,
    /// All of them do: the worst.
    End,
}

/// The script that makes the table.
pub fn script(load: &Load, place: Place) -> String {
    let mut text = String::from("table ip kube-router {\n");
    for n in 0..POLICIES {
        let peers: Vec<String> = load.peers_of(n).map(|ip| ip.to_string()).collect();
        set(&mut text, &format!("peers-{n}"), &peers.join(", "));
    }
    let pods = in_order(load, place);
    for (name, address) in &pods {
        for n in 0..POLICIES {
            set(&mut text, &format!("dst-{name}-{n}"), &address.to_string());
            set(&mut text, &format!("src-{name}-{n}"), &address.to_string());
            policy_chain(&mut text, name, n);
        }
    }
    text.push_str(COMMON);
    for (name, address) in &pods {
        pod_chain(&mut text, name, *address);
    }
    text.push_str("  chain forward {\n    type filter hook forward priority filter;\n");
    for (name, address) in &pods {
        let _ = writeln!(
            text,
            "    ip daddr {address} counter jump pod-{name}\n    ip saddr {address} counter jump pod-{name}"
        );
    }
    text.push_str("    meta mark and 0x20000 == 0x20000 counter accept\n  }\n}\n");
    text
}

/// What each pod's chain does first.
const COMMON: &str = "  chain common {
    ct state invalid counter drop
    ct state established,related counter accept
    icmp type echo-request counter accept
    icmp type destination-unreachable counter accept
    icmp type time-exceeded counter accept
  }
";

fn in_order(load: &Load, place: Place) -> Vec<(String, Ipv4Addr)> {
    let mut pods: Vec<_> = load.others().collect();
    let at = match place {
        Place::Middle => pods.len() / 2,
        Place::End => pods.len(),
    };
    let pair = [CLIENT, SERVER].map(|(name, address)| (name.to_owned(), address));
    pods.splice(at..at, pair);
    pods
}

fn set(text: &mut String, name: &str, elements: &str) {
    let _ = writeln!(
        text,
        "  set {name} {{ type ipv4_addr; elements = {{ {elements} }}; }}"
    );
}

fn policy_chain(text: &mut String, pod: &str, n: u32) {
    let _ = writeln!(text, "  chain policy-{pod}-{n} {{");
    let directions = [
        format!("ip saddr @peers-{n} ip daddr @dst-{pod}-{n}"),
        format!("ip saddr @src-{pod}-{n} ip daddr @peers-{n}"),
    ];
    for ends in directions {
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(
                text,
                "    {ends} {protocol} dport {} counter meta mark set meta mark or 0x10000 return",
                port(n)
            );
        }
    }
    text.push_str("  }\n");
}

fn pod_chain(text: &mut String, pod: &str, address: Ipv4Addr) {
    let _ = writeln!(
        text,
        "  chain pod-{pod} {{\n    counter jump common\n    fib saddr type local ip daddr {address} counter accept"
    );
    for n in 0..POLICIES {
        let _ = writeln!(text, "    counter jump policy-{pod}-{n}");
    }
    text.push_str(
        "    meta mark and 0x10000 == 0x0 limit rate 10/minute burst 10 packets log group 100
    meta mark and 0x10000 == 0x0 counter reject
    meta mark set meta mark and 0xfffeffff
    meta mark set meta mark or 0x20000
  }
",
    );
}
