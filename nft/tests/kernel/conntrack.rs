//! Tracked connections are read as they are, found by an address, and ended one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use selvedge_nft::{Conntrack, Detail, Entry};

use crate::lab::*;

/// A namespace whose loopback is tracked.
fn tracked<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_namespace(|| {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        load(
            "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }",
        );
        // Entries must not end of their own while a busy machine takes its time.
        fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "600").unwrap();
        test()
    })
}

/// A question and its answer between two addresses of loopback; the client, whose port is no other's while it lives.
fn exchange(from: &str, to: &str, port: u16) -> UdpSocket {
    let server = UdpSocket::bind((to, port)).unwrap();
    let client = UdpSocket::bind((from, 0)).unwrap();
    client.connect((to, port)).unwrap();
    client.send(b"?").unwrap();
    let mut buffer = [0; 8];
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"!", peer).unwrap();
    client.recv(&mut buffer).unwrap();
    client
}

fn ends(entries: &[Entry]) -> Vec<(IpAddr, IpAddr)> {
    let mut ends: Vec<_> = entries
        .iter()
        .map(|entry| (entry.original.source, entry.reply.source))
        .collect();
    ends.sort_unstable();
    ends
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn connections_are_found_by_either_end() {
    tracked(|| {
        let mut conntrack = Conntrack::open().unwrap();
        assert!(conntrack.all(|_| true).unwrap().kept.is_empty());
        let client = exchange("127.0.0.2", "127.0.0.3", 53);
        exchange("127.0.0.4", "127.0.0.2", 54);
        exchange("127.0.0.5", "127.0.0.6", 55);
        exchange("::1", "::1", 56);
        let all = conntrack.all(|_| true).unwrap();
        assert_eq!((all.kept.len(), all.unreadable), (4, 0));
        let first = all
            .kept
            .iter()
            .find(|e| e.original.source == ip("127.0.0.2"));
        let detail = Detail::Ports {
            source: client.local_addr().unwrap().port(),
            destination: 53,
        };
        assert_eq!(first.unwrap().original.detail, detail);
        assert_eq!(first.unwrap().original.protocol, 17);
        let mut of_all = |addresses: BTreeSet<IpAddr>| {
            ends(&conntrack.involving(&addresses, |_| true).unwrap().kept)
        };
        let mut of = |address: &str| of_all([ip(address)].into());
        assert_eq!(
            of("127.0.0.2"),
            [
                (ip("127.0.0.2"), ip("127.0.0.3")),
                (ip("127.0.0.4"), ip("127.0.0.2"))
            ]
        );
        // One that is both ends is one connection.
        assert_eq!(of("::1"), [(ip("::1"), ip("::1"))]);
        assert_eq!(of("127.0.0.9"), []);
        assert_eq!(of("::9"), []);
        // Two ends of one connection, of two families, and more than the kernel is asked for one by one.
        let two: BTreeSet<IpAddr> = [ip("127.0.0.3"), ip("127.0.0.2"), ip("::1")].into();
        assert_eq!(of_all(two.clone()).len(), 3);
        let many = (10..50).map(|n| IpAddr::from([127, 0, 0, n]));
        assert_eq!(of_all(two.into_iter().chain(many).collect()).len(), 3);
    });
}

#[test]
fn a_dump_of_many_is_whole() {
    tracked(|| {
        // Far more than one datagram of a dump holds, and then so many that the kernel is asked for single addresses.
        let client = UdpSocket::bind("127.0.0.2:0").unwrap();
        let mut conntrack = Conntrack::open().unwrap();
        // A second flow from the first one's port would be the first one.
        let mut clients = Vec::new();
        for (ports, all) in [(1000..4000, 3000), (4000..20_000, 19_000)] {
            for port in ports {
                let _ = client.send_to(b"?", ("127.0.0.3", port));
            }
            clients.push(exchange("127.0.0.4", "127.0.0.2", 54));
            clients.push(exchange("::1", "::1", 56));
            assert!((all..all + 10).contains(&conntrack.tracked().unwrap()));
            let mut of = |addresses: &[&str]| {
                let addresses = addresses.iter().map(|address| ip(address)).collect();
                let of = conntrack.involving(&addresses, |_| true).unwrap();
                ends(&of.kept)
                    .into_iter()
                    .fold(BTreeMap::<_, usize>::new(), |mut counted, ends| {
                        *counted.entry(ends).or_default() += 1;
                        counted
                    })
            };
            let many = ((ip("127.0.0.2"), ip("127.0.0.3")), all);
            let one = |from, to, times| ((ip(from), ip(to)), times);
            let times = if all == 3000 { 1 } else { 2 };
            assert_eq!(of(&["127.0.0.3"]), [many].into());
            let other = one("127.0.0.4", "127.0.0.2", times);
            assert_eq!(of(&["127.0.0.2"]), [many, other].into());
            let v6 = one("::1", "::1", times);
            assert_eq!(of(&["127.0.0.4", "::1"]), [other, v6].into());
        }
    });
}

#[test]
fn an_entry_is_deleted_once_and_none_of_another_id() {
    tracked(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let server = UdpSocket::bind("127.0.0.3:53").unwrap();
        let client = UdpSocket::bind("127.0.0.2:4000").unwrap();
        client.connect("127.0.0.3:53").unwrap();
        let mut entry = || {
            client.send(b"?").unwrap();
            server.recv(&mut [0; 8]).unwrap();
            conntrack.all(|_| true).unwrap().kept[0]
        };
        let first = entry();
        let mut other = Conntrack::open().unwrap();
        assert!(other.delete(&first).unwrap());
        assert!(!other.delete(&first).unwrap());
        // The kernel makes an id of the entry's place and its tuple: a successor may have the same, or another.
        let second = entry();
        let predecessor = Entry {
            id: second.id ^ 1,
            ..second
        };
        assert!(!other.delete(&predecessor).unwrap(), "it has another id");
        assert_eq!(entry(), second);
        assert!(other.delete(&second).unwrap());
    });
}
