//! Raw frames go out as they are written, and a capture tells whether they came.

use std::time::Duration;

use selvedge_lab::etherparse::{PacketBuilder, VlanId};
use selvedge_lab::{Error, Lab, Probe, Protocol, wait_until};

/// For frames that shall arrive; one that doesn't is a failure after this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// For frames that shall not.
const SILENCE: Duration = Duration::from_millis(500);

fn lab() -> Result<Lab, Error> {
    Lab::builder()
        .node("node-1")
        .pod("shop/web", "node-1")
        .pod("shop/db", "node-1")
        .build()
}

/// A UDP datagram in a frame, behind the given VLAN tags.
fn datagram(source: [u8; 6], destination: [u8; 6], tags: &[u16], payload: &[u8]) -> Vec<u8> {
    let tag = |index: usize| {
        VlanId::try_new(tags.get(index).copied().unwrap_or(0)).unwrap_or(VlanId::ZERO)
    };
    let builder = PacketBuilder::ethernet2(source, destination);
    let ip = ([10, 244, 1, 2], [10, 244, 1, 3], 64);
    let builder = match tags {
        [] => builder.ipv4(ip.0, ip.1, ip.2),
        [_] => builder.single_vlan(tag(0)).ipv4(ip.0, ip.1, ip.2),
        _ => builder.double_vlan(tag(0), tag(1)).ipv4(ip.0, ip.1, ip.2),
    };
    let mut frame = Vec::new();
    // Writing to a vector fails only for payloads beyond 64 KiB.
    let _ = builder.udp(4000, 4001).write(&mut frame, payload);
    frame
}

#[test]
fn tagged_frames_slip_past_forward_but_not_past_a_bridge_chain() -> Result<(), Error> {
    let lab = lab()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    let node = lab.node("node-1")?;
    node.netns().nft(
        "table inet test { chain forward { type filter hook forward priority 0; udp dport 4001 drop; }; }",
    )?;
    let socket = web.frame_socket()?;
    assert_eq!(socket.mac(), web.mac());
    let kinds: [(&str, &[u16]); 4] = [
        ("plain", &[]),
        ("tag 5", &[5]),
        ("tag 0", &[0]),
        ("QinQ", &[5, 6]),
    ];
    for (payload, tags) in kinds {
        let capture = db.capture()?;
        socket.send(&datagram(web.mac(), db.mac(), tags, payload.as_bytes()))?;
        if tags.is_empty() {
            assert!(!capture.sees(payload.as_bytes(), SILENCE)?, "{payload}");
        } else {
            assert!(capture.sees(payload.as_bytes(), PATIENCE)?, "{payload}");
        }
    }
    node.netns().nft(
        "table bridge test { chain prerouting { type filter hook prerouting priority -300;\n\
         ether type { 8021q, 8021ad } counter drop; }; }",
    )?;
    for (payload, tags) in kinds {
        let capture = db.capture()?;
        socket.send(&datagram(web.mac(), db.mac(), tags, payload.as_bytes()))?;
        assert!(!capture.sees(payload.as_bytes(), SILENCE)?, "{payload}");
    }
    Ok(())
}

#[test]
fn a_spoofed_source_a_router_advertisement_and_a_lone_segment_arrive() -> Result<(), Error> {
    let lab = lab()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    let (socket, capture) = (web.frame_socket()?, db.capture()?);
    let all_nodes = [0xff02, 0, 0, 0, 0, 0, 0, 1].into();

    let mut spoofed = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x77], db.mac())
        .ipv4([10, 244, 1, 77], db.ipv4()?.octets(), 64)
        .udp(1, 2)
        .write(&mut spoofed, b"spoofed")
        .unwrap();
    socket.send(&spoofed)?;
    assert!(capture.sees(b"spoofed", PATIENCE)?);

    let mut segment = Vec::new();
    PacketBuilder::ethernet2(web.mac(), db.mac())
        .ipv4(web.ipv4()?.octets(), db.ipv4()?.octets(), 64)
        .tcp(4000, 80, 1, 1024)
        .ack(7)
        .psh()
        .write(&mut segment, b"no SYN before")
        .unwrap();
    socket.send(&segment)?;
    assert!(capture.sees(b"no SYN before", PATIENCE)?);

    // A default router that does not exist: type 134, lifetime 1800 s.
    let mut advertisement = Vec::new();
    PacketBuilder::ethernet2(web.mac(), [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(
            web.link_local()?.octets(),
            std::net::Ipv6Addr::octets(&all_nodes),
            255,
        )
        .icmpv6_raw(134, 0, [64, 0, 0x07, 0x08])
        .write(&mut advertisement, &[0; 8])
        .unwrap();
    socket.send(&advertisement)?;
    let arrived = capture.wait_for(PATIENCE, |frame| frame.get(54) == Some(&134))?;
    assert!(arrived.is_some());
    // It was whole enough for the kernel to believe it.
    let via = format!("via {}", web.link_local()?);
    wait_until("the false default route", PATIENCE, || {
        let routes = db.netns().command("ip").args(["-6", "route"]).run()?;
        Ok(routes.contains(&via))
    })?;
    Ok(())
}

#[test]
fn a_capture_shows_what_others_send_not_what_the_host_sends() -> Result<(), Error> {
    let lab = lab()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    db.listen(Protocol::Udp, 53)?;
    let (here, there) = (web.capture()?, db.capture()?);
    assert!(web.probe(Probe::udp(db.ipv4()?, 53))?.is_allowed());
    assert!(there.sees(b"probe", PATIENCE)?);
    // The answer repeats the question behind the server's name.
    let answer = here.wait_for(PATIENCE, |frame| frame.ends_with(b"probe"))?;
    assert!(answer.is_some_and(|frame| frame.ends_with(b"shop/db\nprobe")));
    Ok(())
}
