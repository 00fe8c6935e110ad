//! The operations, in words. Each transaction is also carried out by the fake and, through its script, by the kernel.

use std::sync::Arc;

use proptest::prelude::*;

use crate::arbitrary;
use crate::dataplane::Dataplane;
use crate::diff;
use crate::fake::Fake;
use crate::rule::{Field, Rule, Statement, Verdict};
use crate::ruleset::{Chain, Counter, Family, Hook, Ownership, Ruleset, Set, Table};
use crate::testing::{
    base, chain, comment, handmade, jump, key, keys, map, name, namespace, ranges, sorted_listing,
    table_id, v4,
};
use crate::text::{list, script};
use crate::value::Datatype;

/// What `diff` does in one table, in words, after the fake and the kernel have done it. The table's name is left out.
fn steps(current: &Table, desired: &Table) -> Vec<String> {
    let of = |table: &Table| {
        let mut ruleset = Ruleset::default();
        let id = table_id(Family::Inet, "t");
        ruleset.tables.insert(id, Arc::new(table.clone()));
        ruleset
    };
    let (current, desired) = (of(current), of(desired));
    let transaction = diff(&current, &desired);

    let mut fake = Fake::new();
    fake.interfere(|ruleset| *ruleset = current.clone());
    fake.commit(&transaction).unwrap();
    assert_eq!(fake.ruleset(), desired);

    let listed = namespace(&[&script(&current), &transaction.to_string()]).unwrap();
    assert_eq!(sorted_listing(&listed), sorted_listing(&list(&desired)));

    let words = transaction.ops.iter().map(|op| op.to_string());
    words.map(|op| op.replace(" inet t ", " ")).collect()
}

fn table<const S: usize, const C: usize>(
    sets: [(&str, Set); S],
    chains: [(&str, Chain); C],
) -> Table {
    let sets = sets.into_iter().map(|(n, set)| (name(n), Arc::new(set)));
    let chains = chains.into_iter().map(|(n, c)| (name(n), Arc::new(c)));
    Table {
        sets: sets.collect(),
        chains: chains.collect(),
        ..Table::default()
    }
}

fn pods<const N: usize>(addresses: [&str; N]) -> Set {
    let addresses = addresses.map(|address| key(&[v4(address)]));
    keys(&[Datatype::Ipv4Addr], addresses)
}

fn dispatch<const N: usize>(entries: [(&str, Verdict); N]) -> Set {
    let entries = entries.map(|(address, verdict)| (key(&[v4(address)]), verdict));
    map(&[Datatype::Ipv4Addr], entries)
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(name(chain))
}

fn allow_from(set: &str) -> Rule {
    Rule::new([
        Statement::lookup([Field::IpSaddr], name(set)),
        Verdict::Accept.into(),
    ])
}

fn drop_all() -> Rule {
    Rule::new([Verdict::Drop.into()])
}

fn through(map: &str) -> Rule {
    Rule::new([Statement::VerdictMap {
        key: vec![Field::IpSaddr],
        map: name(map),
    }])
}

#[test]
fn elements_change_without_touching_their_set() {
    let rules = || chain([allow_from("pods")]);
    let current = table([("pods", pods(["10.0.0.1", "10.0.0.2"]))], [("c", rules())]);
    let desired = table(
        [("pods", pods(["10.0.0.2", "10.0.0.3", "10.0.0.4"]))],
        [("c", rules())],
    );
    assert_eq!(
        steps(&current, &desired),
        [
            "delete 1 element from set pods",
            "add 2 elements to set pods"
        ]
    );
}

#[test]
fn ranges_change_within_one_batch() {
    let cidr = |bounds: &[(&str, &str)]| {
        let bounds: Vec<_> = bounds.iter().map(|(a, b)| ([v4(a)], [v4(b)])).collect();
        let bounds: Vec<_> = bounds.iter().map(|(a, b)| (&a[..], &b[..])).collect();
        ranges(&[Datatype::Ipv4Addr], &bounds)
    };
    let current = [("10.0.0.0", "10.255.255.255"), ("11.0.0.0", "11.0.0.9")];
    let desired = [
        ("10.0.0.0", "10.0.0.255"),
        ("10.0.2.0", "11.0.0.4"),
        ("11.0.0.5", "11.0.0.7"),
    ];
    assert_eq!(
        steps(
            &table([("cidr", cidr(&current))], []),
            &table([("cidr", cidr(&desired))], []),
        ),
        [
            "delete 2 elements from set cidr",
            "add 3 elements to set cidr"
        ]
    );
}

#[test]
fn a_changed_chain_is_written_anew() {
    let current = table(
        [],
        [
            ("a", chain([jump("b")])),
            ("b", chain([])),
            ("c", chain([drop_all()])),
        ],
    );
    let desired = table(
        [("pods", pods([]))],
        [
            ("a", chain([jump("b"), allow_from("pods")])),
            ("b", chain([drop_all()])),
            ("c", chain([drop_all()])),
        ],
    );
    assert_eq!(
        steps(&current, &desired),
        [
            "flush chain a",
            "add set pods",
            "add rule \"jump b\" to chain a",
            "add rule \"ip saddr @pods accept\" to chain a",
            "add rule \"drop\" to chain b",
        ]
    );
}

#[test]
fn an_entry_goes_before_the_chain_that_it_names() {
    let current = table(
        [(
            "egress4",
            dispatch([("10.0.0.1", goto("old")), ("10.0.0.2", goto("kept"))]),
        )],
        [("kept", chain([])), ("old", chain([drop_all()]))],
    );
    let desired = table(
        [(
            "egress4",
            dispatch([("10.0.0.1", goto("new")), ("10.0.0.2", goto("kept"))]),
        )],
        [("kept", chain([])), ("new", chain([drop_all()]))],
    );
    assert_eq!(
        steps(&current, &desired),
        [
            "delete 1 element from map egress4",
            "delete chain old",
            "add chain new",
            "add rule \"drop\" to chain new",
            "add 1 element to map egress4",
        ]
    );
}

#[test]
fn everything_goes_before_what_it_names() {
    let current = table(
        [
            ("m", dispatch([("10.0.0.1", goto("a"))])),
            ("s", pods(["10.0.0.1"])),
        ],
        [
            ("a", chain([allow_from("s")])),
            ("b", chain([through("m"), jump("a")])),
            ("z", chain([jump("b")])),
        ],
    );
    assert_eq!(
        steps(&current, &table([], [])),
        [
            "delete chain z",
            "delete chain b",
            "delete set m",
            "delete chain a",
            "delete set s",
        ]
    );
}

#[test]
fn chains_that_call_each_other_in_circles_can_go() {
    let current = table(
        [("m", dispatch([("10.0.0.1", goto("c"))]))],
        [
            ("a", chain([jump("b")])),
            ("b", chain([jump("a")])),
            ("c", chain([through("m")])),
            ("d", chain([jump("d")])),
        ],
    );
    let desired = table([], [("b", chain([]))]);
    assert_eq!(
        steps(&current, &desired),
        [
            "flush chain b",
            "delete chain a",
            "flush chain c",
            "flush chain d",
            "delete set m",
            "delete chain c",
            "delete chain d",
        ]
    );
}

/// A chain with all that can name one: a rule's jump, a map's entry.
fn named_chain(named: Chain) -> Table {
    table(
        [(
            "m",
            dispatch([("10.0.0.1", goto("named")), ("10.0.0.2", Verdict::Drop)]),
        )],
        [
            ("caller", chain([jump("named"), drop_all()])),
            ("named", named),
            ("other", chain([through("m")])),
        ],
    )
}

#[test]
fn what_names_a_chain_steps_aside_when_its_comment_changes() {
    let mut commented = chain([drop_all()]);
    commented.comment = comment("shop/api-0");
    assert_eq!(
        steps(&named_chain(chain([drop_all()])), &named_chain(commented)),
        [
            "delete 1 element from map m",
            "flush chain caller",
            "delete chain named",
            "add chain named",
            "add rule \"jump named\" to chain caller",
            "add rule \"drop\" to chain caller",
            "add rule \"drop\" to chain named",
            "add 1 element to map m",
        ]
    );
}

#[test]
fn a_chain_that_becomes_a_base_chain_is_another_one() {
    let mut attached = chain([drop_all()]);
    attached.base = base(Hook::Forward, -6);
    let desired = table(
        [("m", dispatch([("10.0.0.2", Verdict::Drop)]))],
        [
            ("caller", chain([drop_all()])),
            ("named", attached),
            ("other", chain([through("m")])),
        ],
    );
    let regular = named_chain(chain([drop_all()]));
    assert_eq!(
        steps(&regular, &desired),
        [
            "delete 1 element from map m",
            "flush chain caller",
            "delete chain named",
            "add chain named",
            "add rule \"drop\" to chain caller",
            "add rule \"drop\" to chain named",
        ]
    );
    assert_eq!(
        steps(&desired, &regular),
        [
            "flush chain caller",
            "delete chain named",
            "add chain named",
            "add rule \"jump named\" to chain caller",
            "add rule \"drop\" to chain caller",
            "add rule \"drop\" to chain named",
            "add 1 element to map m",
        ]
    );
}

#[test]
fn a_base_chain_that_is_attached_elsewhere_is_another_one() {
    let at = |priority| {
        let mut attached = chain([jump("called")]);
        attached.base = base(Hook::Forward, priority);
        table([], [("called", chain([])), ("egress", attached)])
    };
    assert_eq!(
        steps(&at(-6), &at(-5)),
        [
            "delete chain egress",
            "add chain egress",
            "add rule \"jump called\" to chain egress",
        ]
    );
}

#[test]
fn rules_that_name_a_set_step_aside_when_it_is_made_anew() {
    let with = |set| {
        table(
            [("s", set), ("untouched", pods(["10.0.0.9"]))],
            [
                ("a", chain([allow_from("s")])),
                ("b", chain([allow_from("untouched")])),
            ],
        )
    };
    let mut commented = pods(["10.0.0.1"]);
    commented.header.comment = comment("app=web");
    let interval = ranges(
        &[Datatype::Ipv4Addr],
        &[(&[v4("10.0.0.1")], &[v4("10.0.0.2")])],
    );
    for other in [commented, interval] {
        assert_eq!(
            steps(&with(pods(["10.0.0.1"])), &with(other)),
            [
                "flush chain a",
                "delete set s",
                "add set s",
                "add 1 element to set s",
                "add rule \"ip saddr @s accept\" to chain a",
            ]
        );
    }
}

#[test]
fn a_set_becomes_a_map() {
    let current = table(
        [("x", pods(["10.0.0.1"]))],
        [("a", chain([allow_from("x")]))],
    );
    let desired = table(
        [("x", dispatch([("10.0.0.1", goto("b"))]))],
        [("a", chain([through("x")])), ("b", chain([]))],
    );
    assert_eq!(
        steps(&current, &desired),
        [
            "flush chain a",
            "delete set x",
            "add map x",
            "add chain b",
            "add rule \"ip saddr vmap @x\" to chain a",
            "add 1 element to map x",
        ]
    );
}

#[test]
fn counters_are_made_anew_with_their_comment() {
    let with = |text: Option<&str>| {
        let count = Rule::new([Statement::NamedCounter(name("denied"))]);
        let mut table = table([], [("a", chain([count]))]);
        let counter = Counter {
            comment: text.and_then(comment),
        };
        table.counters.insert(name("denied"), Arc::new(counter));
        table
    };
    assert_eq!(
        steps(&with(None), &with(Some("no policy allows them"))),
        [
            "flush chain a",
            "delete counter denied",
            "add counter denied",
            "add rule \"counter name \"denied\"\" to chain a",
        ]
    );
}

#[test]
fn a_table_is_made_anew_with_its_comment() {
    let current = table([("s", pods([]))], []);
    let desired = Table {
        comment: comment("of node a"),
        ..current.clone()
    };
    let steps = steps(&current, &desired);
    assert_eq!(
        steps,
        ["delete table inet t", "add table inet t", "add set s"]
    );
}

#[test]
fn tables_that_are_not_desired_go() {
    let current = handmade();
    let mut desired = current.clone();
    desired.tables.remove(&table_id(Family::Bridge, "selvedge"));
    let words: Vec<_> = diff(&current, &desired)
        .ops
        .iter()
        .map(|op| op.to_string())
        .collect();
    assert_eq!(words, ["delete table bridge selvedge"]);
}

#[test]
fn a_rule_that_was_not_understood_lets_go_before_its_chain_goes() {
    let foreign = Rule::new([Statement::Foreign("jump z".to_owned())]);
    let mut current = Ruleset::default();
    let table = table([], [("z", chain([])), ("zz", chain([foreign]))]);
    current
        .tables
        .insert(table_id(Family::Inet, "t"), Arc::new(table));
    let mut desired = Ruleset::default();
    desired
        .tables
        .insert(table_id(Family::Inet, "t"), Arc::default());
    let words: Vec<_> = diff(&current, &desired)
        .ops
        .iter()
        .map(|op| op.to_string())
        .collect();
    assert_eq!(
        words,
        [
            "flush chain inet t zz",
            "delete chain inet t z",
            "delete chain inet t zz"
        ]
    );
}

proptest! {
    #[test]
    fn equal_rulesets_differ_in_nothing((a, b) in arbitrary::pair()) {
        prop_assert!(diff(&a, &a).is_empty());
        // Equal, and nothing shared.
        let mut fake = Fake::new();
        fake.commit(&diff(&Ruleset::default(), &b)).unwrap();
        prop_assert!(diff(&fake.ruleset(), &b).is_empty());
    }
}

/// The operations between two ownerships of one ruleset, which the fake must take; rules and elements are left out.
fn hands(from: Ownership, to: Ownership) -> Vec<String> {
    let ruleset = handmade();
    let (current, desired) = (ruleset.with_ownership(from), ruleset.with_ownership(to));
    let transaction = diff(&current, &desired);
    let mut fake = Fake::new();
    fake.interfere(|ruleset| *ruleset = current);
    fake.commit(&transaction).unwrap();
    assert_eq!(fake.ruleset(), desired);
    let tables = transaction.ops.iter().filter(|op| op.object().is_none());
    let words: Vec<String> = tables.map(ToString::to_string).collect();
    assert!(words.iter().any(|op| op.starts_with("delete")) || words.len() == transaction.len());
    words
}

#[test]
fn an_orphan_is_adopted_and_any_other_table_changes_hands_anew() {
    use Ownership::{Anyone, Orphan, Own};
    let adopted: Vec<String> = handmade()
        .tables
        .keys()
        .map(|id| format!("adopt table {id}"))
        .collect();
    assert_eq!(hands(Orphan, Own), adopted);
    let anew: Vec<String> = handmade()
        .tables
        .keys()
        .flat_map(|id| [format!("delete table {id}"), format!("add table {id}")])
        .collect();
    for (from, to) in [(Anyone, Own), (Own, Anyone), (Orphan, Anyone)] {
        assert_eq!(hands(from, to), anew, "{from:?} to {to:?}");
    }
    for same in [Anyone, Own] {
        assert_eq!(hands(same, same), [""; 0]);
    }
}

#[test]
fn an_orphan_is_adopted_before_all_else() {
    let of = |table: Table, ownership| {
        let id = table_id(Family::Inet, "t");
        let tables = [(id, Arc::new(table))].into_iter().collect();
        Ruleset { tables }.with_ownership(ownership)
    };
    let current = of(table([], [("a", Chain::default())]), Ownership::Orphan);
    let desired = of(table([], [("b", Chain::default())]), Ownership::Own);
    let ops = diff(&current, &desired).ops;
    let words: Vec<String> = ops.iter().map(ToString::to_string).collect();
    let expected = [
        "adopt table inet t",
        "delete chain inet t a",
        "add chain inet t b",
    ];
    assert_eq!(words, expected);
}
