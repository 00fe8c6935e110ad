//! Three nodes, a daemon each, one API server: every change of policies, labels and pods is what packets meet between
//! all pods, as the policy evaluator says of the same objects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use selvedge::verdict::{Connection, Transport, evaluate};
use selvedge_lab::stage::live::Live;
use selvedge_lab::{Connects, Daemon, Error, Matrix, Measured, Protocol, Signal, wait_until};
use serde_json::{Value, json};

use super::{PATIENCE, PORT, db_accepts, from, reaches};

/// web, db and api in shop on two nodes, a monitor in another namespace on the third, and a neighbour of db's there.
struct Trio {
    live: Live,
    matrix: Matrix,
    daemons: Vec<Daemon>,
}

const WEB: &str = "shop/web";
const DB: &str = "shop/db";
const API: &str = "shop/api";
const MONITOR: &str = "watch/monitor";
const NEIGHBOUR: &str = "watch/neighbour";

impl Trio {
    fn new() -> Result<Self, Error> {
        let pods: [_; 5] = [
            (WEB, 1, &[("app", "web")][..]),
            (DB, 2, &[("app", "db")]),
            (API, 1, &[("app", "api")]),
            (MONITOR, 3, &[("app", "monitor")]),
            (NEIGHBOUR, 2, &[("app", "neighbour")]),
        ];
        let live = Live::new(3, &pods)?;
        let hosts = live.lab.pods();
        let matrix = Matrix::new(&hosts).port(Protocol::Tcp, PORT)?;
        let matrix = matrix.port(Protocol::Icmp, 0)?;
        let trio = Self {
            daemons: live.daemons()?,
            live,
            matrix,
        };
        Ok(trio)
    }

    /// Waits until all packets do what the policies say, which must be that these reach db's port and no others do.
    fn db_is_reached_by(&self, expected: &[&str]) -> Result<(), Error> {
        let measured = self.agree()?;
        let others = [WEB, API, MONITOR].into_iter();
        let reached: BTreeSet<&str> = others
            .filter(|from| measured.is_allowed(from, DB, Protocol::Tcp, PORT))
            .collect();
        assert_eq!(reached, expected.iter().copied().collect());
        Ok(())
    }

    /// Waits until all packets do what the policy evaluator says of the API's objects.
    fn agree(&self) -> Result<Measured, Error> {
        let index = self.live.index()?;
        let address = |name: &str, ipv6: bool| {
            let pod = self.live.pod(name).ok()?;
            let own = pod.addresses().iter().copied();
            own.into_iter().find(|address| address.is_ipv6() == ipv6)
        };
        let differences = |measured: &Measured| {
            measured.differences(|key| {
                let ends = (address(&key.from, key.ipv6), address(&key.to, key.ipv6));
                let (Some(from), Some(to)) = ends else {
                    return false;
                };
                let transport = match key.protocol {
                    Protocol::Icmp => Transport::Icmp,
                    _ => Transport::Tcp(key.port),
                };
                Connection::new(from, to, transport)
                    .is_ok_and(|connection| evaluate(&index, &connection).allowed())
            })
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let measured = self.matrix.run()?;
            let differences = differences(&measured);
            if differences.is_empty() {
                return Ok(measured);
            }
            assert!(Instant::now() < deadline, "{}", differences.join("\n"));
        }
    }

    fn label(&mut self, pod: &str, labels: &Value) -> Result<(), Error> {
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        let namespace = self.live.namespace(namespace)?;
        self.live.cluster.label_pod(&namespace, name, labels)
    }
}

#[test]
fn policies_and_labels_count_on_all_nodes() -> Result<(), Error> {
    let mut trio = Trio::new()?;
    trio.db_is_reached_by(&[WEB, API, MONITOR])?;

    // A policy is made, changed and deleted; what it names is on other nodes.
    trio.live.policy("shop/db", &db_accepts(&json!([])))?;
    trio.db_is_reached_by(&[])?;
    trio.live.policy("shop/db", &db_accepts(&from("web")))?;
    trio.db_is_reached_by(&[WEB])?;

    // A pod is relabelled: on the peer's side, then on the policy's own.
    trio.label(API, &json!({"app": "web"}))?;
    trio.db_is_reached_by(&[WEB, API])?;
    trio.label(API, &json!({"app": "api"}))?;
    trio.db_is_reached_by(&[WEB])?;
    trio.label(DB, &json!({"app": "other"}))?;
    trio.db_is_reached_by(&[WEB, API, MONITOR])?;
    trio.label(DB, &json!({"app": "db"}))?;
    trio.db_is_reached_by(&[WEB])?;

    // A namespace is relabelled.
    let team = |team: &str| {
        let team = json!({"matchLabels": {"team": team}});
        db_accepts(&json!([{"from": [{"namespaceSelector": team}]}]))
    };
    trio.live.policy("shop/db", &team("blue"))?;
    trio.db_is_reached_by(&[])?;
    let watch = trio.live.namespace("watch")?;
    let relabel = |trio: &Trio, team: &str| {
        let labels = json!({"team": team});
        trio.live.cluster.label_namespace(&watch, &labels)
    };
    relabel(&trio, "blue")?;
    trio.db_is_reached_by(&[MONITOR])?;
    relabel(&trio, "red")?;
    trio.db_is_reached_by(&[])?;

    // Egress, too: web may reach nothing but api.
    let shop = trio.live.namespace("shop")?;
    trio.live.cluster.delete_policy(&shop, "db")?;
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "api"}}}]}],
    });
    trio.live.policy("shop/web", &spec)?;
    trio.db_is_reached_by(&[API, MONITOR])?;
    trio.live.cluster.delete_policy(&shop, "web")?;
    trio.db_is_reached_by(&[WEB, API, MONITOR])
}

#[test]
fn pods_are_what_the_api_says_of_them_until_they_are_gone() -> Result<(), Error> {
    let mut trio = Trio::new()?;
    let shop = trio.live.namespace("shop")?;
    let addresses = trio.live.pod(WEB)?.addresses().to_vec();
    trio.live.policy("shop/db", &db_accepts(&from("web")))?;
    trio.db_is_reached_by(&[WEB])?;

    // One that terminates is a pod until it is gone.
    trio.live.cluster.terminate_pod(&shop, "web")?;
    trio.label(API, &json!({"app": "web"}))?;
    trio.db_is_reached_by(&[WEB, API])?;
    trio.label(API, &json!({"app": "api"}))?;
    trio.db_is_reached_by(&[WEB])?;

    // It restarts under its name and address, and is another.
    trio.live.cluster.finish_pod(&shop, "web")?;
    trio.db_is_reached_by(&[])?;
    trio.live
        .report_pod(WEB, 1, &[("app", "other")], &addresses)?;
    trio.db_is_reached_by(&[])?;
    trio.live.cluster.finish_pod(&shop, "web")?;
    trio.live
        .report_pod(WEB, 1, &[("app", "web")], &addresses)?;
    trio.db_is_reached_by(&[WEB])?;

    // One that has completed has no address; another pod has it before the old one is deleted.
    let succeeded = json!({"phase": "Succeeded"});
    trio.live.cluster.report(&shop, "web", &succeeded)?;
    trio.db_is_reached_by(&[])?;
    trio.live
        .report_pod("shop/next", 1, &[("app", "next")], &addresses)?;
    trio.db_is_reached_by(&[])?;
    trio.live.policy("shop/db", &db_accepts(&from("next")))?;
    trio.db_is_reached_by(&[WEB])?; // web's network is next's now
    trio.live.cluster.finish_pod(&shop, "web")?;
    trio.db_is_reached_by(&[WEB])
}

#[test]
fn a_namespace_that_goes_with_its_policies_opens_nothing() -> Result<(), Error> {
    let mut trio = Trio::new()?;
    let shop = trio.live.namespace("shop")?;
    let pod = |name: &str| trio.live.pod(name);
    let (web, db) = (pod(WEB)?, pod(DB)?);
    let (monitor, neighbour) = (pod(MONITOR)?, pod(NEIGHBOUR)?);
    trio.live.policy("shop/db", &db_accepts(&from("web")))?;
    trio.db_is_reached_by(&[WEB])?;

    // The server deletes the policy at once; the pods have their grace period.
    trio.live.cluster.terminate_namespace(&shop)?;
    wait_until("the policy to be deleted", PATIENCE, || {
        Ok(trio
            .live
            .index()?
            .policies()
            .all(|policy| *policy.key.namespace != *shop))
    })?;
    // What is made after it and enforced on db's node shows that the deletion was heard there.
    let others = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
    trio.live.policy("watch/closed", &others)?;
    reaches(&web, &neighbour, false)?;
    reaches(&web, &db, true)?;
    reaches(&monitor, &db, false)?;

    // With the last pod it is over.
    trio.live.cluster.remove_namespace(&shop)?;
    reaches(&monitor, &db, true)
}

#[test]
fn a_daemon_that_starts_while_a_namespace_goes_opens_nothing() -> Result<(), Error> {
    let mut trio = Trio::new()?;
    let shop = trio.live.namespace("shop")?;
    let (db, monitor) = (trio.live.pod(DB)?, trio.live.pod(MONITOR)?);
    trio.live.policy("shop/db", &db_accepts(&from("web")))?;
    trio.db_is_reached_by(&[WEB])?;
    // From an address of each family, all the time.
    let pace = Duration::from_millis(5);
    let denied = db.addresses().iter();
    let denied = denied.map(|to| Connects::start(&monitor, *to, PORT, pace));
    let denied = denied.collect::<Result<Vec<_>, Error>>()?;

    // No daemon hears that the namespace's policy goes before its pods.
    for daemon in std::mem::take(&mut trio.daemons) {
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(PATIENCE)?;
    }
    trio.live.cluster.terminate_namespace(&shop)?;
    wait_until("the policy to be deleted", PATIENCE, || {
        let index = trio.live.index()?;
        let mut policies = index.policies();
        Ok(policies.all(|policy| *policy.key.namespace != *shop))
    })?;
    trio.daemons = trio.live.daemons()?;
    let said: String = trio.daemons.iter().map(Daemon::stderr).collect();
    assert!(said.contains("its namespace is being deleted"), "{said}");
    // Something else is enforced meanwhile, and opens it no more than the start did.
    let others = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
    trio.live.policy("watch/closed", &others)?;
    reaches(&db, &trio.live.pod(NEIGHBOUR)?, false)?;
    let (mut tried, mut passed) = (0, 0);
    for connects in denied {
        let counts = connects.stop()?;
        tried += counts.attempts();
        passed += counts.connected;
    }
    println!("a restart while a namespace goes: {tried} attempts on its pod, {passed} through");
    assert!(tried > 0 && passed == 0);

    // With the last pod it is over.
    trio.live.cluster.remove_namespace(&shop)?;
    reaches(&monitor, &db, true)
}
