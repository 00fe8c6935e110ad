//! Every kind of statement, set and comment, and names in many shapes.

use std::sync::Arc;

use super::{
    base, chain, comment, interface, jump, key, keys, map, name, ranges, table_id, v4, v6,
};
use crate::name::Comment;
use crate::rule::{
    Field, LimitUnit, Operand, Operator, Rule, Statement, TcpFlags, Verdict, ct_state,
};
use crate::ruleset::{
    BaseChain, Chain, ChainPolicy, Counter, Elements, Family, Hook, Ruleset, Set, Table,
};
use crate::value::{Datatype, Key, Value};

fn compare(field: Field, op: Operator, operand: Operand) -> Rule {
    Rule::new([Statement::Match { field, op, operand }])
}

/// A ruleset with every kind of statement, set and comment, and names in many shapes.
pub(crate) fn handmade() -> Ruleset {
    let mut ruleset = Ruleset::default();
    ruleset.tables.insert(
        table_id(Family::Inet, "selvedge"),
        Arc::new(handmade_inet()),
    );
    ruleset.tables.insert(
        table_id(Family::Bridge, "selvedge"),
        Arc::new(handmade_bridge()),
    );
    let bare = Arc::new(Table::default());
    ruleset.tables.insert(table_id(Family::Inet, "bare"), bare);
    ruleset
}

fn handmade_inet() -> Table {
    let mut table = Table {
        comment: comment("what NetworkPolicy says, on this node; $x {y}"),
        ..Table::default()
    };
    let commented = Counter {
        comment: comment("packets that no policy allows"),
    };
    table.counters.insert(name("denied"), Arc::new(commented));
    table.counters.insert(name("egress"), Arc::default());
    for (set_name, set) in handmade_sets() {
        table.sets.insert(name(&set_name), Arc::new(set));
    }
    for (chain_name, chain) in handmade_chains() {
        table.chains.insert(name(&chain_name), Arc::new(chain));
    }
    table
}

fn handmade_sets() -> Vec<(String, Set)> {
    use Datatype::{
        EtherType, IcmpType, Icmpv6Type, IfName, InetProto, InetService, Ipv4Addr, Ipv6Addr,
    };
    let mut pods = keys(
        &[Ipv4Addr],
        (0..9u32).map(|n| key(&[Value::Ipv4((0x0af4_0100 + n * 77).into())])),
    );
    pods.header.comment = comment(&"c".repeat(128));
    let mut cidr = ranges(
        &[Ipv4Addr],
        &[
            (&[v4("0.0.0.0")], &[v4("9.255.255.255")]),
            (&[v4("10.0.0.0")], &[v4("10.255.255.255")]),
            (&[v4("172.16.0.1")], &[v4("172.16.0.9")]),
            (&[v4("172.16.0.10")], &[v4("172.16.0.10")]),
            (&[v4("255.255.255.254")], &[v4("255.255.255.255")]),
        ],
    );
    cidr.header.comment = comment("10.0.0.0/8 except nothing");
    let concatenation = [Ipv4Addr, InetProto, InetService];
    let target = |a: &str, p, n| key(&[v4(a), Value::Proto(p), Value::Service(n)]);
    let targets = [
        target("10.244.1.7", 6, 80),
        target("10.244.1.9", 17, 53),
        target("10.244.1.200", 132, 300),
        target("10.244.1.8", 6, 300),
    ];
    let mut egress4 = map(
        &[Ipv4Addr],
        [
            (
                key(&[v4("10.244.1.7")]),
                Verdict::Goto(name("egress/shop/api-0")),
            ),
            (key(&[v4("10.244.1.9")]), Verdict::Jump(name("policy/x.y"))),
            (key(&[v4("10.244.1.10")]), Verdict::Drop),
            (key(&[v4("10.244.2.10")]), Verdict::Return),
        ],
    );
    egress4.header.comment = comment("pods isolated in egress");
    if let Elements::Verdicts(entries) = &mut egress4.elements
        && let Some(entry) = entries.get_mut(&key(&[v4("10.244.1.7")]))
    {
        entry.comment = comment("shop/api-0");
    }
    let proto = |n: u8| key(&[Value::Proto(n)]);
    let interfaces = ["lo", "cni0", "drop", "veth0@x", "veth12345678901"];
    let addresses6 = [
        "::",
        "::1",
        "::1.2.3.4",
        "::ffff:1.2.3.4",
        "fe80::1",
        "2001:db8::",
    ];
    vec![
        ("pods-3f2a9c1e-4".into(), pods),
        ("cidr-4".into(), cidr),
        ("empty".into(), keys(&[Ipv4Addr], [])),
        (
            "pods6".into(),
            keys(&[Ipv6Addr], addresses6.map(|a| key(&[v6(a)]))),
        ),
        (
            "cidr6".into(),
            ranges(
                &[Ipv6Addr],
                &[
                    (&[v6("::2")], &[v6("::9")]),
                    (
                        &[v6("fd00::")],
                        &[v6("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")],
                    ),
                ],
            ),
        ),
        (
            "everything".into(),
            ranges(&[Ipv4Addr], &[(&[v4("0.0.0.0")], &[v4("255.255.255.255")])]),
        ),
        (
            "ports".into(),
            keys(&[InetService], (1..14u16).map(|n| Key::from(n * 70))),
        ),
        (
            "port-ranges".into(),
            ranges(
                &[InetService],
                &[
                    (&[Value::Service(0)], &[Value::Service(79)]),
                    (&[Value::Service(80)], &[Value::Service(80)]),
                    (&[Value::Service(4096)], &[Value::Service(8191)]),
                    (&[Value::Service(9000)], &[Value::Service(65535)]),
                ],
            ),
        ),
        (
            "protocols".into(),
            keys(&[InetProto], [0, 1, 6, 17, 58, 132, 255].map(proto)),
        ),
        (
            "interfaces".into(),
            keys(&[IfName], interfaces.map(|n| key(&[interface(n)]))),
        ),
        (
            "icmp-types".into(),
            keys(&[IcmpType], [0, 8, 42].map(|n| key(&[Value::IcmpType(n)]))),
        ),
        (
            "icmpv6-types".into(),
            ranges(
                &[Icmpv6Type],
                &[
                    (&[Value::Icmpv6Type(1)], &[Value::Icmpv6Type(4)]),
                    (&[Value::Icmpv6Type(135)], &[Value::Icmpv6Type(135)]),
                ],
            ),
        ),
        (
            "ether-types".into(),
            keys(
                &[EtherType],
                [5, 0x800, 0x8100].map(|n| key(&[Value::EtherType(n)])),
            ),
        ),
        ("targets".into(), keys(&concatenation, targets)),
        (
            "target-ranges".into(),
            ranges(
                &concatenation,
                &[
                    (
                        &[v4("10.0.0.0"), Value::Proto(6), Value::Service(80)],
                        &[v4("10.255.255.255"), Value::Proto(6), Value::Service(90)],
                    ),
                    (
                        &[v4("11.0.0.1"), Value::Proto(0), Value::Service(0)],
                        &[v4("11.0.0.7"), Value::Proto(255), Value::Service(65535)],
                    ),
                ],
            ),
        ),
        (
            "named-ports".into(),
            map(
                &concatenation,
                [
                    (targets[0], Verdict::Accept),
                    (targets[1], Verdict::Continue),
                ],
            ),
        ),
        ("egress4".into(), egress4),
        (
            "x".repeat(255),
            map(&[InetService], (1..8u16).map(|n| (n.into(), Verdict::Drop))),
        ),
    ]
}

fn handmade_chains() -> Vec<(String, Chain)> {
    use Field::{
        IcmpType, Icmpv6Type, Iifname, Ip6Daddr, Ip6Saddr, IpDaddr, IpSaddr, MetaL4proto, Oifname,
        SctpDport, TcpDport, TcpSport, ThDport, ThSport, UdpDport, UdpSport,
    };
    let mut egress = chain([
        Rule::new([
            Statement::CtState(ct_state::ESTABLISHED | ct_state::RELATED),
            Verdict::Accept.into(),
        ]),
        Rule::new([
            Statement::TcpFlags {
                mask: TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK,
                op: Operator::Neq,
                value: TcpFlags::SYN,
            },
            Statement::Counter,
            Verdict::Drop.into(),
        ]),
        Rule::new([Statement::VerdictMap {
            key: vec![IpSaddr],
            map: name("egress4"),
        }]),
    ]);
    egress.base = base(Hook::Forward, -6);
    egress.comment = comment("what pods of this node send");
    let mut prerouting = chain([jump("drop/me")]);
    prerouting.base = Some(BaseChain {
        hook: Hook::Prerouting,
        priority: -100,
        policy: ChainPolicy::Drop,
    });
    let values = chain([
        compare(IpDaddr, Operator::Neq, Operand::Value(v4("10.0.0.1"))),
        compare(IpSaddr, Operator::Eq, Operand::Prefix(v4("10.0.0.0"), 8)),
        compare(IpSaddr, Operator::Eq, Operand::Prefix(v4("10.16.0.0"), 12)),
        compare(
            IpSaddr,
            Operator::Neq,
            Operand::Range(v4("10.0.0.0"), v4("10.255.255.255")),
        ),
        compare(Ip6Daddr, Operator::Neq, Operand::Prefix(v6("fd00::"), 8)),
        compare(Ip6Saddr, Operator::Eq, Operand::Range(v6("::2"), v6("::9"))),
        compare(
            TcpDport,
            Operator::Eq,
            Operand::Range(Value::Service(9000), Value::Service(9100)),
        ),
        compare(TcpDport, Operator::Lt, Operand::Value(Value::Service(1024))),
        compare(
            UdpSport,
            Operator::Lte,
            Operand::Value(Value::Service(1024)),
        ),
        compare(UdpDport, Operator::Gt, Operand::Value(Value::Service(1024))),
        compare(
            SctpDport,
            Operator::Gte,
            Operand::Value(Value::Service(1024)),
        ),
        compare(ThSport, Operator::Eq, Operand::Value(Value::Service(53))),
        compare(IcmpType, Operator::Eq, Operand::Value(Value::IcmpType(8))),
        compare(
            IcmpType,
            Operator::Eq,
            Operand::Range(Value::IcmpType(3), Value::IcmpType(8)),
        ),
        compare(
            Icmpv6Type,
            Operator::Neq,
            Operand::Value(Value::Icmpv6Type(143)),
        ),
        compare(
            Icmpv6Type,
            Operator::Eq,
            Operand::Value(Value::Icmpv6Type(42)),
        ),
        compare(MetaL4proto, Operator::Neq, Operand::Value(Value::Proto(58))),
        compare(MetaL4proto, Operator::Eq, Operand::Value(Value::Proto(89))),
        compare(Iifname, Operator::Eq, Operand::Value(interface("cni0"))),
        compare(Oifname, Operator::Neq, Operand::Value(interface("drop"))),
        Rule::new([
            Statement::eq(TcpSport, Value::Service(1)),
            Statement::eq(TcpDport, Value::Service(2)),
            Statement::eq(IpSaddr, v4("1.2.3.4")),
        ]),
    ]);
    let lookups = chain([
        Rule::new([Statement::lookup([IpSaddr], name("pods-3f2a9c1e-4"))]),
        Rule::new([Statement::Lookup {
            key: vec![IpDaddr],
            set: name("cidr-4"),
            inverted: true,
        }]),
        Rule::new([Statement::lookup([Ip6Saddr], name("pods6"))]),
        Rule::new([Statement::lookup([Ip6Daddr], name("cidr6"))]),
        Rule::new([
            Statement::lookup([TcpDport], name("ports")),
            Verdict::Accept.into(),
        ]),
        Rule::new([Statement::lookup([ThDport], name("port-ranges"))]),
        Rule::new([Statement::lookup([MetaL4proto], name("protocols"))]),
        Rule::new([Statement::lookup([Iifname], name("interfaces"))]),
        Rule::new([Statement::lookup([IcmpType], name("icmp-types"))]),
        Rule::new([Statement::lookup([Icmpv6Type], name("icmpv6-types"))]),
        Rule::new([Statement::lookup(
            [IpDaddr, MetaL4proto, ThDport],
            name("targets"),
        )]),
        Rule::new([Statement::lookup(
            [IpDaddr, MetaL4proto, ThDport],
            name("target-ranges"),
        )]),
        Rule::new([Statement::VerdictMap {
            key: vec![IpDaddr, MetaL4proto, ThDport],
            map: name("named-ports"),
        }]),
    ]);
    let limit = |unit, burst| Statement::Limit {
        rate: 10,
        unit,
        burst,
    };
    let log = |group, prefix| Statement::Log { group, prefix };
    let effects = chain([
        Rule::new([limit(LimitUnit::Second, 5)]),
        Rule::new([limit(LimitUnit::Minute, 1)]),
        Rule::new([limit(LimitUnit::Hour, 6), limit(LimitUnit::Day, 7)]),
        Rule::new([log(0, None), Statement::NamedCounter(name("denied"))]),
        Rule::new([log(65535, comment(&"p".repeat(127))), Verdict::Drop.into()]),
        Rule::new([
            log(5, comment("denied {1} a-b:")),
            Statement::NamedCounter(name("egress")),
        ]),
        Rule::new([Statement::CtState(ct_state::NEW)]),
        Rule::new([Statement::CtState(
            ct_state::INVALID
                | ct_state::ESTABLISHED
                | ct_state::RELATED
                | ct_state::NEW
                | ct_state::UNTRACKED,
        )]),
        Rule::new([Verdict::Continue.into()]).with_comment(Comment::new("ns $x, größer").unwrap()),
        Rule::new([Verdict::Return.into()]),
        Rule::new([Verdict::Goto(name("policy/x.y")).into()]),
    ]);
    let mut commented = chain([]);
    commented.comment = comment("nothing in it");
    vec![
        ("egress".into(), egress),
        ("prerouting".into(), prerouting),
        ("values".into(), values),
        ("lookups".into(), lookups),
        ("effects".into(), effects),
        ("drop/me".into(), chain([jump("ip.x"), jump("set-1")])),
        ("ip.x".into(), chain([])),
        ("set-1".into(), commented),
        (
            "egress/shop/api-0".into(),
            chain([Rule::new([Statement::Counter, Verdict::Drop.into()])]),
        ),
        ("policy/x.y".into(), chain([])),
        ("y".repeat(255), chain([])),
    ]
}

fn handmade_bridge() -> Table {
    let target = |operand| Statement::Match {
        field: Field::NdTarget,
        op: Operator::Neq,
        operand,
    };
    let mut table = Table::default();
    let ports = keys(
        &[Datatype::IfName],
        ["veth1", "veth2"].map(|n| key(&[interface(n)])),
    );
    table.sets.insert(name("ports"), Arc::new(ports));
    let types = keys(
        &[Datatype::EtherType],
        [0x800, 0x806, 0x86dd].map(|n| key(&[Value::EtherType(n)])),
    );
    table.sets.insert(name("ether-types"), Arc::new(types));
    let mut guard = chain([
        Rule::new([
            Statement::lookup([Field::Iifname], name("ports")),
            Statement::Lookup {
                key: vec![Field::EtherType],
                set: name("ether-types"),
                inverted: true,
            },
            Statement::Counter,
            Verdict::Drop.into(),
        ]),
        compare(
            Field::EtherType,
            Operator::Eq,
            Operand::Value(Value::EtherType(0x88a8)),
        ),
        compare(
            Field::EtherType,
            Operator::Lt,
            Operand::Value(Value::EtherType(0x600)),
        ),
        compare(
            Field::EtherType,
            Operator::Eq,
            Operand::Range(Value::EtherType(0x600), Value::EtherType(0x7ff)),
        ),
        compare(Field::IpSaddr, Operator::Eq, Operand::Value(v4("10.0.0.1"))),
        compare(
            Field::TcpDport,
            Operator::Eq,
            Operand::Value(Value::Service(80)),
        ),
        compare(
            Field::ArpSaddrIp,
            Operator::Eq,
            Operand::Value(v4("10.0.0.1")),
        ),
        Rule::new([
            Statement::eq(Field::Icmpv6Type, Value::Icmpv6Type(136)),
            target(Operand::Value(v6("fd00::1"))),
            target(Operand::Prefix(v6("fe80::"), 16)),
            target(Operand::Prefix(v6("fec0::"), 10)),
            target(Operand::Range(v6("::1"), v6("::ff"))),
        ]),
    ]);
    guard.base = base(Hook::Prerouting, -300);
    table.chains.insert(name("guard"), Arc::new(guard));
    table
}
