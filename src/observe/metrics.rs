//! What is counted.
//!
//! Names are `selvedge_…` in base units (seconds, bytes); labels take their values from the closed enums here, so that
//! there are as many series on the first day as on the last. Every series is there from the start, with zero.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use selvedge_nft::{Committed, DataplaneError};

use super::exposition;
use super::figures::{CniCommand, CniOutcome, Counts, ErrorKind, Held};
use super::health::{Condition, Report, Standing};
use super::process::Process;
use crate::cluster::object::ObjectKind;

/// From a quarter of a millisecond to five seconds.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Label = Labels<1>;
type Seconds = Gauge<f64, AtomicU64>;

fn error_label(kind: ErrorKind) -> Label {
    [("kind", kind.name())]
}

fn condition_label(condition: Condition) -> Label {
    [("condition", condition.name())]
}

/// The label `kind` of what is said about a kind of object: the API's own word.
fn object_label(kind: ObjectKind) -> Label {
    [("kind", kind.name())]
}

fn cni_labels(command: CniCommand, outcome: CniOutcome) -> Labels<2> {
    [("command", command.name()), ("outcome", outcome.name())]
}

const ACKNOWLEDGED: Label = [("result", "acknowledged")];
const REFUSED: Label = [("result", "refused")];
const UNKNOWN: Label = [("result", "unknown")];
const INGRESS: Label = [("direction", "ingress")];
const EGRESS: Label = [("direction", "egress")];

/// What is counted. Every method costs a few atomic operations.
pub struct Metrics {
    registry: Registry,
    policies: Gauge,
    policy_problems: Gauge,
    unmet_ports: Gauge,
    refused_policies: Gauge,
    closed_pods: Gauge,
    namespaces: Gauge,
    pods: Gauge,
    local_pods: Gauge,
    isolated_pods: Family<Label, Gauge>,
    chains: Gauge,
    sets: Gauge,
    elements: Gauge,
    commits: Family<Label, Counter>,
    commit_duration: Histogram,
    event_to_kernel: Histogram,
    netlink_messages: Counter,
    netlink_bytes: Counter,
    drift_repairs: Counter,
    closings: Counter,
    revoked_connections: Counter,
    revocation_duration: Histogram,
    cni_requests: Family<Labels<2>, Counter>,
    cni_add: Histogram,
    last_commit: Seconds,
    errors: Family<Label, Counter>,
    source_synced: Gauge,
    last_api_contact: Family<Label, Seconds>,
    watch_restarts: Family<Label, Counter>,
    relists: Family<Label, Counter>,
    ready: Gauge,
    unmet_conditions: Family<Label, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, with nothing counted.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::of_this()));
        let ours = registry.sub_registry_with_prefix("selvedge");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The version that runs", version);
        Self {
            policies: put(ours, "policies", "NetworkPolicies that are known"),
            policy_problems: put(
                ours,
                "policy_problems",
                "What of policies can't be understood, and allows nothing for that, at present",
            ),
            unmet_ports: put(
                ours,
                "unmet_ports",
                "Named ports that policies ask for and no pod has, of this node's where it is about these",
            ),
            refused_policies: put(
                ours,
                "refused_policies",
                "Policies that the kernel refuses to take: their pods are isolated, and they allow nothing",
            ),
            closed_pods: put(
                ours,
                "closed_pods",
                "Pods of this node that nothing passes for, since the kernel refuses their chains or their policies went unheard",
            ),
            namespaces: put(ours, "namespaces", "Namespaces that are known"),
            pods: put(ours, "pods", "Pods that are known, of all nodes"),
            local_pods: put(ours, "local_pods", "Pods of this node"),
            isolated_pods: put_each(
                ours,
                "isolated_pods",
                "Pods of this node that policies isolate in a direction",
                [INGRESS, EGRESS],
            ),
            chains: put(ours, "chains", "Chains in the kernel"),
            sets: put(ours, "sets", "Sets and maps in the kernel"),
            elements: put(
                ours,
                "elements",
                "Elements of the sets and maps in the kernel",
            ),
            commits: put_each(
                ours,
                "commits",
                "Transactions sent to the kernel, by what came of them",
                [ACKNOWLEDGED, REFUSED, UNKNOWN],
            ),
            commit_duration: put_seconds(
                ours,
                "commit_duration",
                "Time from sending a transaction to its acknowledgement by the kernel",
                Histogram::new(SECONDS),
            ),
            event_to_kernel: put_seconds(
                ours,
                "event_to_kernel",
                "Time from the oldest event of a burst to the acknowledgement of the transaction it led to",
                Histogram::new(SECONDS),
            ),
            netlink_messages: put(
                ours,
                "netlink_sent_messages",
                "Netlink messages of acknowledged transactions",
            ),
            netlink_bytes: {
                let bytes = Counter::default();
                let help = "Bytes of acknowledged transactions";
                ours.register_with_unit("netlink_sent", help, Unit::Bytes, bytes.clone());
                bytes
            },
            drift_repairs: put(
                ours,
                "drift_repairs",
                "Times that others had changed the ruleset in the kernel and it was put right",
            ),
            closings: put(
                ours,
                "closings",
                "Times that others had deleted the ruleset and isolated pods were closed until it was back",
            ),
            revoked_connections: put(
                ours,
                "revoked_connections",
                "Connections that were ended as a change of policy denies them",
            ),
            revocation_duration: put_seconds(
                ours,
                "revocation_duration",
                "Time that a look for connections that are denied now took, with their end",
                Histogram::new(SECONDS),
            ),
            cni_requests: put_each(
                ours,
                "cni_requests",
                "Requests of the CNI plugin, by what it asked for and what came of it",
                CniCommand::ALL.into_iter().flat_map(|command| {
                    CniOutcome::ALL.map(|outcome| cni_labels(command, outcome))
                }),
            ),
            cni_add: put_seconds(
                ours,
                "cni_add",
                "Time that a pod's start waited until its policies were in force",
                Histogram::new(SECONDS),
            ),
            last_commit: put_seconds(
                ours,
                "last_commit_timestamp",
                "When the kernel last acknowledged a transaction or was read and found as wanted, since the epoch; 0 for never",
                Gauge::default(),
            ),
            errors: put_each(
                ours,
                "errors",
                "Errors, by what they were about",
                ErrorKind::ALL.map(error_label),
            ),
            source_synced: put(
                ours,
                "source_synced",
                "Whether all objects have been read once (1) or not yet (0)",
            ),
            last_api_contact: put_seconds(
                ours,
                "last_api_contact_timestamp",
                "When the API server last said anything of a kind of object, since the epoch; 0 for never",
                each(ObjectKind::ALL.map(object_label)),
            ),
            watch_restarts: put_each(
                ours,
                "watch_restarts",
                "Watches opened anew where the last one ended, by kind of object",
                ObjectKind::ALL.map(object_label),
            ),
            relists: put_each(
                ours,
                "relists",
                "Lists made again after the first, by kind of object",
                ObjectKind::ALL.map(object_label),
            ),
            ready: put(ours, "ready", "Whether /readyz says ok (1) or not (0)"),
            unmet_conditions: put_each(
                ours,
                "unmet_conditions",
                "Whether a condition that /readyz?verbose lists is not met (1) or is (0)",
                Condition::ALL.map(condition_label),
            ),
            registry,
        }
    }

    /// Takes note of how much of the cluster is known.
    pub fn cluster(&self, counts: Counts) {
        self.policies.set(whole(counts.policies));
        self.policy_problems.set(whole(counts.policy_problems));
        self.unmet_ports.set(whole(counts.unmet_ports));
        self.refused_policies.set(whole(counts.refused_policies));
        self.closed_pods.set(whole(counts.closed_pods));
        self.namespaces.set(whole(counts.namespaces));
        self.pods.set(whole(counts.pods));
        self.local_pods.set(whole(counts.local_pods));
        let isolated = |label, count| self.isolated_pods.get_or_create(&label).set(whole(count));
        isolated(INGRESS, counts.isolated_ingress);
        isolated(EGRESS, counts.isolated_egress);
    }

    /// Takes note of how much the kernel holds.
    pub fn holds(&self, held: Held) {
        self.chains.set(whole(held.chains));
        self.sets.set(whole(held.sets));
        self.elements.set(whole(held.elements));
    }

    /// Counts a transaction that the kernel acknowledged, so long after it was sent.
    pub fn committed(&self, committed: Committed, took: Duration) {
        self.commits.get_or_create(&ACKNOWLEDGED).inc();
        self.commit_duration.observe(took.as_secs_f64());
        self.netlink_messages.inc_by(committed.messages as u64);
        self.netlink_bytes.inc_by(committed.bytes as u64);
    }

    /// Counts a transaction that came to nothing, or nobody knows to what.
    pub fn not_committed(&self, error: &DataplaneError) {
        let result = match error {
            DataplaneError::Refused { .. } => REFUSED,
            _ => UNKNOWN,
        };
        self.commits.get_or_create(&result).inc();
        self.error(ErrorKind::Commit);
    }

    /// Takes note that what is wanted is in force, as the kernel has said just now. See [`super::Observer::in_force`].
    pub(super) fn in_force(&self) {
        self.last_commit.set(unix_time());
    }

    /// Counts a ruleset that others had changed and that was put right.
    pub fn drift_repaired(&self) {
        self.drift_repairs.inc();
    }

    /// Counts a time that isolated pods are closed, as others have deleted the ruleset. See [`super::Observer::closed`].
    pub(super) fn closed(&self) {
        self.closings.inc();
    }

    /// Counts a look for connections that are denied now, and those that it ended.
    pub fn swept(&self, ended: usize, took: Duration) {
        self.revoked_connections.inc_by(ended as u64);
        self.revocation_duration.observe(took.as_secs_f64());
    }

    /// Counts a request of the CNI plugin.
    pub fn cni_request(&self, command: CniCommand, outcome: CniOutcome) {
        let labels = cni_labels(command, outcome);
        self.cni_requests.get_or_create(&labels).inc();
    }

    /// Takes note of the time that an ADD took which succeeded.
    pub fn cni_add(&self, took: Duration) {
        self.cni_add.observe(took.as_secs_f64());
    }

    /// Takes note of the time from the oldest event of a burst to the acknowledgement of what it led to.
    pub fn event_in_force(&self, took: Duration) {
        self.event_to_kernel.observe(took.as_secs_f64());
    }

    /// Counts an error.
    pub fn error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&error_label(kind)).inc();
    }

    /// Takes note of whether all objects have been read once.
    pub fn source_synced(&self, synced: bool) {
        self.source_synced.set(i64::from(synced));
    }

    /// Takes note that the API server has said something of a kind just now.
    pub fn api_contact(&self, kind: ObjectKind) {
        let contact = self.last_api_contact.get_or_create(&object_label(kind));
        contact.set(unix_time());
    }

    /// Counts a watch that was opened anew where the last one ended.
    pub fn watch_restarted(&self, kind: ObjectKind) {
        self.watch_restarts.get_or_create(&object_label(kind)).inc();
    }

    /// Counts a list that was made again after the first.
    pub fn relisted(&self, kind: ObjectKind) {
        self.relists.get_or_create(&object_label(kind)).inc();
    }

    /// All of it, in the format OpenMetrics 1.0.
    pub(super) fn text(&self, report: &Report) -> Result<String, fmt::Error> {
        self.ready.set(i64::from(report.ready()));
        for (condition, standing, _) in &report.conditions {
            let unmet = self
                .unmet_conditions
                .get_or_create(&condition_label(*condition));
            unmet.set(i64::from(*standing != Standing::Met));
        }
        exposition::open_metrics(&self.registry)
    }
}

fn put<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn put_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

/// A metric with labels, and all the values that they will ever have.
fn put_each<M, const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: impl IntoIterator<Item = Labels<N>>,
) -> Family<Labels<N>, M>
where
    M: Clone + Default,
    Labels<N>: Clone + Hash + Eq,
    Family<Labels<N>, M>: Metric + Default,
    fn() -> M: MetricConstructor<M>,
{
    let family = each(labels);
    registry.register(name, help, family.clone());
    family
}

/// The same, of nobody's registry yet.
fn each<M, const N: usize>(labels: impl IntoIterator<Item = Labels<N>>) -> Family<Labels<N>, M>
where
    M: Clone + Default,
    Labels<N>: Clone + Hash + Eq,
    Family<Labels<N>, M>: Default,
    fn() -> M: MetricConstructor<M>,
{
    let family: Family<Labels<N>, M> = Family::default();
    for label in labels {
        drop(family.get_or_create(&label));
    }
    family
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Seconds since the epoch.
fn unix_time() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
