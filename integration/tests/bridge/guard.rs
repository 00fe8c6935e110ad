use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::stage::committed;
use selvedge_lab::{Error, Pod, PodSpec, Probe, Protocol};

use super::{ISOLATE_DB, Stage, arriving, detours, names, payload};

/// A UDP datagram from one pod to another.
fn datagram(from: &Pod, to: &Pod, name: &str) -> Result<Vec<u8>, Error> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), to.mac())
        .ipv4(from.ipv4()?.octets(), to.ipv4()?.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, &payload(name))
        .unwrap();
    Ok(frame)
}

fn plain(from: &Pod, to: &Pod) -> Result<[(String, Vec<u8>); 1], Error> {
    Ok([("plain".to_owned(), datagram(from, to, "plain")?)])
}

/// Frames that netfilter's IP hooks don't see, by name.
fn unseen(from: &Pod, to: &Pod) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let heads: [(&str, &[u8]); 9] = [
        ("802.1Q", &[0x81, 0x00, 0, 5]),
        ("priority tag", &[0x81, 0x00, 0x60, 0]),
        ("802.1ad", &[0x88, 0xa8, 0, 5]),
        ("QinQ", &[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6]),
        ("old QinQ", &[0x81, 0x00, 0, 5, 0x81, 0x00, 0, 6]),
        ("two priority tags", &[0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0]),
        ("MPLS", &[0x88, 0x47, 0, 0, 0x11, 0x40]),
        ("PPPoE", &[0x88, 0x64, 0x11, 0, 0, 1, 0, 60]),
        ("LLC", &[0, 60]),
    ];
    let frame = |(name, head): (&str, &[u8])| {
        let plain = datagram(from, to, name)?;
        let (addresses, rest) = plain.split_at(12);
        Ok((name.to_owned(), [addresses, head, rest].concat()))
    };
    heads.into_iter().map(frame).collect()
}

#[test]
fn frames_without_ip_pass_only_while_no_pod_is_isolated() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db) = (&stage.web, &stage.db);
    let (there, back) = (unseen(web, db)?, unseen(db, web)?);
    assert_eq!(arriving(web, db, &there, there.len())?, names(&there));
    stage.enforce(ISOLATE_DB)?;
    assert_eq!(arriving(web, db, &there, 0)?, [""; 0]);
    assert_eq!(arriving(db, web, &back, 0)?, [""; 0]);
    // The pods' own IP traffic passes, and ARP: the neighbours are asked for anew.
    for pod in [web, db] {
        let flush = ["neigh", "flush", "dev", "eth0"];
        pod.netns().command("ip").args(flush).run()?;
    }
    stage.enforce("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")?;
    db.listen(Protocol::Tcp, 80)?;
    assert!(web.reaches(db, Protocol::Tcp, 80)?);
    assert_eq!(arriving(web, db, &plain(web, db)?, 1)?, ["plain"]);
    assert_eq!(arriving(web, db, &there, 0)?, [""; 0]);
    stage.release()?;
    assert_eq!(arriving(web, db, &there, there.len())?, names(&there));
    Ok(())
}

#[test]
fn a_pod_that_comes_later_is_guarded_like_the_others() -> Result<(), Error> {
    let stage = Stage::new()?;
    stage.enforce(ISOLATE_DB)?;
    let mut late = None;
    committed(&[&stage.daemon], || {
        late = Some(stage.lab.add_pod(PodSpec::new("shop/late", "node-1"))?);
        Ok(())
    })?;
    let late = late.unwrap();
    for other in [&stage.db, &stage.web] {
        let frames = unseen(&late, other)?;
        assert_eq!(arriving(&late, other, &frames, 0)?, [""; 0]);
    }
    let plain = plain(&late, &stage.web)?;
    assert_eq!(arriving(&late, &stage.web, &plain, 1)?, ["plain"]);
    // Its port goes with it.
    committed(&[&stage.daemon], || {
        stage.lab.remove_pod("shop/late").map(drop)
    })?;
    let ports = ["list", "set", "bridge", "selvedge", "ports"];
    let ports = stage.node.netns().command("nft").args(ports).run()?;
    assert!(ports.contains(stage.db.veth()), "{ports}");
    assert!(!ports.contains(late.veth()), "{ports}");
    Ok(())
}

#[test]
fn other_bridges_of_the_node_are_left_alone() -> Result<(), Error> {
    let manifests = super::manifests()?;
    let lab = manifests
        .lab()?
        .pod("docker/a", "node-1")
        .pod("docker/b", "node-1")
        .build()?;
    let [a, b] = lab.pods_named(["docker/a", "docker/b"])?;
    lab.node("node-1")?.netns().ip_batch(&format!(
        "link add docker0 type bridge\n\
         addr add 172.17.0.1/16 dev docker0\n\
         link set docker0 up\n\
         link set {} master docker0\n\
         link set {} master docker0\n",
        a.veth(),
        b.veth()
    ))?;
    let daemon = selvedge_lab::stage::daemon(&lab.node("node-1")?, manifests.path())?;
    let stage = Stage::of(manifests, lab, daemon)?;
    stage.enforce(ISOLATE_DB)?;
    let frames = unseen(&stage.web, &stage.db)?;
    assert_eq!(arriving(&stage.web, &stage.db, &frames, 0)?, [""; 0]);
    let frames = unseen(&a, &b)?;
    assert_eq!(arriving(&a, &b, &frames, frames.len())?, names(&frames));
    let probes = detours::detours_to(&b, detours::PORT)?;
    for (probe, outcome) in probes.iter().zip(a.probe_all(&probes)?) {
        assert!(outcome.is_allowed(), "{probe:?}: {outcome}");
    }
    assert!(a.probe(Probe::tcp(b.ipv4()?, detours::PORT))?.is_allowed());
    Ok(())
}
