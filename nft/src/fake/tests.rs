//! What the fake refuses, and with which errno.

use std::sync::Arc;

use crate::dataplane::{Dataplane, DataplaneError};
use crate::diff;
use crate::fake::{Fake, Fault, errno};
use crate::name::Name;
use crate::rule::{Field, Rule, Statement, Verdict};
use crate::ruleset::{Chain, Elements, Family, Hook, Ownership, Ruleset, Set, Table};
use crate::testing::{base, chain, jump, key, keys, map, name, namespace, ranges, table_id, v4};
use crate::text::script;
use crate::transaction::{Op, Transaction};
use crate::value::{Datatype, Value};

/// A kernel that holds the ruleset.
fn holding(ruleset: &Ruleset) -> Fake {
    let mut fake = Fake::new();
    fake.commit(&diff(&Ruleset::default(), ruleset)).unwrap();
    fake
}

fn table(sets: Vec<(&str, Set)>, chains: Vec<(&str, Chain)>) -> Ruleset {
    let sets = sets.into_iter().map(|(n, set)| (name(n), Arc::new(set)));
    let chains = chains.into_iter().map(|(n, c)| (name(n), Arc::new(c)));
    let table = Table {
        sets: sets.collect(),
        chains: chains.collect(),
        ..Table::default()
    };
    let mut ruleset = Ruleset::default();
    let id = table_id(Family::Inet, "selvedge");
    ruleset.tables.insert(id, Arc::new(table));
    ruleset
}

/// The index of the operation that is refused, and the errno.
fn refusal(fake: &mut Fake, ops: Vec<Op>) -> (usize, i32) {
    let before = fake.ruleset();
    let result = fake.commit(&Transaction { ops });
    assert_eq!(fake.ruleset(), before, "nothing has changed");
    match result {
        Err(DataplaneError::Refused { index, source, .. }) => {
            (index.unwrap(), source.raw_os_error().unwrap())
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn delete_chain(chain: &str) -> Op {
    Op::DeleteChain {
        table: table_id(Family::Inet, "selvedge"),
        name: name(chain),
    }
}

fn delete_set(set: &str) -> Op {
    Op::DeleteSet {
        table: table_id(Family::Inet, "selvedge"),
        name: name(set),
    }
}

fn add_rule(chain: &str, rule: Rule) -> Op {
    Op::AddRule {
        table: table_id(Family::Inet, "selvedge"),
        chain: name(chain),
        rule,
    }
}

fn add_chain(chain: &str) -> Op {
    Op::AddChain {
        table: table_id(Family::Inet, "selvedge"),
        name: name(chain),
        base: None,
        comment: None,
    }
}

fn add_elements(set: &str, like: &Set) -> Op {
    Op::AddElements {
        table: table_id(Family::Inet, "selvedge"),
        name: name(set),
        header: like.header.clone(),
        elements: like.elements.clone(),
    }
}

fn delete_elements(set: &str, like: &Set) -> Op {
    Op::DeleteElements {
        table: table_id(Family::Inet, "selvedge"),
        name: name(set),
        header: like.header.clone(),
        elements: like.elements.clone(),
    }
}

#[test]
fn what_is_named_stays() {
    let by_map = map(
        &[Datatype::Ipv4Addr],
        [(key(&[v4("10.0.0.1")]), Verdict::Goto(name("c")))],
    );
    let lookup = Rule::new([Statement::lookup([Field::IpSaddr], name("s"))]);
    let mut fake = holding(&table(
        vec![
            ("m", by_map.clone()),
            ("s", keys(&[Datatype::Ipv4Addr], [])),
        ],
        vec![
            ("a", chain([jump("b"), lookup])),
            ("b", chain([])),
            ("c", chain([])),
        ],
    ));
    assert_eq!(
        refusal(&mut fake, vec![delete_chain("b")]),
        (0, errno::EBUSY)
    );
    assert_eq!(
        refusal(&mut fake, vec![delete_chain("c")]),
        (0, errno::EBUSY)
    );
    assert_eq!(refusal(&mut fake, vec![delete_set("s")]), (0, errno::EBUSY));
    let in_order = vec![
        delete_chain("a"),
        delete_chain("b"),
        delete_set("s"),
        delete_elements("m", &by_map),
        delete_chain("c"),
    ];
    let committed = fake.commit(&Transaction { ops: in_order }).unwrap();
    assert_eq!(committed.messages, 5);
    assert!(fake.ruleset().tables.values().all(|t| t.chains.is_empty()));
}

#[test]
fn what_is_not_there_is_not_named() {
    let mut fake = holding(&table(
        vec![],
        vec![
            ("a", chain([])),
            (
                "base",
                Chain {
                    base: base(Hook::Forward, 0),
                    ..Chain::default()
                },
            ),
        ],
    ));
    let lookup = Rule::new([Statement::lookup([Field::IpSaddr], name("s"))]);
    let counter = Rule::new([Statement::NamedCounter(name("n"))]);
    for rule in [jump("b"), lookup, counter] {
        assert_eq!(
            refusal(&mut fake, vec![add_rule("a", rule)]),
            (0, errno::ENOENT)
        );
    }
    let ops = vec![add_rule("a", jump("base"))];
    assert_eq!(refusal(&mut fake, ops), (0, errno::EOPNOTSUPP));
    let ops = vec![add_chain("b"), add_chain("b")];
    assert_eq!(refusal(&mut fake, ops), (1, errno::EEXIST));
    assert_eq!(
        refusal(&mut fake, vec![delete_chain("z")]),
        (0, errno::ENOENT)
    );
}

#[test]
fn elements_come_once_and_go_once() {
    let one = keys(&[Datatype::Ipv4Addr], [key(&[v4("10.0.0.1")])]);
    let other = keys(&[Datatype::Ipv4Addr], [key(&[v4("10.0.0.2")])]);
    let short = keys(&[Datatype::InetService], [key(&[Value::Service(1)])]);
    let mut fake = holding(&table(vec![("s", one.clone())], vec![]));
    let mut refused = |op| refusal(&mut fake, vec![op]).1;
    assert_eq!(refused(add_elements("s", &one)), errno::EEXIST);
    assert_eq!(refused(delete_elements("s", &other)), errno::ENOENT);
    assert_eq!(refused(add_elements("s", &short)), errno::EINVAL);
}

#[test]
fn a_map_has_one_verdict_a_key() {
    let types = [Datatype::Ipv4Addr];
    let with = |verdict| map(&types, [(key(&[v4("10.0.0.1")]), verdict)]);
    let mut fake = holding(&table(vec![("m", with(Verdict::Drop))], vec![]));
    let mut refused = |set: &Set| refusal(&mut fake, vec![add_elements("m", set)]).1;
    assert_eq!(refused(&with(Verdict::Accept)), errno::EBUSY);
    assert_eq!(refused(&with(Verdict::Drop)), errno::EEXIST);
    assert_eq!(refused(&with(Verdict::Jump(name("no")))), errno::ENOENT);
}

#[test]
fn ranges_do_not_overlap() {
    let range = |first, last| ranges(&[Datatype::Ipv4Addr], &[(&[v4(first)], &[v4(last)])]);
    let held = range("10.0.0.4", "10.0.0.8");
    let mut fake = holding(&table(vec![("r", held)], vec![]));
    for (first, last) in [
        ("10.0.0.0", "10.0.0.4"),
        ("10.0.0.8", "10.0.0.9"),
        ("10.0.0.5", "10.0.0.6"),
        ("0.0.0.0", "255.255.255.255"),
    ] {
        let ops = vec![add_elements("r", &range(first, last))];
        assert_eq!(refusal(&mut fake, ops), (0, errno::EEXIST), "{first}");
    }
    let ops = vec![delete_elements("r", &range("10.0.0.4", "10.0.0.7"))];
    assert_eq!(refusal(&mut fake, ops), (0, errno::ENOENT));
    let beside = vec![
        add_elements("r", &range("10.0.0.0", "10.0.0.3")),
        add_elements("r", &range("10.0.0.9", "10.0.0.9")),
    ];
    fake.commit(&Transaction { ops: beside }).unwrap();
}

#[test]
fn concatenated_ranges_overlap_in_all_fields() {
    let types = [Datatype::Ipv4Addr, Datatype::InetService];
    let boxed = |a, b, m, n| {
        let (m, n) = (Value::Service(m), Value::Service(n));
        ranges(&types, &[(&[v4(a), m], &[v4(b), n])])
    };
    let held = boxed("10.0.0.0", "10.0.0.9", 80, 90);
    let mut fake = holding(&table(vec![("r", held)], vec![]));
    let clash = vec![add_elements("r", &boxed("10.0.0.9", "10.0.1.0", 90, 91))];
    assert_eq!(refusal(&mut fake, clash), (0, errno::EEXIST));
    let beside = vec![add_elements("r", &boxed("10.0.0.9", "10.0.1.0", 91, 99))];
    fake.commit(&Transaction { ops: beside }).unwrap();
}

#[test]
fn chains_do_not_go_in_circles() {
    let mut fake = holding(&table(
        vec![],
        vec![
            ("a", chain([jump("b")])),
            ("b", chain([])),
            ("c", chain([])),
        ],
    ));
    let ops = vec![add_rule("b", jump("c")), add_rule("c", jump("a"))];
    assert_eq!(refusal(&mut fake, ops), (1, errno::ELOOP));
    let ops = vec![add_rule("c", jump("c"))];
    assert_eq!(refusal(&mut fake, ops), (0, errno::ELOOP));
}

/// `jumps` jumps, one after the other, from a base chain.
fn ladder(jumps: usize) -> Ruleset {
    let step = |n: usize| format!("c{n}");
    let mut chains: Vec<_> = (0..jumps)
        .map(|n| (step(n), chain([jump(&step(n + 1))])))
        .collect();
    chains.push((step(jumps), chain([])));
    chains[0].1.base = base(Hook::Forward, 0);
    table(
        vec![],
        chains
            .iter()
            .map(|(n, c)| (n.as_str(), c.clone()))
            .collect(),
    )
}

#[test]
fn calls_go_as_deep_as_in_the_kernel() {
    let (deep, too_deep) = (ladder(15), ladder(16));
    holding(&deep);
    assert!(namespace(&[&script(&deep)]).is_ok());
    let ops = diff(&Ruleset::default(), &too_deep).ops;
    let (_, errno) = refusal(&mut Fake::new(), ops);
    assert_eq!(errno, errno::EMLINK);
    let answer = namespace(&[&script(&too_deep)]).unwrap_err();
    assert!(answer.contains("Too many links"), "{answer}");
}

#[test]
fn faults_come_when_they_are_asked_for() {
    let empty = Ruleset::default();
    let desired = table(vec![], vec![("a", chain([])), ("b", chain([]))]);
    let mut fake = Fake::new();
    let onlooker = fake.clone();
    onlooker.fail_commits(1, Fault::Unreachable(errno::ENOBUFS));
    onlooker.fail_commits(1, Fault::Refused(errno::EPERM));
    onlooker.fail_commits(1, Fault::AcknowledgementLost(errno::ENOBUFS));
    let transaction = diff(&empty, &desired);
    assert!(
        fake.commit(&Transaction::default()).is_ok(),
        "nothing is sent"
    );
    for _ in 0..2 {
        fake.commit(&transaction).unwrap_err();
        assert_eq!(onlooker.ruleset(), empty);
    }
    fake.commit(&transaction).unwrap_err();
    assert_eq!(onlooker.ruleset(), desired, "only the answer was lost");
    assert_eq!(onlooker.take_log(), [transaction]);
    assert!(onlooker.log().is_empty());

    onlooker.refuse(name("b"), errno::EPERM);
    let ops = vec![delete_chain("a"), delete_chain("b")];
    assert_eq!(refusal(&mut fake, ops.clone()), (1, errno::EPERM));
    onlooker.heal();
    fake.commit(&Transaction { ops }).unwrap();
}

#[test]
fn a_read_gives_the_tables_that_are_there() {
    let desired = table(vec![], vec![("a", chain([]))]);
    let mut fake = holding(&desired);
    let id = table_id(Family::Inet, "selvedge");
    let absent = table_id(Family::Bridge, "selvedge");
    assert_eq!(fake.read(&[id, absent.clone()]).unwrap(), desired);
    assert_eq!(fake.read(&[absent]).unwrap(), Ruleset::default());
    fake.fail_reads(1, errno::ENOBUFS);
    assert!(fake.read(&[]).is_err());
    assert_eq!(fake.reads(), 3);
}

#[test]
fn interference_is_counted_like_everything() {
    let mut fake = holding(&table(vec![], vec![("a", chain([])), ("b", chain([]))]));
    fake.interfere(|ruleset| {
        *ruleset = table(vec![], vec![("a", chain([jump("b")])), ("b", chain([]))]);
    });
    assert_eq!(
        refusal(&mut fake, vec![delete_chain("b")]),
        (0, errno::EBUSY)
    );
}

#[test]
fn a_header_without_a_key_is_refused() {
    let header = keys(&[], []).header;
    let op = Op::AddSet {
        table: table_id(Family::Inet, "selvedge"),
        name: Name::new("s").unwrap(),
        header,
        kind: Elements::Keys(imbl::OrdSet::new()),
        size: None,
    };
    let mut fake = holding(&table(vec![], vec![]));
    assert_eq!(refusal(&mut fake, vec![op]), (0, errno::EINVAL));
}

#[test]
fn only_orphans_are_adopted_and_what_is_another_s_is_left_alone() {
    let small = table(Vec::new(), vec![("c", Chain::default())]);
    let adopt = || Op::AdoptTable {
        table: table_id(Family::Inet, "selvedge"),
    };
    let with = |ownership| {
        let fake = Fake::new();
        fake.interfere(|held| *held = small.with_ownership(ownership));
        fake
    };
    assert_eq!(
        refusal(&mut with(Ownership::Anyone), vec![adopt()]),
        (0, errno::EOPNOTSUPP)
    );
    for op in [adopt(), delete_chain("c")] {
        let refused = refusal(&mut with(Ownership::Other(7)), vec![op]);
        assert_eq!(refused, (0, errno::EPERM));
    }
    let mut fake = with(Ownership::Orphan);
    fake.commit(&Transaction { ops: vec![adopt()] }).unwrap();
    assert_eq!(fake.ruleset(), small.with_ownership(Ownership::Own));
    fake.abandon();
    assert_eq!(fake.ruleset(), small.with_ownership(Ownership::Orphan));
}
