use selvedge_nft::{Name, Rule, Verdict};

use super::*;
use crate::enforce::revocation::fixtures::*;

fn judged(entry: &Entry) -> Judgement {
    let mut cluster = Cluster::new();
    cluster.commit([pod(1, "web"), pod(2, "api"), pod(3, "db"), pod(101, "web")]);
    cluster.commit([policy("api", "api", &["web"])]);
    Judge::new(&cluster.ruleset, &[address(9)].into()).judge(entry)
}

#[test]
fn it_is_judged_by_who_was_reached_behind_a_service() {
    assert_eq!(judged(&tcp(1, 2)), Judgement::Allowed);
    assert_eq!(judged(&tcp(101, 2)), Judgement::Allowed);
    assert_eq!(judged(&tcp(3, 2)), Judgement::Denied);
    // Replies are no connections of their own.
    assert_eq!(judged(&tcp(2, 3)), Judgement::Allowed);
}

#[test]
fn who_answers_counts_not_whom_the_answer_goes_to() {
    // On its way out the source is the node's address: the replies come to it.
    let mut masqueraded = tcp(3, 2);
    masqueraded.reply.destination = address(9);
    assert_eq!(judged(&masqueraded), Judgement::Denied);
}

#[test]
fn the_host_s_own_connections_are_left_alone() {
    assert_eq!(judged(&tcp(9, 2)), Judgement::Spared);
    assert_eq!(judged(&tcp(2, 9)), Judgement::Spared);
}

#[test]
fn what_another_connection_announced_is_left_alone() {
    let mut announced = tcp(3, 2);
    announced.expected = true;
    assert_eq!(judged(&announced), Judgement::Spared);
}

#[test]
fn what_no_rule_can_have_seen_is_not_judged() {
    let mut mixed = tcp(3, 2);
    mixed.original.source = "fd00::1".parse().unwrap();
    assert_eq!(judged(&mixed), Judgement::Unsure);
}

#[test]
fn a_ruleset_that_can_t_be_walked_ends_nothing() {
    let mut cluster = Cluster::new();
    cluster.commit([pod(2, "api"), policy("api", "api", &[])]);
    let own = BTreeSet::new();
    let mut broken = cluster.ruleset.clone();
    change_chain(&mut broken, "ingress/shop/pod-2", |chain| {
        let nowhere = Name::new("nowhere").unwrap();
        chain.rules = vec![Rule::new([Verdict::Jump(nowhere).into()])];
    });
    assert_eq!(
        Judge::new(&broken, &own).judge(&tcp(3, 2)),
        Judgement::Unsure
    );
}

#[test]
fn every_protocol_has_its_transport() {
    let mut entry = tcp(1, 2);
    assert_eq!(transport(&entry), (Transport::Tcp(80), 4000));
    for (number, expected) in [
        (17, Transport::Udp(80)),
        (132, Transport::Sctp(80)),
        (1, Transport::Icmp),
        (58, Transport::Icmp),
        (47, Transport::Other(47)),
    ] {
        entry.original.protocol = number;
        assert_eq!(transport(&entry).0, expected);
    }
    entry.original.detail = Detail::None;
    assert_eq!(transport(&entry).1, 0);
}
