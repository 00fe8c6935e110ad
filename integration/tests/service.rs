//! A ClusterIP works as kube-proxy would make it, over every way a packet can take to a backend.

use std::collections::BTreeSet;
use std::net::IpAddr;

use selvedge_lab::{Error, Host, Lab, Outcome, Probe, Protocol, Service};

fn lab() -> Result<Lab, Error> {
    Lab::builder()
        .node("node-1")
        .node("node-2")
        .pod("shop/web", "node-1")
        .pod("shop/api-0", "node-1")
        .pod("shop/api-1", "node-2")
        .build()
}

fn cluster_ips() -> [IpAddr; 2] {
    [
        [10, 96, 0, 10].into(),
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10].into(),
    ]
}

#[test]
fn a_cluster_ip_reaches_its_backend_from_everywhere() -> Result<(), Error> {
    let lab = lab()?;
    let mut from: Vec<Host> = lab.pods().iter().map(|pod| (**pod).clone()).collect();
    from.extend(lab.nodes().iter().map(|node| (**node).clone()));
    // The backend asks too: its own packets come back to it, masqueraded.
    let backend = lab.pod("shop/api-0")?;
    for cluster_ip in cluster_ips() {
        let mut service = Service::new(&format!("shop/api-{cluster_ip}"), cluster_ip)
            .backends(backend.addresses().iter().copied());
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            backend.listen(protocol, 8080)?;
            service = service.port(protocol, 80, 8080);
        }
        lab.add_service(service)?;
        for host in &from {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let outcome = host.probe(Probe::new(protocol, cluster_ip, 80))?;
                let what = format!("{} {protocol} {cluster_ip}: {outcome}", host.name());
                assert_eq!(outcome.answered_by(), Some("shop/api-0"), "{what}");
            }
        }
    }
    Ok(())
}

#[test]
fn new_flows_find_all_backends_until_the_service_goes() -> Result<(), Error> {
    let lab = lab()?;
    let [web, first, second] = lab.pods_named(["shop/web", "shop/api-0", "shop/api-1"])?;
    let backends = [&first, &second];
    for cluster_ip in cluster_ips() {
        let addresses = backends.iter().flat_map(|pod| pod.addresses().to_vec());
        lab.add_service(
            Service::new("shop/api", cluster_ip)
                .port(Protocol::Tcp, 80, 8080)
                .backends(addresses),
        )?;
        for pod in backends {
            pod.listen(Protocol::Tcp, 8080)?;
        }
        // Sixty-four flows all to one of two: once in 2^63 runs.
        let outcomes = web.probe_all(&vec![Probe::tcp(cluster_ip, 80); 64])?;
        let by: BTreeSet<_> = outcomes.iter().map(Outcome::answered_by).collect();
        assert_eq!(by, [Some("shop/api-0"), Some("shop/api-1")].into());
        for node in lab.nodes() {
            let family = if cluster_ip.is_ipv4() { "ip" } else { "ip6" };
            let before = node.nft_table(family, "kube-proxy")?;
            assert!(before.contains("comment \"shop/api\""), "{before}");
            web.probe(Probe::tcp(cluster_ip, 80))?;
            assert_eq!(node.nft_table(family, "kube-proxy")?, before);
        }
        lab.remove_service("shop/api")?;
        assert!(!web.probe(Probe::tcp(cluster_ip, 80))?.is_allowed());
        for node in lab.nodes() {
            assert_eq!(node.nft_ruleset()?, "");
        }
    }
    Ok(())
}
