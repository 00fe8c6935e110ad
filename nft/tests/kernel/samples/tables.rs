//! Tables.

use std::sync::Arc;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Comment, Counter, Datatype, Elements, Hook, MapEntry, Ownership,
    Rule, Set, SetHeader, Table, Value, Verdict,
};

use crate::lab::*;

fn port(number: u16) -> Value {
    Value::Service(number)
}

fn base(hook: Hook, priority: i32, policy: ChainPolicy) -> Option<BaseChain> {
    Some(BaseChain {
        hook,
        priority,
        policy,
    })
}

fn attached(hook: Hook, priority: i32) -> Arc<Chain> {
    Arc::new(Chain {
        base: base(hook, priority, ChainPolicy::Accept),
        ..Chain::default()
    })
}

pub fn commented(key: &[Datatype], comment: &str, elements: Elements) -> Arc<Set> {
    Arc::new(Set {
        header: SetHeader {
            key: key.to_vec(),
            comment: Some(Comment::new(comment).unwrap()),
        },
        elements,
    })
}

/// A table with all kinds of sets, maps, counters and chains; `rules` is one of them.
pub fn inet_table(rules: impl IntoIterator<Item = Rule>) -> Table {
    use Datatype::*;
    let pod = name("ingress/shop/api-0");
    let mut egress = imbl::OrdMap::new();
    for (address, verdict, comment) in [
        ("10.0.0.1", Verdict::Goto(pod.clone()), Some("shop/api-0")),
        ("10.0.0.2", Verdict::Jump(pod.clone()), None),
        ("10.0.0.3", Verdict::Accept, None),
        ("10.0.0.4", Verdict::Drop, Some("gone")),
        ("10.0.0.5", Verdict::Return, None),
        ("10.0.0.6", Verdict::Continue, None),
    ] {
        let comment = comment.map(|text| Comment::new(text).unwrap());
        egress.insert(k4(address), MapEntry { verdict, comment });
    }
    let service = key(&[v4("10.0.0.1"), port(80)]);
    let services = verdicts([(service, Verdict::Goto(pod.clone()))]);
    let k6 = |text| key(&[v6(text)]);
    let kp = |number| key(&[port(number)]);
    let named_port = |address, protocol| key(&[address, Value::Proto(protocol), port(80)]);
    let boxes = [
        (
            key(&[v4("10.0.0.0"), port(80)]),
            key(&[v4("10.255.255.255"), port(90)]),
        ),
        (
            key(&[v4("192.168.0.1"), port(1)]),
            key(&[v4("192.168.0.1"), port(1)]),
        ),
    ];
    let cidr4 = [
        (k4("10.0.0.0"), k4("10.255.255.255")),
        (k4("192.168.0.1"), k4("192.168.0.1")),
        (k4("192.168.0.3"), k4("192.168.0.9")),
    ];
    let touching = [
        (k4("0.0.0.0"), k4("0.0.0.0")),
        (k4("10.0.0.0"), k4("10.0.0.127")),
        (k4("10.0.0.128"), k4("10.0.0.255")),
        (k4("255.255.255.0"), k4("255.255.255.255")),
    ];
    let touching6 = [
        (k6("::"), k6("::ffff:ffff:ffff:ffff")),
        (k6("0:0:0:1::"), k6("0:0:0:1:ffff:ffff:ffff:ffff")),
        (k6("ffff::"), k6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
    ];
    let protocols = keys([key(&[Value::Proto(6)]), key(&[Value::Proto(17)])]);
    let triple4 = [Ipv4Addr, InetProto, InetService];
    let triple6 = [Ipv6Addr, InetProto, InetService];
    let sets = [
        (
            "v4",
            commented(
                &[Ipv4Addr],
                "app=web in ns shop",
                keys([k4("10.0.0.1"), k4("10.0.0.2")]),
            ),
        ),
        ("v6", set(&[Ipv6Addr], keys([k6("fd00::1"), k6("::")]))),
        ("empty", commented(&[Ipv4Addr], "nobody", keys([]))),
        ("cidr4", commented(&[Ipv4Addr], "cidr", ranges(cidr4))),
        (
            "cidr6",
            set(&[Ipv6Addr], ranges([(k6("fd00::"), k6("fd00::ff"))])),
        ),
        ("ports", set(&[InetService], keys([kp(80), kp(443)]))),
        (
            "portranges",
            set(&[InetService], ranges([(kp(1), kp(1023))])),
        ),
        ("protocols", set(&[InetProto], protocols)),
        (
            "interfaces",
            set(&[IfName], keys([key(&[interface("cni0")])])),
        ),
        ("touching", set(&[Ipv4Addr], ranges(touching))),
        ("touching6", set(&[Ipv6Addr], ranges(touching6))),
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
                &triple4,
                "named port http",
                keys([named_port(v4("10.0.0.1"), 6)]),
            ),
        ),
        (
            "pods6",
            set(&triple6, keys([named_port(v6("fd00::1"), 132)])),
        ),
        ("boxes", set(&[Ipv4Addr, InetService], ranges(boxes))),
        (
            "egress4",
            commented(&[Ipv4Addr], "dispatch", Elements::Verdicts(egress)),
        ),
        ("services", set(&[Ipv4Addr, InetService], services)),
        ("none", set(&[Ipv6Addr], verdicts([]))),
    ];
    let rule = |verdict: Verdict, text| Rule::new(vec![verdict.into()]).with_comment(comment(text));
    let forward = Chain {
        base: base(Hook::Forward, -6, ChainPolicy::Drop),
        comment: Some(comment("egress of pods")),
        rules: vec![
            rule(Verdict::Accept, "first"),
            rule(Verdict::Drop, "app in (web, api)"),
        ],
    };
    let helper = Chain {
        comment: Some(comment("pod shop/api-0")),
        ..Chain::default()
    };
    let chains = [
        ("forward", Arc::new(forward)),
        ("input", attached(Hook::Input, i32::MIN)),
        ("output", attached(Hook::Output, i32::MAX)),
        ("prerouting", attached(Hook::Prerouting, 0)),
        ("postrouting", attached(Hook::Postrouting, 100)),
        ("ingress/shop/api-0", Arc::new(helper)),
        ("rules", chain(rules)),
    ];
    let denied = Counter {
        comment: Some(comment("packets denied")),
    };
    let counters = [("denied", denied), ("plain", Counter::default())];
    Table {
        ownership: Ownership::Anyone,
        comment: Some(comment("NetworkPolicy")),
        counters: counters
            .into_iter()
            .map(|(n, c)| (name(n), Arc::new(c)))
            .collect(),
        sets: sets.into_iter().map(|(n, s)| (name(n), s)).collect(),
        chains: chains.into_iter().map(|(n, c)| (name(n), c)).collect(),
    }
}

/// The text of [`inet_table`], its objects in the order of their names, in which ours are made and nft lists them.
pub const INET_TEXT: &str = r#"
table inet selvedge {
    comment "NetworkPolicy"
    counter denied { comment "packets denied"; }
    counter plain { }
    set boxes { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90, 192.168.0.1 . 1 }; }
    set cidr4 { type ipv4_addr; flags interval; comment "cidr"; elements = { 10.0.0.0/8, 192.168.0.1, 192.168.0.3-192.168.0.9 }; }
    set cidr6 { type ipv6_addr; flags interval; elements = { fd00::/120 }; }
    map egress4 {
        type ipv4_addr : verdict
        comment "dispatch"
        elements = { 10.0.0.1 comment "shop/api-0" : goto ingress/shop/api-0, 10.0.0.2 : jump ingress/shop/api-0,
            10.0.0.3 : accept, 10.0.0.4 comment "gone" : drop, 10.0.0.5 : return, 10.0.0.6 : continue }
    }
    set empty { type ipv4_addr; comment "nobody"; }
    set interfaces { type ifname; elements = { cni0 }; }
    map none { type ipv6_addr : verdict; }
    set pods { type ipv4_addr . inet_proto . inet_service; comment "named port http"; elements = { 10.0.0.1 . tcp . 80 }; }
    set pods6 { type ipv6_addr . inet_proto . inet_service; elements = { fd00::1 . sctp . 80 }; }
    set portranges { type inet_service; flags interval; elements = { 1-1023 }; }
    set ports { type inet_service; elements = { 80, 443 }; }
    set protocols { type inet_proto; elements = { tcp, udp }; }
    map services { type ipv4_addr . inet_service : verdict; elements = { 10.0.0.1 . 80 : goto ingress/shop/api-0 }; }
    set touching { type ipv4_addr; flags interval; elements = { 0.0.0.0, 10.0.0.0/25, 10.0.0.128/25, 255.255.255.0/24 }; }
    set touching6 { type ipv6_addr; flags interval; elements = { ::/64, 0:0:0:1::/64, ffff::/16 }; }
    set types4 { type icmp_type; elements = { echo-request }; }
    set types6 { type icmpv6_type; elements = { nd-neighbor-solicit }; }
    set v4 { type ipv4_addr; comment "app=web in ns shop"; elements = { 10.0.0.1, 10.0.0.2 }; }
    set v6 { type ipv6_addr; elements = { fd00::1, :: }; }
    chain forward {
        comment "egress of pods"
        type filter hook forward priority -6; policy drop;
        accept comment "first"
        drop comment "app in (web, api)"
    }
    chain ingress/shop/api-0 { comment "pod shop/api-0"; }
    chain input { type filter hook input priority -2147483648; policy accept; }
    chain output { type filter hook output priority 2147483647; policy accept; }
    chain postrouting { type filter hook postrouting priority 100; policy accept; }
    chain prerouting { type filter hook prerouting priority 0; policy accept; }
    chain rules {
        RULES
    }
}
"#;

/// A table of family bridge.
pub fn bridge_table(rules: impl IntoIterator<Item = Rule>) -> Table {
    use Datatype::*;
    let vlan = Value::EtherType(0x8100);
    let pair = key(&[vlan, interface("veth0")]);
    let address = key(&[interface("veth0"), v4("10.0.0.1")]);
    let attached = verdicts([(
        key(&[interface("veth0"), vlan]),
        Verdict::Goto(name("port/veth0")),
    )]);
    let sets = [
        ("ports", set(&[IfName], keys([key(&[interface("veth0")])]))),
        ("types", set(&[EtherType], keys([key(&[vlan])]))),
        ("both", set(&[EtherType, IfName], keys([pair]))),
        ("addresses", set(&[IfName, Ipv4Addr], keys([address]))),
        ("attached", set(&[IfName, EtherType], attached)),
    ];
    let guard = Chain {
        base: base(Hook::Prerouting, -300, ChainPolicy::Accept),
        comment: None,
        rules: rules.into_iter().collect(),
    };
    Table {
        sets: sets.into_iter().map(|(n, s)| (name(n), s)).collect(),
        chains: [
            (name("guard"), Arc::new(guard)),
            (name("port/veth0"), chain([])),
        ]
        .into_iter()
        .collect(),
        ..Table::default()
    }
}

/// The text of [`bridge_table`].
pub const BRIDGE_TEXT: &str = r#"
table bridge selvedge {
    set addresses { type ifname . ipv4_addr; elements = { veth0 . 10.0.0.1 }; }
    map attached { type ifname . ether_type : verdict; elements = { veth0 . 0x8100 : goto port/veth0 }; }
    set both { type ether_type . ifname; elements = { 0x8100 . veth0 }; }
    set ports { type ifname; elements = { veth0 }; }
    set types { type ether_type; elements = { 0x8100 }; }
    chain guard {
        type filter hook prerouting priority -300; policy accept;
        RULES
    }
    chain port/veth0 { }
}
"#;
