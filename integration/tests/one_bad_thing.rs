//! One bad thing among a thousand stays one: a policy that the kernel refuses, a pod's own chain that it refuses, objects that
//! can't be decoded. Its pods are closed, everything else is in force and goes on to be, and an Event and a metric say so.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

#[path = "one_bad_thing/refusing.rs"]
mod refusing;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use refusing::{InProcess, Refusal};
use selvedge_lab::api::{Kind, Target};
use selvedge_lab::stage::live::Live;
use selvedge_lab::stage::{self, Manifests, PodManifest, namespace, node, policy};
use selvedge_lab::{Error, Outcome, Pod, Probe, Protocol, wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_millis(300);

/// The policies that are good.
const GOOD: usize = 999;
/// Those of them that are tried with packets: the first, the last, and some between.
const TRIED: [usize; 5] = [0, 1, 500, 997, 998];
/// What cache serves.
const PORT: u16 = 80;

/// The port that a good policy is about.
fn port(number: usize) -> u16 {
    1000 + u16::try_from(number).unwrap()
}

/// Whom a good policy is about.
fn subject(number: usize) -> &'static str {
    if number.is_multiple_of(2) {
        "db"
    } else {
        "api"
    }
}

/// A good policy: web may reach one port of db or of api.
fn good(number: usize) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": subject(number)}},
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "ports": [{"port": port(number)}],
        }],
    })
}

/// A policy for cache that lets web in.
fn for_cache() -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "cache"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": PORT}]}],
    })
}

/// Whether one pod reaches another on a port: over both families, or over neither.
fn reaches(from: &Pod, to: &Pod, port: u16, expected: bool) -> Result<(), Error> {
    let addresses = to.addresses().iter();
    let probes: Vec<Probe> = addresses
        .map(|address| Probe::tcp(*address, port).window(WINDOW))
        .collect();
    let what = format!("{} reaches {}:{port}: {expected}", from.name(), to.name());
    wait_until(&what, PATIENCE, || {
        let as_expected = |outcome: &Outcome| match expected {
            true => outcome.is_allowed(),
            false => outcome.is_denied(),
        };
        Ok(from.probe_all(&probes)?.iter().all(as_expected))
    })
}

/// The pods: web may, stranger may not; db, api and cache are isolated.
struct Pods {
    web: Pod,
    stranger: Pod,
    db: Pod,
    api: Pod,
    cache: Pod,
}

impl Pods {
    fn listen(&self) -> Result<(), Error> {
        for number in TRIED {
            self.subject(number).listen(Protocol::Tcp, port(number))?;
        }
        self.cache.listen(Protocol::Tcp, PORT)
    }

    fn subject(&self, number: usize) -> &Pod {
        if subject(number) == "db" {
            &self.db
        } else {
            &self.api
        }
    }

    /// Asserts that the good policies are in force: web gets in, a stranger does not.
    fn good_are_in_force(&self) -> Result<(), Error> {
        for number in TRIED {
            let to = self.subject(number);
            reaches(&self.web, to, port(number), true)?;
            reaches(&self.stranger, to, port(number), false)?;
        }
        Ok(())
    }

    /// Asserts that cache is isolated, for web too.
    fn cache_is_closed(&self) -> Result<(), Error> {
        reaches(&self.web, &self.cache, PORT, false)?;
        reaches(&self.stranger, &self.cache, PORT, false)
    }
}

/// A node, its pods, an API server with the good policies.
struct Shop {
    live: Live,
    pods: Pods,
    namespace: String,
}

impl Shop {
    fn new() -> Result<Self, Error> {
        let names = ["web", "stranger", "db", "api", "cache"];
        let labels = names.map(|name| [("app", name)]);
        let full = names.map(|name| format!("shop/{name}"));
        let begin = full.iter().zip(&labels);
        let begin: Vec<_> = begin
            .map(|(name, labels)| (name.as_str(), 1, &labels[..]))
            .collect();
        let mut live = Live::new(1, &begin)?;
        for number in 0..GOOD {
            live.policy(&format!("shop/good-{number}"), &good(number))?;
        }
        let pod = |name: &str| live.pod(&format!("shop/{name}"));
        let pods = Pods {
            web: pod("web")?,
            stranger: pod("stranger")?,
            db: pod("db")?,
            api: pod("api")?,
            cache: pod("cache")?,
        };
        pods.listen()?;
        let namespace = live.namespace("shop")?;
        Ok(Self {
            live,
            pods,
            namespace,
        })
    }

    /// A figure of the daemon's.
    fn metric(&self, name: &str) -> Result<f64, Error> {
        let (_, text) = self.live.ask(1, "/metrics")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| Error::Invalid {
                what: format!("there is no {name}"),
            })
    }

    fn wait_for_metric(&self, name: &str, value: f64) -> Result<(), Error> {
        wait_until(&format!("{name} {value}"), PATIENCE, || {
            // It may not listen yet.
            Ok(self.metric(name).is_ok_and(|now| now == value))
        })
    }

    /// Waits for the Event of a reason on an object of the namespace, and returns it.
    fn event(&self, kind: &str, name: &str, reason: &str) -> Result<Value, Error> {
        let target = Target::collection(Kind::Event, Some(&self.namespace));
        let mut found = Value::Null;
        wait_until(
            &format!("an Event {reason} on {kind} {name}"),
            PATIENCE,
            || {
                let events = self.live.cluster.list(&target)?;
                let event = events.into_iter().find(|event| {
                    let about = &event["involvedObject"];
                    about["kind"] == kind && about["name"] == name && event["reason"] == reason
                });
                found = event.unwrap_or_default();
                Ok(!found.is_null())
            },
        )?;
        Ok(found)
    }

    /// The chains in the kernel that are not as a fresh compile of the API's objects has them.
    fn odd_chains(&self) -> Result<Vec<String>, Error> {
        let (kernel, fresh) = self.live.enforced_and_fresh(1)?;
        let chains = |script: &str| -> BTreeSet<String> {
            let chains = script.split("\tchain ").skip(1);
            chains
                .map(|chain| chain.split("\n\t}").next().unwrap_or_default().to_owned())
                .collect()
        };
        let (kernel, fresh) = (chains(&kernel), chains(&fresh));
        let odd = kernel.symmetric_difference(&fresh);
        let names: BTreeSet<String> = odd
            .map(|chain| chain.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        Ok(names.into_iter().collect())
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_is_closed_and_the_other_999_are_in_force() -> Result<(), Error>
{
    let mut shop = Shop::new()?;
    shop.live.policy("shop/poisoned", &for_cache())?;
    let chain = format!("policy/{}/poisoned/ingress", shop.namespace);
    let started = Instant::now();
    let daemon = InProcess::start(shop.live.node(1), Refusal::of(&chain))?;
    shop.wait_for_metric("selvedge_refused_policies", 1.0)?;
    println!(
        "one poisoned policy among 1,000: the others in force {:?} after the daemon's start",
        started.elapsed()
    );
    assert_eq!(shop.metric("selvedge_policies")?, 1000.0);
    assert_eq!(shop.odd_chains()?, [chain]);
    shop.pods.good_are_in_force()?;
    shop.pods.cache_is_closed()?;
    let event = shop.event("NetworkPolicy", "poisoned", "RefusedByKernel")?;
    println!(
        "Event: {} {}: {}",
        event["type"], event["reason"], event["message"]
    );
    let message = event["message"].as_str().unwrap_or_default();
    assert!(message.contains("the kernel refused to"), "{message}");
    let target = Target::object(Kind::NetworkPolicy, Some(&shop.namespace), "poisoned");
    let object = shop.live.cluster.get(&target)?;
    assert_eq!(event["involvedObject"]["uid"], object["metadata"]["uid"]);
    assert_eq!(
        shop.live.ask(1, "/readyz")?.0,
        200,
        "all but one is in force"
    );

    // It holds nothing up.
    let started = Instant::now();
    shop.live.policy(
        "shop/good-0",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": []}),
    )?;
    reaches(&shop.pods.web, &shop.pods.db, port(0), false)?;
    println!(
        "another policy's edit is in force after {:?}",
        started.elapsed()
    );

    // When it changes it is tried at once.
    daemon.heal();
    let mut changed = for_cache();
    changed["ingress"][0]["ports"][0]["endPort"] = json!(PORT);
    shop.live.policy("shop/poisoned", &changed)?;
    reaches(&shop.pods.web, &shop.pods.cache, PORT, true)?;
    reaches(&shop.pods.stranger, &shop.pods.cache, PORT, false)?;
    shop.wait_for_metric("selvedge_refused_policies", 0.0)?;
    daemon.stop()
}

#[test]
fn a_pod_whose_chain_the_kernel_refuses_is_closed_and_all_else_is_in_force() -> Result<(), Error> {
    let mut shop = Shop::new()?;
    shop.live.policy("shop/cache", &for_cache())?;
    let chain = format!("ingress/{}/cache", shop.namespace);
    let daemon = InProcess::start(shop.live.node(1), Refusal::of(&chain))?;
    shop.wait_for_metric("selvedge_closed_pods", 1.0)?;
    assert_eq!(shop.metric("selvedge_refused_policies")?, 0.0);
    // Its own chain is not there, and its policy's is not needed.
    let policy = format!("policy/{}/cache/ingress", shop.namespace);
    assert_eq!(shop.odd_chains()?, [chain, policy]);
    shop.pods.good_are_in_force()?;
    shop.pods.cache_is_closed()?;
    let event = shop.event("Pod", "cache", "RefusedByKernel")?;
    println!(
        "Event: {} {}: {}",
        event["type"], event["reason"], event["message"]
    );
    daemon.stop()
}

#[test]
fn objects_that_cannot_be_decoded_close_what_they_select_and_nothing_else() -> Result<(), Error> {
    let mut shop = Shop::new()?;
    let Some(server) = shop.live.cluster.server() else {
        println!("a real API server stores no such objects");
        return Ok(());
    };
    let plant = |name: &str, metadata: Value, spec: Value| {
        let target = Target::object(Kind::NetworkPolicy, Some(&shop.namespace), name);
        server.plant(&target, json!({"metadata": metadata, "spec": spec}));
    };
    let named = |name: &str| json!({"name": name, "namespace": shop.namespace, "uid": name});
    // Whom it is about can be read, what it allows can't.
    let garbled = json!({"podSelector": {"matchLabels": {"app": "cache"}}, "ingress": "everyone"});
    plant("garbled", named("garbled"), garbled);
    // Not even its name.
    let nameless = json!({"name": {"first": "x"}, "namespace": shop.namespace});
    plant("nameless", nameless, json!({"podSelector": {}}));
    let pod = Target::object(Kind::Pod, Some(&shop.namespace), "odd");
    let odd = json!({"metadata": named("odd"), "spec": 7, "status": ["?"]});
    server.plant(&pod, odd);
    let daemon = shop.live.daemon(1)?;
    shop.pods.good_are_in_force()?;
    shop.pods.cache_is_closed()?;
    let event = shop.event("NetworkPolicy", "garbled", "NotEnforcedAsWritten")?;
    println!(
        "Event: {} {}: {}",
        event["type"], event["reason"], event["message"]
    );
    assert!(shop.metric("selvedge_policy_problems")? >= 1.0);
    assert!(shop.metric("selvedge_errors_total{kind=\"decode\"}")? >= 2.0);
    assert_eq!(shop.live.ask(1, "/readyz")?.0, 200);
    let (kernel, fresh) = shop.live.enforced_and_fresh(1)?;
    assert_eq!(kernel, fresh);

    // It holds nothing up, be it there from the start or not.
    let target = Target::object(Kind::NetworkPolicy, Some(&shop.namespace), "late");
    if let Some(server) = shop.live.cluster.server() {
        server.plant(&target, json!({"metadata": {"name": ["?"]}, "spec": "?"}));
    }
    shop.live.policy(
        "shop/good-0",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": []}),
    )?;
    reaches(&shop.pods.web, &shop.pods.db, port(0), false)?;
    shop.live.policy("shop/garbled", &for_cache())?;
    reaches(&shop.pods.web, &shop.pods.cache, PORT, true)?;
    assert!(daemon.exit().is_none());
    Ok(())
}

#[test]
fn files_that_cannot_be_decoded_close_what_they_select_and_nothing_else() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    let names = ["web", "stranger", "db", "api", "cache"];
    let pods = names.iter().zip(2..).map(|(name, host)| {
        PodManifest::new(&format!("shop/{name}"), 1, host, &format!("app: {name}")).to_string()
    });
    let cluster = node(1) + &namespace("shop", "team: shop") + &pods.collect::<String>();
    manifests.put("cluster.yaml", cluster)?;
    let policies = (0..GOOD).map(|n| policy(&format!("shop/good-{n}"), &good(n).to_string()));
    manifests.put("policies.yaml", policies.collect::<String>())?;
    let garbled = "{podSelector: {matchLabels: {app: cache}}, ingress: everyone}";
    manifests.put("garbled.yaml", policy("shop/garbled", garbled))?;
    manifests.put("garbage.yaml", "\u{1}\u{2}: [}{")?;
    let lab = manifests.lab()?.build()?;
    let [web, stranger, db, api, cache] = lab.pods_named([
        "shop/web",
        "shop/stranger",
        "shop/db",
        "shop/api",
        "shop/cache",
    ])?;
    let pods = Pods {
        web,
        stranger,
        db,
        api,
        cache,
    };
    pods.listen()?;
    let daemon = stage::daemon(&lab.node("node-1")?, manifests.path())?;
    pods.good_are_in_force()?;
    pods.cache_is_closed()?;
    for part in ["garbled", "spec.ingress", "garbage.yaml"] {
        assert!(daemon.stderr().contains(part), "{part}");
    }
    let again = "{podSelector: {matchLabels: {app: cache}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    manifests.put("garbled.yaml", policy("shop/garbled", again))?;
    reaches(&pods.web, &pods.cache, PORT, true)?;
    reaches(&pods.stranger, &pods.cache, PORT, false)
}
