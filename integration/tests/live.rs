//! The daemon on an API server: what is asked of the API is what packets meet, whatever happens to the API server.
//!
//! The cluster is the stand-in, or the real one that `SELVEDGE_TEST_KUBECONFIG` names; the daemon reaches it through a
//! proxy that fails on demand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use selvedge_lab::api::{Chaos, Cluster, Endpoint, NewPod};
use selvedge_lab::stage::{self, Manifests, PodManifest, node};
use selvedge_lab::{Daemon, Error, Lab, Netns, Pod, Probe, Protocol, TcpFlow, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// On one node a handshake takes no time; what is silent for so long is denied.
const WINDOW: Duration = Duration::from_millis(300);
/// Faults during churn.
const FAULTS: u64 = 100;

/// A node with a web and a db, and their cluster.
struct Live {
    cluster: Cluster,
    endpoint: Endpoint,
    namespace: String,
    node: String,
    netns: Netns,
    web: Pod,
    db: Pod,
    lab: Lab,
}

impl Live {
    fn new() -> Result<Self, Error> {
        let manifests = Manifests::new()?;
        manifests.put("node.yaml", node(1))?;
        manifests.put("web.yaml", PodManifest::new("shop/web", 1, 2, "app: web"))?;
        manifests.put("db.yaml", PodManifest::new("shop/db", 1, 3, "app: db"))?;
        let lab = manifests.lab()?.build()?;
        let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
        db.listen(Protocol::Tcp, 80)?;
        let cluster = Cluster::for_tests()?;
        let cidrs = ["10.244.1.0/24", "fd00:10:244:1::/64"];
        let node = cluster.node("node", &cidrs, &[])?;
        let namespace = cluster.namespace("shop", &[])?;
        for (name, pod) in [("web", &web), ("db", &db)] {
            let new = NewPod::new(&namespace, name).node(&node).label("app", name);
            cluster.pod(&new.addresses(pod.addresses().iter().copied()))?;
        }
        let netns = lab.node("node-1")?.netns().clone();
        let endpoint = cluster.proxy()?.listen(&netns)?;
        Ok(Self {
            cluster,
            endpoint,
            namespace,
            node,
            netns,
            web,
            db,
            lab,
        })
    }

    fn daemon(&self) -> Result<Daemon, Error> {
        let node = self.lab.node("node-1")?;
        let command = stage::selvedge(&node)?.args(["run", "--node", &self.node, "--kubeconfig"]);
        command.arg(self.endpoint.kubeconfig()).daemon()
    }

    /// A stage that a daemon enforces.
    fn enforced() -> Result<(Self, Daemon), Error> {
        let live = Self::new()?;
        let daemon = live.daemon()?;
        daemon.wait_for_output(IN_FORCE, PATIENCE)?;
        Ok((live, daemon))
    }

    fn policy(&self, name: &str, ingress: &Value) -> Result<(), Error> {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        });
        self.cluster.policy(&self.namespace, name, &spec).map(drop)
    }

    /// Waits until web reaches db over both families, or over neither.
    fn reaches(&self, expected: bool) -> Result<(), Error> {
        let to = self.db.addresses().iter();
        let probes: Vec<Probe> = to.map(|to| Probe::tcp(*to, 80).window(WINDOW)).collect();
        wait_until(&format!("web reaches db: {expected}"), PATIENCE, || {
            let outcomes = self.web.probe_all(&probes)?;
            let as_expected = |outcome: &selvedge_lab::Outcome| match expected {
                true => outcome.is_allowed(),
                false => outcome.is_denied(),
            };
            Ok(outcomes.iter().all(as_expected))
        })
    }

    /// The status code that the daemon answers with, and what it says.
    fn ask(&self, path: &str) -> Result<(u16, String), Error> {
        let (path, place) = (path.to_owned(), path);
        let asked = self.netns.run(move || {
            let mut stream = TcpStream::connect("127.0.0.1:9464")?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        })?;
        let answer = asked.map_err(|error| Error::Io {
            what: format!("ask the daemon for {place}"),
            source: error,
        })?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.unwrap_or(0), answer))
    }

    /// Our tables, in one order.
    fn ruleset(&self) -> Result<String, Error> {
        let list = |family| {
            let words = ["-s", "list", "table", family, "selvedge"];
            self.netns.command("nft").args(words).run()
        };
        Ok(list("inet")? + &list("bridge")?)
    }
}

fn from(app: &str) -> Value {
    json!([{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}])
}

const IN_FORCE: &str = "the policies are in force";

#[test]
fn what_the_api_says_is_what_packets_meet() -> Result<(), Error> {
    let (live, _daemon) = Live::enforced()?;
    live.reaches(true)?;
    assert_eq!(live.ask("/livez")?.0, 200);
    let (code, answer) = live.ask("/readyz")?;
    assert_eq!(code, 200, "{answer}");

    live.policy("allow", &json!([]))?;
    live.reaches(false)?;
    live.cluster.delete_policy(&live.namespace, "allow")?;
    live.reaches(true)?;
    live.policy("allow", &from("web"))?;
    live.reaches(true)?;
    live.cluster
        .label_pod(&live.namespace, "web", &json!({"app": "other"}))?;
    live.reaches(false)?;
    live.cluster
        .label_pod(&live.namespace, "web", &json!({"app": "web"}))?;
    live.reaches(true)?;
    live.cluster.finish_pod(&live.namespace, "web")?;
    live.reaches(false)?;

    let (_, metrics) = live.ask("/metrics")?;
    assert!(metrics.contains("selvedge_policies 1"), "{metrics}");
    Ok(())
}

#[test]
fn faults_of_the_api_server_change_nothing() -> Result<(), Error> {
    let (live, daemon) = Live::enforced()?;
    live.policy("allow", &from("web"))?;
    live.policy("closed", &json!([]))?;
    live.reaches(true)?;
    let flow = TcpFlow::start(&live.web, live.db.ipv4()?, 80, Duration::from_millis(2))?;
    let seed = 0x5e1d_ed6e;
    let mut chaos = Chaos::new(seed);
    for n in 0..FAULTS {
        // Churn beside the flow: pods and policies that come and go.
        let name = format!("extra-{}", n % 5);
        match n % 10 {
            0..5 => {
                let octet = u8::try_from(100 + n % 5).unwrap_or_default();
                let new = NewPod::new(&live.namespace, &name)
                    .node(&live.node)
                    .label("app", "web");
                live.cluster
                    .pod(&new.addresses([[10, 244, 1, octet].into()]))?;
            }
            _ => live.cluster.finish_pod(&live.namespace, &name)?,
        }
        let fault = chaos.fault();
        fault.strike(&live.endpoint)?;
    }
    live.endpoint.calm()?;
    // Once this is enforced, so is all that came before it.
    live.cluster
        .label_pod(&live.namespace, "web", &json!({"app": "other"}))?;
    live.reaches(false)?;
    live.cluster
        .label_pod(&live.namespace, "web", &json!({"app": "web"}))?;
    live.reaches(true)?;
    assert!(!flow.has_ended(), "seed {seed:#x}: an allowed flow was cut");
    flow.stop()?;
    // A daemon that begins anew has nothing to change: the ruleset is as a fresh compile's.
    daemon.terminate(PATIENCE)?;
    let anew = live.daemon()?;
    anew.wait_for_output("there was nothing to change", PATIENCE)?;
    Ok(())
}

#[test]
fn without_an_api_server_a_restarted_daemon_changes_nothing() -> Result<(), Error> {
    let (live, daemon) = Live::enforced()?;
    live.policy("closed", &json!([]))?;
    live.reaches(false)?;
    daemon.terminate(PATIENCE)?;
    let before = live.ruleset()?;
    live.endpoint.down()?;
    let anew = live.daemon()?;
    anew.wait_for_output("the API server can't be read", PATIENCE)?;
    assert_eq!(live.ask("/livez")?.0, 200);
    let (code, answer) = live.ask("/readyz")?;
    assert_eq!(code, 503);
    assert!(answer.contains("the API server can't be read"), "{answer}");
    live.reaches(false)?;
    assert_eq!(live.ruleset()?, before);
    live.endpoint.up()?;
    anew.wait_for_output("there was nothing to change", PATIENCE)?;
    assert_eq!(live.ask("/readyz")?.0, 200);
    Ok(())
}

#[test]
fn drift_is_put_right_at_once() -> Result<(), Error> {
    let (live, daemon) = Live::enforced()?;
    live.policy("closed", &json!([]))?;
    live.reaches(false)?;
    let before = live.ruleset()?;
    for script in [
        "delete table inet selvedge",
        "delete table bridge selvedge",
        "insert rule inet selvedge ingress accept",
        "flush ruleset",
    ] {
        let (mark, started) = (daemon.said(), Instant::now());
        live.netns.nft(script)?;
        daemon.wait_for_output_after(mark, "nft (process", PATIENCE)?;
        daemon.wait_for_output_after(mark, "committed: ", PATIENCE)?;
        println!("{script}: put right after {:?}", started.elapsed());
        assert_eq!(live.ruleset()?, before, "{script}");
    }
    Ok(())
}
