use std::net::Ipv6Addr;

use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::{Error, Pod, Probe, wait_until};

use super::{PATIENCE, SILENCE, Stage};

const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn icmpv6(from: (&Pod, Ipv6Addr), mac: [u8; 6], to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    // A router lifetime of 1800 s, where it is read so.
    PacketBuilder::ethernet2(from.0.mac(), mac)
        .ipv6(from.1.octets(), to.octets(), 255)
        .icmpv6_raw(kind, 0, [64, 0, 0x07, 0x08])
        .write(&mut frame, body)
        .unwrap();
    frame
}

#[test]
fn neighbours_are_found_while_pods_are_isolated() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db) = (&stage.web, &stage.db);
    db.listen(selvedge_lab::Protocol::Tcp, 80)?;
    stage.enforce(
        "{podSelector: {}, policyTypes: [Ingress, Egress], \
         ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}], egress: [{to: [{podSelector: {}}]}]}",
    )?;
    for _ in 0..3 {
        for pod in [web, db] {
            let flush = ["-6", "neigh", "flush", "dev", "eth0"];
            pod.netns().command("ip").args(flush).run()?;
        }
        let outcome = web.probe(Probe::tcp(db.ipv6()?, 80))?;
        assert_eq!(outcome.answered_by(), Some("shop/db"));
        // And nothing but the port is open.
        let other = Probe::tcp(db.ipv6()?, 81).window(SILENCE);
        assert!(web.probe(other)?.is_denied());
    }
    // The node finds its pods too, and they it.
    let flush = ["-6", "neigh", "flush", "dev", "cni0"];
    stage.node.netns().command("ip").args(flush).run()?;
    assert!(stage.node.probe(Probe::tcp(db.ipv6()?, 80))?.is_allowed());
    Ok(())
}

#[test]
fn router_advertisements_and_redirects_never_come_from_a_pod() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db) = (&stage.web, &stage.db);
    let socket = web.frame_socket()?;
    let link_local = web.link_local()?;
    let all_nodes_mac = [0x33, 0x33, 0, 0, 0, 1];
    // A redirect's target and destination, as if the gateway had sent it.
    let target = [link_local.octets(), db.ipv6()?.octets()].concat();
    let frames = [
        icmpv6(
            (web, link_local),
            all_nodes_mac,
            ALL_NODES,
            ROUTER_ADVERTISEMENT,
            &[0; 8],
        ),
        icmpv6(
            (web, link_local),
            db.mac(),
            db.link_local()?,
            ROUTER_ADVERTISEMENT,
            &[0; 8],
        ),
        icmpv6(
            (web, web.ipv6()?),
            db.mac(),
            db.ipv6()?,
            ROUTER_ADVERTISEMENT,
            &[0; 8],
        ),
        icmpv6(
            (web, stage.node.link_local()?),
            db.mac(),
            db.ipv6()?,
            ROUTER_ADVERTISEMENT,
            &[0; 8],
        ),
        icmpv6(
            (web, stage.node.link_local()?),
            db.mac(),
            db.ipv6()?,
            REDIRECT,
            &target,
        ),
        icmpv6(
            (web, link_local),
            db.mac(),
            db.link_local()?,
            REDIRECT,
            &target,
        ),
    ];
    let type_of = |frame: &[u8]| match frame.get(12..14) {
        Some([0x86, 0xdd]) if frame.get(20) == Some(&58) => frame.get(54).copied(),
        _ => None,
    };
    // With isolated pods and without.
    for isolated in [false, true] {
        if isolated {
            stage.enforce("{podSelector: {matchLabels: {app: web}}, ingress: [{}]}")?;
        }
        for frame in &frames {
            let capture = db.capture()?;
            socket.send(frame)?;
            // An echo request behind it shows that there is nothing wrong with the way.
            if !isolated {
                assert!(web.probe(Probe::icmp(db.ipv6()?))?.is_allowed());
            }
            let bad =
                |seen: &[u8]| [Some(ROUTER_ADVERTISEMENT), Some(REDIRECT)].contains(&type_of(seen));
            assert_eq!(capture.wait_for(SILENCE, bad)?, None);
        }
    }
    // The node may: it is the pods' router.
    let capture = db.capture()?;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0xcb, 0, 0, 0, 1], db.mac())
        .ipv6(
            stage.node.link_local()?.octets(),
            db.link_local()?.octets(),
            255,
        )
        .icmpv6_raw(ROUTER_ADVERTISEMENT, 0, [64, 0, 0, 0])
        .write(&mut frame, &[0; 8])
        .unwrap();
    stage.node.frame_socket()?.send(&frame)?;
    let from_node = |seen: &[u8]| type_of(seen) == Some(ROUTER_ADVERTISEMENT);
    assert!(capture.wait_for(PATIENCE, from_node)?.is_some());
    wait_until("no default route by a pod", PATIENCE, || {
        let routes = db.netns().command("ip").args(["-6", "route"]).run()?;
        Ok(!routes.contains(&format!("via {link_local}")))
    })
}
