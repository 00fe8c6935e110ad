//! Rules.

use selvedge_nft::{
    Field, LimitUnit, Operand, Operator, Statement, TcpFlags, Value, Verdict, ct_state,
};

use crate::lab::*;

fn matching(field: Field, op: Operator, operand: Operand) -> Statement {
    Statement::Match { field, op, operand }
}

fn is(field: Field, value: Value) -> Statement {
    Statement::eq(field, value)
}

fn lookup(key: &[Field], set: &str, inverted: bool) -> Statement {
    Statement::Lookup {
        key: key.to_vec(),
        set: name(set),
        inverted,
    }
}

fn map(key: &[Field], map: &str) -> Statement {
    Statement::VerdictMap {
        key: key.to_vec(),
        map: name(map),
    }
}

fn limit(rate: u64, unit: LimitUnit, burst: u32) -> Statement {
    Statement::Limit { rate, unit, burst }
}

fn log(group: u16, prefix: Option<&str>) -> Statement {
    let prefix = prefix.map(comment);
    Statement::Log { group, prefix }
}

fn port(number: u16) -> Value {
    Value::Service(number)
}

fn syn(op: Operator) -> Statement {
    Statement::TcpFlags {
        mask: TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK,
        op,
        value: TcpFlags::SYN,
    }
}

/// A rule and its text.
type Sample = (&'static str, Vec<Statement>);

/// Rules of a table of family inet.
pub fn inet_rules() -> Vec<Sample> {
    use Field::*;
    use Operator::*;
    let value = Operand::Value;
    let range = Operand::Range;
    let v4_net = |text, bits| Operand::Prefix(v4(text), bits);
    let v6_net = |text, bits| Operand::Prefix(v6(text), bits);
    let pod = || name("ingress/shop/api-0");
    let ten = || v4("10.0.0.1");
    let advert = || is(Icmpv6Type, Value::Icmpv6Type(136));
    vec![
        ("ip saddr 10.0.0.1", vec![is(IpSaddr, ten())]),
        ("ip daddr 10.0.0.1", vec![is(IpDaddr, ten())]),
        ("ip6 saddr fd00::1", vec![is(Ip6Saddr, v6("fd00::1"))]),
        ("ip6 daddr fd00::1", vec![is(Ip6Daddr, v6("fd00::1"))]),
        ("tcp sport 80", vec![is(TcpSport, port(80))]),
        ("tcp dport 80", vec![is(TcpDport, port(80))]),
        ("udp sport 53", vec![is(UdpSport, port(53))]),
        ("udp dport 53", vec![is(UdpDport, port(53))]),
        ("sctp sport 9", vec![is(SctpSport, port(9))]),
        ("sctp dport 9", vec![is(SctpDport, port(9))]),
        ("th sport 1", vec![is(ThSport, port(1))]),
        ("th dport 1", vec![is(ThDport, port(1))]),
        ("icmp type 8", vec![is(IcmpType, Value::IcmpType(8))]),
        (
            "icmpv6 type 135",
            vec![is(Icmpv6Type, Value::Icmpv6Type(135))],
        ),
        ("meta l4proto 6", vec![is(MetaL4proto, Value::Proto(6))]),
        ("iifname cni0", vec![is(Iifname, interface("cni0"))]),
        (
            "oifname fifteen-bytes-x",
            vec![is(Oifname, interface("fifteen-bytes-x"))],
        ),
        (
            "iifname != lo",
            vec![matching(Iifname, Neq, value(interface("lo")))],
        ),
        (
            "tcp dport != 80",
            vec![matching(TcpDport, Neq, value(port(80)))],
        ),
        (
            "tcp dport < 1024",
            vec![matching(TcpDport, Lt, value(port(1024)))],
        ),
        (
            "tcp dport > 1024",
            vec![matching(TcpDport, Gt, value(port(1024)))],
        ),
        (
            "tcp dport <= 1024",
            vec![matching(TcpDport, Lte, value(port(1024)))],
        ),
        (
            "udp dport >= 1024",
            vec![matching(UdpDport, Gte, value(port(1024)))],
        ),
        (
            "ip saddr != 10.0.0.1",
            vec![matching(IpSaddr, Neq, value(ten()))],
        ),
        (
            "ip saddr < 10.0.0.1",
            vec![matching(IpSaddr, Lt, value(ten()))],
        ),
        (
            "meta l4proto != 6",
            vec![matching(MetaL4proto, Neq, value(Value::Proto(6)))],
        ),
        (
            "ip saddr 10.0.0.0/8",
            vec![matching(IpSaddr, Eq, v4_net("10.0.0.0", 8))],
        ),
        (
            "ip saddr != 10.0.0.0/8",
            vec![matching(IpSaddr, Neq, v4_net("10.0.0.0", 8))],
        ),
        (
            "ip saddr 10.16.0.0/12",
            vec![matching(IpSaddr, Eq, v4_net("10.16.0.0", 12))],
        ),
        (
            "ip saddr != 10.16.0.0/12",
            vec![matching(IpSaddr, Neq, v4_net("10.16.0.0", 12))],
        ),
        (
            "ip daddr 128.0.0.0/1",
            vec![matching(IpDaddr, Eq, v4_net("128.0.0.0", 1))],
        ),
        (
            "ip daddr 10.1.2.2/31",
            vec![matching(IpDaddr, Eq, v4_net("10.1.2.2", 31))],
        ),
        (
            "ip daddr 10.1.0.0/16",
            vec![matching(IpDaddr, Eq, v4_net("10.1.0.0", 16))],
        ),
        (
            "ip daddr 0.0.0.0/8",
            vec![matching(IpDaddr, Eq, v4_net("0.0.0.0", 8))],
        ),
        (
            "ip6 daddr fe80::/10",
            vec![matching(Ip6Daddr, Eq, v6_net("fe80::", 10))],
        ),
        (
            "ip6 daddr ff00::/8",
            vec![matching(Ip6Daddr, Eq, v6_net("ff00::", 8))],
        ),
        (
            "ip6 saddr fd00::/64",
            vec![matching(Ip6Saddr, Eq, v6_net("fd00::", 64))],
        ),
        (
            "ip6 saddr != fd00::2/127",
            vec![matching(Ip6Saddr, Neq, v6_net("fd00::2", 127))],
        ),
        (
            "tcp dport 8000-8100",
            vec![matching(TcpDport, Eq, range(port(8000), port(8100)))],
        ),
        (
            "tcp dport != 8000-8100",
            vec![matching(TcpDport, Neq, range(port(8000), port(8100)))],
        ),
        (
            "udp dport 0-65535",
            vec![matching(UdpDport, Eq, range(port(0), port(65535)))],
        ),
        (
            "ip saddr 10.0.0.5-10.0.0.9",
            vec![matching(IpSaddr, Eq, range(v4("10.0.0.5"), v4("10.0.0.9")))],
        ),
        (
            "ip6 daddr != fd00::5-fd00::9",
            vec![matching(Ip6Daddr, Neq, range(v6("fd00::5"), v6("fd00::9")))],
        ),
        ("tcp flags & (fin|syn|rst|ack) == syn", vec![syn(Eq)]),
        ("tcp flags & (fin|syn|rst|ack) != syn", vec![syn(Neq)]),
        ("ip saddr @v4", vec![lookup(&[IpSaddr], "v4", false)]),
        ("ip saddr != @v4", vec![lookup(&[IpSaddr], "v4", true)]),
        ("ip6 daddr @v6", vec![lookup(&[Ip6Daddr], "v6", false)]),
        ("ip daddr @cidr4", vec![lookup(&[IpDaddr], "cidr4", false)]),
        (
            "ip6 daddr != @cidr6",
            vec![lookup(&[Ip6Daddr], "cidr6", true)],
        ),
        (
            "tcp dport @ports",
            vec![lookup(&[TcpDport], "ports", false)],
        ),
        (
            "tcp dport @portranges",
            vec![lookup(&[TcpDport], "portranges", false)],
        ),
        (
            "meta l4proto @protocols",
            vec![lookup(&[MetaL4proto], "protocols", false)],
        ),
        (
            "oifname != @interfaces",
            vec![lookup(&[Oifname], "interfaces", true)],
        ),
        (
            "icmp type @types4",
            vec![lookup(&[IcmpType], "types4", false)],
        ),
        (
            "icmpv6 type @types6",
            vec![lookup(&[Icmpv6Type], "types6", false)],
        ),
        (
            "ip saddr . meta l4proto . th dport @pods",
            vec![lookup(&[IpSaddr, MetaL4proto, ThDport], "pods", false)],
        ),
        (
            "ip6 daddr . meta l4proto . th dport @pods6",
            vec![lookup(&[Ip6Daddr, MetaL4proto, ThDport], "pods6", false)],
        ),
        (
            "ip saddr . tcp dport @boxes",
            vec![lookup(&[IpSaddr, TcpDport], "boxes", false)],
        ),
        (
            "ip saddr . udp dport != @boxes",
            vec![lookup(&[IpSaddr, UdpDport], "boxes", true)],
        ),
        ("accept", vec![Verdict::Accept.into()]),
        ("drop", vec![Verdict::Drop.into()]),
        ("return", vec![Verdict::Return.into()]),
        ("continue", vec![Verdict::Continue.into()]),
        ("jump ingress/shop/api-0", vec![Verdict::Jump(pod()).into()]),
        ("goto ingress/shop/api-0", vec![Verdict::Goto(pod()).into()]),
        ("ip saddr vmap @egress4", vec![map(&[IpSaddr], "egress4")]),
        (
            "ip saddr . tcp dport vmap @services",
            vec![map(&[IpSaddr, TcpDport], "services")],
        ),
        (
            "ct state established,related",
            vec![Statement::CtState(
                ct_state::ESTABLISHED | ct_state::RELATED,
            )],
        ),
        ("ct state new", vec![Statement::CtState(ct_state::NEW)]),
        (
            "ct state invalid,untracked",
            vec![Statement::CtState(ct_state::INVALID | ct_state::UNTRACKED)],
        ),
        ("counter", vec![Statement::Counter]),
        (
            "counter name denied",
            vec![Statement::NamedCounter(name("denied"))],
        ),
        (
            "limit rate 10/second burst 5 packets",
            vec![limit(10, LimitUnit::Second, 5)],
        ),
        (
            "limit rate 10/minute burst 1 packets",
            vec![limit(10, LimitUnit::Minute, 1)],
        ),
        (
            "limit rate 1/hour burst 100 packets",
            vec![limit(1, LimitUnit::Hour, 100)],
        ),
        (
            "limit rate 7/day burst 7 packets",
            vec![limit(7, LimitUnit::Day, 7)],
        ),
        ("log group 5", vec![log(5, None)]),
        (
            "log prefix \"denied \" group 0",
            vec![log(0, Some("denied "))],
        ),
        // What a field brings with it is written once.
        (
            "ip saddr 10.0.0.1 ip daddr 10.0.0.2 tcp dport 80 accept",
            vec![
                is(IpSaddr, ten()),
                is(IpDaddr, v4("10.0.0.2")),
                is(TcpDport, port(80)),
                Verdict::Accept.into(),
            ],
        ),
        (
            "ct state new tcp dport 80",
            vec![Statement::CtState(ct_state::NEW), is(TcpDport, port(80))],
        ),
        (
            "icmpv6 type 136 @th,64,128 0xfd000000000000000000000000000001",
            vec![advert(), is(NdTarget, v6("fd00::1"))],
        ),
        (
            "icmpv6 type 136 @th,64,128 != 0xfd000000000000000000000000000001 @th,64,16 != 0xfe80 drop",
            vec![
                advert(),
                matching(NdTarget, Neq, value(v6("fd00::1"))),
                matching(NdTarget, Neq, v6_net("fe80::", 16)),
                Verdict::Drop.into(),
            ],
        ),
        (
            "icmpv6 type 136 @th,64,128 & 0xffc00000000000000000000000000000 == 0xfe800000000000000000000000000000",
            vec![advert(), matching(NdTarget, Eq, v6_net("fe80::", 10))],
        ),
        (
            "icmpv6 type 136 @th,64,128 & 0xfffffffffffffffffffffffffffffffe != 0x2",
            vec![advert(), matching(NdTarget, Neq, v6_net("::2", 127))],
        ),
        (
            "icmpv6 type 136 @th,64,8 0x0",
            vec![advert(), matching(NdTarget, Eq, v6_net("::", 8))],
        ),
        (
            "icmpv6 type 136 @th,64,128 0x1-0xfd000000000000000000000000000001",
            vec![
                advert(),
                matching(NdTarget, Eq, range(v6("::1"), v6("fd00::1"))),
            ],
        ),
        (
            "icmpv6 type 136 @th,64,128 <= 0xfd000000000000000000000000000001",
            vec![advert(), matching(NdTarget, Lte, value(v6("fd00::1")))],
        ),
        (
            "ip saddr 10.0.0.1 icmp type 8",
            vec![is(IpSaddr, ten()), is(IcmpType, Value::IcmpType(8))],
        ),
        (
            "icmp type 8 ip saddr 10.0.0.1",
            vec![is(IcmpType, Value::IcmpType(8)), is(IpSaddr, ten())],
        ),
        (
            "ip6 saddr fd00::1 icmpv6 type 135",
            vec![
                is(Ip6Saddr, v6("fd00::1")),
                is(Icmpv6Type, Value::Icmpv6Type(135)),
            ],
        ),
        (
            "ip saddr @v4 tcp dport 8000-8100 accept",
            vec![
                lookup(&[IpSaddr], "v4", false),
                matching(TcpDport, Eq, range(port(8000), port(8100))),
                Verdict::Accept.into(),
            ],
        ),
        (
            "tcp dport 80 tcp flags & (fin|syn|rst|ack) != syn drop",
            vec![is(TcpDport, port(80)), syn(Neq), Verdict::Drop.into()],
        ),
        (
            "ip saddr @v4 limit rate 1/second burst 5 packets log prefix \"x\" group 1 counter drop",
            vec![
                lookup(&[IpSaddr], "v4", false),
                limit(1, LimitUnit::Second, 5),
                log(1, Some("x")),
                Statement::Counter,
                Verdict::Drop.into(),
            ],
        ),
    ]
}

/// Rules that have no text of their own: nft would merge their fields, leave out what is said twice, or refuse them.
pub fn odd_inet_rules() -> Vec<Vec<Statement>> {
    use Field::*;
    let tcp = || is(MetaL4proto, Value::Proto(6));
    let ping = || is(IcmpType, Value::IcmpType(8));
    let not_tcp = matching(MetaL4proto, Operator::Neq, Operand::Value(Value::Proto(6)));
    vec![
        vec![is(TcpSport, port(80)), is(TcpDport, port(80))],
        vec![
            is(TcpDport, port(80)),
            is(IpSaddr, v4("10.0.0.1")),
            is(TcpSport, port(1)),
        ],
        vec![tcp(), is(TcpDport, port(80))],
        vec![tcp(), tcp(), is(TcpDport, port(80))],
        vec![is(TcpDport, port(80)), tcp(), is(TcpSport, port(1))],
        vec![is(TcpDport, port(80)), is(UdpDport, port(80))],
        vec![is(IpSaddr, v4("10.0.0.1")), is(Ip6Saddr, v6("::1"))],
        vec![tcp(), Statement::Counter, is(ThDport, port(80))],
        vec![not_tcp, is(ThDport, port(80))],
        vec![is(MetaL4proto, Value::Proto(1)), ping()],
        vec![ping(), is(MetaL4proto, Value::Proto(1)), ping()],
        vec![log(1, Some(&"p".repeat(127)))],
        vec![matching(
            TcpDport,
            Operator::Eq,
            Operand::Range(port(80), port(80)),
        )],
    ]
}

/// Rules of a table of family bridge.
pub fn bridge_rules() -> Vec<Sample> {
    use Field::*;
    let vlan = || Value::EtherType(0x8100);
    let value = Operand::Value;
    vec![
        ("ether type 0x8100", vec![is(EtherType, vlan())]),
        (
            "ether type != 0x0800",
            vec![matching(
                EtherType,
                Operator::Neq,
                value(Value::EtherType(0x0800)),
            )],
        ),
        (
            "ether type < 0x0600",
            vec![matching(
                EtherType,
                Operator::Lt,
                value(Value::EtherType(0x0600)),
            )],
        ),
        (
            "iifname veth0 ether type 0x8100 drop",
            vec![
                is(Iifname, interface("veth0")),
                is(EtherType, vlan()),
                Verdict::Drop.into(),
            ],
        ),
        ("ip saddr 10.0.0.1", vec![is(IpSaddr, v4("10.0.0.1"))]),
        ("ip6 daddr fd00::1", vec![is(Ip6Daddr, v6("fd00::1"))]),
        ("tcp dport 80", vec![is(TcpDport, port(80))]),
        (
            "ip saddr 10.0.0.1 tcp dport 80",
            vec![is(IpSaddr, v4("10.0.0.1")), is(TcpDport, port(80))],
        ),
        ("icmp type 8", vec![is(IcmpType, Value::IcmpType(8))]),
        (
            "icmpv6 type 134",
            vec![is(Icmpv6Type, Value::Icmpv6Type(134))],
        ),
        (
            "ip saddr 10.0.0.1 icmp type 8",
            vec![
                is(IpSaddr, v4("10.0.0.1")),
                is(IcmpType, Value::IcmpType(8)),
            ],
        ),
        (
            "icmp type 8 ip saddr 10.0.0.1",
            vec![
                is(IcmpType, Value::IcmpType(8)),
                is(IpSaddr, v4("10.0.0.1")),
            ],
        ),
        (
            "arp saddr ip 10.0.0.1",
            vec![is(ArpSaddrIp, v4("10.0.0.1"))],
        ),
        (
            "arp saddr ip != 10.0.0.1",
            vec![matching(ArpSaddrIp, Operator::Neq, value(v4("10.0.0.1")))],
        ),
        (
            "arp saddr ip 10.0.0.0/24",
            vec![matching(
                ArpSaddrIp,
                Operator::Eq,
                Operand::Prefix(v4("10.0.0.0"), 24),
            )],
        ),
        (
            "arp saddr ip 10.0.0.0/20",
            vec![matching(
                ArpSaddrIp,
                Operator::Eq,
                Operand::Prefix(v4("10.0.0.0"), 20),
            )],
        ),
        (
            "iifname . arp saddr ip @addresses",
            vec![lookup(&[Iifname, ArpSaddrIp], "addresses", false)],
        ),
        (
            "iifname . ip saddr != @addresses",
            vec![lookup(&[Iifname, IpSaddr], "addresses", true)],
        ),
        (
            "iifname . ether type vmap @attached",
            vec![map(&[Iifname, EtherType], "attached")],
        ),
        (
            "ip6 saddr :: icmpv6 type 135",
            vec![
                is(Ip6Saddr, v6("::")),
                is(Icmpv6Type, Value::Icmpv6Type(135)),
            ],
        ),
        (
            "icmpv6 type 136 @th,64,16 != 0xfe80",
            vec![
                is(Icmpv6Type, Value::Icmpv6Type(136)),
                matching(NdTarget, Operator::Neq, Operand::Prefix(v6("fe80::"), 16)),
            ],
        ),
        ("iifname @ports", vec![lookup(&[Iifname], "ports", false)]),
        (
            "ether type != @types",
            vec![lookup(&[EtherType], "types", true)],
        ),
        (
            "ether type . iifname @both",
            vec![lookup(&[EtherType, Iifname], "both", false)],
        ),
    ]
}

/// As [`odd_inet_rules`].
pub fn odd_bridge_rules() -> Vec<Vec<Statement>> {
    use Field::*;
    let ip = || is(EtherType, Value::EtherType(0x0800));
    let arp = || is(EtherType, Value::EtherType(0x0806));
    let ping = || is(IcmpType, Value::IcmpType(8));
    vec![
        vec![ip()],
        vec![ip(), ping()],
        vec![ip(), is(IpSaddr, v4("10.0.0.1"))],
        vec![ip(), is(MetaL4proto, Value::Proto(1)), ping()],
        vec![ping(), ip(), ping()],
        vec![ip(), is(MetaL4proto, Value::Proto(1))],
        vec![arp(), is(ArpSaddrIp, v4("10.0.0.1"))],
        vec![is(ArpSaddrIp, v4("10.0.0.1")), arp()],
        vec![
            is(ArpSaddrIp, v4("10.0.0.1")),
            arp(),
            is(ArpSaddrIp, v4("10.0.0.1")),
        ],
    ]
}
