//! Table `bridge selvedge`: what may come from the ports of the pods' bridge, before any IP hook sees it.
//!
//! - The port guard: frames that are neither IP nor ARP (tagged ones among them) would pass br_netfilter by, so no port
//!   of the pods' bridge takes them while a pod of the node is isolated.
//! - Against false addresses: where it is known whose pod is behind a port, the port takes from it what bears the pod's
//!   own address, and nothing that bears another's: as the source of a packet, in ARP, or in a neighbour advertisement.
//!   One look-up, by port and EtherType, leads to the port's own chain, whatever the number of ports; frames of ports
//!   that are not known find nothing there.
//!
//! Either works without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use imbl::{OrdMap, OrdSet};
use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Datatype, Elements, Field, Hook, IfName, Key, MapEntry, Name,
    Operand, Operator, Rule, Statement, Table, Value, Verdict,
};

use super::base::{LINK_LOCAL, counted_drop, discovery_set, rule, set};
use super::state::put;
use super::{Host, names};
use crate::work::{Visited, visit};

/// Bridge hook prerouting, before br_netfilter hands IP packets to the inet hooks.
const PRIORITY: i32 = -300;

const ETHER_IP: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const ETHER_IP6: u16 = 0x86dd;
/// 802.1Q and 802.1ad. A receiver takes tags of VLAN 0 off, and what is behind them could bear any address.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Which addresses the pods behind which ports have.
pub type Attached = BTreeMap<IfName, BTreeSet<IpAddr>>;

/// Writes the table's parts; `before` is what was attached when they were written last.
pub fn write(table: &mut Table, host: &Host, before: &Attached, isolating: bool) {
    let ports: OrdSet<Key> = host.ports.iter().map(|port| Key::from(*port)).collect();
    let ports = set(
        &[Datatype::IfName],
        "ports of the pods' bridge",
        Elements::Keys(ports),
    );
    put(&mut table.sets, names::fixed("ports"), ports);
    write_attached(table, before, &host.attached);
    let guard = guard(!host.attached.is_empty(), isolating);
    put(&mut table.chains, chain(), guard);
}

/// The name of the chain that the kernel calls: `guard`.
pub fn chain() -> Name {
    names::fixed("guard")
}

/// What every frame meets.
fn guard(attached: bool, isolating: bool) -> Chain {
    let mut rules = Vec::new();
    if attached {
        rules.push(Rule::new([Statement::VerdictMap {
            key: vec![Field::Iifname, Field::EtherType],
            map: names::fixed("attached"),
        }]));
    }
    if isolating {
        for ether in [ETHER_IP, ETHER_IP6, ETHER_ARP] {
            let matches = Statement::eq(Field::EtherType, Value::EtherType(ether));
            rules.push(rule([matches], Verdict::Accept));
        }
        rules.push(counted_drop([Statement::lookup(
            [Field::Iifname],
            names::fixed("ports"),
        )]));
    }
    Chain {
        base: Some(BaseChain {
            hook: Hook::Prerouting,
            priority: PRIORITY,
            policy: ChainPolicy::Accept,
        }),
        comment: names::comment("frames that netfilter's IP hooks would not see"),
        rules,
    }
}

/// Writes the chains of the ports that are others than before, and the way to them.
fn write_attached(table: &mut Table, before: &Attached, now: &Attached) {
    let changed = |port: &IfName| before.get(port) != now.get(port);
    let gone = before.keys().filter(|port| !now.contains_key(*port));
    let gone: Vec<IfName> = gone.copied().collect();
    for port in &gone {
        table.chains.remove(&port_chain_name(*port));
    }
    let map = names::fixed("attached");
    let shared = [names::fixed("tagged"), names::fixed("without-address")];
    if now.is_empty() {
        table.sets.remove(&map);
        table.sets.remove(&names::fixed("discovery"));
        for name in &shared {
            table.chains.remove(name);
        }
        return;
    }
    let elements = table.sets.get(&map).map(|set| &set.elements);
    let mut entries = match elements {
        Some(Elements::Verdicts(entries)) => entries.clone(),
        _ => OrdMap::new(),
    };
    for port in gone {
        for (ether, _) in ways(&port) {
            entries.remove(&ether);
        }
    }
    for (port, addresses) in now.iter().filter(|(port, _)| changed(port)) {
        visit(Visited::Sets, 1);
        let chain = port_chain(addresses);
        put(&mut table.chains, port_chain_name(*port), chain);
        for (ether, chain) in ways(port) {
            let entry = MapEntry {
                verdict: Verdict::Goto(chain),
                comment: None,
            };
            entries.insert(ether, entry);
        }
    }
    let text = "ports that are known to be one pod's, by what they carry";
    let key = [Datatype::IfName, Datatype::EtherType];
    let attached = set(&key, text, Elements::Verdicts(entries));
    put(&mut table.sets, map, attached);
    let (name, discovery) = discovery_set();
    put(&mut table.sets, name, discovery);
    let [tagged, without] = shared;
    put(&mut table.chains, tagged, tagged_chain());
    put(&mut table.chains, without, without_address());
}

/// Where frames of a port go, by their EtherType. Those that bear no address go on to the guard.
fn ways(port: &IfName) -> Vec<(Key, Name)> {
    let of = |ether, chain: &Name| {
        let key = Key::new(&[Value::IfName(*port), Value::EtherType(ether)]);
        key.ok().map(|key| (key, chain.clone()))
    };
    let (own, tagged) = (port_chain_name(*port), names::fixed("tagged"));
    let addressed = [ETHER_IP, ETHER_IP6, ETHER_ARP];
    let addressed = addressed.into_iter().filter_map(|ether| of(ether, &own));
    let tags = TAGS.into_iter().filter_map(|ether| of(ether, &tagged));
    addressed.chain(tags).collect()
}

fn port_chain_name(port: IfName) -> Name {
    names::port_chain(port.as_str())
}

/// What the pod behind a port may send, as far as addresses go. It comes here without a tag, as IP or ARP, so that what
/// is let pass is nothing that the guard would stop.
fn port_chain(addresses: &BTreeSet<IpAddr>) -> Chain {
    let v4 = || {
        addresses.iter().filter_map(|address| match address {
            IpAddr::V4(v4) => Some(Value::Ipv4(*v4)),
            IpAddr::V6(_) => None,
        })
    };
    let v6 = || {
        addresses.iter().filter_map(|address| match address {
            IpAddr::V6(v6) => Some(Value::Ipv6(*v6)),
            IpAddr::V4(_) => None,
        })
    };
    let from = |field| move |address| rule([Statement::eq(field, address)], Verdict::Accept);
    // IPv4 first: it is most of the traffic.
    let mut rules: Vec<Rule> = v4().map(from(Field::IpSaddr)).collect();
    let advertises = Statement::eq(
        Field::Icmpv6Type,
        Value::Icmpv6Type(NEIGHBOUR_ADVERTISEMENT),
    );
    let link_local = Operand::Prefix(Value::Ipv6(LINK_LOCAL), 16);
    let other = v6().map(Operand::Value).chain([link_local]);
    let other = other.map(|operand| Statement::Match {
        field: Field::NdTarget,
        op: Operator::Neq,
        operand,
    });
    let other: Vec<Statement> = [advertises].into_iter().chain(other).collect();
    rules.push(counted_drop(other));
    rules.extend(v6().map(from(Field::Ip6Saddr)));
    rules.extend(v4().map(from(Field::ArpSaddrIp)));
    rules.push(rule([], Verdict::Jump(names::fixed("without-address"))));
    rules.push(counted_drop([]));
    Chain {
        base: None,
        comment: names::comment("what the pod behind it may send"),
        rules,
    }
}

/// What a pod sends to find its neighbours before it has an address, and by those that no policy can name.
fn without_address() -> Chain {
    let link_local = Statement::Match {
        field: Field::Ip6Saddr,
        op: Operator::Eq,
        operand: Operand::Prefix(Value::Ipv6(LINK_LOCAL), 10),
    };
    let unspecified = Statement::eq(Field::Ip6Saddr, Value::Ipv6(Ipv6Addr::UNSPECIFIED));
    let discovery = Statement::lookup([Field::Icmpv6Type], names::fixed("discovery"));
    let probe = Statement::eq(Field::ArpSaddrIp, Value::Ipv4(Ipv4Addr::UNSPECIFIED));
    Chain {
        base: None,
        comment: names::comment("what needs no address of a pod's own"),
        rules: vec![
            rule([link_local], Verdict::Accept),
            rule([unspecified, discovery], Verdict::Accept),
            rule([probe], Verdict::Accept),
        ],
    }
}

fn tagged_chain() -> Chain {
    Chain {
        base: None,
        comment: names::comment("what is behind a tag could bear any address"),
        rules: vec![counted_drop([])],
    }
}
