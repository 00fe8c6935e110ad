//! Without a policy engine everything reaches everything; what stands in the way is seen; what serves is told from
//! what is only reachable.

use std::net::IpAddr;

use selvedge_lab::{
    Error, Families, Host, Lab, Matrix, NodeSpec, Outcome, PodSpec, Probe, Protocol, probe_all,
};

const PROTOCOLS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];

fn two_nodes() -> Result<Lab, Error> {
    Lab::builder()
        .node("node-1")
        .node("node-2")
        .pod("shop/web", "node-1")
        .pod("shop/api", "node-1")
        .pod("shop/db", "node-2")
        .outsider(
            "outsider",
            [
                IpAddr::from([203, 0, 113, 7]),
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
            ],
        )
        .build()
}

fn drop_in_forward(rule: &str) -> String {
    format!(
        "table inet test {{ chain forward {{ type filter hook forward priority 0; {rule} counter drop; }}; }}"
    )
}

#[test]
fn everything_reaches_everything() -> Result<(), Error> {
    let lab = two_nodes()?;
    let mut hosts: Vec<Host> = lab.pods().iter().map(|pod| (**pod).clone()).collect();
    hosts.extend(lab.nodes().iter().map(|node| (**node).clone()));
    hosts.extend(lab.outsiders().iter().cloned());
    let mut probes = Vec::new();
    let mut expected = Vec::new();
    for to in &hosts {
        for protocol in PROTOCOLS {
            to.listen(protocol, 8080)?;
            for address in to.addresses() {
                for from in &hosts {
                    probes.push((from.clone(), Probe::new(protocol, *address, 8080)));
                    let by = (protocol != Protocol::Icmp).then(|| to.name().to_owned());
                    expected.push(Outcome::Connected { by });
                }
            }
        }
    }
    let outcomes = probe_all(&probes)?;
    for (((from, probe), outcome), expected) in probes.iter().zip(&outcomes).zip(&expected) {
        assert_eq!(outcome, expected, "{} {probe:?}", from.name());
    }
    Ok(())
}

#[test]
fn families_that_disagree_are_no_single_answer() -> Result<(), Error> {
    let lab = two_nodes()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    let node = lab.node("node-2")?;
    db.listen(Protocol::Udp, 53)?;
    assert!(web.reaches(&db, Protocol::Udp, 53)?);
    node.netns().nft(&drop_in_forward("meta nfproto ipv6"))?;
    let error = web.reaches(&db, Protocol::Udp, 53).err();
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("fd00:10:244:2::2 denied"), "{text}");
    node.netns().nft(&drop_in_forward("meta nfproto ipv4"))?;
    assert!(!web.reaches(&db, Protocol::Udp, 53)?);
    Ok(())
}

#[test]
fn a_port_that_nobody_serves_is_refused() -> Result<(), Error> {
    let lab = two_nodes()?;
    let [web, api, db] = lab.pods_named(["shop/web", "shop/api", "shop/db"])?;
    api.listen(Protocol::Sctp, 1)?;
    for to in [&web, &api, &db] {
        for address in to.addresses() {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let outcome = web.probe(Probe::new(protocol, *address, 8080))?;
                assert_eq!(outcome, Outcome::Refused, "{protocol} {address}");
            }
        }
    }
    // A port closed again is refused again.
    api.listen(Protocol::Tcp, 80)?;
    let probe = Probe::tcp(api.ipv4()?, 80);
    assert_eq!(web.probe(probe.clone())?.answered_by(), Some("shop/api"));
    api.close(Protocol::Tcp, 80)?;
    assert_eq!(web.probe(probe)?, Outcome::Refused);
    Ok(())
}

#[test]
fn bridged_traffic_meets_hook_forward_only_with_br_netfilter() -> Result<(), Error> {
    for br_netfilter in [true, false] {
        let lab = Lab::builder()
            .br_netfilter(br_netfilter)
            .node("node-1")
            .pod("shop/web", "node-1")
            .pod("shop/api", "node-1")
            .build()?;
        let [web, api] = lab.pods_named(["shop/web", "shop/api"])?;
        let node = lab.node("node-1")?;
        for key in ["iptables", "ip6tables"] {
            let value = node
                .netns()
                .sysctl(&format!("net/bridge/bridge-nf-call-{key}"))?;
            assert_eq!(value, if br_netfilter { "1" } else { "0" });
        }
        node.netns()
            .nft(&drop_in_forward("meta l4proto { tcp, udp, sctp }"))?;
        let mut probes = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            api.listen(protocol, 8080)?;
            for address in api.addresses() {
                probes.push(Probe::new(protocol, *address, 8080));
            }
        }
        for (probe, outcome) in probes.iter().zip(web.probe_all(&probes)?) {
            assert_eq!(outcome.is_denied(), br_netfilter, "{probe:?}: {outcome}");
            assert_eq!(outcome.is_allowed(), !br_netfilter, "{probe:?}: {outcome}");
        }
    }
    Ok(())
}

#[test]
fn the_namespaces_sysctls_are_not_the_machines() -> Result<(), Error> {
    let machine = || std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").ok();
    let before = machine();
    let off = Lab::builder().br_netfilter(false).node("off").build()?;
    let on = Lab::builder().node("on").build()?;
    let key = "net/bridge/bridge-nf-call-iptables";
    assert_eq!(off.node("off")?.netns().sysctl(key)?, "0");
    assert_eq!(on.node("on")?.netns().sysctl(key)?, "1");
    assert_eq!(machine(), before);
    Ok(())
}

#[test]
fn link_local_and_multicast_addresses_are_served() -> Result<(), Error> {
    let lab = Lab::builder()
        .node("node-1")
        .pod("shop/web", "node-1")
        .pod("shop/api", "node-1")
        .build()?;
    let [web, api] = lab.pods_named(["shop/web", "shop/api"])?;
    for protocol in PROTOCOLS {
        api.listen(protocol, 9)?;
    }
    let by = Some("shop/api");
    let link_local = api.link_local()?;
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let outcome = web.probe(Probe::new(protocol, link_local, 9))?;
        assert_eq!(outcome.answered_by(), by, "{protocol}: {outcome}");
    }
    assert!(web.probe(Probe::icmp(link_local))?.is_allowed());
    let all: [IpAddr; 4] = [
        IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]),
        [224, 0, 0, 1].into(),
        [255, 255, 255, 255].into(),
        [10, 244, 1, 255].into(),
    ];
    for address in all {
        let outcome = web.probe(Probe::udp(address, 9))?;
        assert_eq!(outcome.answered_by(), by, "{address}: {outcome}");
    }
    Ok(())
}

#[test]
fn a_probe_that_cannot_be_made_is_no_verdict() -> Result<(), Error> {
    let lab = Lab::builder()
        .families(Families::Ipv4)
        .node("node-1")
        .pod("shop/web", "node-1")
        .build()?;
    let web = lab.pod("shop/web")?;
    let outcome = web.probe(Probe::tcp([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80))?;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome}");
    assert!(!outcome.is_allowed() && !outcome.is_denied());
    Ok(())
}

#[test]
fn source_addresses_and_ports_are_kept() -> Result<(), Error> {
    let lab = two_nodes()?;
    let db = lab.pod("shop/db")?;
    let outsider = lab.outsider("outsider")?;
    let node = lab.node("node-2")?;
    node.netns()
        .nft(&drop_in_forward("ip saddr 203.0.113.7 th sport 40000"))?;
    let mut probes = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        db.listen(protocol, 80)?;
        let probe = Probe::new(protocol, db.ipv4()?, 80);
        let second = probe.clone().from_address([203, 0, 113, 7]);
        probes.push(second.clone().from_port(40_000));
        probes.push(second.from_port(40_001));
        probes.push(probe.from_port(40_000));
    }
    let outcomes = outsider.probe_all(&probes)?;
    for of_one_protocol in outcomes.chunks(3) {
        let denied: Vec<bool> = of_one_protocol.iter().map(Outcome::is_denied).collect();
        assert_eq!(denied, [true, false, false], "{outcomes:?}");
    }
    Ok(())
}

#[test]
fn a_new_pod_inherits_an_address_at_once() -> Result<(), Error> {
    let lab = two_nodes()?;
    let [web, db, api] = lab.pods_named(["shop/web", "shop/db", "shop/api"])?;
    let addresses = api.addresses().to_vec();
    api.listen(Protocol::Tcp, 80)?;
    for generation in 0..3 {
        let name = format!("shop/api-{generation}");
        let old = lab
            .pods()
            .iter()
            .find(|pod| pod.name().starts_with("shop/api"))
            .cloned();
        let old = old.ok_or(Error::Unknown {
            kind: "pod",
            name: name.clone(),
        })?;
        lab.remove_pod(old.name())?;
        let pod = lab.add_pod(PodSpec::new(&name, "node-1").addresses(addresses.clone()))?;
        pod.listen(Protocol::Tcp, 80)?;
        for from in [&web, &db] {
            for address in &addresses {
                let outcome = from.probe(Probe::tcp(*address, 80))?;
                assert_eq!(
                    outcome.answered_by(),
                    Some(name.as_str()),
                    "{} {address}",
                    from.name()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn addresses_and_pod_cidrs_can_be_chosen() -> Result<(), Error> {
    let cidr = |text: &str| {
        text.parse().map_err(|_| Error::Invalid {
            what: text.to_owned(),
        })
    };
    let v4 = IpAddr::from([10, 200, 3, 9]);
    let v6 = IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 9]);
    let lab = Lab::builder()
        .node(NodeSpec::new("a").pod_cidrs([cidr("10.200.0.0/22")?, cidr("fd77::/64")?]))
        .node("b")
        .pod("x/picked", "a")
        .pod_spec(PodSpec::new("x/v4", "a").addresses([v4]))
        .pod_spec(PodSpec::new("x/v6", "a").addresses([v6]))
        .pod("x/other", "b")
        .build()?;
    let other = lab.pod("x/other")?;
    assert_eq!(
        lab.pod("x/picked")?.ipv4()?,
        std::net::Ipv4Addr::new(10, 200, 0, 2)
    );
    assert_eq!(lab.pod("x/v4")?.addresses(), [v4]);
    for (name, address) in [("x/v4", v4), ("x/v6", v6)] {
        lab.pod(name)?.listen(Protocol::Udp, 53)?;
        assert_eq!(
            other.probe(Probe::udp(address, 53))?.answered_by(),
            Some(name)
        );
    }
    for (name, wrong) in [("x/far", IpAddr::from([10, 9, 9, 9])), ("x/twice", v4)] {
        let refused = lab.add_pod(PodSpec::new(name, "a").addresses([wrong]));
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    Ok(())
}

#[test]
fn a_matrix_of_nine_pods_and_three_ports() -> Result<(), Error> {
    let mut builder = Lab::builder().node("node-1").node("node-2");
    for namespace in ["x", "y", "z"] {
        for (name, node) in [("a", "node-1"), ("b", "node-2"), ("c", "node-1")] {
            builder = builder.pod(&format!("{namespace}/{name}"), node);
        }
    }
    let lab = builder.build()?;
    let matrix = Matrix::new(&lab.pods())
        .port(Protocol::Tcp, 80)?
        .port(Protocol::Udp, 81)?
        .port(Protocol::Sctp, 82)?;
    let open = matrix.run()?;
    assert_eq!(open.outcomes.len(), 9 * 9 * 3 * 2);
    assert_eq!(open.differences(|_| true), Vec::<String>::new());

    let closed = lab.pod("x/a")?;
    lab.node("node-1")?.netns().nft(&drop_in_forward(&format!(
        "ip daddr {} tcp dport 80",
        closed.ipv4()?
    )))?;
    let after = matrix.run()?;
    let expected = |key: &selvedge_lab::Key| {
        key.to != "x/a" || key.from == "x/a" || key.port != 80 || key.ipv6
    };
    assert_eq!(after.differences(expected), Vec::<String>::new());
    assert_eq!(after.differences(|_| true).len(), 8);
    assert!(!after.is_allowed("y/b", "x/a", Protocol::Tcp, 80));
    assert!(after.is_allowed("y/b", "x/a", Protocol::Udp, 81));
    let table = after.table(false);
    assert!(table.starts_with("TCP 80  x/a  x/b"), "{table}");
    assert!(table.contains("y/b      6    ✓"), "{table}");
    assert!(after.table(true).contains("\x1b[32m✓\x1b[0m"));
    Ok(())
}
