//! Daemons on an API server: what is asked of the API is what packets meet, on every node, whatever happens to the API
//! server.
//!
//! The cluster is the stand-in, or the real one that `SELVEDGE_TEST_KUBECONFIG` names; the daemons reach it through
//! proxies that fail on demand.

mod faults;
mod nodes;
mod one_node;

use std::time::Duration;

use selvedge_lab::stage::live::{IN_FORCE, Live};
use selvedge_lab::{Daemon, Error, Outcome, Pod, Probe, Protocol, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// In the lab a handshake takes no time; what is silent for so long is denied.
const WINDOW: Duration = Duration::from_millis(300);
/// What db serves.
const PORT: u16 = 80;

/// A node with a web and a db.
struct Shop {
    live: Live,
    web: Pod,
    db: Pod,
}

impl Shop {
    fn new() -> Result<Self, Error> {
        let pods: [_; 2] = [
            ("shop/web", 1, &[("app", "web")][..]),
            ("shop/db", 1, &[("app", "db")]),
        ];
        let live = Live::new(1, &pods)?;
        let (web, db) = (live.pod("shop/web")?, live.pod("shop/db")?);
        db.listen(Protocol::Tcp, PORT)?;
        Ok(Self { live, web, db })
    }

    /// One that a daemon enforces.
    fn enforced() -> Result<(Self, Daemon), Error> {
        let shop = Self::new()?;
        let daemon = shop.live.daemon(1)?;
        Ok((shop, daemon))
    }

    /// One that a daemon enforces in tables that others may change.
    fn in_anyone_s_tables() -> Result<(Self, Daemon), Error> {
        let shop = Self::new()?;
        let command = shop.live.run_command(1)?.args(["--own-table", "off"]);
        let daemon = command.daemon()?;
        daemon.wait_for_output(IN_FORCE, PATIENCE)?;
        Ok((shop, daemon))
    }

    /// Makes a policy that db accepts this ingress alone.
    fn policy(&mut self, name: &str, ingress: &Value) -> Result<(), Error> {
        let spec = db_accepts(ingress);
        self.live.policy(&format!("shop/{name}"), &spec)
    }

    fn namespace(&mut self) -> Result<String, Error> {
        self.live.namespace("shop")
    }

    fn label_web(&mut self, app: &str) -> Result<(), Error> {
        let namespace = self.namespace()?;
        let labels = json!({"app": app});
        self.live.cluster.label_pod(&namespace, "web", &labels)
    }

    /// Waits until web reaches db over both families, or over neither.
    fn reaches(&self, expected: bool) -> Result<(), Error> {
        reaches(&self.web, &self.db, expected)
    }

    /// The status code that the daemon answers with, and what it says.
    fn ask(&self, path: &str) -> Result<(u16, String), Error> {
        ask(&self.live, 1, path)
    }
}

/// The spec of a policy for `app: db`.
fn db_accepts(ingress: &Value) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    })
}

/// The ingress of pods with this label.
fn from(app: &str) -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}])
}

/// Waits until one pod reaches the other over both families, or over neither.
fn reaches(from: &Pod, to: &Pod, expected: bool) -> Result<(), Error> {
    let addresses = to.addresses().iter();
    let probes: Vec<Probe> = addresses
        .map(|address| Probe::tcp(*address, PORT).window(WINDOW))
        .collect();
    let what = format!("{} reaches {}: {expected}", from.name(), to.name());
    wait_until(&what, PATIENCE, || {
        let outcomes = from.probe_all(&probes)?;
        let as_expected = |outcome: &Outcome| match expected {
            true => outcome.is_allowed(),
            false => outcome.is_denied(),
        };
        Ok(outcomes.iter().all(as_expected))
    })
}

/// The status code that a node's daemon answers with, and what it says.
fn ask(live: &Live, node: usize, path: &str) -> Result<(u16, String), Error> {
    live.ask(node, path)
}
