use super::*;
use crate::enforce::revocation::fixtures::*;

/// Pods 2 and 3 are isolated, and only pod 4 may come in to them.
fn rules() -> Ruleset {
    let mut cluster = Cluster::new();
    cluster.commit([pod(2, "api"), pod(3, "api"), pod(4, "web"), pod(5, "db")]);
    cluster.commit([policy("api", "api", &["web"])]);
    cluster.ruleset
}

fn of(last: impl IntoIterator<Item = u8>) -> Concern {
    Concern::These(last.into_iter().map(address).collect())
}

fn swept(tracked: &Tracked, concern: &Concern) -> Revoked {
    sweep(&mut tracked.clone(), concern, &rules).unwrap()
}

#[test]
fn what_is_denied_is_ended_and_nothing_else() {
    // 1 is the host itself.
    let all = [
        tcp(1, 2),
        tcp(4, 2),
        tcp(5, 2),
        tcp(5, 3),
        tcp(5, 4),
        tcp(2, 5),
    ];
    let tracked = Tracked::new(all);
    let revoked = swept(&tracked, &Concern::Everyone);
    assert_eq!((revoked.ended, revoked.failures), (2, 0));
    assert_eq!(revoked.named, [tcp(5, 2), tcp(5, 3)]);
    assert_eq!(
        tracked.entries(),
        [tcp(1, 2), tcp(2, 5), tcp(4, 2), tcp(5, 4)]
    );
    assert_eq!(tracked.reads(), [None]);
}

#[test]
fn only_those_concerned_are_looked_at() {
    let tracked = Tracked::new([tcp(5, 2), tcp(5, 3)]);
    assert_eq!(swept(&tracked, &of([3])).ended, 1);
    assert_eq!(tracked.entries(), [tcp(5, 2)]);
    assert_eq!(tracked.reads(), [Some([address(3)].into())]);
    // Both ends are concerned: it is one connection all the same.
    assert_eq!(swept(&tracked, &of([2, 5])).ended, 1);
    assert_eq!(swept(&tracked, &Concern::Nobody), Revoked::default());
}

#[test]
fn what_is_allowed_again_by_the_time_all_is_read_is_left() {
    let tracked = Tracked::new([tcp(5, 2)]);
    let asked = std::cell::Cell::new(0);
    let ruleset = || {
        asked.set(asked.get() + 1);
        match asked.get() {
            1 => rules(),
            _ => Ruleset::default(),
        }
    };
    let revoked = sweep(&mut tracked.clone(), &Concern::Everyone, &ruleset).unwrap();
    assert_eq!((revoked.ended, tracked.entries().len()), (0, 1));
}

#[test]
fn a_connection_that_is_over_is_taken_away_and_not_counted() {
    let mut over = tcp(5, 2);
    over.closed = true;
    let tracked = Tracked::new([over]);
    assert_eq!(swept(&tracked, &Concern::Everyone), Revoked::default());
    assert!(tracked.entries().is_empty());
}

#[test]
fn failures_are_counted() {
    let tracked = Tracked::new([tcp(5, 2), tcp(5, 3)]);
    tracked.fail_ends();
    let revoked = swept(&tracked, &Concern::Everyone);
    assert_eq!((revoked.ended, revoked.failures), (0, 2));
    assert!(revoked.reason.unwrap().contains("in a test"));
    tracked.fail_reads(1);
    assert!(sweep(&mut tracked.clone(), &of([2]), &rules).is_err());
}

#[test]
fn the_first_few_are_named_with_their_pods() {
    let tracked = Tracked::new((10..20).map(|n| tcp(n, 2)));
    let revoked = swept(&tracked, &Concern::Everyone);
    let pod = |of: IpAddr| (of == address(2)).then(|| "shop/api".to_owned());
    let names = revoked.names(pod);
    let first = "TCP 10.244.1.10:4000 to 10.244.1.2:80 (shop/api), TCP 10.244.1.11:4000";
    assert!(names.starts_with(first), "{names}");
    assert!(names.ends_with(" and 5 more"), "{names}");
    let mut ping = tcp(5, 2);
    ping.original.protocol = 1;
    ping.original.detail = Detail::Icmp {
        kind: 8,
        code: 0,
        id: 7,
    };
    let revoked = Revoked {
        ended: 1,
        named: vec![ping],
        ..Revoked::default()
    };
    assert_eq!(revoked.names(|_| None), "ICMP 10.244.1.5 to 10.244.1.2");
}
