use selvedge_nft::{Elements, Fake, Ruleset};

use super::*;
use crate::cluster::object::Node;
use crate::enforce::host::Link;

fn state() -> (State<Fake>, Fake) {
    let fake = Fake::new();
    let host = host::unknown(None).unwrap();
    let node = Text::from("node-a");
    let reconciler = Reconciler::new(fake.clone(), node.clone(), host.clone());
    (
        State::new(reconciler, node, None, host, Observer::new()),
        fake,
    )
}

fn source(events: Vec<Event>, synced: bool) -> Input {
    Input::Source(Update {
        at: Instant::now(),
        events,
        problems: None,
        synced,
        behind: None,
    })
}

fn node() -> Event {
    Event::Apply(Object::Node(Node {
        name: Text::from("node-a"),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        addresses: Vec::new(),
    }))
}

fn link(index: u32, name: &str, bridge: bool, master: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        bridge,
        up: true,
        master,
        filtered: Filtered::default(),
        addresses: bridge.then(|| [10, 244, 1, 1].into()).into_iter().collect(),
    }
}

fn bridged(ports: &[&str]) -> Input {
    let mut links = vec![link(1, "cbr7", true, None)];
    links.extend(
        (2..)
            .zip(ports)
            .map(|(n, name)| link(n, name, false, Some(1))),
    );
    Input::Links(Ok(links))
}

/// Whether any plain set holds the interface's name, or any rule compares with it.
fn names(ruleset: &Ruleset, interface: &str) -> bool {
    let interface = IfName::new(interface).unwrap();
    let text = selvedge_nft::text::list(ruleset);
    let in_sets = ruleset.tables.values().flat_map(|t| t.sets.values());
    let mut in_sets = in_sets.filter_map(|set| match &set.elements {
        Elements::Keys(keys) => Some(keys.len()),
        _ => None,
    });
    in_sets.any(|len| len > 0) && text.contains(&format!("\"{interface}\""))
}

#[test]
fn the_first_commit_waits_for_the_source_and_the_interfaces() {
    for order in [[0, 1, 2], [2, 0, 1], [0, 2, 1]] {
        let (mut state, fake) = state();
        for (n, step) in order.into_iter().enumerate() {
            let input = match step {
                // The source's root is not there yet.
                0 => source(Vec::new(), false),
                1 => source(vec![node()], true),
                _ => bridged(&["veth1"]),
            };
            state.take(input).unwrap();
            assert_eq!(state.step(), None);
            assert_eq!(!fake.log().is_empty(), n == 2, "{order:?} {n}");
        }
        assert!(names(&fake.ruleset(), "cbr7"));
        assert!(names(&fake.ruleset(), "veth1"));
    }
}

#[test]
fn interfaces_that_can_t_be_known_do_not_hold_up_the_policies() {
    let (mut state, fake) = state();
    state.take(source(vec![node()], true)).unwrap();
    state.take(Input::Links(Err(LinksError::Closed))).unwrap();
    assert_eq!(state.step(), None);
    assert!(names(&fake.ruleset(), "cni0"));
}

#[test]
fn the_bridge_s_ports_come_and_go() {
    let (mut state, fake) = state();
    state.take(source(vec![node()], true)).unwrap();
    state.take(bridged(&["veth1"])).unwrap();
    state.step();
    fake.take_log();
    state.take(bridged(&["veth2", "veth3"])).unwrap();
    state.step();
    assert!(!names(&fake.ruleset(), "veth1"));
    assert!(names(&fake.ruleset(), "veth2") && names(&fake.ruleset(), "veth3"));
    // The bridge is gone for a while: the rules keep its name.
    state.take(Input::Links(Ok(Vec::new()))).unwrap();
    state.step();
    assert!(names(&fake.ruleset(), "cbr7") && !names(&fake.ruleset(), "veth2"));
    assert_eq!(fake.log().len(), 2);
}

/// A DaemonSet's pods are all told the same.
#[test]
fn of_the_cluster_s_block_a_node_closes_its_own() {
    let (mut state, _) = state();
    let nets = |texts: &[&str]| -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    state.closing = Some(nets(&["10.244.0.0/16", "fd00::/16"]));
    assert_eq!(state.closed(), nets(&["10.244.0.0/16", "fd00::/16"]));
    state.take(source(vec![node()], true)).unwrap();
    assert_eq!(state.closed(), nets(&["10.244.1.0/24", "fd00::/16"]));
    state.closing = Some(nets(&["10.244.1.128/25", "10.9.0.0/16"]));
    assert_eq!(state.closed(), nets(&["10.244.1.128/25", "10.9.0.0/16"]));
    state.closing = Some(Vec::new());
    assert_eq!(state.closed(), nets(&["10.244.1.0/24"]));
}

#[test]
fn a_part_that_stops_ends_the_daemon() {
    let (mut state, _) = state();
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let feed = Feed {
        part: "the watch",
        sender,
    };
    let thread = std::thread::spawn(move || {
        let _feed = feed;
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(thread.join().is_err());
    let error = state.take(inputs.blocking_recv().unwrap()).unwrap_err();
    assert!(error.to_string().contains("the watch has stopped"));
}

/// The elements of the set of known addresses, as nft prints them.
fn known(ruleset: &Ruleset) -> Option<String> {
    let text = selvedge_nft::text::list(ruleset);
    let set = text.split("set known4 {").nth(1)?;
    let elements = set.split("elements = {").nth(1)?;
    Some(elements.split('}').next()?.trim().to_owned())
}

#[test]
fn new_pods_are_blocked_in_the_nodes_own_block_unless_others_are_named() {
    for (closing, expected) in [
        (None, None),
        (Some(vec![]), Some("10.244.1.0, 10.244.1.1")),
        (
            Some(vec!["10.9.0.0/24".parse().unwrap()]),
            Some("10.9.0.0, 10.9.0.1"),
        ),
    ] {
        let (mut state, fake) = state();
        state.closing = closing;
        state.take(source(vec![node()], true)).unwrap();
        state.take(bridged(&["veth1"])).unwrap();
        state.step();
        assert_eq!(known(&fake.ruleset()).as_deref(), expected);
        assert_eq!(state.open_to_new_pods(), None);
    }
}

#[test]
fn that_no_block_is_known_to_block_new_pods_in_is_said() {
    let (mut state, fake) = state();
    state.closing = Some(Vec::new());
    state.take(source(Vec::new(), true)).unwrap();
    state.take(bridged(&["veth1"])).unwrap();
    state.step();
    assert_eq!(known(&fake.ruleset()), None);
    assert!(state.open_to_new_pods().unwrap().contains("--pod-cidr"));
}

#[test]
fn what_others_do_during_a_commit_is_put_right_though_nothing_becomes_readable() {
    let (mut state, fake) = state();
    state.take(source(vec![node()], true)).unwrap();
    state.take(bridged(&["veth1"])).unwrap();
    assert_eq!(state.step(), None);
    let before = fake.ruleset();
    fake.interfere(|held| *held = Ruleset::default());
    let due = state.step().unwrap();
    assert!(due <= Instant::now());
    assert_eq!(state.step(), None);
    assert_eq!(fake.ruleset(), before);
}
