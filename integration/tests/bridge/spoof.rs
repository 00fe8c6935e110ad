//! A pod that sends with its neighbour's address, where it is known which port is whose: nothing of it arrives, and
//! nobody believes it. Its own traffic is untouched, and so are ports that nothing is known of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use selvedge::cluster::Text;
use selvedge::compile;
use selvedge_lab::etherparse::PacketBuilder;
use selvedge_lab::stage::{Manifests, PodManifest, host_of, policy, program};
use selvedge_lab::{Error, Lab, Node, Pod, Probe, Protocol};
use selvedge_nft::IfName;

use super::{arriving, manifests, names, payload};

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

type Frame = (String, Vec<u8>);

/// Pods `shop/web`, `shop/db` and `shop/cache` on one node. Its ruleset is programmed without a daemon, since there is
/// no CNI plugin here that could tell one whose ports are whose.
struct Stage {
    manifests: Manifests,
    lab: Lab,
    node: Node,
    web: Pod,
    db: Pod,
    cache: Pod,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let manifests = manifests()?;
        let cache = PodManifest::new("shop/cache", 1, 4, "app: cache");
        manifests.put("cache.yaml", cache)?;
        let lab = manifests.lab()?.build()?;
        let [web, db, cache] = lab.pods_named(["shop/web", "shop/db", "shop/cache"])?;
        Ok(Self {
            manifests,
            node: lab.node("node-1")?,
            lab,
            web,
            db,
            cache,
        })
    }

    /// Programs the node: whether web's and db's ports are known, and whether web is isolated, which brings the port
    /// guard.
    fn program(&self, attached: bool, isolated: bool) -> Result<(), Error> {
        let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}";
        match isolated {
            true => self
                .manifests
                .put("policy.yaml", policy("shop/web", spec))?,
            false => drop(self.manifests.remove("policy.yaml")),
        }
        let mut host = host_of(&self.lab, &self.node)?;
        for pod in [&self.web, &self.db].into_iter().filter(|_| attached) {
            let port = IfName::new(pod.veth()).unwrap();
            let addresses = pod.addresses().iter().copied();
            host.attached.insert(port, addresses.collect());
        }
        let index = self.manifests.index()?;
        let ruleset = compile::compile(&index, &Text::from(self.node.name()), &host);
        program(&self.node, &ruleset).map(drop)
    }

    /// How many packets the port of a pod has refused.
    fn refused(&self, pod: &Pod) -> Result<u64, Error> {
        let mut sum = 0;
        for chain in [format!("port/{}", pod.veth()), "tagged".to_owned()] {
            let list = ["list", "chain", "bridge", "selvedge", &chain];
            let text = self.node.netns().command("nft").args(list).run()?;
            let counts = text.split("counter packets ").skip(1);
            sum += counts
                .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(sum)
    }
}

/// ARP from a pod, with a name behind it.
fn arp(
    from: &Pod,
    mac: [u8; 6],
    operation: u8,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    name: &str,
) -> Frame {
    let head = [mac, from.mac()].concat();
    let arp = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, operation];
    let body = [&from.mac()[..], &sender.octets(), &[0; 6], &target.octets()].concat();
    let frame = [&head, &arp[..], &body, &payload(name)].concat();
    (name.to_owned(), frame)
}

/// A neighbour advertisement from a pod, which overrides what is known of the target, with a name in an option that
/// nobody knows.
fn advertisement(
    from: &Pod,
    source: Ipv6Addr,
    (mac, to): ([u8; 6], Ipv6Addr),
    target: Ipv6Addr,
    name: &str,
) -> Frame {
    let mut text = payload(name);
    text.resize((text.len() + 2).next_multiple_of(8) - 2, 0);
    let length = ((text.len() + 2) / 8) as u8;
    let body = [
        &target.octets()[..],
        &[2, 1],
        &from.mac(),
        &[253, length],
        &text,
    ]
    .concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), mac)
        .ipv6(source.octets(), to.octets(), 255)
        .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
        .write(&mut frame, &body)
        .unwrap();
    (name.to_owned(), frame)
}

fn datagram4(from: &Pod, to: &Pod, source: Ipv4Addr, name: &str) -> Result<Frame, Error> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), to.mac())
        .ipv4(source.octets(), to.ipv4()?.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, &payload(name))
        .unwrap();
    Ok((name.to_owned(), frame))
}

fn datagram6(from: &Pod, to: &Pod, source: Ipv6Addr, name: &str) -> Result<Frame, Error> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac(), to.mac())
        .ipv6(source.octets(), to.ipv6()?.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, &payload(name))
        .unwrap();
    Ok((name.to_owned(), frame))
}

/// Tags, by the name that a frame has behind them.
type Tags<'a> = (&'a str, &'a [u8]);

const NO_TAG: Tags<'static> = ("", &[]);

/// Frames from `from` to `to` with the address of a third.
fn false_frames(from: &Pod, to: &Pod, whose: &Pod, tags: Tags) -> Result<Vec<Frame>, Error> {
    let (v4, v6) = (whose.ipv4()?, whose.ipv6()?);
    let own = from.ipv6()?;
    let named = |name: &str| format!("{name}{}", tags.0);
    let plain = vec![
        datagram4(from, to, v4, &named("IPv4"))?,
        datagram4(from, to, [192, 0, 2, 1].into(), &named("IPv4 from outside"))?,
        datagram4(from, to, Ipv4Addr::UNSPECIFIED, &named("IPv4 from nowhere"))?,
        datagram6(from, to, v6, &named("IPv6"))?,
        datagram6(
            from,
            to,
            "2001:db8::1".parse().unwrap(),
            &named("IPv6 from outside"),
        )?,
        datagram6(from, to, Ipv6Addr::UNSPECIFIED, &named("IPv6 from nowhere"))?,
        arp(
            from,
            BROADCAST,
            REQUEST,
            v4,
            to.ipv4()?,
            &named("ARP request"),
        ),
        arp(from, BROADCAST, REQUEST, v4, v4, &named("gratuitous ARP")),
        arp(from, to.mac(), REPLY, v4, to.ipv4()?, &named("ARP reply")),
        advertisement(
            from,
            v6,
            (to.mac(), to.ipv6()?),
            v6,
            &named("NA as another"),
        ),
        advertisement(
            from,
            own,
            (to.mac(), to.ipv6()?),
            v6,
            &named("NA for another"),
        ),
        advertisement(
            from,
            own,
            (ALL_NODES_MAC, ALL_NODES),
            v6,
            &named("NA to all"),
        ),
        advertisement(
            from,
            from.link_local()?,
            (to.mac(), to.ipv6()?),
            v6,
            &named("NA from link-local"),
        ),
    ];
    let frames = plain.into_iter().map(|(name, frame)| {
        let (addresses, rest) = frame.split_at(12);
        (name, [addresses, tags.1, rest].concat())
    });
    Ok(frames.collect())
}

/// Frames that a pod may send: with its own address, or to find one.
fn own_frames(from: &Pod, to: &Pod) -> Result<Vec<Frame>, Error> {
    let (v4, v6, link) = (from.ipv4()?, from.ipv6()?, from.link_local()?);
    let there = (to.mac(), to.ipv6()?);
    Ok(vec![
        datagram4(from, to, v4, "own IPv4")?,
        datagram6(from, to, v6, "own IPv6")?,
        arp(from, BROADCAST, REQUEST, v4, to.ipv4()?, "own ARP request"),
        arp(from, BROADCAST, REQUEST, v4, v4, "own gratuitous ARP"),
        arp(from, to.mac(), REPLY, v4, to.ipv4()?, "own ARP reply"),
        arp(
            from,
            BROADCAST,
            REQUEST,
            Ipv4Addr::UNSPECIFIED,
            v4,
            "ARP probe",
        ),
        advertisement(from, v6, there, v6, "own NA"),
        advertisement(from, v6, there, link, "own link-local NA"),
    ])
}

/// What a pod takes the link address of another to be.
fn believes(pod: &Pod, of: IpAddr) -> Result<String, Error> {
    let show = ["neigh", "show", "to", &of.to_string(), "dev", "eth0"];
    pod.netns().command("ip").args(show).run()
}

fn mac(pod: &Pod) -> String {
    pod.mac().map(|byte| format!("{byte:02x}")).join(":")
}

/// Makes `pod` know `other`'s link addresses, and take news of them at once.
fn acquaint(pod: &Pod, other: &Pod) -> Result<(), Error> {
    pod.netns()
        .command("ip")
        .args(["neigh", "flush", "dev", "eth0"])
        .run()?;
    pod.netns()
        .set_sysctls(&[("net/ipv4/neigh/eth0/locktime", "0")])?;
    for address in other.addresses() {
        assert!(pod.probe(Probe::icmp(*address))?.is_allowed());
        assert!(believes(pod, *address)?.contains(&mac(other)));
    }
    Ok(())
}

#[test]
fn a_pod_that_sends_with_its_neighbours_address_is_heard_by_nobody() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db, cache) = (&stage.web, &stage.db, &stage.cache);
    let false_frames = false_frames(web, db, cache, NO_TAG)?;
    let own_frames = own_frames(web, db)?;
    // Without it each arrives, and is believed.
    stage.program(false, false)?;
    acquaint(db, cache)?;
    let control = arriving(web, db, &false_frames, false_frames.len())?;
    assert_eq!(control, names(&false_frames));
    assert_eq!(
        arriving(web, db, &own_frames, own_frames.len())?,
        names(&own_frames)
    );
    for address in cache.addresses() {
        let believed = believes(db, *address)?;
        assert!(believed.contains(&mac(web)), "{believed}");
    }
    for isolated in [false, true] {
        stage.program(true, isolated)?;
        acquaint(db, cache)?;
        let before = stage.refused(web)?;
        let arrived = arriving(web, db, &false_frames, 0)?;
        let refused = stage.refused(web)? - before;
        println!(
            "with a neighbour's address, {} kinds of frames: {} arrive without anti-spoof, {} with it ({refused} refused); guard {}",
            false_frames.len(),
            control.len(),
            arrived.len(),
            if isolated { "on" } else { "off" },
        );
        assert_eq!(arrived, [""; 0]);
        assert_eq!(refused, false_frames.len() as u64);
        for address in cache.addresses() {
            let believed = believes(db, *address)?;
            assert!(believed.contains(&mac(cache)), "{believed}");
        }
        // Its own traffic is untouched.
        let before = stage.refused(web)?;
        assert_eq!(
            arriving(web, db, &own_frames, own_frames.len())?,
            names(&own_frames)
        );
        assert_eq!(stage.refused(web)?, before);
        own_traffic(&stage)?;
        // Of cache's port nothing is known: it may say what it likes, as before.
        let from_cache = self::false_frames(cache, db, web, NO_TAG)?;
        assert_eq!(
            arriving(cache, db, &from_cache, from_cache.len())?,
            names(&from_cache)
        );
    }
    // Taken back, it is as before.
    stage.program(false, false)?;
    assert_eq!(
        arriving(web, db, &false_frames, false_frames.len())?,
        names(&false_frames)
    );
    Ok(())
}

/// Pods find each other and their node anew, and talk; nothing of it is refused.
fn own_traffic(stage: &Stage) -> Result<(), Error> {
    let (web, db) = (&stage.web, &stage.db);
    let before = (stage.refused(web)?, stage.refused(db)?);
    // The node, too: a port that nothing is known of may have told it anything.
    for (netns, link) in [
        (web.netns(), "eth0"),
        (db.netns(), "eth0"),
        (stage.node.netns(), "cni0"),
    ] {
        let flush = ["neigh", "flush", "dev", link];
        netns.command("ip").args(flush).run()?;
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        db.listen(protocol, 80)?;
        for address in db.addresses() {
            let probe = Probe::new(protocol, *address, 80);
            let outcome = web.probe(probe)?;
            assert!(outcome.is_allowed(), "{protocol:?} to {address}: {outcome}");
        }
    }
    for address in web.addresses() {
        assert!(stage.node.probe(Probe::icmp(*address))?.is_allowed());
    }
    for gateway in ["10.244.1.1", "fd00:10:244:1::1"] {
        let gateway: IpAddr = gateway.parse().unwrap();
        assert!(web.probe(Probe::icmp(gateway))?.is_allowed());
    }
    let link_local = stage.node.link_local()?;
    assert!(web.probe(Probe::icmp(link_local))?.is_allowed());
    assert_eq!((stage.refused(web)?, stage.refused(db)?), before);
    Ok(())
}

#[test]
fn no_tag_hides_a_neighbours_address() -> Result<(), Error> {
    let stage = Stage::new()?;
    let (web, db, cache) = (&stage.web, &stage.db, &stage.cache);
    let tags: [Tags; 5] = [
        (" behind 802.1Q", &[0x81, 0x00, 0, 5]),
        (" behind a priority tag", &[0x81, 0x00, 0x60, 0]),
        (" behind 802.1ad", &[0x88, 0xa8, 0, 5]),
        (" behind QinQ", &[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6]),
        (
            " behind two priority tags",
            &[0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0],
        ),
    ];
    let mut frames = Vec::new();
    for tags in tags {
        frames.extend(false_frames(web, db, cache, tags)?);
    }
    stage.program(false, false)?;
    acquaint(db, cache)?;
    let control = arriving(web, db, &frames, frames.len())?;
    assert_eq!(control, names(&frames));
    // A receiver takes tags of VLAN 0 off, and believes what is behind them.
    for address in cache.addresses() {
        let believed = believes(db, *address)?;
        assert!(believed.contains(&mac(web)), "{believed}");
    }
    for (attached, isolated) in [(false, true), (true, false), (true, true)] {
        stage.program(attached, isolated)?;
        acquaint(db, cache)?;
        let arrived = arriving(web, db, &frames, 0)?;
        println!(
            "a neighbour's address behind tags, {} frames: {} arrive without any, {} with {}",
            frames.len(),
            control.len(),
            arrived.len(),
            match (attached, isolated) {
                (true, true) => "the port guard and anti-spoof",
                (true, false) => "anti-spoof",
                _ => "the port guard",
            },
        );
        assert_eq!(arrived, [""; 0]);
        for address in cache.addresses() {
            let believed = believes(db, *address)?;
            assert!(believed.contains(&mac(cache)), "{believed}");
        }
    }
    Ok(())
}
