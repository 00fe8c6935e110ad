//! What the host adds to a node's ruleset: ports whose pods are known, addresses that nobody may use, and blocks that
//! only known pods may. Kept up to date it is the same as from nothing, and without it nothing of it is there.

#![allow(clippy::unwrap_used)] // a test may stop

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use selvedge::arbitrary::{NODES, events};
use selvedge::cluster::Text;
use selvedge::cluster::port::Protocol;
use selvedge::compile::{Compiler, Host, compile};
use selvedge::index::Index;
use selvedge::verdict::packet::{Packet, TransportHeader};
use selvedge::verdict::ruleset::walk;
use selvedge_nft::{Elements, Family, Hook, IfName, Name, Ruleset, Table, TcpFlags};

fn interface(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

fn host() -> Host {
    Host::new(interface("cni0"), [interface("veth0"), interface("veth1")])
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..20u8).prop_map(|n| IpAddr::from([10, 244, 1, n])),
        (0..20u16).prop_map(|n| IpAddr::from([0xfd00, 0x10, 0x244, 1, 0, 0, 0, n])),
    ]
}

/// Any host of the bridge `cni0`.
fn hosts() -> impl Strategy<Value = Host> {
    let port = select(vec!["veth0", "veth1", "veth2", "odd@port"]);
    let attached = btree_map(port.prop_map(interface), btree_set(address(), 0..3), 0..4);
    let blocks = vec![
        "10.244.1.0/24",
        "fd00:10:244:1::/64",
        "10.244.1.16/32",
        "10.9.0.0/16",
    ];
    let closed = btree_set(select(blocks), 0..3);
    (attached, btree_set(address(), 0..3), closed).prop_map(|(attached, withheld, closed)| Host {
        attached,
        withheld,
        closed: closed.iter().map(|net| net.parse().unwrap()).collect(),
        ..host()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever came before, the ruleset is the one of the cluster and the host of now.
    #[test]
    fn a_host_that_changes_ends_in_the_ruleset_of_what_it_is(
        events in events(40),
        hosts in vec(hosts(), 1..6),
    ) {
        let node = Text::from(NODES[0]);
        let mut index = Index::new();
        let mut compiler = Compiler::new(node.clone(), host());
        for (batch, host) in events.chunks(4).zip(hosts.iter().cycle()) {
            for event in batch {
                index.apply(event.clone());
            }
            compiler.set_host(host.clone());
            let now = compiler.update(&mut index);
            prop_assert_eq!(&now, &compile(&index, &node, host));
            check_known(&index, &node, host, &now)?;
        }
    }
}

fn table(ruleset: &Ruleset, family: Family) -> &Table {
    let mut tables = ruleset.tables.iter();
    let table = tables.find(|(id, _)| id.family == family).unwrap();
    table.1
}

fn members(ruleset: &Ruleset, set: &str) -> Option<BTreeSet<IpAddr>> {
    let set = table(ruleset, Family::Inet)
        .sets
        .get(&Name::new(set).unwrap())?;
    let Elements::Keys(keys) = &set.elements else {
        panic!("{set:?}")
    };
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    };
    Some(keys.iter().map(|key| address(key.as_bytes())).collect())
}

/// The known addresses are those of the node's pods that have one, of the blocks' families, and the node's own.
fn check_known(
    index: &Index,
    node: &Text,
    host: &Host,
    ruleset: &Ruleset,
) -> Result<(), TestCaseError> {
    for (set, v4) in [("known4", true), ("known6", false)] {
        let of_family = |address: &IpAddr| address.is_ipv4() == v4;
        let blocks = host.closed.iter().filter(|net| of_family(&net.ip()));
        let blocks: Vec<_> = blocks.collect();
        let known = members(ruleset, set);
        prop_assert_eq!(known.is_some(), !blocks.is_empty());
        let Some(mut known) = known else { continue };
        for pod in index.pods_on(node) {
            for address in index.addresses(pod).iter().filter(of_family) {
                prop_assert!(known.contains(&address), "{address} of {}", pod.name);
            }
        }
        known.retain(|address| {
            let owner = index.owner(*address);
            owner.is_none_or(|pod| pod.node.as_ref() != Some(node) || !pod.selectable())
        });
        for address in known {
            let own = blocks
                .iter()
                .any(|net| net.iter().take(2).any(|own| own == address));
            prop_assert!(own, "{address} is nobody's");
        }
    }
    Ok(())
}

#[test]
fn without_any_of_it_nothing_of_it_is_there() {
    let ruleset = compile(&Index::new(), &Text::from(NODES[0]), &host());
    for set in ["known4", "known6", "withheld4", "withheld6"] {
        assert_eq!(members(&ruleset, set), None);
    }
    let bridge = table(&ruleset, Family::Bridge);
    assert_eq!((bridge.sets.len(), bridge.chains.len()), (1, 1));
}

/// A frame that comes from a port, as the bridge's hook sees it.
fn frame(port: &str, ether_type: u16, from: &str, to: &str) -> Packet {
    let syn = TransportHeader::ports(Protocol::Tcp, 4000, 80, TcpFlags::SYN);
    let packet = Packet::new(from.parse().unwrap(), to.parse().unwrap(), syn, 0);
    Packet {
        iifname: Some(interface(port)),
        ether_type: Some(ether_type),
        ..packet.unwrap()
    }
}

#[test]
fn a_port_takes_what_bears_its_pods_own_address() {
    let own = ["10.244.1.2", "fd00::2"].map(|a| a.parse().unwrap());
    let mut host = host();
    host.attached.insert(interface("veth0"), own.into());
    let ruleset = compile(&Index::new(), &Text::from(NODES[0]), &host);
    let passes = |frame: Packet| {
        let walk = walk(&ruleset, Family::Bridge, Hook::Prerouting, &frame);
        walk.unwrap().accepted
    };
    for (ether, from, to, own) in [
        (0x0800, "10.244.1.2", "10.244.1.3", true),
        (0x0800, "10.244.1.3", "10.244.1.2", false),
        (0x0800, "0.0.0.0", "10.244.1.3", false),
        (0x86dd, "fd00::2", "fd00::3", true),
        (0x86dd, "fd00::3", "fd00::4", false),
        (0x86dd, "fe80::3", "fe80::4", true),
        (0x86dd, "::", "fd00::4", false),
        // What is behind a tag is not looked at.
        (0x8100, "10.244.1.2", "10.244.1.3", false),
        (0x88a8, "10.244.1.2", "10.244.1.3", false),
    ] {
        assert_eq!(
            passes(frame("veth0", ether, from, to)),
            own,
            "{ether:x} {from}"
        );
        // A port that nothing is known of.
        assert!(passes(frame("veth1", ether, from, to)), "{ether:x} {from}");
    }
    let discovery = |from: &str, kind| {
        let all = "ff02::1".parse().unwrap();
        let message = TransportHeader::icmpv6(kind, 0);
        let packet = Packet::new(from.parse().unwrap(), all, message, 0);
        Packet {
            iifname: Some(interface("veth0")),
            ether_type: Some(0x86dd),
            ..packet.unwrap()
        }
    };
    assert!(passes(discovery("::", 135)));
    assert!(passes(discovery("fe80::2", 133)));
    assert!(!passes(discovery("::", 128)));
    assert!(!passes(discovery("fd00::3", 135)));
}
