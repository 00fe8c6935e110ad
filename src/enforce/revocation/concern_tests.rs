use proptest::prelude::*;
use selvedge_nft::{Detail, Entry, Hook, diff};

use super::*;
use crate::arbitrary::{NODES, events};
use crate::cluster::Text;
use crate::cluster::object::{Event, Object};
use crate::compile::{Compiler, Host};
use crate::enforce::host;
use crate::enforce::revocation::fixtures::*;
use crate::enforce::revocation::judge::{Judge, Judgement};
use crate::index::Index;
use crate::verdict::ruleset::BaseChains;

fn these(last: impl IntoIterator<Item = u8>) -> Concern {
    Concern::These(last.into_iter().map(address).collect())
}

/// Commits events, and gives whom that concerns.
fn after(cluster: &mut Cluster, events: impl IntoIterator<Item = Event>) -> Concern {
    let (before, transaction) = cluster.commit(events);
    concerned(&before, &transaction, &cluster.ruleset)
}

/// Pods 1 (web), 2 (api) and 3 (api) here, 101 (web) elsewhere, and a policy that lets web in to api.
fn shop() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.commit([pod(1, "web"), pod(2, "api"), pod(3, "api"), pod(101, "web")]);
    cluster.commit([policy("api", "api", &["web"])]);
    cluster
}

#[test]
fn pods_that_become_isolated_are_concerned() {
    let mut cluster = Cluster::new();
    // The first isolated pod switches on what the base chains have against detours.
    assert_eq!(
        after(&mut cluster, [pod(1, "web"), policy("web", "web", &[])]),
        Concern::Everyone
    );
    assert_eq!(after(&mut cluster, [pod(2, "api")]), Concern::Nobody);
    let policy = policy("api", "api", &["web"]);
    assert_eq!(after(&mut cluster, [policy]), these([2]));
}

#[test]
fn a_policy_that_changes_concerns_the_pods_that_it_selects() {
    let mut cluster = shop();
    let narrower = policy("api", "api", &["db"]);
    assert_eq!(after(&mut cluster, [narrower]), these([2, 3]));
}

#[test]
fn a_policy_that_goes_concerns_pods_that_others_still_isolate() {
    let mut cluster = shop();
    cluster.commit([policy("more", "api", &["db"])]);
    assert_eq!(after(&mut cluster, [without_policy("more")]), these([2, 3]));
    let last = after(&mut cluster, [without_policy("api")]);
    // Nobody is isolated any more, so the base chains are rewritten; then everybody may.
    assert_eq!(last, Concern::Everyone);
}

#[test]
fn what_only_opens_concerns_nobody() {
    let mut cluster = shop();
    for events in [
        // One more rule, one more policy, one more peer, here and elsewhere.
        vec![policy("api", "api", &["web", "db"])],
        vec![policy("more", "api", &["cache"])],
        vec![pod(4, "web"), pod(102, "web"), pod(103, "cache")],
        // A pod that nobody let in.
        vec![pod(5, "none")],
        vec![gone(5)],
    ] {
        assert_eq!(
            after(&mut cluster, events.clone()),
            Concern::Nobody,
            "{events:?}"
        );
    }
}

#[test]
fn a_pod_gone_from_a_peer_set_is_concerned_wherever_it_is() {
    let mut cluster = shop();
    assert_eq!(after(&mut cluster, [pod(101, "other")]), these([101]));
    assert_eq!(after(&mut cluster, [gone(1)]), these([1]));
}

#[test]
fn an_address_that_another_isolated_pod_takes_over_is_concerned() {
    let mut cluster = shop();
    cluster.commit([policy("web", "web", &[])]);
    // Pod 1 was isolated by another policy than the pod that comes in its place.
    assert_eq!(after(&mut cluster, [pod(1, "api")]), these([1]));
}

#[test]
fn the_work_does_not_grow_with_what_is_deleted() {
    let mut cluster = Cluster::new();
    cluster.commit([pod(1, "api"), policy("api", "api", &["web"])]);
    cluster.commit((2..100).chain(100..250).map(|n| pod(n, "web")));
    let concern = after(&mut cluster, (2..100).chain(100..250).map(gone));
    assert_eq!(concern, these(2..250));
    let mut many = Concern::Nobody;
    for n in 0..=u32::try_from(MOST).unwrap() {
        many.add(IpAddr::V4((0x0a00_0000 + n).into()));
    }
    assert_eq!(many, Concern::Everyone);
}

#[test]
fn concerns_join() {
    let mut concern = Concern::Nobody;
    assert!(concern.is_nobody() && !concern.involves(&tcp(1, 2)));
    concern.join(these([1]));
    concern.join(Concern::Nobody);
    concern.join(these([3]));
    assert_eq!(concern, these([1, 3]));
    assert!(concern.involves(&tcp(1, 2)) && concern.involves(&tcp(2, 3)));
    assert!(!concern.involves(&tcp(2, 4)));
    concern.join(Concern::Everyone);
    concern.join(these([4]));
    assert_eq!(concern, Concern::Everyone);
}

/// A connection between two addresses, as [`tcp`] and in other protocols.
fn entry(from: IpAddr, to: IpAddr, protocol: u8, port: u16) -> Entry {
    let mut entry = tcp(1, 2);
    entry.original.source = from;
    entry.reply.source = to;
    entry.original.protocol = protocol;
    entry.reply.detail = Detail::Ports {
        source: port,
        destination: 4000,
    };
    entry
}

fn addresses(events: &[Event]) -> BTreeSet<IpAddr> {
    let pods = events.iter().filter_map(|event| match event {
        Event::Apply(Object::Pod(pod)) => Some(pod.addresses.iter()),
        _ => None,
    });
    let outside: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0xfd99, 0, 0, 0, 0, 0, 0, 1].into()];
    pods.flatten().chain(outside).collect()
}

/// Changes the host, and gives whom that concerns.
fn after_host(cluster: &mut Cluster, change: impl FnOnce(&mut Host)) -> Concern {
    let (before, transaction) = cluster.change_host(change);
    concerned(&before, &transaction, &cluster.ruleset)
}

#[test]
fn an_address_that_is_withheld_is_concerned_and_no_other() {
    for isolated in [false, true] {
        let mut cluster = if isolated { shop() } else { Cluster::new() };
        let withhold = |last: &[u8]| {
            let addresses: BTreeSet<IpAddr> = last.iter().copied().map(address).collect();
            move |host: &mut Host| host.withheld = addresses
        };
        // The first one brings the set and its rules, the last one takes them away.
        assert_eq!(after_host(&mut cluster, withhold(&[7])), these([7]));
        assert_eq!(after_host(&mut cluster, withhold(&[7, 8])), these([8]));
        assert_eq!(after_host(&mut cluster, withhold(&[9])), these([9]));
        assert_eq!(after_host(&mut cluster, withhold(&[])), Concern::Nobody);
    }
}

#[test]
fn an_address_that_is_known_no_more_is_concerned() {
    let mut cluster = shop();
    let close = |host: &mut Host| host.closed = vec!["10.244.1.0/24".parse().unwrap()];
    assert_eq!(after_host(&mut cluster, close), Concern::Everyone);
    assert_eq!(after(&mut cluster, [pod(4, "none")]), Concern::Nobody);
    assert_eq!(after(&mut cluster, [gone(4)]), these([4]));
    // A pod that comes in another's place has been known all along; the isolated one's chain goes.
    cluster.commit([pod(4, "none")]);
    assert_eq!(after(&mut cluster, [gone(2)]), these([2]));
    let open = |host: &mut Host| host.closed = Vec::new();
    assert_eq!(after_host(&mut cluster, open), Concern::Everyone);
}

/// What the host adds in one step: addresses withheld, and whether the node's block is closed.
fn hosts() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    proptest::collection::vec(
        (proptest::collection::vec(2..12u8, 0..3), any::<bool>()),
        1..5,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whoever could connect before a commit and can't after it is concerned by it.
    #[test]
    fn whoever_loses_permission_is_concerned(events in events(40), hosts in hosts()) {
        let own = BTreeSet::new();
        let addresses = addresses(&events);
        let (mut index, mut host) = (Index::new(), host::unknown(None).unwrap());
        let mut compiler = Compiler::new(Text::from(NODES[0]), host.clone());
        let mut before = compiler.update(&mut index);
        for (batch, (withheld, closed)) in events.chunks(4).zip(hosts.iter().cycle()) {
            for event in batch {
                index.apply(event.clone());
            }
            let pods = addresses.iter().copied();
            host.withheld = pods.enumerate().filter(|(n, _)| withheld.contains(&(*n as u8))).map(|(_, a)| a).collect();
            let blocks = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|net| net.parse().unwrap());
            host.closed = if *closed { blocks.into() } else { Vec::new() };
            compiler.set_host(host.clone());
            let after = compiler.update(&mut index);
            let concern = concerned(&before, &diff(&before, &after), &after);
            let (old, new) = (Judge::new(&before, &own), Judge::new(&after, &own));
            for from in &addresses {
                for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                    for (protocol, port) in [(6, 80), (17, 8080), (132, 9000), (47, 0)] {
                        let entry = entry(*from, *to, protocol, port);
                        let lost = new.judge(&entry) == Judgement::Denied
                            && old.judge(&entry) == Judgement::Allowed;
                        prop_assert!(!lost || concern.involves(&entry), "{entry:?} {concern:?}");
                    }
                }
            }
            before = after;
        }
    }
}

#[test]
fn a_first_ruleset_concerns_everyone() {
    let cluster = shop();
    let nothing = Ruleset::default();
    let transaction = diff(&nothing, &cluster.ruleset);
    assert_eq!(
        concerned(&nothing, &transaction, &cluster.ruleset),
        Concern::Everyone
    );
    let chains = BaseChains::of(&cluster.ruleset, Family::Inet, Hook::Forward);
    assert!(format!("{chains:?}").contains("ingress"));
    // A rule that someone else has put into a pod's chain, and that is taken out again.
    let mut foreign = cluster.ruleset.clone();
    change_chain(&mut foreign, "ingress/shop/pod-2", |chain| {
        chain.rules.insert(0, Rule::new([Verdict::Accept.into()]));
    });
    let transaction = diff(&foreign, &cluster.ruleset);
    assert_eq!(
        concerned(&foreign, &transaction, &cluster.ruleset),
        these([2])
    );
}

#[test]
fn a_chain_that_is_made_anew_concerns_as_one_that_is_rewritten() {
    let cluster = shop();
    // The comment changes, and with it the rules: nf_tables can't change a comment in place.
    let mut narrower = cluster.ruleset.clone();
    change_chain(&mut narrower, "policy/shop/api/ingress", |chain| {
        chain.comment = None;
        chain.rules.clear();
    });
    let transaction = diff(&cluster.ruleset, &narrower);
    let deletes = |op: &Op| matches!(op, Op::DeleteChain { .. });
    assert!(transaction.ops.iter().any(deletes));
    assert_eq!(
        concerned(&cluster.ruleset, &transaction, &narrower),
        these([2, 3])
    );
}
