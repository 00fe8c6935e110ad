//! The incremental ruleset is the fresh one, after any events in any order and batching.
//!
//! `SELVEDGE_SOAK=1` does five times as many: 10,000 sequences.

#![allow(clippy::unwrap_used)] // a test may stop

use proptest::prelude::*;
use selvedge::arbitrary::{NODES, World, events, world};
use selvedge::cluster::Text;
use selvedge::cluster::object::{Event, Object, ObjectKind};
use selvedge::compile::{Compiler, Host, compile};
use selvedge::index::Index;
use selvedge_nft::{IfName, Ruleset};

fn host() -> Host {
    Host::new(
        IfName::new("cni0").unwrap(),
        [IfName::new("veth0").unwrap()],
    )
}

fn fresh(index: &Index, node: &str) -> Ruleset {
    compile(index, &Text::from(node), &host())
}

/// An index that is told, in an order of its own, of what another has come to know.
fn retold(index: &Index, lists_namespaces: bool) -> Index {
    let namespaces: Vec<Object> = index.namespaces().map(Object::Namespace).collect();
    let keys = namespaces.iter().map(Object::key).collect();
    let list = lists_namespaces.then_some(Event::Retain {
        kind: ObjectKind::Namespace,
        keys,
    });
    let pods = index.pods().cloned().map(Object::Pod);
    let nodes = index.nodes().cloned().map(Object::Node);
    let policies = index.policies().cloned().map(Object::Policy);
    let objects = namespaces.into_iter().chain(nodes).chain(pods);
    let objects = objects.chain(policies).map(Event::Apply);
    let mut retold = Index::new();
    for event in list.into_iter().chain(objects) {
        retold.apply(event);
    }
    retold
}

/// Feeds the events in batches of the sizes given, and compares after each.
fn replay(events: &[Event], batches: &[usize]) -> Result<Ruleset, TestCaseError> {
    let mut index = Index::new();
    let mut compiler = Compiler::new(Text::from(NODES[0]), host());
    let mut rest = events;
    let mut sizes = batches.iter().cycle();
    let mut ruleset = compiler.update(&mut index);
    let mut lists_namespaces = false;
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (batch, later) = rest.split_at(size);
        rest = later;
        for event in batch {
            lists_namespaces |= matches!(event, Event::Retain { .. });
            index.apply(event.clone());
        }
        ruleset = compiler.update(&mut index);
        let retold = retold(&index, lists_namespaces);
        prop_assert_eq!(&ruleset, &fresh(&retold, NODES[0]));
    }
    Ok(ruleset)
}

fn config() -> ProptestConfig {
    let cases = match std::env::var_os("SELVEDGE_SOAK") {
        Some(_) => 5_000,
        None => 1_000,
    };
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn after_any_events_the_ruleset_is_as_compiled_afresh(
        events in events(40),
        batches in prop::collection::vec(1usize..6, 1..6),
    ) {
        replay(&events, &batches)?;
    }

    #[test]
    fn the_order_and_repetition_of_events_make_no_difference(
        (world, order, batches) in world(8, 5).prop_flat_map(|world: World| {
            let mut events: Vec<usize> = (0..world.objects().len()).collect();
            events.extend(events.clone().iter().step_by(2));
            (Just(world), Just(events).prop_shuffle(), prop::collection::vec(1usize..9, 1..4))
        }),
    ) {
        let objects = world.objects();
        let shuffled: Vec<Event> = order.iter().map(|n| Event::Apply(objects[*n].clone())).collect();
        let ruleset = replay(&shuffled, &batches)?;
        prop_assert_eq!(&ruleset, &fresh(&world.index(), NODES[0]));
    }
}
