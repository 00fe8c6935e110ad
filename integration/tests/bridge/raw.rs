//! Raw frames from an isolated pod and to one, of every kind that no policy can be about: none is delivered, and each
//! would be without Selvedge.

use std::net::{Ipv4Addr, Ipv6Addr};

use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::stage;
use selvedge_lab::{Error, Pod};

use super::{ISOLATE_DB, Stage, arriving, manifests, names, payload};

type Frame = (String, Vec<u8>);

const TAGS: [(&str, &[u8]); 7] = [
    ("802.1Q", &[0x81, 0x00, 0, 5]),
    ("802.1ad", &[0x88, 0xa8, 0, 5]),
    ("802.1ad and 802.1Q", &[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6]),
    ("802.1Q twice", &[0x81, 0x00, 0, 5, 0x81, 0x00, 0, 6]),
    ("a priority tag", &[0x81, 0x00, 0x60, 0]),
    ("an 802.1ad priority tag", &[0x88, 0xa8, 0x60, 0]),
    ("two priority tags", &[0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0]),
];

const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn udp4(from: &Pod, mac: [u8; 6], to: Ipv4Addr, name: &str) -> Result<Frame, Error> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), mac)
        .ipv4(from.ipv4()?.octets(), to.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, &payload(name))
        .unwrap();
    Ok((name.to_owned(), frame))
}

fn udp6(
    from: &Pod,
    source: Ipv6Addr,
    (mac, to): ([u8; 6], Ipv6Addr),
    name: &str,
) -> Result<Frame, Error> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), mac)
        .ipv6(source.octets(), to.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, &payload(name))
        .unwrap();
    Ok((name.to_owned(), frame))
}

/// A message of neighbour discovery with its name in an option that nobody knows.
fn discovery(
    from: &Pod,
    (mac, to): ([u8; 6], Ipv6Addr),
    (kind, body): (u8, Vec<u8>),
    name: &str,
) -> Result<Frame, Error> {
    let mut text = payload(name);
    text.resize((text.len() + 2).next_multiple_of(8) - 2, 0);
    let option = [253, ((text.len() + 2) / 8) as u8];
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), mac)
        .ipv6(from.link_local()?.octets(), to.octets(), 255)
        .icmpv6_raw(kind, 0, [64, 0, 0, 0])
        .write(&mut frame, &[&body[..], &option, &text].concat())
        .unwrap();
    Ok((name.to_owned(), frame))
}

/// The link address of a group.
fn group(to: Ipv4Addr) -> [u8; 6] {
    let [_, b, c, d] = to.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

fn group6(to: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = to.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Every kind of frame from one pod to the other.
fn frames(from: &Pod, to: &Pod) -> Result<Vec<Frame>, Error> {
    let (mac4, mac6) = ((to.mac(), to.ipv4()?), (to.mac(), to.ipv6()?));
    let mut frames = Vec::new();
    for (tag, bytes) in TAGS {
        let inner = [
            udp4(from, mac4.0, mac4.1, &format!("IPv4 behind {tag}"))?,
            udp6(from, from.ipv6()?, mac6, &format!("IPv6 behind {tag}"))?,
        ];
        for (name, frame) in inner {
            let (addresses, rest) = frame.split_at(12);
            frames.push((name, [addresses, bytes, rest].concat()));
        }
    }
    for to in [[224, 0, 0, 251], [239, 1, 2, 3]].map(Ipv4Addr::from) {
        frames.push(udp4(from, group(to), to, &format!("to {to}"))?);
    }
    for to in [[255, 255, 255, 255], [10, 244, 1, 255]].map(Ipv4Addr::from) {
        frames.push(udp4(from, [0xff; 6], to, &format!("to {to}"))?);
    }
    let (own, link_local) = (from.ipv6()?, from.link_local()?);
    for to in ["ff02::1", "ff05::9"].map(|text| text.parse::<Ipv6Addr>().unwrap()) {
        frames.push(udp6(from, own, (group6(to), to), &format!("to {to}"))?);
    }
    frames.push(udp6(
        from,
        own,
        (to.mac(), to.link_local()?),
        "to link-local",
    )?);
    frames.push(udp6(from, link_local, mac6, "from link-local")?);
    let all = (group6(ALL_NODES), ALL_NODES);
    let one = (to.mac(), to.link_local()?);
    // No lifetime: nobody shall take it for a router.
    let advertisement = || (ROUTER_ADVERTISEMENT, vec![0; 8]);
    frames.push(discovery(
        from,
        all,
        advertisement(),
        "advertisement to all",
    )?);
    frames.push(discovery(
        from,
        one,
        advertisement(),
        "advertisement to one",
    )?);
    let target = [
        link_local.octets(),
        "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
    ];
    let redirect = (REDIRECT, target.concat());
    frames.push(discovery(from, one, redirect, "redirect")?);
    Ok(frames)
}

#[test]
fn raw_frames_reach_no_isolated_pod_and_come_from_none() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    let (to_db, from_db) = (frames(&web, &db)?, frames(&db, &web)?);
    let arriving = |due: [usize; 2]| {
        let [to, from] = due;
        let to = arriving(&web, &db, &to_db, to)?;
        Ok::<_, Error>([to, arriving(&db, &web, &from_db, from)?])
    };
    let control = arriving([to_db.len(), from_db.len()])?;
    assert_eq!(control, [names(&to_db), names(&from_db)]);
    let daemon = stage::daemon(&lab.node("node-1")?, manifests.path())?;
    let stage = Stage::of(manifests, lab, daemon)?;
    // Without a policy all pass but what no pod has a say in.
    let never = |names: Vec<String>| {
        let says = |name: &String| !name.contains("advertisement") && name != "redirect";
        names.into_iter().filter(says).collect::<Vec<_>>()
    };
    let passing = [never(names(&to_db)), never(names(&from_db))];
    let open = arriving(passing.each_ref().map(Vec::len))?;
    assert_eq!(open, passing);
    // Once with no peer, and once with everybody let in and out: no policy names such frames.
    let admit = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], \
                 ingress: [{}], egress: [{}]}";
    for (policy, spec) in [("nobody", ISOLATE_DB), ("everybody", admit)] {
        stage.enforce(spec)?;
        let isolated = arriving([0, 0])?;
        println!(
            "raw frames, {} kinds each way, a policy that admits {policy}: to an isolated pod {} arrive, from one {}; \
             without Selvedge {} and {}, with it and no policy {} and {}",
            to_db.len(),
            isolated[0].len(),
            isolated[1].len(),
            control[0].len(),
            control[1].len(),
            open[0].len(),
            open[1].len(),
        );
        assert_eq!(isolated, [[""; 0]; 2]);
    }
    Ok(())
}
