//! `--new-pods block`, and addresses that are withheld: who may not use its address is cut off from everybody but its
//! own node, in both directions and both families, also while the daemon is stopped.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::time::Duration;

use selvedge::cluster::Text;
use selvedge::compile;
use selvedge_lab::stage::{
    Manifests, PodManifest, committed, host_of, node, policy, program, run_command,
};
use selvedge_lab::{Daemon, Error, Host, Lab, Pod, PodSpec, Probe, Protocol, TcpFlow, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(400);
const PORT: u16 = 80;

fn manifests() -> Result<Manifests, Error> {
    let manifests = Manifests::new()?;
    let text = node(1)
        + &node(2)
        + &PodManifest::new("shop/web", 1, 2, "app: web").to_string()
        + &PodManifest::new("shop/db", 1, 3, "app: db").to_string()
        + &PodManifest::new("shop/far", 2, 2, "app: far").to_string();
    manifests.put("cluster.yaml", text)?;
    Ok(manifests)
}

fn daemon(lab: &Lab, manifests: &Manifests, args: &[&str]) -> Result<Daemon, Error> {
    let command = run_command(&lab.node("node-1")?, manifests.path())?;
    let daemon = command.args(args).daemon()?;
    daemon.wait_for_output("the policies are in force", PATIENCE)?;
    Ok(daemon)
}

/// How many of the ways between a pod and these hosts are open, each way round, in each family.
fn ways(pod: &Pod, others: &[Host]) -> Result<(usize, usize), Error> {
    pod.listen(Protocol::Tcp, PORT)?;
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for other in others {
        other.listen(Protocol::Tcp, PORT)?;
        for address in other.addresses() {
            out.push((Host::clone(pod), Probe::tcp(*address, PORT)));
            out.push((Host::clone(pod), Probe::icmp(*address)));
        }
        for address in pod.addresses() {
            back.push((other.clone(), Probe::tcp(*address, PORT)));
            back.push((other.clone(), Probe::icmp(*address)));
        }
    }
    let open = |probes: &[(Host, Probe)]| {
        let outcomes = selvedge_lab::probe_all(probes)?;
        let open = outcomes.iter().filter(|outcome| outcome.is_allowed());
        Ok::<usize, Error>(open.count())
    };
    Ok((open(&out)?, open(&back)?))
}

/// A pod and its own node reach each other.
fn node_reaches(lab: &Lab, pod: &Pod) -> Result<(), Error> {
    let node = lab.node("node-1")?;
    for address in pod.addresses() {
        assert!(node.probe(Probe::icmp(*address))?.is_allowed());
    }
    for gateway in ["10.244.1.1", "fd00:10:244:1::1"] {
        let gateway: std::net::IpAddr = gateway.parse().unwrap();
        assert!(pod.probe(Probe::icmp(gateway))?.is_allowed());
    }
    Ok(())
}

#[test]
fn a_pod_that_is_not_known_is_cut_off_until_it_is() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.outsider("outside", []).build()?;
    let daemon = daemon(&lab, &manifests, &["--new-pods", "block"])?;
    let [web, db, far] = lab.pods_named(["shop/web", "shop/db", "shop/far"])?;
    let others: Vec<Host> = [&web, &db, &far]
        .into_iter()
        .map(|pod| Host::clone(pod))
        .chain([lab.outsider("outside")?])
        .collect();
    let all = 4 * 2 * 2;
    // Those that are known are as without it, isolated or not.
    assert_eq!(ways(&web, &others[1..])?, (12, 12));
    let late = lab.add_pod(PodSpec::new("shop/late", "node-1"))?;
    let before = ways(&late, &others)?;
    assert_eq!(before, (0, 0));
    node_reaches(&lab, &late)?;
    // It finds its neighbours, and they find it.
    for (pod, other) in [(&late, &db), (&db, &late)] {
        let show = ["-6", "neigh", "show", "to", &other.ipv6()?.to_string()];
        let text = pod.netns().command("ip").args(show).run()?;
        assert!(text.contains("lladdr"), "{text}");
    }
    let host = late.ipv4()?.octets()[3];
    let manifest = PodManifest::new("shop/late", 1, host, "app: late");
    committed(&[&daemon], || manifests.put("late.yaml", manifest.clone()))?;
    let known = ways(&late, &others)?;
    assert_eq!(known, (all, all));
    // A connection of one that is known no more ends, as its address does.
    let flow = TcpFlow::start(&late, db.ipv4()?, PORT, Duration::from_millis(5))?;
    wait_until("answers", PATIENCE, || Ok(flow.answered() > 3))?;
    committed(&[&daemon], || manifests.remove("late.yaml"))?;
    assert_eq!(ways(&late, &others)?, (0, 0));
    let then = flow.answered();
    std::thread::sleep(SILENCE);
    assert_eq!(flow.answered(), then, "the connection goes on");
    // One that has finished has no address.
    committed(&[&daemon], || manifests.put("late.yaml", manifest.clone()))?;
    assert_eq!(ways(&late, &others)?, (all, all));
    committed(&[&daemon], || {
        manifests.put("late.yaml", manifest.succeeded())
    })?;
    assert_eq!(ways(&late, &others)?, (0, 0));
    // It stays so while the daemon is down, also for pods that come then.
    daemon.terminate(PATIENCE)?;
    let later = lab.add_pod(PodSpec::new("shop/later", "node-1"))?;
    let down = ways(&later, &others)?;
    assert_eq!(down, (0, 0));
    assert_eq!(ways(&web, &others[1..])?, (12, 12));
    println!(
        "--new-pods block: of {all} ways each way round, {} and {} are open to a pod that is not known, {} and {} once \
         it is, {} and {} to one that comes while the daemon is down",
        before.0, before.1, known.0, known.1, down.0, down.1,
    );
    Ok(())
}

#[test]
fn new_pods_are_allowed_unless_it_is_said_and_blocks_can_be_named() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    let others = [Host::clone(&web), Host::clone(&db)];
    let late = lab.add_pod(PodSpec::new("shop/late", "node-1"))?;
    let with = |args: &[&str]| {
        let daemon = daemon(&lab, &manifests, args)?;
        let ways = ways(&late, &others)?;
        daemon.terminate(PATIENCE)?;
        Ok::<_, Error>(ways)
    };
    assert_eq!(with(&[])?, (8, 8));
    // Of IPv4 alone.
    let v4 = ["--new-pods", "block", "--pod-cidr", "10.244.1.9/24"];
    assert_eq!(with(&v4)?, (4, 4));
    let elsewhere = ["--new-pods", "block", "--pod-cidr", "10.9.0.0/16"];
    assert_eq!(with(&elsewhere)?, (8, 8));
    Ok(())
}

#[test]
fn an_address_that_is_withheld_neither_sends_nor_receives() -> Result<(), Error> {
    let manifests = manifests()?;
    manifests.put(
        "policy.yaml",
        policy(
            "shop/web",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}",
        ),
    )?;
    let lab = manifests.lab()?.build()?;
    let [web, db, far] = lab.pods_named(["shop/web", "shop/db", "shop/far"])?;
    let node = lab.node("node-1")?;
    let index = manifests.index()?;
    let withhold = |pods: &[&Pod]| {
        let mut host = host_of(&lab, &node)?;
        let addresses = pods.iter().flat_map(|pod| pod.addresses().iter().copied());
        host.withheld = addresses.collect();
        let ruleset = compile::compile(&index, &Text::from(node.name()), &host);
        program(&node, &ruleset)
    };
    let others = [Host::clone(&db), Host::clone(&far)];
    for (pods, open) in [(&[][..], 8), (&[&web][..], 0), (&[][..], 8)] {
        withhold(pods)?;
        assert_eq!(ways(&web, &others)?, (open, open));
        assert_eq!(ways(&db, &[Host::clone(&far)])?, (4, 4));
        node_reaches(&lab, &web)?;
    }
    Ok(())
}
