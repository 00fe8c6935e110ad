use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::{Error, Outcome, Pod, Probe, Protocol};

use super::{ISOLATE_DB, SILENCE, Stage, arriving, names, payload};

/// The port that the pods' servers are at, unless another is named.
pub(super) const PORT: u16 = 9;

/// Ways to a pod on the same bridge that no policy can name, all to a server on `[::]`. Nobody but that pod may serve
/// the port: multicast comes back to its sender too.
pub(super) fn detours_to(to: &Pod, port: u16) -> Result<Vec<Probe>, Error> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let shared: [IpAddr; 4] = [
        all_nodes.into(),
        [224, 0, 0, 1].into(),
        [255, 255, 255, 255].into(),
        [10, 244, 1, 255].into(),
    ];
    let link_local = to.link_local()?;
    let mut probes = vec![Probe::icmp(link_local)];
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        to.listen(protocol, port)?;
        probes.push(Probe::new(protocol, link_local, port));
    }
    probes.extend(shared.map(|address| Probe::udp(address, port)));
    Ok(probes)
}

/// The same, where none shall get through: what would get through does so soon.
fn hasty(probes: &[Probe]) -> Vec<Probe> {
    let probes = probes.iter().cloned();
    probes.map(|probe| probe.window(SILENCE)).collect()
}

fn assert_all(
    from: &Pod,
    probes: &[Probe],
    what: &str,
    is: fn(&Outcome) -> bool,
) -> Result<(), Error> {
    for (probe, outcome) in probes.iter().zip(from.probe_all(probes)?) {
        assert!(is(&outcome), "{what}: {} {probe:?}: {outcome}", from.name());
    }
    Ok(())
}

#[test]
fn an_isolated_pod_is_isolated_on_addresses_that_no_policy_names() -> Result<(), Error> {
    let stage = Stage::new()?;
    let to_db = detours_to(&stage.db, PORT)?;
    let from_db = detours_to(&stage.web, PORT + 1)?;
    let (web, db) = (&stage.web, &stage.db);
    assert_all(web, &to_db, "open", Outcome::is_allowed)?;
    assert_all(db, &from_db, "open", Outcome::is_allowed)?;
    stage.enforce(ISOLATE_DB)?;
    assert_all(web, &hasty(&to_db), "isolated", Outcome::is_denied)?;
    assert_all(db, &hasty(&from_db), "isolated", Outcome::is_denied)?;
    // A policy that admits everyone names no such address either.
    let admit = "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}";
    stage.enforce(admit)?;
    assert_all(web, &hasty(&to_db), "admitted", Outcome::is_denied)?;
    assert!(web.reaches(db, Protocol::Tcp, PORT)?);
    // A pod and its own node reach each other, also there.
    let node = stage.node.link_local()?;
    assert!(db.probe(Probe::icmp(node))?.is_allowed());
    assert!(
        stage
            .node
            .probe(Probe::icmp(db.link_local()?))?
            .is_allowed()
    );
    stage.release()?;
    assert_all(web, &to_db, "open again", Outcome::is_allowed)?;
    Ok(())
}

#[test]
fn nor_by_packets_with_addresses_that_no_socket_sends() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db) = (&stage.web, &stage.db);
    let mut frames = Vec::new();
    for (name, from, to) in [
        (
            "from and to nowhere",
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
        ),
        ("to nowhere", web.ipv4()?, Ipv4Addr::UNSPECIFIED),
        (
            "to the broadcast address in a unicast frame",
            web.ipv4()?,
            [10, 244, 1, 255].into(),
        ),
        (
            "to a group in a unicast frame",
            web.ipv4()?,
            [239, 1, 2, 3].into(),
        ),
    ] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(web.mac(), db.mac())
            .ipv4(from.octets(), to.octets(), 64)
            .udp(4000, PORT)
            .write(&mut frame, &payload(name))
            .unwrap();
        frames.push((name.to_owned(), frame));
    }
    for (name, from, to) in [
        ("from a link-local address", web.link_local()?, db.ipv6()?),
        (
            "from a link-local address of the upper half",
            "febf::1".parse().unwrap(),
            db.ipv6()?,
        ),
        (
            "to a group of the site",
            web.ipv6()?,
            "ff05::9".parse().unwrap(),
        ),
    ] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(web.mac(), db.mac())
            .ipv6(from.octets(), to.octets(), 64)
            .udp(4000, PORT)
            .write(&mut frame, &payload(name))
            .unwrap();
        frames.push((name.to_owned(), frame));
    }
    assert_eq!(arriving(web, db, &frames, frames.len())?, names(&frames));
    stage.enforce(ISOLATE_DB)?;
    assert_eq!(arriving(web, db, &frames, 0)?, [""; 0]);
    Ok(())
}
