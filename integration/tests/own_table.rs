//! Tables that are the daemon's alone: who else may change them, and what becomes of them when it ends, is started again,
//! or is told otherwise.

use std::sync::Arc;
use std::time::Duration;

use selvedge::compile::tables;
use selvedge_lab::stage::{self, Manifests, PodManifest, committed, node, policy};
use selvedge_lab::{
    Connects, DEFAULT_WINDOW, Daemon, Error, Lab, Node, Pod, Probe, Protocol, Signal, TcpFlow,
    UdpStream, wait_until,
};
use selvedge_nft::{Dataplane, DataplaneError, Kernel, Ownership, Ruleset, Table, diff};

const PATIENCE: Duration = Duration::from_secs(20);
/// On one node a handshake takes no time; what is silent for so long is denied, where that is expected.
const WINDOW: Duration = Duration::from_millis(400);

const ALLOW_WEB: &str = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";

/// What foreigners do to the tables; the set has the address of web.
const EDITS: [&str; 5] = [
    "delete element inet selvedge ingress4 { 10.244.1.4 }",
    "insert rule inet selvedge ingress accept",
    "flush chain inet selvedge ingress",
    "delete table inet selvedge",
    "delete table bridge selvedge",
];

/// web may reach db, api may not.
struct Stage {
    manifests: Manifests,
    web: Pod,
    api: Pod,
    db: Pod,
    node: Node,
    _lab: Lab,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let manifests = Manifests::new()?;
        let pods = [
            ("shop/web", 2, "web"),
            ("shop/api", 3, "api"),
            ("shop/db", 4, "db"),
        ];
        let pods = pods.map(|(name, host, app)| {
            PodManifest::new(name, 1, host, &format!("app: {app}")).to_string()
        });
        manifests.put("cluster.yaml", node(1) + &pods.concat())?;
        manifests.put("db.yaml", policy("shop/db", ALLOW_WEB))?;
        let lab = manifests.lab()?.build()?;
        let [web, api, db] = lab.pods_named(["shop/web", "shop/api", "shop/db"])?;
        db.listen(Protocol::Tcp, 80)?;
        db.listen(Protocol::Udp, 80)?;
        let node = lab.node("node-1")?;
        Ok(Self {
            manifests,
            web,
            api,
            db,
            node,
            _lab: lab,
        })
    }

    fn daemon(&self, own_table: &str) -> Result<Daemon, Error> {
        let command = stage::run_command(&self.node, self.manifests.path())?;
        let daemon = command.args(["--own-table", own_table]).daemon()?;
        daemon.wait_for_output("the policies are in force", PATIENCE)?;
        Ok(daemon)
    }

    /// Asserts that web reaches db and api does not, over both families.
    fn enforced(&self, when: &str) -> Result<(), Error> {
        for (from, allowed, window) in [
            (&self.web, true, DEFAULT_WINDOW),
            (&self.api, false, WINDOW),
        ] {
            let to = self.db.addresses().iter();
            let probes: Vec<Probe> = to.map(|to| Probe::tcp(*to, 80).window(window)).collect();
            for outcome in from.probe_all(&probes)? {
                let name = from.name();
                assert_eq!(outcome.is_allowed(), allowed, "{when}: {name}: {outcome:?}");
                assert_eq!(outcome.is_denied(), !allowed, "{when}: {name}: {outcome:?}");
            }
        }
        Ok(())
    }

    /// Our tables as somebody who is not their owner reads them.
    fn held(&self) -> Result<Ruleset, Error> {
        stage::held(&self.node)
    }

    /// Asserts that foreigners' edits are refused, one by one.
    fn refuses_edits(&self) -> Result<(), Error> {
        for edit in EDITS {
            let output = self.node.netns().command("nft").arg(edit).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{edit}: {said}");
            assert!(said.contains("Operation not permitted"), "{edit}: {said}");
        }
        Ok(())
    }
}

fn invalid(error: DataplaneError) -> Error {
    Error::Invalid {
        what: error.to_string(),
    }
}

#[test]
fn nobody_else_changes_the_tables_while_the_daemon_runs() -> Result<(), Error> {
    let stage = Stage::new()?;
    let daemon = stage.daemon("on")?;
    let netns = stage.node.netns();
    let before = stage.held()?;
    stage.refuses_edits()?;
    netns.nft(
        "table inet other { chain c { type filter hook forward priority 0; }; }; table ip more { }",
    )?;
    netns.nft("flush ruleset")?;
    let left = netns.command("nft").args(["list", "tables"]).run()?;
    assert_eq!(left, "table inet selvedge\ntable bridge selvedge\n");
    assert!(stage.held()? == before);
    stage.enforced("after the edits")?;
    // What it has to change goes on to be changed.
    let closed = policy("shop/db", "{podSelector: {matchLabels: {app: db}}}");
    committed(&[&daemon], || stage.manifests.put("db.yaml", closed))?;
    let allowed = policy("shop/db", ALLOW_WEB);
    committed(&[&daemon], || stage.manifests.put("db.yaml", allowed))?;
    stage.enforced("after its own")?;
    let said = daemon.stderr();
    assert!(!said.contains("has changed the ruleset"), "{said}");
    let said = stage::selvedge(&stage.node)?.args(["doctor"]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("which one process alone can change"),
        "{said}"
    );
    Ok(())
}

#[test]
fn the_rules_outlive_the_daemon_and_the_next_one_owns_them() -> Result<(), Error> {
    let stage = Stage::new()?;
    let mut daemon = stage.daemon("on")?;
    let rules = stage.held()?.with_ownership(Ownership::Anyone);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        daemon.signal(signal)?;
        daemon.wait(PATIENCE)?;
        assert!(stage.held()? == rules.with_ownership(Ownership::Orphan));
        stage.enforced("while no daemon runs")?;
        daemon = stage.daemon("on")?;
        stage.refuses_edits()?;
        stage.enforced("after it was started again")?;
        // Nobody protects an orphan. What was done to it is put right at the start.
        for edit in EDITS.iter().chain(&["flush ruleset"]) {
            daemon.signal(signal)?;
            daemon.wait(PATIENCE)?;
            stage.node.netns().nft(edit)?;
            daemon = stage.daemon("on")?;
            let said = daemon.stderr();
            assert!(said.contains("committed: "), "{edit}: {said}");
            let held = stage.held()?;
            assert!(held.with_ownership(Ownership::Anyone) == rules, "{edit}");
            stage.refuses_edits()?;
        }
        stage.enforced("after it has put right what it found")?;
    }
    // Cleanup under it says what to do, and does it once that is done.
    let output = stage::selvedge(&stage.node)?.arg("cleanup").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), said.lines().count()),
        (Some(3), 1),
        "{said}"
    );
    assert!(said.contains("stop it first"), "{said}");
    daemon.terminate(PATIENCE)?;
    let said = stage::selvedge(&stage.node)?.arg("cleanup").run()?;
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(stage.held()?.tables.is_empty());
    Ok(())
}

#[test]
fn ownership_is_switched_under_traffic_without_a_gap() -> Result<(), Error> {
    let stage = Stage::new()?;
    let mut daemon = stage.daemon("on")?;
    let to = stage.db.ipv4()?;
    let pace = Duration::from_millis(5);
    let flow = TcpFlow::start(&stage.web, to, 80, pace)?;
    let stream = UdpStream::start(&stage.web, to, 80, 200)?;
    // Shorter than TCP's first retransmission: a handshake that lost a segment counts as denied.
    let window = Duration::from_millis(900);
    let connects = Connects::start_with_window(&stage.web, to, 80, pace, window)?;
    let denied = Connects::start_with_window(&stage.api, to, 80, pace, WINDOW)?;
    let silent = UdpStream::start(&stage.api, to, 80, 200)?;
    for (round, own_table) in (1..).zip(["off", "on", "on", "off", "off", "on", "off", "on"]) {
        wait_until("traffic", PATIENCE, || {
            Ok(connects.connected() > 20 * round && denied.denied() > 2 * round)
        })?;
        if round % 2 == 0 {
            daemon.signal(Signal::SIGKILL)?;
        } else {
            daemon.signal(Signal::SIGTERM)?;
        }
        daemon.wait(PATIENCE)?;
        daemon = stage.daemon(own_table)?;
        let owned = |table: &Table| matches!(table.ownership, Ownership::Other(_));
        let held = stage.held()?;
        assert!(
            held.tables
                .values()
                .all(|table| owned(table) == (own_table == "on"))
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
fn a_foreigner_s_tables_are_said_and_waited_for() -> Result<(), Error> {
    let stage = Stage::new()?;
    let foreign = || {
        let mut kernel = Kernel::open()?;
        let named = tables()
            .into_iter()
            .map(|id| (id, Arc::new(Table::default())));
        let theirs = Ruleset {
            tables: named.collect(),
        };
        let theirs = theirs.with_ownership(Ownership::Own);
        kernel.commit(&diff(&Ruleset::default(), &theirs))?;
        Ok(kernel)
    };
    let foreigner = stage.node.netns().run(foreign)?.map_err(invalid)?;
    let daemon = stage::run_command(&stage.node, stage.manifests.path())?.daemon()?;
    let words = "delete table inet selvedge, which belongs to another process as long as that runs";
    daemon.wait_for_output(words, PATIENCE)?;
    // Removing them, or asking about them, says the same, and what to do.
    let output = stage::selvedge(&stage.node)?.arg("doctor").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("which one process alone can change"),
        "{said}"
    );
    // Many attempts later it is said once, and the daemon is there.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.exit(), None, "{}", daemon.stderr());
    let said = daemon.stderr();
    assert_eq!(said.matches(words).count(), 1, "{said}");
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait(PATIENCE)?;
    let output = stage::selvedge(&stage.node)?.arg("cleanup").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), said.lines().count()),
        (Some(3), 1),
        "{said}"
    );
    assert!(said.contains(words), "{said}");
    let output = stage::selvedge(&stage.node)?.arg("doctor").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("its tables belong to another process"),
        "{said}"
    );
    let daemon = stage::run_command(&stage.node, stage.manifests.path())?.daemon()?;
    daemon.wait_for_output(words, PATIENCE)?;
    drop(foreigner);
    daemon.wait_for_output("the policies are in force", PATIENCE)?;
    stage.refuses_edits()?;
    stage.enforced("once the foreigner is gone")
}
