use std::net::IpAddr;

use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::stage::committed;
use selvedge_lab::{Error, Pod, PodSpec, Protocol};

use super::{Stage, arriving, names, payload};

/// TCP segments that start no connection, by the names of their flags, each with its own ports.
const SEGMENTS: [&str; 6] = ["ACK", "PSH ACK", "FIN ACK", "RST", "SYN ACK", "none"];

fn segment(
    from: (&Pod, IpAddr),
    to: (&Pod, IpAddr),
    flags: &str,
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from.0.mac(), to.0.mac());
    let ip = match (from.1, to.1) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("one family"),
    };
    let mut tcp = ip.tcp(port, 80, 1000, 1024);
    for flag in flags.split(' ') {
        tcp = match flag {
            "ACK" => tcp.ack(2000),
            "PSH" => tcp.psh(),
            "FIN" => tcp.fin(),
            "RST" => tcp.rst(),
            "SYN" => tcp.syn(),
            _ => tcp,
        };
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).unwrap();
    frame
}

/// All segments from one pod to another over both families, by name, each from a port of its own from `first_port` on.
fn segments(from: &Pod, to: &Pod, first_port: u16) -> Vec<(String, Vec<u8>)> {
    let mut ports = first_port..;
    let mut frames = Vec::new();
    for (source, target) in from.addresses().iter().zip(to.addresses()) {
        let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
        for flags in SEGMENTS {
            let name = format!("{flags} {family}");
            let port = ports.next().unwrap();
            let frame = segment((from, *source), (to, *target), flags, port, &payload(&name));
            frames.push((name, frame));
        }
    }
    frames
}

/// Which segments arrive, sent from ports that no connection has had; so many are due.
fn passing(from: &Pod, to: &Pod, first_port: u16, due: usize) -> Result<Vec<String>, Error> {
    arriving(from, to, &segments(from, to, first_port), due)
}

#[test]
fn an_isolated_pod_s_connections_start_with_syn() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db) = (&stage.web, &stage.db);
    db.listen(Protocol::Tcp, 80)?;
    let all = names(&segments(web, db, 20_000));
    assert_eq!(passing(web, db, 20_000, all.len())?, all);
    // The policy lets web in: its handshakes pass, its lone segments don't, and nor do those of db to web.
    stage.enforce(
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}",
    )?;
    assert_eq!(passing(web, db, 21_000, 0)?, [""; 0]);
    assert_eq!(passing(db, web, 22_000, 0)?, [""; 0]);
    assert!(web.reaches(db, Protocol::Tcp, 80)?);
    let (from, to) = (web.ipv4()?.into(), db.ipv4()?.into());
    let syn = segment((web, from), (db, to), "SYN", 23_000, &payload("SYN"));
    assert_eq!(arriving(web, db, &[("SYN".to_owned(), syn)], 1)?, ["SYN"]);
    stage.release()?;
    assert_eq!(passing(web, db, 24_000, all.len())?, all);
    Ok(())
}

#[test]
fn pods_that_are_not_isolated_are_left_alone_beside_one_that_is() -> Result<(), Error> {
    let stage = Stage::new()?;
    // The daemon hears of its port, and commits it.
    committed(&[&stage.daemon], || {
        let other = PodSpec::new("dev/other", "node-1");
        stage.lab.add_pod(other).map(drop)
    })?;
    let other = stage.lab.pod("dev/other")?;
    stage.enforce("{podSelector: {matchLabels: {app: db}}, ingress: [{}]}")?;
    assert_eq!(passing(&stage.web, &stage.db, 20_000, 0)?, [""; 0]);
    let all = 2 * SEGMENTS.len();
    assert_eq!(passing(&stage.web, &other, 21_000, all)?.len(), all);
    Ok(())
}
