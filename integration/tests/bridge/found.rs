use selvedge_lab::stage::{self, Manifests, committed, policy};
use selvedge_lab::{Error, Lab, PodSpec, Probe, Protocol, wait_until};

use super::{ISOLATE_DB, PATIENCE, SILENCE, Stage, detours, manifests};

/// Whether link-local and multicast addresses lead from web to db.
fn detours_are_open(stage: &Stage) -> Result<bool, Error> {
    // Here it is not known which way it is: what shall come takes its time on a busy machine.
    let probes = detours::detours_to(&stage.db, detours::PORT)?;
    let outcomes = stage.web.probe_all(&probes)?;
    let open = outcomes.iter().filter(|one| one.is_allowed()).count();
    let denied = outcomes.iter().filter(|one| one.is_denied()).count();
    assert!(
        open == probes.len() || denied == probes.len(),
        "{outcomes:?}"
    );
    Ok(open > 0)
}

#[test]
fn the_bridge_may_be_named() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-1")?;
    // The pods' bridge has no address here, and another bridge has one of their network.
    let mut script = "link add pods0 type bridge\nlink set pods0 up\n".to_owned();
    for pod in lab.pods() {
        script += &format!("link set {} master pods0\n", pod.veth());
    }
    node.netns().ip_batch(&script)?;
    let daemon = stage::daemon(&node, manifests.path())?;
    let stage = Stage::of(manifests, lab, daemon)?;
    // Ingress alone: it is web's requests that are looked at, not db's answers.
    stage.enforce("{podSelector: {matchLabels: {app: db}}}")?;
    assert!(detours_are_open(&stage)?);
    stage.daemon.terminate(PATIENCE)?;
    let named = stage::run_command(&node, stage.manifests.path())?;
    let named = named.args(["--bridge", "pods0"]).daemon()?;
    named.wait_for_output("the policies are in force", PATIENCE)?;
    assert!(!detours_are_open(&stage)?);
    assert!(!named.stderr().contains("WARN"), "{}", named.stderr());
    Ok(())
}

#[test]
fn without_a_pod_cidr_it_says_what_that_leaves_open() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    let bare = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n";
    manifests.put("node.yaml", bare)?;
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    let daemon = stage::daemon(&node, manifests.path())?;
    daemon.wait_for_output("give it with --bridge", PATIENCE)?;
    daemon.terminate(PATIENCE)?;
    let named = stage::run_command(&node, manifests.path())?;
    let named = named.args(["--bridge", "cni0"]).daemon()?;
    named.wait_for_output("by its broadcast address", PATIENCE)?;
    let mark = named.said();
    manifests.put("node.yaml", stage::node(1))?;
    named.wait_for_output_after(mark, "no longer so", PATIENCE)?;
    Ok(())
}

#[test]
fn a_bridge_that_comes_after_the_daemon_is_found() -> Result<(), Error> {
    let manifests = manifests()?;
    manifests.put("db.yaml", policy("shop/deny", ISOLATE_DB))?;
    // As after a reboot: no pod has been started, so there is no bridge yet.
    let lab = Lab::builder().node("node-1").build()?;
    let node = lab.node("node-1")?;
    node.netns().ip_batch("link del cni0\n")?;
    let daemon = stage::daemon(&node, manifests.path())?;
    let waiting =
        "no bridge has an address in the node's pod CIDR 10.244.1.0/24 and fd00:10:244:1::/64 yet";
    daemon.wait_for_output(waiting, PATIENCE)?;
    let mark = daemon.said();
    node.netns().ip_batch(
        "link add cni0 mtu 1450 type bridge\n\
         link set cni0 up\n\
         addr add 10.244.1.1/24 dev cni0\n\
         addr add fd00:10:244:1::1/64 dev cni0 nodad\n",
    )?;
    daemon.wait_for_output_after(mark, "no longer so: no bridge", PATIENCE)?;
    for (name, host) in [("shop/web", 2), ("shop/db", 3)] {
        let addresses = [
            [10, 244, 1, host].into(),
            [0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(host)].into(),
        ];
        let spec = PodSpec::new(name, "node-1").addresses(addresses);
        // Its port is guarded.
        committed(&[&daemon], || lab.add_pod(spec).map(drop))?;
    }
    let stage = Stage::of(manifests, lab, daemon)?;
    assert!(!detours_are_open(&stage)?);
    assert!(!stage.web.reaches(&stage.db, Protocol::Tcp, detours::PORT)?);
    Ok(())
}

#[test]
fn whatever_net_bridge_says_the_pods_bridge_is_filtered() -> Result<(), Error> {
    let manifests = manifests()?;
    manifests.put("db.yaml", policy("shop/deny", ISOLATE_DB))?;
    let lab = manifests.lab()?.br_netfilter(false).build()?;
    let node = lab.node("node-1")?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    db.listen(Protocol::Tcp, 80)?;
    assert!(web.reaches(&db, Protocol::Tcp, 80)?);
    let daemon = stage::daemon(&node, manifests.path())?;
    for switch in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let warning = format!(
            "net.bridge.{switch} is 0, not 1: policies between pods of this node are not enforced; run `selvedge node-setup`"
        );
        daemon.wait_for_output(&warning, PATIENCE)?;
    }
    // The bridge's own switches are the daemon's to set, and where somebody puts them back, it does so again.
    for again in [false, true] {
        if again {
            let off = "link set cni0 type bridge nf_call_iptables 0 nf_call_ip6tables 0";
            node.netns().command("ip").args(off.split(' ')).run()?;
        }
        wait_until("the end of both warnings", PATIENCE, || {
            let ends = daemon.stderr().matches("no longer so: net.bridge").count();
            Ok(ends == if again { 4 } else { 2 })
        })?;
        assert!(!web.reaches(&db, Protocol::Tcp, 80)?);
    }
    let said = stage::selvedge(&node)?.arg("node-setup").run()?;
    assert_eq!(
        said,
        "net.bridge.bridge-nf-call-iptables set to 1 (it was 0)\n\
         net.bridge.bridge-nf-call-ip6tables set to 1 (it was 0)\n"
    );
    let probes: Vec<Probe> = db
        .addresses()
        .iter()
        .map(|address| Probe::tcp(*address, 80).window(SILENCE))
        .collect();
    let outcomes = web.probe_all(&probes)?;
    assert!(outcomes.iter().all(|one| one.is_denied()), "{outcomes:?}");
    let again = stage::selvedge(&node)?.arg("node-setup").run()?;
    assert_eq!(again.matches("is 1 already").count(), 2, "{again}");
    Ok(())
}
