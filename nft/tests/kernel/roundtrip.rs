//! What is committed reads back equal: every kind of object, statement and comment.

use std::sync::Arc;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Comment, Counter, Dataplane, Datatype, Elements, Field, Hook,
    Kernel, LimitUnit, MapEntry, Name, Op, Operand, Operator, Rule, Set, SetHeader, Statement,
    Table, TcpFlags, Transaction, Value, Verdict, ct_state,
};

use crate::lab::*;

fn matching(field: Field, op: Operator, operand: Operand) -> Statement {
    Statement::Match { field, op, operand }
}

fn is(field: Field, value: Value) -> Statement {
    Statement::eq(field, value)
}

/// One rule a statement, in a table of family inet, and some that combine them.
pub fn inet_rules() -> Vec<Rule> {
    use Field::*;
    let port = Value::Service;
    let v4_net = |text, bits| Operand::Prefix(v4(text), bits);
    let v6_net = |text, bits| Operand::Prefix(v6(text), bits);
    let mut rules: Vec<Vec<Statement>> = vec![
        vec![is(IpSaddr, v4("10.0.0.1"))],
        vec![is(IpDaddr, v4("10.0.0.1"))],
        vec![is(Ip6Saddr, v6("fd00::1"))],
        vec![is(Ip6Daddr, v6("fd00::1"))],
        vec![is(TcpSport, port(80))],
        vec![is(TcpDport, port(80))],
        vec![is(UdpSport, port(53))],
        vec![is(UdpDport, port(53))],
        vec![is(SctpSport, port(9))],
        vec![is(SctpDport, port(9))],
        vec![is(ThSport, port(1))],
        vec![is(ThDport, port(1))],
        vec![is(IcmpType, Value::IcmpType(8))],
        vec![is(Icmpv6Type, Value::Icmpv6Type(135))],
        vec![is(MetaL4proto, Value::Proto(6))],
        vec![is(Iifname, interface("cni0"))],
        vec![is(Oifname, interface("fifteen-bytes-x"))],
    ];
    for op in [
        Operator::Neq,
        Operator::Lt,
        Operator::Gt,
        Operator::Lte,
        Operator::Gte,
    ] {
        rules.push(vec![matching(TcpDport, op, Operand::Value(port(1024)))]);
        let address = Operand::Value(v4("10.0.0.1"));
        rules.push(vec![matching(IpSaddr, op, address)]);
    }
    for op in [Operator::Eq, Operator::Neq] {
        for prefix in [
            v4_net("10.0.0.0", 8),
            v4_net("10.16.0.0", 12),
            v4_net("128.0.0.0", 1),
        ] {
            rules.push(vec![matching(IpSaddr, op, prefix)]);
        }
        rules.push(vec![matching(IpDaddr, op, v4_net("10.1.2.2", 31))]);
        for prefix in [
            v6_net("fe80::", 10),
            v6_net("fd00::", 64),
            v6_net("fd00::2", 127),
        ] {
            rules.push(vec![matching(Ip6Daddr, op, prefix)]);
        }
        let ports = Operand::Range(port(8000), port(8100));
        rules.push(vec![matching(TcpDport, op, ports)]);
        let all = Operand::Range(port(0), port(65535));
        rules.push(vec![matching(UdpDport, op, all)]);
        let addresses = Operand::Range(v4("10.0.0.5"), v4("10.0.0.9"));
        rules.push(vec![matching(IpSaddr, op, addresses)]);
        let addresses = Operand::Range(v6("fd00::5"), v6("fd00::9"));
        rules.push(vec![matching(Ip6Saddr, op, addresses)]);
        let loopback = Operand::Value(interface("lo"));
        rules.push(vec![matching(Iifname, op, loopback)]);
        rules.push(vec![Statement::TcpFlags {
            mask: TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK,
            op,
            value: TcpFlags::SYN,
        }]);
    }
    for inverted in [false, true] {
        let lookup = |key: &[Field], set: &str| Statement::Lookup {
            key: key.to_vec(),
            set: name(set),
            inverted,
        };
        rules.push(vec![lookup(&[IpSaddr], "v4")]);
        rules.push(vec![lookup(&[Ip6Daddr], "v6")]);
        rules.push(vec![lookup(&[IpDaddr], "cidr4")]);
        rules.push(vec![lookup(&[TcpDport], "ports")]);
        rules.push(vec![lookup(&[MetaL4proto], "protocols")]);
        rules.push(vec![lookup(&[Oifname], "interfaces")]);
        rules.push(vec![lookup(&[IpSaddr, MetaL4proto, ThDport], "pods")]);
        rules.push(vec![lookup(&[Ip6Saddr, MetaL4proto, ThDport], "pods6")]);
        rules.push(vec![lookup(&[IpSaddr, TcpDport], "boxes")]);
    }
    for verdict in [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Continue,
        Verdict::Jump(name("ingress/shop/api-0")),
        Verdict::Goto(name("ingress/shop/api-0")),
    ] {
        rules.push(vec![verdict.into()]);
    }
    let map = |key: &[Field], map: &str| Statement::VerdictMap {
        key: key.to_vec(),
        map: name(map),
    };
    rules.push(vec![map(&[IpSaddr], "egress4")]);
    rules.push(vec![map(&[IpSaddr, TcpDport], "services")]);
    rules.push(vec![Statement::CtState(
        ct_state::ESTABLISHED | ct_state::RELATED,
    )]);
    rules.push(vec![Statement::CtState(ct_state::NEW)]);
    rules.push(vec![Statement::CtState(
        ct_state::INVALID | ct_state::UNTRACKED,
    )]);
    rules.push(vec![Statement::Counter]);
    rules.push(vec![Statement::NamedCounter(name("denied"))]);
    for (unit, burst) in [
        (LimitUnit::Second, 5),
        (LimitUnit::Minute, 1),
        (LimitUnit::Hour, 100),
        (LimitUnit::Day, 7),
    ] {
        let rate = 10;
        rules.push(vec![Statement::Limit { rate, unit, burst }]);
    }
    for prefix in [
        None,
        Some(comment("denied ")),
        Some(comment(&"p".repeat(127))),
    ] {
        rules.push(vec![Statement::Log { group: 5, prefix }]);
    }
    // What a field brings with it is written once, and what is written out stays written out.
    rules.extend([
        vec![
            is(IpSaddr, v4("10.0.0.1")),
            is(IpDaddr, v4("10.0.0.2")),
            is(TcpDport, port(80)),
        ],
        vec![
            is(TcpDport, port(80)),
            is(IpSaddr, v4("10.0.0.1")),
            is(TcpSport, port(1)),
        ],
        vec![is(TcpSport, port(80)), is(TcpDport, port(80))],
        vec![
            is(IpSaddr, v4("10.0.0.1")),
            is(IcmpType, Value::IcmpType(8)),
        ],
        vec![
            is(IcmpType, Value::IcmpType(8)),
            is(IpSaddr, v4("10.0.0.1")),
        ],
        vec![is(MetaL4proto, Value::Proto(6)), is(TcpDport, port(80))],
        vec![
            is(TcpDport, port(80)),
            is(MetaL4proto, Value::Proto(6)),
            is(TcpSport, port(1)),
        ],
        vec![is(TcpDport, port(80)), is(UdpDport, port(80))],
        vec![is(IpSaddr, v4("10.0.0.1")), is(Ip6Saddr, v6("::1"))],
        vec![
            is(MetaL4proto, Value::Proto(6)),
            Statement::Counter,
            is(ThDport, port(80)),
        ],
        vec![
            matching(MetaL4proto, Operator::Neq, Operand::Value(Value::Proto(6))),
            is(ThDport, port(80)),
        ],
        vec![
            is(MetaL4proto, Value::Proto(1)),
            is(IcmpType, Value::IcmpType(8)),
        ],
        vec![
            Statement::lookup([IpSaddr], name("v4")),
            Statement::Limit {
                rate: 1,
                unit: LimitUnit::Second,
                burst: 5,
            },
            Statement::Log {
                group: 1,
                prefix: Some(comment("x")),
            },
            Statement::Counter,
            Verdict::Drop.into(),
        ],
    ]);
    rules.into_iter().map(Rule::new).collect()
}

/// The same for family bridge.
pub fn bridge_rules() -> Vec<Rule> {
    use Field::*;
    let vlan = Value::EtherType(0x8100);
    let ip = Value::EtherType(0x0800);
    let rules = [
        vec![is(EtherType, vlan)],
        vec![matching(EtherType, Operator::Neq, Operand::Value(ip))],
        vec![matching(
            EtherType,
            Operator::Lt,
            Operand::Value(Value::EtherType(0x600)),
        )],
        vec![
            is(Iifname, interface("veth0")),
            is(EtherType, vlan),
            Verdict::Drop.into(),
        ],
        vec![is(IpSaddr, v4("10.0.0.1"))],
        vec![is(Ip6Daddr, v6("fd00::1"))],
        vec![is(TcpDport, Value::Service(80))],
        vec![
            is(IpSaddr, v4("10.0.0.1")),
            is(TcpDport, Value::Service(80)),
        ],
        vec![is(IcmpType, Value::IcmpType(8))],
        vec![is(Icmpv6Type, Value::Icmpv6Type(134))],
        vec![
            is(IpSaddr, v4("10.0.0.1")),
            is(IcmpType, Value::IcmpType(8)),
        ],
        vec![
            is(IcmpType, Value::IcmpType(8)),
            is(IpSaddr, v4("10.0.0.1")),
        ],
        vec![is(EtherType, ip), is(IcmpType, Value::IcmpType(8))],
        vec![is(EtherType, ip), is(IpSaddr, v4("10.0.0.1"))],
        vec![
            is(EtherType, ip),
            is(MetaL4proto, Value::Proto(1)),
            is(IcmpType, Value::IcmpType(8)),
        ],
        vec![
            is(IcmpType, Value::IcmpType(8)),
            is(EtherType, ip),
            is(IcmpType, Value::IcmpType(0)),
        ],
        vec![Statement::lookup([Iifname], name("ports"))],
        vec![Statement::lookup([EtherType], name("types"))],
        vec![Statement::lookup([EtherType, Iifname], name("both"))],
    ];
    rules.into_iter().map(Rule::new).collect()
}

fn base(hook: Hook, priority: i32, policy: ChainPolicy) -> Option<BaseChain> {
    Some(BaseChain {
        hook,
        priority,
        policy,
    })
}

fn commented(key: &[Datatype], comment: &str, elements: Elements) -> Arc<Set> {
    Arc::new(Set {
        header: SetHeader {
            key: key.to_vec(),
            comment: Some(Comment::new(comment).unwrap()),
        },
        elements,
    })
}

/// The sets, maps and counters that the rules above name.
pub fn inet_table() -> Table {
    use Datatype::*;
    let service = Value::Service;
    let pod = name("ingress/shop/api-0");
    let mut egress = imbl::OrdMap::new();
    for (address, verdict, comment) in [
        ("10.0.0.1", Verdict::Goto(pod.clone()), Some("shop/api-0")),
        ("10.0.0.2", Verdict::Jump(pod.clone()), None),
        ("10.0.0.3", Verdict::Accept, None),
        ("10.0.0.4", Verdict::Drop, Some(&*"c".repeat(128))),
        ("10.0.0.5", Verdict::Return, None),
        ("10.0.0.6", Verdict::Continue, None),
    ] {
        let comment = comment.map(|text| Comment::new(text).unwrap());
        egress.insert(k4(address), MapEntry { verdict, comment });
    }
    let services = [(
        key(&[v4("10.0.0.1"), service(80)]),
        Verdict::Goto(pod.clone()),
    )];
    let sets = [
        (
            "v4",
            commented(
                &[Ipv4Addr],
                "app=web in ns shop",
                keys([k4("10.0.0.1"), k4("10.0.0.2")]),
            ),
        ),
        (
            "v6",
            set(&[Ipv6Addr], keys([key(&[v6("fd00::1")]), key(&[v6("::")])])),
        ),
        ("empty", commented(&[Ipv4Addr], &"e".repeat(128), keys([]))),
        (
            "cidr4",
            commented(
                &[Ipv4Addr],
                "cidr",
                ranges([(k4("10.0.0.0"), k4("10.255.255.255"))]),
            ),
        ),
        (
            "cidr6",
            set(
                &[Ipv6Addr],
                ranges([(key(&[v6("fd00::")]), key(&[v6("fd00::ff")]))]),
            ),
        ),
        (
            "ports",
            set(
                &[InetService],
                keys([service(80).into_key(), service(443).into_key()]),
            ),
        ),
        (
            "portranges",
            set(
                &[InetService],
                ranges([(service(1).into_key(), service(1023).into_key())]),
            ),
        ),
        (
            "protocols",
            set(
                &[InetProto],
                keys([key(&[Value::Proto(6)]), key(&[Value::Proto(17)])]),
            ),
        ),
        (
            "interfaces",
            set(&[IfName], keys([key(&[interface("cni0")])])),
        ),
        (
            "types4",
            set(&[IcmpType], keys([key(&[Value::IcmpType(8)])])),
        ),
        (
            "types6",
            set(&[Icmpv6Type], keys([key(&[Value::Icmpv6Type(135)])])),
        ),
        (
            "pods",
            commented(
                &[Ipv4Addr, InetProto, InetService],
                "named port http",
                keys([key(&[v4("10.0.0.1"), Value::Proto(6), service(80)])]),
            ),
        ),
        (
            "pods6",
            set(
                &[Ipv6Addr, InetProto, InetService],
                keys([key(&[v6("fd00::1"), Value::Proto(132), service(80)])]),
            ),
        ),
        (
            "boxes",
            set(
                &[Ipv4Addr, InetService],
                ranges([
                    (
                        key(&[v4("10.0.0.0"), service(80)]),
                        key(&[v4("10.255.255.255"), service(90)]),
                    ),
                    (
                        key(&[v4("192.168.0.1"), service(1)]),
                        key(&[v4("192.168.0.1"), service(1)]),
                    ),
                ]),
            ),
        ),
        (
            "egress4",
            commented(&[Ipv4Addr], "dispatch", Elements::Verdicts(egress)),
        ),
        (
            "services",
            set(&[Ipv4Addr, InetService], verdicts(services)),
        ),
        ("none", set(&[Ipv6Addr], verdicts([]))),
    ];
    let rule =
        |statements: Vec<Statement>, text: &str| Rule::new(statements).with_comment(comment(text));
    let forward = Chain {
        base: base(Hook::Forward, -6, ChainPolicy::Accept),
        comment: Some(comment("egress of pods")),
        rules: vec![
            rule(vec![Verdict::Accept.into()], "short"),
            rule(vec![Statement::Counter], &"r".repeat(128)),
        ],
    };
    let input = Chain {
        base: base(Hook::Input, i32::MIN, ChainPolicy::Drop),
        ..Chain::default()
    };
    let output = Chain {
        base: base(Hook::Output, i32::MAX, ChainPolicy::Accept),
        ..Chain::default()
    };
    let chains = [
        ("forward", Arc::new(forward)),
        ("input", Arc::new(input)),
        ("output", Arc::new(output)),
        (
            "prerouting",
            Arc::new(Chain {
                base: base(Hook::Prerouting, 0, ChainPolicy::Accept),
                ..Chain::default()
            }),
        ),
        (
            "postrouting",
            Arc::new(Chain {
                base: base(Hook::Postrouting, 100, ChainPolicy::Accept),
                ..Chain::default()
            }),
        ),
        ("ingress/shop/api-0", chain([])),
        ("rules", chain(inet_rules())),
    ];
    let counters = [
        (
            "denied",
            Counter {
                comment: Some(comment("packets denied")),
            },
        ),
        ("plain", Counter::default()),
    ];
    Table {
        comment: Some(comment("NetworkPolicy")),
        counters: counters
            .into_iter()
            .map(|(n, c)| (name(n), Arc::new(c)))
            .collect(),
        sets: sets.into_iter().map(|(n, s)| (name(n), s)).collect(),
        chains: chains.into_iter().map(|(n, c)| (name(n), c)).collect(),
    }
}

pub fn bridge_table() -> Table {
    use Datatype::*;
    let vlan = Value::EtherType(0x8100);
    let sets = [
        ("ports", set(&[IfName], keys([key(&[interface("veth0")])]))),
        ("types", set(&[EtherType], keys([key(&[vlan])]))),
        (
            "both",
            set(
                &[EtherType, IfName],
                keys([key(&[vlan, interface("veth0")])]),
            ),
        ),
    ];
    let guard = Chain {
        base: base(Hook::Prerouting, -300, ChainPolicy::Accept),
        comment: None,
        rules: bridge_rules(),
    };
    Table {
        sets: sets.into_iter().map(|(n, s)| (name(n), s)).collect(),
        chains: [(name("guard"), Arc::new(guard))].into_iter().collect(),
        ..Table::default()
    }
}

trait IntoKey {
    fn into_key(self) -> selvedge_nft::Key;
}

impl IntoKey for Value {
    fn into_key(self) -> selvedge_nft::Key {
        key(&[self])
    }
}

#[test]
fn everything_reads_back_as_it_was_committed() {
    in_namespace(|| {
        let desired = ruleset([(inet(), inet_table()), (bridge(), bridge_table())]);
        let mut kernel = kernel_with(&desired);
        let found = read(&mut kernel);
        for (id, table) in &desired.tables {
            let found = &found.tables[id];
            for (name, chain) in &table.chains {
                for (rule, found) in chain.rules.iter().zip(&found.chains[name].rules) {
                    assert_eq!(found, rule, "chain {name}");
                }
                assert_eq!(&found.chains[name], chain, "chain {name}");
            }
            for (name, set) in &table.sets {
                assert_eq!(&found.sets[name], set, "set {name}");
            }
        }
        assert_eq!(found, desired);
    });
}

#[test]
fn what_is_not_there_is_absent() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        assert_eq!(read(&mut kernel), ruleset([]));
        load("table inet other {\n chain c {\n counter\n }\n}");
        assert_eq!(read(&mut kernel), ruleset([]));
        let only = ruleset([(bridge(), Table::default())]);
        kernel.commit(&make(&only)).unwrap();
        assert_eq!(read(&mut kernel), only);
    });
}

#[test]
fn an_empty_transaction_sends_nothing() {
    in_namespace(|| {
        let mut kernel = Kernel::open().unwrap();
        let before = kernel.generation().unwrap();
        let done = kernel.commit(&Transaction::default()).unwrap();
        assert_eq!((done.messages, done.bytes), (0, 0));
        assert_eq!(kernel.generation().unwrap(), before);
    });
}

#[test]
fn the_longest_names_and_comments_fit() {
    in_namespace(|| {
        let long = |first: &str| name(&format!("{first}{}", "x".repeat(Name::MAX - first.len())));
        let text = comment(&"c".repeat(Comment::MAX));
        let goto = Verdict::Goto(long("chain"));
        let entry = MapEntry {
            verdict: goto.clone(),
            comment: Some(text.clone()),
        };
        // About as large as a rule can be that the kernel gives back.
        let mut statements: Vec<Statement> = vec![Statement::NamedCounter(long("counter")); 50];
        statements.push(Statement::lookup([Field::Iifname], long("set")));
        statements.push(Verdict::Accept.into());
        let big = Rule::new(statements).with_comment(text.clone());
        let head = Arc::new(Chain {
            base: None,
            comment: Some(text.clone()),
            rules: vec![big],
        });
        let entries = [(k4("10.0.0.1"), entry)].into_iter().collect();
        let table = Table {
            comment: Some(text.clone()),
            counters: [(
                long("counter"),
                Arc::new(Counter {
                    comment: Some(text.clone()),
                }),
            )]
            .into_iter()
            .collect(),
            sets: [
                (
                    long("set"),
                    commented(&[Datatype::IfName], text.as_str(), keys([])),
                ),
                (
                    long("map"),
                    commented(
                        &[Datatype::Ipv4Addr],
                        text.as_str(),
                        Elements::Verdicts(entries),
                    ),
                ),
            ]
            .into_iter()
            .collect(),
            chains: [(long("chain"), chain([])), (long("head"), head)]
                .into_iter()
                .collect(),
        };
        let id = selvedge_nft::TableId {
            family: selvedge_nft::Family::Inet,
            name: long("table"),
        };
        let desired = ruleset([(id.clone(), table)]);
        let mut kernel = kernel_with(&desired);
        assert_eq!(kernel.read(&[id]).unwrap(), desired);
    });
}

#[test]
fn each_kind_of_object_can_be_deleted_again() {
    in_namespace(|| {
        let full = ruleset([(inet(), inet_table())]);
        let mut kernel = kernel_with(&full);
        let table = inet_table();
        let mut ops = Vec::new();
        for chain in table.chains.keys() {
            ops.push(Op::FlushChain {
                table: inet(),
                name: chain.clone(),
            });
        }
        for (name, set) in &table.sets {
            ops.push(delete(&inet(), name, &set.header, set.elements.clone()));
        }
        kernel.commit(&Transaction { ops }).unwrap();
        let mut bare = inet_table();
        let without_rules = |chain: &Chain| Chain {
            rules: Vec::new(),
            ..chain.clone()
        };
        let without_elements = |set: &Set| Set {
            elements: set.elements.none(),
            ..set.clone()
        };
        bare.chains = table
            .chains
            .iter()
            .map(|(name, chain)| (name.clone(), Arc::new(without_rules(chain))))
            .collect();
        bare.sets = table
            .sets
            .iter()
            .map(|(name, set)| (name.clone(), Arc::new(without_elements(set))))
            .collect();
        assert_eq!(read(&mut kernel), ruleset([(inet(), bare)]));

        let mut ops = Vec::new();
        ops.extend(table.chains.keys().map(|name| Op::DeleteChain {
            table: inet(),
            name: name.clone(),
        }));
        ops.extend(table.sets.keys().map(|name| Op::DeleteSet {
            table: inet(),
            name: name.clone(),
        }));
        ops.extend(table.counters.keys().map(|name| Op::DeleteCounter {
            table: inet(),
            name: name.clone(),
        }));
        kernel.commit(&Transaction { ops }).unwrap();
        let empty = Table {
            comment: table.comment,
            ..Table::default()
        };
        assert_eq!(read(&mut kernel), ruleset([(inet(), empty)]));

        kernel
            .commit(&Transaction {
                ops: vec![Op::DeleteTable { table: inet() }],
            })
            .unwrap();
        assert_eq!(read(&mut kernel), ruleset([]));
    });
}
