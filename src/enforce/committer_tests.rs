use std::net::Ipv4Addr;
use std::sync::Arc;

use selvedge_nft::{
    Chain, Comment, Datatype, Elements, Fake, Family, Fault, Field, Key, Name, Op, Ownership, Rule,
    Ruleset, Set, SetHeader, Statement, Table, TableId, Verdict, errno,
};

use super::*;

fn table() -> TableId {
    TableId {
        family: Family::Inet,
        name: Name::new("selvedge").unwrap(),
    }
}

/// A ruleset with chains of these names, each with one rule.
fn ruleset(chains: &[&str]) -> Ruleset {
    let chain = Arc::new(Chain {
        rules: vec![Rule::new([Statement::Counter, Verdict::Drop.into()])],
        ..Chain::default()
    });
    let table_with = Table {
        chains: chains
            .iter()
            .map(|name| (Name::new(name).unwrap(), chain.clone()))
            .collect(),
        ..Table::default()
    };
    Ruleset {
        tables: [(table(), Arc::new(table_with))].into_iter().collect(),
    }
}

/// A committer for a kernel in memory, and the kernel.
fn committer() -> (Committer<Fake>, Fake) {
    let fake = Fake::new();
    (Committer::new(fake.clone(), vec![table()]), fake)
}

fn holding(ruleset: Ruleset) -> (Committer<Fake>, Fake) {
    let (committer, fake) = committer();
    fake.interfere(|held| *held = ruleset);
    (committer, fake)
}

fn retry_at(outcome: Outcome) -> Instant {
    match outcome {
        Outcome::Retry(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_with_nothing_to_change_sends_nothing() {
    let (mut committer, fake) = holding(ruleset(&["a"]));
    let outcome = committer.reconcile(&ruleset(&["a"]), true, Instant::now());
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!((fake.reads(), fake.log().len()), (1, 0));
}

#[test]
fn a_start_repairs_what_it_finds() {
    let (mut committer, fake) = holding(ruleset(&["a", "old"]));
    let outcome = committer.reconcile(&ruleset(&["a", "b"]), true, Instant::now());
    let Outcome::Committed(summary) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((summary.chains_added, summary.chains_deleted), (1, 1));
    assert_eq!(fake.ruleset(), ruleset(&["a", "b"]));
    assert_eq!(fake.log().len(), 1);
}

#[test]
fn what_was_acknowledged_is_not_read_again() {
    let (mut committer, fake) = committer();
    for chains in [&["a"][..], &["a", "b"], &["a", "b"], &["b"]] {
        committer.reconcile(&ruleset(chains), true, Instant::now());
    }
    assert_eq!(fake.ruleset(), ruleset(&["b"]));
    assert_eq!((fake.reads(), fake.log().len()), (1, 3));
}

#[test]
fn after_a_refusal_it_reads_back_and_tries_again_later() {
    let (mut committer, fake) = committer();
    let now = Instant::now();
    committer.reconcile(&ruleset(&["a"]), true, now);
    fake.fail_commits(1, Fault::Refused(errno::EINVAL));
    let at = retry_at(committer.reconcile(&ruleset(&["a", "b"]), true, now));
    assert!(at > now);
    // Meanwhile somebody else has been there.
    fake.interfere(|held| *held = ruleset(&["a", "foreign"]));
    // Too early: nothing is attempted.
    assert_eq!(
        committer.reconcile(&ruleset(&["a", "b"]), false, now),
        Outcome::Retry(at)
    );
    assert_eq!((fake.reads(), fake.log().len()), (1, 1));
    let outcome = committer.reconcile(&ruleset(&["a", "b"]), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!((fake.reads(), fake.log().len()), (2, 2));
    assert_eq!(fake.ruleset(), ruleset(&["a", "b"]));
}

#[test]
fn an_acknowledgement_that_is_lost_is_found_out_by_reading_back() {
    let (mut committer, fake) = committer();
    fake.fail_commits(1, Fault::AcknowledgementLost(105));
    let at = retry_at(committer.reconcile(&ruleset(&["a"]), true, Instant::now()));
    let outcome = committer.reconcile(&ruleset(&["a"]), false, at);
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!((fake.reads(), fake.log().len()), (2, 1));
}

#[test]
fn nothing_is_sent_while_the_state_can_t_be_read() {
    let (mut committer, fake) = committer();
    fake.fail_reads(2, 1);
    let mut at = Instant::now();
    for _ in 0..2 {
        at = retry_at(committer.reconcile(&ruleset(&["a"]), false, at));
        assert!(fake.log().is_empty());
    }
    let outcome = committer.reconcile(&ruleset(&["a"]), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

#[test]
fn a_change_brings_the_retry_forward_but_does_not_spin() {
    let (mut committer, fake) = committer();
    fake.refuse(Name::new("b").unwrap(), errno::EINVAL);
    let mut at = Instant::now();
    for _ in 0..12 {
        at = retry_at(committer.reconcile(&ruleset(&["b"]), false, at));
    }
    let now = Instant::now();
    assert!(at > now + CHANGED_WAIT, "the wait has grown");
    assert_eq!(
        committer.reconcile(&ruleset(&["a"]), true, now),
        Outcome::Retry(now + CHANGED_WAIT)
    );
    let reads = fake.reads();
    // A storm of changes is no storm of attempts.
    for _ in 0..100 {
        committer.reconcile(&ruleset(&["a"]), true, now);
    }
    assert_eq!(fake.reads(), reads);
    // The change was the cure.
    let outcome = committer.reconcile(&ruleset(&["a"]), false, now + CHANGED_WAIT);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

/// A wipe while a failure is waited out is no part of that failure.
#[test]
fn what_others_do_brings_the_retry_forward() {
    let (mut committer, fake) = holding(ruleset(&["a"]));
    committer.reconcile(&ruleset(&["a"]), true, Instant::now());
    fake.fail_commits(9, Fault::Unreachable(105));
    let mut at = Instant::now();
    for _ in 0..9 {
        at = retry_at(committer.reconcile(&ruleset(&["b"]), false, at));
    }
    let far = at - Instant::now();
    assert!(far > Duration::from_secs(5), "{far:?}");
    fake.interfere(|held| *held = Ruleset::default());
    assert!(committer.listen());
    let outcome = committer.reconcile(&ruleset(&["b"]), false, Instant::now());
    let soon = retry_at(outcome) - Instant::now();
    assert!(soon <= FIRST_WAIT, "{soon:?}");
}

/// How many elements were to be added is in the text, and differs.
#[test]
fn an_object_that_is_refused_twice_is_the_offender_whatever_the_text() {
    let (mut committer, fake) = holding(looking_up_many(2));
    committer.reconcile(&looking_up_many(2), true, Instant::now());
    fake.refuse(Name::new("peers").unwrap(), errno::EINVAL);
    let mut at = Instant::now();
    for peers in [3, 5] {
        assert!(committer.offender().is_none());
        at = retry_at(committer.reconcile(&looking_up_many(peers), true, at));
    }
    let (object, _) = committer.offender().unwrap();
    assert_eq!(object.as_str(), "peers");
}

#[test]
fn waits_double_up_to_the_longest() {
    assert_eq!(wait(0), FIRST_WAIT);
    assert_eq!(wait(1), FIRST_WAIT * 2);
    assert_eq!(wait(8), FIRST_WAIT * 256);
    assert_eq!(wait(9), LONGEST_WAIT);
    assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    for _ in 0..100 {
        let jittered = jittered(FIRST_WAIT);
        assert!(jittered >= FIRST_WAIT / 2 && jittered <= FIRST_WAIT);
    }
}

#[test]
fn when_what_was_in_force_is_not_known_everyone_is_concerned() {
    let concern = |committer: &mut Committer<Fake>| committer.take_concern().unwrap().0;
    // A start, with something to change and without.
    for held in [ruleset(&[]), ruleset(&["a"])] {
        let (mut committer, _) = holding(held);
        assert!(committer.take_concern().is_none(), "nothing is known");
        committer.reconcile(&ruleset(&["a"]), true, Instant::now());
        assert_eq!(concern(&mut committer), Concern::Everyone);
        committer.reconcile(&ruleset(&["a", "b"]), true, Instant::now());
        assert_eq!(
            concern(&mut committer),
            Concern::Nobody,
            "only a chain came"
        );
    }
    // An acknowledgement that got lost, and a ruleset that others changed.
    let (mut committer, fake) = holding(ruleset(&["a"]));
    committer.reconcile(&ruleset(&["a"]), true, Instant::now());
    concern(&mut committer);
    fake.fail_commits(1, Fault::AcknowledgementLost(105));
    let at = retry_at(committer.reconcile(&ruleset(&["b"]), true, Instant::now()));
    assert!(committer.take_concern().is_none());
    committer.reconcile(&ruleset(&["b"]), false, at);
    assert_eq!(concern(&mut committer), Concern::Everyone);
    fake.interfere(|held| *held = Ruleset::default());
    assert!(committer.listen());
    committer.reconcile(&ruleset(&["b"]), false, Instant::now());
    let (all, in_force) = committer.take_concern().unwrap();
    assert_eq!((all, in_force), (Concern::Everyone, &ruleset(&["b"])));
}

/// A ruleset whose only rule looks an address up in an interval set.
fn looking_up(set: &str) -> Ruleset {
    let name = Name::new(set).unwrap();
    let block = [0, 9].map(|last| Key::from(Ipv4Addr::new(10, 0, 0, last)));
    let ranges = Elements::Ranges([(block[0], block[1])].into_iter().collect());
    let header = SetHeader {
        key: vec![Datatype::Ipv4Addr],
        comment: None,
    };
    let rule = Rule::new([
        Statement::lookup([Field::IpSaddr], name.clone()),
        Verdict::Accept.into(),
    ]);
    let chain = Chain {
        rules: vec![rule],
        ..Chain::default()
    };
    let table_with = Table {
        sets: [(
            name,
            Arc::new(Set {
                header,
                elements: ranges,
            }),
        )]
        .into_iter()
        .collect(),
        chains: [(Name::new("a").unwrap(), Arc::new(chain))]
            .into_iter()
            .collect(),
        ..Table::default()
    };
    Ruleset {
        tables: [(table(), Arc::new(table_with))].into_iter().collect(),
    }
}

#[test]
fn interval_sets_are_there_before_the_rules_that_name_them() {
    let (mut committer, fake) = committer();
    for set in ["one", "two"] {
        committer.reconcile(&looking_up(set), true, Instant::now());
        let log = fake.take_log();
        let [ahead, rest] = &log[..] else {
            panic!("{log:?}");
        };
        let about_set = |op: &Op| {
            matches!(
                op,
                Op::AddTable { .. } | Op::AddSet { .. } | Op::AddElements { .. }
            )
        };
        assert!(ahead.ops.iter().all(about_set), "{ahead:?}");
        assert!(!rest.ops.iter().any(about_set), "{rest:?}");
        assert_eq!(fake.ruleset(), looking_up(set));
    }
}

#[test]
fn rules_that_are_refused_after_their_sets_are_no_drift() {
    let (mut committer, fake) = holding(looking_up("one"));
    committer.reconcile(&looking_up("one"), true, Instant::now());
    fake.refuse(Name::new("a").unwrap(), errno::EINVAL);
    let at = retry_at(committer.reconcile(&looking_up("two"), true, Instant::now()));
    assert_eq!(fake.take_log().len(), 1);
    // What is read back now is neither what was nor what is wanted, and still nobody else's doing.
    let at = retry_at(committer.reconcile(&looking_up("two"), false, at));
    assert_eq!((fake.reads(), committer.drifted), (2, false));
    fake.heal();
    let outcome = committer.reconcile(&looking_up("two"), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(fake.ruleset(), looking_up("two"));
}

/// A chain `a` that looks the addresses up in the set `peers`, of so many.
fn looking_up_many(peers: u32) -> Ruleset {
    let set = Set {
        header: SetHeader {
            key: vec![Datatype::Ipv4Addr],
            comment: None,
        },
        elements: Elements::Keys((0..peers).map(|n| Key::from(Ipv4Addr::from(n))).collect()),
    };
    let mut ruleset = looking_up("peers");
    let held = ruleset.tables.get_mut(&table()).unwrap();
    let peers = Name::new("peers").unwrap();
    Arc::make_mut(held).sets.insert(peers, Arc::new(set));
    ruleset
}

#[test]
fn a_set_that_is_full_is_made_anew_at_once() {
    let (mut committer, fake) = committer();
    committer.reconcile(&looking_up_many(1024), true, Instant::now());
    committer.take_concern();
    fake.take_log();
    let mut anew = Vec::new();
    for peers in (1024 + 128..=8192).step_by(128) {
        let wanted = looking_up_many(peers);
        let outcome = committer.reconcile(&wanted, true, Instant::now());
        let Outcome::Committed(summary) = outcome else {
            panic!("{outcome:?}");
        };
        // What it took is in the messages; what changed is this.
        assert_eq!(summary.to_string(), "elements +128");
        assert!(fake.ruleset() == wanted);
        let concern = committer.take_concern().map(|(concern, _)| concern);
        assert_eq!(concern, Some(Concern::Nobody));
        let [sent] = &fake.take_log()[..] else {
            panic!("more than one transaction was taken");
        };
        if sent.ops.len() > 1 {
            anew.push(peers);
        }
    }
    assert_eq!(anew, [1536 + 128, 3072 + 128, 6144 + 128]);
}

#[test]
fn what_others_wiped_is_closed_before_it_is_all_back() {
    let many = looking_up_many(120_000);
    let wipe = |ruleset: &mut Ruleset| ruleset.tables.clear();
    let (mut committer, fake) = committer();
    // At first nothing is in force before all is.
    committer.reconcile(&many, true, Instant::now());
    assert_eq!(fake.take_log().len(), 1);
    fake.interfere(wipe);
    assert!(committer.listen());
    committer.reconcile(&many, false, Instant::now());
    let log = fake.take_log();
    let [closed, whole] = &log[..] else {
        panic!("{} transactions", log.len());
    };
    assert_eq!(closed.elements_added(), 0);
    let rules = closed.ops.iter();
    assert_eq!(
        rules.filter(|op| matches!(op, Op::AddRule { .. })).count(),
        1
    );
    assert_eq!((whole.len(), whole.elements_added()), (1, 120_000));
    assert!(fake.ruleset() == many);
    assert_eq!(
        committer.reconcile(&many, false, Instant::now()),
        Outcome::Unchanged
    );

    // What nobody wiped, and is made anew for something else that is there, changes at once.
    fake.interfere(|ruleset| {
        let held = ruleset.tables.get_mut(&table()).unwrap();
        Arc::make_mut(held).comment = Some(Comment::new("another's").unwrap());
    });
    assert!(committer.listen());
    committer.reconcile(&many, false, Instant::now());
    let [at_once] = &fake.take_log()[..] else {
        panic!("more than one transaction");
    };
    assert_eq!(at_once.elements_added(), 120_000);

    // What is loaded in no time comes at once.
    let few = looking_up_many(2000);
    committer.reconcile(&few, true, Instant::now());
    fake.take_log();
    fake.interfere(wipe);
    committer.listen();
    committer.reconcile(&few, false, Instant::now());
    assert_eq!(fake.log().len(), 1);
}

/// What one that is started on the kernel does to make it hold the chains, and how it ends: with a dead one's tables.
fn started(fake: &Fake, ownership: Ownership, chains: &[&str]) -> Vec<Op> {
    let committer = Committer::new(fake.clone(), vec![table()]);
    let mut committer = committer.with_ownership(ownership);
    let outcome = committer.reconcile(&ruleset(chains), true, Instant::now());
    assert!(!matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
    assert_eq!(fake.ruleset(), ruleset(chains).with_ownership(ownership));
    // It goes on to change what is its own.
    committer.reconcile(&ruleset(&["a", "z"]), true, Instant::now());
    committer.reconcile(&ruleset(chains), true, Instant::now());
    fake.abandon();
    let log = fake.take_log();
    let first = if log.len() > 2 {
        log.into_iter().next()
    } else {
        None
    };
    first.map(|transaction| transaction.ops).unwrap_or_default()
}

#[test]
fn a_restart_adopts_what_was_owned_and_changes_nothing_else() {
    let fake = Fake::new();
    started(&fake, Ownership::Own, &["a"]);
    let adopt = Op::AdoptTable { table: table() };
    assert_eq!(
        started(&fake, Ownership::Own, &["a"]),
        slice::from_ref(&adopt)
    );
    // With something to change, it is one transaction.
    let ops = started(&fake, Ownership::Own, &["a", "b"]);
    assert_eq!(ops.first(), Some(&adopt));
    assert_eq!(ops.len(), 3, "{ops:?}");
}

#[test]
fn ownership_that_is_switched_replaces_the_table_in_one_transaction() {
    let fake = Fake::new();
    started(&fake, Ownership::Anyone, &["a"]);
    for ownership in [Ownership::Own, Ownership::Anyone, Ownership::Own] {
        let ops = started(&fake, ownership, &["a"]);
        let delete = Op::DeleteTable { table: table() };
        assert_eq!(ops.first(), Some(&delete), "{ownership:?}");
        assert!(matches!(ops.get(1), Some(Op::AddTable { .. })), "{ops:?}");
    }
    let (fake, none) = (Fake::new(), Vec::new());
    started(&fake, Ownership::Anyone, &["a"]);
    assert_eq!(started(&fake, Ownership::Anyone, &["a"]), none);
}

#[test]
fn a_table_of_somebody_else_s_is_tried_again_and_nobody_is_blamed() {
    let (committer, fake) = holding(ruleset(&["theirs"]).with_ownership(Ownership::Other(7)));
    let mut committer = committer.with_ownership(Ownership::Own);
    let mut at = Instant::now();
    for _ in 0..3 {
        at = retry_at(committer.reconcile(&ruleset(&["a"]), false, at));
        assert!(committer.offender().is_none());
    }
    fake.interfere(|held| *held = Ruleset::default());
    let outcome = committer.reconcile(&ruleset(&["a"]), false, at);
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    assert_eq!(
        fake.ruleset(),
        ruleset(&["a"]).with_ownership(Ownership::Own)
    );
}

#[test]
fn only_an_adoption_is_no_change_in_a_summary() {
    let ops = vec![Op::AdoptTable { table: table() }; 2];
    let mut transaction = Transaction { ops };
    let summary = Summary::of(&transaction, &Ruleset::default());
    assert!(summary.only_adopts());
    assert_eq!(summary.to_string(), "2 tables taken over");
    transaction.ops.push(Op::DeleteTable { table: table() });
    assert!(!Summary::of(&transaction, &Ruleset::default()).only_adopts());
    assert!(!Summary::default().only_adopts());
}
