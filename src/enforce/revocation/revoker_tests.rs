use std::sync::mpsc;

use super::*;
use crate::enforce::revocation::fixtures::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn rules() -> Ruleset {
    let mut cluster = Cluster::new();
    cluster.commit([pod(2, "api"), pod(5, "db"), policy("api", "api", &[])]);
    cluster.ruleset
}

/// A revoker of these connections, and what it tells.
fn revoker(tracked: &Tracked) -> (Revoker, mpsc::Receiver<Revoked>, Arc<Observer>) {
    let (sender, told) = mpsc::channel();
    let (tracked, observer) = (tracked.clone(), Observer::new());
    let tell = move |revoked| drop(sender.send(revoked));
    let revoker = Revoker::start(move || Ok(tracked.clone()), observer.clone(), tell);
    (revoker.unwrap(), told, observer)
}

#[test]
fn it_sweeps_at_once_and_once_more_for_what_slipped_in_between() {
    let tracked = Tracked::new([tcp(5, 2)]);
    tracked.slips_in(tcp(6, 2));
    let (revoker, told, observer) = revoker(&tracked);
    revoker.order(Concern::Everyone, &rules());
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().named, [tcp(5, 2)]);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().named, [tcp(6, 2)]);
    let metrics = observer.open_metrics().unwrap();
    assert!(metrics.contains("selvedge_revoked_connections_total 2"));
    drop(revoker);
    // The thread ends, and with it what it tells by.
    assert!(told.recv_timeout(PATIENCE).is_err());
    assert_eq!(tracked.reads().len(), 2);
}

#[test]
fn what_can_t_be_read_is_read_later() {
    let tracked = Tracked::new([tcp(5, 2)]);
    tracked.fail_reads(1);
    let (revoker, told, observer) = revoker(&tracked);
    revoker.order(Concern::Everyone, &rules());
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().ended, 1);
    let metrics = observer.open_metrics().unwrap();
    let counted = "selvedge_errors_total{kind=\"revocation\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    drop(revoker);
}

#[test]
fn what_can_t_be_ended_is_tried_again_for_as_long_as_it_is_there() {
    let tracked = Tracked::new([tcp(5, 2)]);
    tracked.fail_ends();
    let (revoker, ..) = revoker(&tracked);
    revoker.order(Concern::Everyone, &rules());
    let deadline = Instant::now() + PATIENCE;
    while tracked.reads().len() < 4 {
        assert!(Instant::now() < deadline, "{:?}", tracked.reads());
        thread::sleep(Duration::from_millis(20));
    }
    drop(revoker);
}

#[test]
fn who_is_not_concerned_is_not_looked_at() {
    let tracked = Tracked::new([tcp(5, 2)]);
    let (revoker, told, _) = revoker(&tracked);
    revoker.order(Concern::Nobody, &rules());
    drop(revoker);
    assert!(told.recv_timeout(PATIENCE).is_err());
    assert!(tracked.reads().is_empty());
}
