use std::io;

use super::*;
use crate::observe::checker::{Exposition, Format, check};
use crate::observe::{Condition, Observer};

fn exposed(observer: &Observer) -> Exposition {
    let open = observer.open_metrics().unwrap();
    let exposed = check(&open, Format::OpenMetrics).unwrap();
    let classic = check(&exposition::classic(&open), Format::Classic).unwrap();
    // Both say the same, but for what the process used in between: they are of one text.
    assert_eq!(exposed.series, classic.series);
    assert_eq!(exposed.types.len(), classic.types.len());
    exposed
}

/// Tells an observer everything there is to tell.
fn tell_all(metrics: &Metrics) {
    let refused = DataplaneError::Refused {
        operation: "add the rule shop/web-0".to_owned(),
        index: None,
        source: io::Error::from_raw_os_error(22),
    };
    let unknown = DataplaneError::Interrupted { attempts: 3 };
    metrics.cluster(Counts {
        policies: 1,
        policy_problems: 2,
        unmet_ports: 15,
        refused_policies: 13,
        closed_pods: 14,
        namespaces: 3,
        pods: 4,
        local_pods: 5,
        isolated_ingress: 6,
        isolated_egress: 7,
    });
    metrics.holds(Held {
        chains: 8,
        sets: 9,
        elements: 10,
    });
    let committed = Committed {
        batches: 1,
        messages: 11,
        bytes: 12,
    };
    metrics.committed(committed, Duration::from_millis(3));
    metrics.not_committed(&refused);
    metrics.not_committed(&unknown);
    metrics.in_force();
    metrics.drift_repaired();
    metrics.closed();
    metrics.swept(13, Duration::from_millis(4));
    metrics.event_in_force(Duration::from_secs(7));
    for command in CniCommand::ALL {
        for outcome in CniOutcome::ALL {
            metrics.cni_request(command, outcome);
        }
    }
    metrics.cni_add(Duration::from_millis(5));
    for kind in ErrorKind::ALL {
        metrics.error(kind);
    }
    metrics.source_synced(true);
    for kind in ObjectKind::ALL {
        metrics.api_contact(kind);
        metrics.watch_restarted(kind);
        metrics.relisted(kind);
    }
}

#[test]
fn everything_is_there_from_the_start_and_sound() {
    let observer = Observer::new();
    let exposed = exposed(&observer);
    for (name, label) in [
        ("selvedge_policies", ""),
        ("selvedge_isolated_pods", "direction=egress"),
        ("selvedge_commits_total", "result=acknowledged"),
        ("selvedge_commit_duration_seconds_count", ""),
        ("selvedge_event_to_kernel_seconds_sum", ""),
        ("selvedge_netlink_sent_messages_total", ""),
        ("selvedge_netlink_sent_bytes_total", ""),
        ("selvedge_drift_repairs_total", ""),
        ("selvedge_closings_total", ""),
        ("selvedge_revoked_connections_total", ""),
        ("selvedge_revocation_duration_seconds_count", ""),
        ("selvedge_cni_requests_total", "command=add,outcome=late"),
        ("selvedge_cni_add_seconds_count", ""),
        ("selvedge_errors_total", "kind=revocation"),
        ("selvedge_errors_total", "kind=read_back"),
        ("selvedge_watch_restarts_total", "kind=NetworkPolicy"),
        ("selvedge_relists_total", "kind=Pod"),
        ("selvedge_last_commit_timestamp_seconds", ""),
        (
            "selvedge_last_api_contact_timestamp_seconds",
            "kind=NetworkPolicy",
        ),
        ("selvedge_source_synced", ""),
        ("selvedge_ready", ""),
    ] {
        assert_eq!(exposed.value(name, label), 0.0, "{name}");
    }
    let version = concat!("version=", env!("CARGO_PKG_VERSION"));
    assert_eq!(exposed.value("selvedge_build_info", version), 1.0);
}

#[test]
fn what_is_told_is_exposed() {
    let observer = Observer::new();
    let before = unix_time();
    tell_all(&observer.metrics);
    let exposed = exposed(&observer);
    for (name, label, value) in [
        ("selvedge_policies", "", 1.0),
        ("selvedge_policy_problems", "", 2.0),
        ("selvedge_unmet_ports", "", 15.0),
        ("selvedge_refused_policies", "", 13.0),
        ("selvedge_closed_pods", "", 14.0),
        ("selvedge_namespaces", "", 3.0),
        ("selvedge_pods", "", 4.0),
        ("selvedge_local_pods", "", 5.0),
        ("selvedge_isolated_pods", "direction=ingress", 6.0),
        ("selvedge_isolated_pods", "direction=egress", 7.0),
        ("selvedge_chains", "", 8.0),
        ("selvedge_sets", "", 9.0),
        ("selvedge_elements", "", 10.0),
        ("selvedge_netlink_sent_messages_total", "", 11.0),
        ("selvedge_netlink_sent_bytes_total", "", 12.0),
        ("selvedge_commits_total", "result=acknowledged", 1.0),
        ("selvedge_commits_total", "result=refused", 1.0),
        ("selvedge_commits_total", "result=unknown", 1.0),
        ("selvedge_errors_total", "kind=commit", 3.0),
        ("selvedge_errors_total", "kind=links", 1.0),
        ("selvedge_commit_duration_seconds_sum", "", 0.003),
        ("selvedge_commit_duration_seconds_bucket", "le=0.0025", 0.0),
        ("selvedge_commit_duration_seconds_bucket", "le=0.005", 1.0),
        ("selvedge_event_to_kernel_seconds_bucket", "le=5.0", 0.0),
        ("selvedge_event_to_kernel_seconds_bucket", "le=+Inf", 1.0),
        ("selvedge_drift_repairs_total", "", 1.0),
        ("selvedge_closings_total", "", 1.0),
        ("selvedge_revoked_connections_total", "", 13.0),
        ("selvedge_revocation_duration_seconds_sum", "", 0.004),
        ("selvedge_revocation_duration_seconds_count", "", 1.0),
        (
            "selvedge_cni_requests_total",
            "command=del,outcome=done",
            1.0,
        ),
        ("selvedge_cni_add_seconds_sum", "", 0.005),
        ("selvedge_source_synced", "", 1.0),
        ("selvedge_watch_restarts_total", "kind=Node", 1.0),
    ] {
        assert_eq!(exposed.value(name, label), value, "{name} {label}");
    }
    for (name, label) in [
        ("selvedge_last_commit_timestamp_seconds", ""),
        ("selvedge_last_api_contact_timestamp_seconds", "kind=Pod"),
    ] {
        let at = exposed.value(name, label);
        assert!(at >= before && at <= unix_time(), "{name} {at}");
    }
}

#[test]
fn the_process_shows_its_own_figures() {
    let exposed = exposed(&Observer::new());
    assert!(exposed.value("process_resident_memory_bytes", "") > 1e6);
    assert!(exposed.value("process_open_fds", "") >= 3.0);
    assert!(exposed.value("process_cpu_seconds_total", "") >= 0.0);
    let started = exposed.value("process_start_time_seconds", "");
    assert!((started - unix_time()).abs() < 24.0 * 3600.0, "{started}");
}

#[test]
fn no_series_comes_with_use() {
    let observer = Observer::new();
    let keys = |exposed: Exposition| exposed.series.into_keys().collect::<Vec<_>>();
    let before = keys(exposed(&observer));
    tell_all(&observer.metrics);
    let exposed = exposed(&observer);
    let labels = exposed.labels();
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    let known = [
        "command",
        "condition",
        "direction",
        "kind",
        "le",
        "outcome",
        "result",
        "version",
    ];
    assert_eq!(names, known);
    assert_eq!(before, keys(exposed));
    assert!(before.len() < 150, "{}", before.len());
}

#[test]
fn readiness_is_as_of_now() {
    let observer = Observer::new();
    let ready = || exposed(&observer).value("selvedge_ready", "");
    let unmet = |condition: Condition| {
        let label = format!("condition={condition}");
        exposed(&observer).value("selvedge_unmet_conditions", &label)
    };
    observer.in_force();
    assert_eq!(ready(), 0.0);
    observer.health.set(Condition::BridgeNetfilter, []);
    observer.health.set(Condition::KubeProxy, []);
    observer.health.set(Condition::NewPods, []);
    assert_eq!(ready(), 1.0);
    assert_eq!(
        (unmet(Condition::Commit), unmet(Condition::Source)),
        (0.0, 1.0)
    );
    observer.not_in_force("no buffer space");
    assert_eq!(ready(), 0.0);
    assert_eq!(unmet(Condition::Commit), 1.0);
}
