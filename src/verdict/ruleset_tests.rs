use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use selvedge_nft::{
    BaseChain, IfName, LimitUnit, MapEntry, SetHeader, TcpFlags, Verdict::*, ct_state,
};

use super::*;
use crate::cluster::port::Protocol;
use crate::verdict::packet::{Network, TransportHeader};
use crate::verdict::{Connection, Transport};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id() -> TableId {
    TableId {
        family: Family::Inet,
        name: name("t"),
    }
}

fn rules(rules: impl IntoIterator<Item = Vec<Statement>>) -> Vec<Rule> {
    rules.into_iter().map(Rule::new).collect()
}

fn base(
    priority: i32,
    policy: ChainPolicy,
    all: impl IntoIterator<Item = Vec<Statement>>,
) -> Chain {
    Chain {
        base: Some(BaseChain {
            hook: Hook::Forward,
            priority,
            policy,
        }),
        comment: None,
        rules: rules(all),
    }
}

fn regular(all: impl IntoIterator<Item = Vec<Statement>>) -> Chain {
    Chain {
        base: None,
        comment: None,
        rules: rules(all),
    }
}

fn ruleset(chains: Vec<(&str, Chain)>, sets: Vec<(&str, Vec<Datatype>, Elements)>) -> Ruleset {
    let sets = sets.into_iter().map(|(text, key, elements)| {
        let header = SetHeader { key, comment: None };
        (name(text), Arc::new(Set { header, elements }))
    });
    let chains = chains
        .into_iter()
        .map(|(text, chain)| (name(text), Arc::new(chain)));
    let table = Table {
        sets: sets.collect(),
        chains: chains.collect(),
        ..Table::default()
    };
    Ruleset {
        tables: OrdMap::unit(id(), Arc::new(table)),
    }
}

fn packet(transport: Transport) -> Packet {
    let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let connection = Connection::new(IpAddr::V4(from), IpAddr::V4(to), transport).unwrap();
    Packet::opening(&connection, 1234).unwrap()
}

fn forward(ruleset: &Ruleset, packet: &Packet) -> Walk {
    walk(ruleset, Family::Inet, Hook::Forward, packet).unwrap()
}

/// Whether a packet meets these statements in a base chain that drops what does not.
fn meets(statements: Vec<Statement>, packet: &Packet) -> bool {
    let chain = base(
        0,
        ChainPolicy::Drop,
        [[statements, vec![Accept.into()]].concat()],
    );
    forward(&ruleset(vec![("c", chain)], vec![]), packet).accepted
}

fn dport(op: Operator, operand: Operand) -> Statement {
    Statement::Match {
        field: Field::TcpDport,
        op,
        operand,
    }
}

fn port(number: u16) -> Operand {
    Operand::Value(Value::Service(number))
}

#[test]
fn accept_ends_one_base_chain_and_drop_all() {
    let chains = vec![
        ("a-last", base(5, ChainPolicy::Accept, [vec![Drop.into()]])),
        (
            "z-first",
            base(
                -5,
                ChainPolicy::Accept,
                [vec![Accept.into()], vec![Drop.into()]],
            ),
        ),
    ];
    let walk = forward(&ruleset(chains, vec![]), &packet(Transport::Icmp));
    assert!(!walk.accepted);
    let steps: Vec<String> = walk.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "inet t z-first rule 0: accept",
            "inet t a-last rule 0: drop"
        ]
    );
}

#[test]
fn other_hooks_and_families_are_not_asked() {
    let ruleset = ruleset(vec![("c", base(0, ChainPolicy::Drop, []))], vec![]);
    for (family, hook, accepted) in [
        (Family::Inet, Hook::Forward, false),
        (Family::Inet, Hook::Input, true),
        (Family::Bridge, Hook::Forward, true),
    ] {
        let walk = walk(&ruleset, family, hook, &packet(Transport::Icmp)).unwrap();
        assert_eq!(walk.accepted, accepted, "{family} {hook:?}");
    }
}

#[test]
fn jump_comes_back_and_goto_does_not() {
    let run = |first: Verdict, inner: Verdict| {
        let chains = vec![
            (
                "base",
                base(
                    0,
                    ChainPolicy::Accept,
                    [vec![Jump(name("one")).into()], vec![Drop.into()]],
                ),
            ),
            ("one", regular([vec![first.into()], vec![Accept.into()]])),
            ("two", regular([vec![inner.into()]])),
        ];
        forward(&ruleset(chains, vec![]), &packet(Transport::Icmp)).accepted
    };
    // Back in `one`, its accept is met; from a goto and from a return in `one` the way leads to the base chain's drop.
    assert!(run(Jump(name("two")), Return));
    assert!(run(Jump(name("two")), Continue));
    assert!(!run(Goto(name("two")), Return));
    assert!(!run(Goto(name("two")), Continue));
    assert!(!run(Return, Accept));
    assert!(run(Continue, Drop));
}

#[test]
fn the_end_of_a_base_chain_is_its_policy() {
    for (rule, accepted) in [
        (Return, false),
        (Continue, false),
        (Goto(name("empty")), false),
    ] {
        let chains = vec![
            ("base", base(0, ChainPolicy::Drop, [vec![rule.into()]])),
            ("empty", regular([])),
        ];
        let walk = forward(&ruleset(chains, vec![]), &packet(Transport::Icmp));
        assert_eq!(walk.accepted, accepted);
        assert_eq!(
            walk.steps.last().unwrap().to_string(),
            "inet t base policy: drop"
        );
    }
}

#[test]
fn a_field_that_is_not_there_ends_the_rule_also_when_inverted() {
    let udp = packet(Transport::Udp(80));
    for op in [Operator::Eq, Operator::Neq] {
        assert!(!meets(vec![dport(op, port(80))], &udp));
        let source = Statement::Match {
            field: Field::Ip6Saddr,
            op,
            operand: Operand::Value(Value::Ipv6(Ipv6Addr::LOCALHOST)),
        };
        assert!(!meets(vec![source], &udp));
        let flags = Statement::TcpFlags {
            mask: TcpFlags::SYN,
            op,
            value: TcpFlags::SYN,
        };
        assert!(!meets(vec![flags], &udp));
    }
    let inverted = Statement::Lookup {
        key: vec![Field::TcpDport],
        set: name("s"),
        inverted: true,
    };
    let chain = base(0, ChainPolicy::Drop, [vec![inverted, Accept.into()]]);
    let set = (
        "s",
        vec![Datatype::InetService],
        Elements::Keys(OrdSet::new()),
    );
    let ruleset = ruleset(vec![("c", chain)], vec![set]);
    assert!(!forward(&ruleset, &udp).accepted);
    assert!(forward(&ruleset, &packet(Transport::Tcp(80))).accepted);
}

#[test]
fn no_interface_is_the_empty_name() {
    let bridge = Value::IfName(IfName::new("cni0").unwrap());
    let by = |op| Statement::Match {
        field: Field::Iifname,
        op,
        operand: Operand::Value(bridge),
    };
    let none = packet(Transport::Icmp);
    assert!(!meets(vec![by(Operator::Eq)], &none));
    assert!(meets(vec![by(Operator::Neq)], &none));
    let mut bridged = none;
    bridged.iifname = Some(IfName::new("cni0").unwrap());
    assert!(meets(vec![by(Operator::Eq)], &bridged));
    bridged.iifname = Some(IfName::new("cni01").unwrap());
    assert!(!meets(vec![by(Operator::Eq)], &bridged));
}

#[test]
fn comparisons_are_by_number() {
    let tcp = packet(Transport::Tcp(0x0201));
    for (op, number, expected) in [
        (Operator::Lt, 0x0300, true),
        (Operator::Lt, 0x0201, false),
        (Operator::Lte, 0x0201, true),
        (Operator::Gt, 0x01ff, true),
        (Operator::Gt, 0x0201, false),
        (Operator::Gte, 0x0202, false),
        (Operator::Neq, 0x0201, false),
    ] {
        assert_eq!(
            meets(vec![dport(op, port(number))], &tcp),
            expected,
            "{op:?} {number}"
        );
    }
    let range = Operand::Range(Value::Service(0x01ff), Value::Service(0x0201));
    assert!(meets(vec![dport(Operator::Eq, range)], &tcp));
    assert!(!meets(vec![dport(Operator::Neq, range)], &tcp));
}

#[test]
fn prefixes_compare_whole_and_partial_bytes() {
    let source = |net: [u8; 4], len, op| Statement::Match {
        field: Field::IpSaddr,
        op,
        operand: Operand::Prefix(Value::Ipv4(Ipv4Addr::from(net)), len),
    };
    let from = packet(Transport::Icmp); // 10.0.0.1
    assert!(meets(vec![source([10, 0, 0, 0], 8, Operator::Eq)], &from));
    assert!(meets(vec![source([10, 0, 0, 0], 31, Operator::Eq)], &from));
    assert!(!meets(vec![source([10, 0, 0, 2], 31, Operator::Eq)], &from));
    assert!(!meets(
        vec![source([10, 128, 0, 0], 9, Operator::Eq)],
        &from
    ));
    assert!(!meets(vec![source([10, 0, 0, 0], 8, Operator::Neq)], &from));
}

#[test]
fn a_verdict_map_without_the_key_lets_the_chain_go_on() {
    let map = |address: [u8; 4]| {
        let entry = MapEntry {
            verdict: Goto(name("pod")),
            comment: None,
        };
        let entries = OrdMap::unit(Key::from(Ipv4Addr::from(address)), entry);
        let vmap = Statement::VerdictMap {
            key: vec![Field::IpDaddr],
            map: name("m"),
        };
        let chains = vec![
            (
                "base",
                base(0, ChainPolicy::Drop, [vec![vmap], vec![Accept.into()]]),
            ),
            ("pod", regular([])),
        ];
        ruleset(
            chains,
            vec![("m", vec![Datatype::Ipv4Addr], Elements::Verdicts(entries))],
        )
    };
    assert!(forward(&map([10, 0, 0, 9]), &packet(Transport::Icmp)).accepted);
    assert!(!forward(&map([10, 0, 0, 2]), &packet(Transport::Icmp)).accepted);
}

#[test]
fn intervals_and_concatenations_are_looked_up() {
    let lookup = |key: Vec<Field>, types: Vec<Datatype>, elements, packet: &Packet| {
        let rule = vec![Statement::lookup(key, name("s")), Accept.into()];
        let chains = vec![("c", base(0, ChainPolicy::Drop, [rule]))];
        forward(&ruleset(chains, vec![("s", types, elements)]), packet).accepted
    };
    let ranges = Elements::Ranges(OrdMap::from(vec![
        (Key::from(80u16), Key::from(90u16)),
        (Key::from(443u16), Key::from(443u16)),
    ]));
    for (number, expected) in [
        (79, false),
        (80, true),
        (90, true),
        (91, false),
        (443, true),
        (444, false),
    ] {
        let key = vec![Field::TcpDport];
        let types = vec![Datatype::InetService];
        let packet = packet(Transport::Tcp(number));
        assert_eq!(
            lookup(key, types, ranges.clone(), &packet),
            expected,
            "{number}"
        );
    }
    let key = |last: u8, protocol, number| {
        let address = Value::Ipv4(Ipv4Addr::new(10, 0, 0, last));
        Key::new(&[address, Value::Proto(protocol), Value::Service(number)]).unwrap()
    };
    let fields = || vec![Field::IpDaddr, Field::MetaL4proto, Field::ThDport];
    let types = || {
        fields()
            .iter()
            .map(|field| field.datatype())
            .collect::<Vec<_>>()
    };
    let keys = Elements::Keys(OrdSet::unit(key(2, 6, 80)));
    // Each field by itself: the port is out of bounds though the whole key sorts between.
    let within = Elements::Ranges(OrdMap::unit(key(1, 6, 80), key(3, 17, 90)));
    for (transport, plain, ranged) in [
        (Transport::Tcp(80), true, true),
        (Transport::Udp(80), false, true),
        (Transport::Tcp(91), false, false),
        (Transport::Sctp(80), false, false),
    ] {
        let packet = packet(transport);
        assert_eq!(
            lookup(fields(), types(), keys.clone(), &packet),
            plain,
            "{transport}"
        );
        assert_eq!(
            lookup(fields(), types(), within.clone(), &packet),
            ranged,
            "{transport}"
        );
    }
}

#[test]
fn transport_ports_are_read_from_any_header() {
    let th = |number| Statement::eq(Field::ThDport, Value::Service(number));
    assert!(meets(vec![th(80)], &packet(Transport::Sctp(80))));
    // Of an ICMP message these bytes are the checksum.
    assert!(meets(vec![th(1234)], &packet(Transport::Icmp)));
    let mut fragment = packet(Transport::Udp(80));
    fragment.transport = None;
    assert!(!meets(vec![th(80)], &fragment));
    let mut frame = packet(Transport::Udp(80));
    frame.network = Network::Other;
    let source = Statement::eq(Field::IpSaddr, Value::Ipv4(Ipv4Addr::new(10, 0, 0, 1)));
    assert!(!meets(vec![source], &frame));
}

#[test]
fn state_and_flags_are_bits() {
    let state = Statement::CtState(ct_state::ESTABLISHED | ct_state::RELATED);
    let mut segment = packet(Transport::Tcp(80));
    assert!(!meets(vec![state.clone()], &segment));
    segment.ct_state = ct_state::RELATED;
    assert!(meets(vec![state], &segment));
    let syn = |op| Statement::TcpFlags {
        mask: TcpFlags::SYN | TcpFlags::ACK,
        op,
        value: TcpFlags::SYN,
    };
    assert!(meets(vec![syn(Operator::Eq)], &segment));
    let flags = TcpFlags::SYN | TcpFlags::ACK;
    segment.transport = Some(TransportHeader::ports(Protocol::Tcp, 1, 80, flags));
    assert!(meets(vec![syn(Operator::Neq)], &segment));
    assert!(!meets(vec![syn(Operator::Eq)], &segment));
}

#[test]
fn counters_limits_and_logs_pass() {
    let statements = vec![
        Statement::Counter,
        Statement::NamedCounter(name("n")),
        Statement::Limit {
            rate: 1,
            unit: LimitUnit::Second,
            burst: 0,
        },
        Statement::Log {
            group: 1,
            prefix: None,
        },
    ];
    assert!(meets(statements, &packet(Transport::Icmp)));
}

#[test]
fn what_the_kernel_would_refuse_is_an_error() {
    let refuse = |rule: Vec<Statement>, sets| {
        let chains = vec![("c", base(0, ChainPolicy::Accept, [rule]))];
        let packet = packet(Transport::Tcp(80));
        walk(&ruleset(chains, sets), Family::Inet, Hook::Forward, &packet).unwrap_err()
    };
    let ports = || {
        vec![(
            "s",
            vec![Datatype::InetService],
            Elements::Keys(OrdSet::new()),
        )]
    };
    let vmap = Statement::VerdictMap {
        key: vec![Field::TcpDport],
        map: name("s"),
    };
    let type_error = WalkError::Type {
        table: id(),
        set: name("s"),
    };
    assert_eq!(refuse(vec![vmap], ports()), type_error);
    let by_address = Statement::lookup([Field::IpSaddr], name("s"));
    assert_eq!(refuse(vec![by_address.clone()], ports()), type_error);
    let no_set = WalkError::NoSet {
        table: id(),
        set: name("s"),
    };
    assert_eq!(refuse(vec![by_address], vec![]), no_set);
    let no_chain = WalkError::NoChain {
        table: id(),
        chain: name("x"),
    };
    assert_eq!(refuse(vec![Jump(name("x")).into()], vec![]), no_chain);
    for circle in [Jump(name("c")), Goto(name("c"))] {
        let error = refuse(vec![circle.into()], vec![]);
        assert!(matches!(error, WalkError::Depth { .. }), "{error}");
    }
}
