//! Selvedge beside others: it touches no table but its own, shares a namespace with nobody of its kind, and its rules
//! outlive it.

use std::time::Duration;

use selvedge_lab::stage::{self, Manifests, PodManifest, committed, node, policy};
use selvedge_lab::{
    Connects, Error, Lab, Node, Probe, Protocol, Service, Signal, TcpFlow, UdpStream, wait_until,
};
use selvedge_nft::Kernel;

const PATIENCE: Duration = Duration::from_secs(20);
/// On one node a handshake takes no time; what is silent for so long is denied, where that is expected.
const WINDOW: Duration = Duration::from_millis(400);

/// Tables of others, some with names that look like Selvedge's.
const FOREIGN: &str = r#"
table ip selvedge { chain forward { type filter hook forward priority -7; }; }
table inet selvedge-old { map egress4 { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop }; }; }
table bridge other { chain guard { type filter hook prerouting priority -300; counter; }; }
table inet firewall {
  comment "someone's own"
  counter denied { comment "what was denied"; }
  set bad { type ipv4_addr; flags interval, timeout; elements = { 192.0.2.0/24, 198.51.100.7 timeout 1h }; }
  set seen { type ipv4_addr . inet_service; size 65535; flags dynamic, timeout; timeout 1m; }
  map ports { type inet_service : verdict; elements = { 80 : accept, 443 : jump web }; }
  chain web { accept; }
  chain forward {
    type filter hook forward priority 10; policy accept;
    ip saddr @bad counter name denied drop
    tcp dport vmap @ports
    tcp flags syn limit rate over 1000/second counter log prefix "fast " drop
    meta mark set 0x2a ct mark set mark
  }
}
"#;

const TABLES: [&str; 6] = [
    "ip selvedge",
    "inet selvedge-old",
    "bridge other",
    "inet firewall",
    "ip kube-proxy",
    "ip6 kube-proxy",
];

const DENY_DB: &str = "{podSelector: {matchLabels: {app: db}}}";

fn manifests() -> Result<Manifests, Error> {
    let manifests = Manifests::new()?;
    let mut text = node(1) + &node(2);
    for (name, node, host, app) in [
        ("shop/web", 1, 2, "web"),
        ("shop/api", 1, 3, "api"),
        ("shop/db", 2, 2, "db"),
    ] {
        text += &PodManifest::new(name, node, host, &format!("app: {app}")).to_string();
    }
    manifests.put("cluster.yaml", text)?;
    manifests.put("db.yaml", policy("shop/deny", DENY_DB))?;
    Ok(manifests)
}

/// The tables of others, with their rules' and objects' handles.
fn others(node: &Node) -> Result<Vec<String>, Error> {
    let list = |table: &&str| {
        let words = ["-s", "-a", "list", "table"].into_iter();
        let words = words.chain(table.split(' '));
        let text = node.netns().command("nft").args(words).run()?;
        // What is left of an element's time runs down.
        let kept = text.lines().map(|line| match line.split_once(" expires ") {
            Some((before, _)) => before,
            None => line,
        });
        Ok(kept.collect::<Vec<_>>().join("\n"))
    };
    TABLES.iter().map(list).collect()
}

fn tables(node: &Node) -> Result<Vec<String>, Error> {
    let text = node.netns().command("nft").args(["list", "tables"]).run()?;
    let names = text.lines().filter_map(|line| line.strip_prefix("table "));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// Everything in the node's nftables with handles and counters' values, and the generation: any commit advances it.
fn state(node: &Node) -> Result<(String, u32), Error> {
    let list = ["-a", "list", "ruleset"];
    let listing = node.netns().command("nft").args(list).run()?;
    let generation = node.netns().run(|| Kernel::open()?.generation())?;
    let generation = generation.map_err(|error: selvedge_nft::DataplaneError| Error::Invalid {
        what: error.to_string(),
    })?;
    Ok((listing, generation))
}

/// A [`state`] without what it says of the tables' owner.
fn unowned((listing, generation): (String, u32)) -> (String, u32) {
    (stage::unowned(&listing), generation)
}

fn lab_with_others(manifests: &Manifests) -> Result<Lab, Error> {
    let lab = manifests.lab()?.build()?;
    let db = lab.pod("shop/db")?;
    for (name, ip) in [
        ("shop/db4", [10, 96, 0, 9].into()),
        (
            "shop/db6",
            std::net::IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 9]),
        ),
    ] {
        let service = Service::new(name, ip).port(Protocol::Tcp, 80, 8080);
        lab.add_service(service.backends(db.addresses().iter().copied()))?;
    }
    for node in lab.nodes() {
        node.netns().nft(FOREIGN)?;
    }
    Ok(lab)
}

#[test]
fn other_tables_are_byte_identical_before_during_and_after() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = lab_with_others(&manifests)?;
    let node = lab.node("node-1")?;
    let before = others(&node)?;
    let names = tables(&node)?;
    let same = |when: &str| -> Result<(), Error> {
        for (now, before) in others(&node)?.iter().zip(&before) {
            assert_eq!(now, before, "{when}");
        }
        Ok(())
    };
    let daemon = stage::daemon(&node, manifests.path())?;
    same("while it runs")?;
    for round in 0..10 {
        let spec = "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.ROUND.0.0/16}}], ports: [{port: 8ROUND}, {port: 90}]}]}";
        let spec = spec.replace("ROUND", &round.to_string());
        committed(&[&daemon], || {
            manifests.put("more.yaml", policy("shop/more", &spec))
        })?;
        same("after an edit")?;
        committed(&[&daemon], || manifests.remove("more.yaml"))?;
        // Others go on with their own tables meanwhile.
        if round == 5 {
            node.netns().nft(
                "add element inet firewall bad { 203.0.113.9 }; delete element inet firewall bad { 203.0.113.9 }",
            )?;
        }
    }
    assert_eq!(daemon.terminate(PATIENCE)?.code(), Some(0));
    same("after its end")?;
    let mut both = [
        names.clone(),
        vec!["bridge selvedge".into(), "inet selvedge".into()],
    ]
    .concat();
    both.sort();
    assert_eq!(tables(&node)?, both);
    let said = stage::selvedge(&node)?.arg("cleanup").run()?;
    assert_eq!(
        said,
        "removed table inet selvedge\nremoved table bridge selvedge\n"
    );
    same("after cleanup")?;
    assert_eq!(tables(&node)?, names);
    // Again it finds nothing, and that is no error.
    let generation = state(&node)?.1;
    let said = stage::selvedge(&node)?.arg("cleanup").run()?;
    assert!(said.starts_with("nothing to remove"), "{said}");
    assert_eq!(state(&node)?.1, generation);
    Ok(())
}

#[test]
fn one_daemon_a_namespace_and_no_cleanup_under_it() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let (first, second) = (lab.node("node-1")?, lab.node("node-2")?);
    let daemons = [
        stage::daemon(&first, manifests.path())?,
        stage::daemon(&second, manifests.path())?,
    ];
    let before = state(&first)?;
    for command in [
        stage::run_command(&first, manifests.path())?,
        stage::selvedge(&first)?.arg("cleanup"),
    ] {
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let holder = format!(
            "another Selvedge is at work in this network namespace (process {}",
            daemons[0].pid()
        );
        assert!(said.contains(&holder), "{said}");
    }
    assert_eq!(state(&first)?, before);
    // Those who have a namespace of their own don't know of each other.
    let both = [&daemons[0], &daemons[1]];
    let everyone = policy("shop/everyone", "{podSelector: {}, ingress: [{}]}");
    committed(&both, || manifests.put("everyone.yaml", everyone))?;
    let alone = state(&second)?;
    assert_eq!(daemons[0].terminate(PATIENCE)?.code(), Some(0));
    stage::selvedge(&first)?.arg("cleanup").run()?;
    assert_eq!(tables(&first)?, [""; 0]);
    assert_eq!(state(&second)?, alone);
    committed(&[&daemons[1]], || manifests.remove("everyone.yaml"))
}

#[test]
fn rules_outlive_the_daemon_and_a_restart_takes_them_over() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-2")?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    db.listen(Protocol::Tcp, 80)?;
    let denied = || -> Result<bool, Error> {
        let probe = Probe::tcp(db.ipv4()?, 80).window(WINDOW);
        Ok(web.probe(probe)?.is_denied())
    };
    assert!(web.probe(Probe::tcp(db.ipv4()?, 80))?.is_allowed());
    let mut daemon = stage::daemon(&node, manifests.path())?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        assert!(denied()?);
        let before = state(&node)?;
        daemon.signal(signal)?;
        let status = daemon.wait(PATIENCE)?;
        match signal {
            Signal::SIGKILL => assert_eq!(status.code(), None),
            _ => {
                assert_eq!(status.code(), Some(0), "{}", daemon.stderr());
                let said = daemon.stderr();
                assert!(said.contains("the rules stay in force"), "{said}");
            }
        }
        assert_eq!(unowned(state(&node)?), unowned(before.clone()));
        daemon = stage::daemon(&node, manifests.path())?;
        // Neither a handle nor a counter: nothing was sent but the one transaction that takes the tables over.
        let (listing, generation) = before;
        assert_eq!(unowned(state(&node)?), unowned((listing, generation + 1)));
        let said = daemon.stderr();
        assert!(said.contains("2 tables taken over messages=2 "), "{said}");
        assert!(said.contains("there was nothing to change"), "{said}");
        assert!(!said.contains("committed: "), "{said}");
        assert!(denied()?);
    }
    Ok(())
}

#[test]
fn a_restart_with_edits_in_between_cuts_no_flow_and_lets_none_through() -> Result<(), Error> {
    let manifests = manifests()?;
    let allow = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    manifests.put("allow.yaml", policy("shop/allow", allow))?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-2")?;
    let [web, api, db] = lab.pods_named(["shop/web", "shop/api", "shop/db"])?;
    db.listen(Protocol::Tcp, 80)?;
    db.listen(Protocol::Udp, 80)?;
    let mut daemon = stage::daemon(&node, manifests.path())?;
    let to = db.ipv4()?;
    let pace = Duration::from_millis(5);
    let flow = TcpFlow::start(&web, to, 80, pace)?;
    let stream = UdpStream::start(&web, to, 80, 200)?;
    // Shorter than TCP's first retransmission: a handshake that lost a segment counts as denied.
    let window = Duration::from_millis(900);
    let connects = Connects::start_with_window(&web, to, 80, pace, window)?;
    let denied = Connects::start_with_window(&api, to, 80, pace, WINDOW)?;
    let silent = UdpStream::start(&api, to, 80, 200)?;
    for round in 0..5 {
        wait_until("traffic", PATIENCE, || {
            Ok(connects.connected() > 20 * round && denied.denied() > 5 * round)
        })?;
        assert_eq!(daemon.terminate(PATIENCE)?.code(), Some(0));
        let other = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.ROUND/32}}]}]}";
        let other = policy("shop/other", &other.replace("ROUND", &round.to_string()));
        manifests.put("other.yaml", other)?;
        daemon = stage::daemon(&node, manifests.path())?;
        assert!(
            daemon.stderr().contains("committed: "),
            "{}",
            daemon.stderr()
        );
    }
    let (flow, stream, connects) = (flow.stop()?, stream.stop()?, connects.stop()?);
    let (denied, silent) = (denied.stop()?, silent.stop()?);
    println!("allowed: {flow:?}\n{stream:?}\n{connects:?}\ndenied: {denied:?}\n{silent:?}");
    assert_eq!((flow.answered, flow.error), (flow.sent, None));
    assert_eq!((stream.lost(), stream.errors), (0, 0));
    assert_eq!(connects.connected, connects.attempts());
    assert_eq!(denied.denied, denied.attempts());
    assert_eq!((silent.answered, silent.errors), (0, 0));
    assert!(silent.sent > 0);
    Ok(())
}

#[test]
fn a_restart_with_tables_of_everyone_s_sends_nothing() -> Result<(), Error> {
    let manifests = manifests()?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-2")?;
    let start = || {
        let command = stage::run_command(&node, manifests.path())?;
        let daemon = command.args(["--own-table", "off"]).daemon()?;
        daemon.wait_for_output("the policies are in force", PATIENCE)?;
        Ok::<_, Error>(daemon)
    };
    let mut daemon = start()?;
    let before = state(&node)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        daemon.signal(signal)?;
        daemon.wait(PATIENCE)?;
        daemon = start()?;
        // Neither a handle nor a counter nor the generation: nothing at all was sent.
        assert_eq!(state(&node)?, before);
        assert!(!daemon.stderr().contains("committed: "));
    }
    Ok(())
}
