//! Without a policy engine everything reaches everything, and what is in the way is seen.

use std::time::Instant;

use selvedge_lab::{Error, Host, Lab, Outcome, Probe, Protocol, probe_all};

const PROTOCOLS: [Protocol; 4] = [
    Protocol::Tcp,
    Protocol::Udp,
    Protocol::Sctp,
    Protocol::Icmp,
];

fn two_nodes() -> Result<Lab, Error> {
    Lab::builder()
        .node("node-1")
        .node("node-2")
        .pod("shop/web", "node-1")
        .pod("shop/api", "node-1")
        .pod("shop/db", "node-2")
        .outsider("outsider", ["203.0.113.7".parse().unwrap()])
        .build()
}

#[test]
fn everything_reaches_everything() -> Result<(), Error> {
    let start = Instant::now();
    let lab = two_nodes()?;
    println!("built in {:?}", start.elapsed());
    let mut hosts: Vec<Host> = lab.pods().iter().map(|pod| (**pod).clone()).collect();
    hosts.extend(lab.nodes().iter().map(|node| (**node).clone()));
    hosts.extend(lab.outsiders().iter().cloned());
    for host in &hosts {
        for protocol in PROTOCOLS {
            host.listen(protocol, 8080)?;
        }
    }
    let mut probes = Vec::new();
    let mut expected = Vec::new();
    for from in &hosts {
        for to in &hosts {
            for address in to.addresses() {
                for protocol in PROTOCOLS {
                    probes.push((from.clone(), Probe::new(protocol, *address, 8080)));
                    let by = (protocol != Protocol::Icmp).then(|| to.name().to_owned());
                    expected.push(Outcome::Connected { by });
                }
            }
        }
    }
    let start = Instant::now();
    let outcomes = probe_all(&probes)?;
    println!("{} probes in {:?}", probes.len(), start.elapsed());
    for (((from, probe), outcome), expected) in probes.iter().zip(&outcomes).zip(&expected) {
        assert_eq!(outcome, expected, "{} {probe:?}", from.name());
    }
    Ok(())
}
