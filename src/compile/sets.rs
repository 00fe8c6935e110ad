//! The named sets that rules look things up in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use selvedge_nft::{Datatype, Elements, Key, Set, SetHeader, Value};

use super::names;
use crate::cluster::Text;
use crate::cluster::cidr::IpRange;
use crate::cluster::object::Pod;
use crate::cluster::port::Protocol;
use crate::cluster::selector::PodSelector;
use crate::index::Index;
use crate::work::{Visited, visit};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// 4 or 6.
    pub const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    /// The type of its addresses.
    pub const fn datatype(self) -> Datatype {
        match self {
            Self::V4 => Datatype::Ipv4Addr,
            Self::V6 => Datatype::Ipv6Addr,
        }
    }
}

/// What a set stands for: two rules that mean the same share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetSpec {
    /// The addresses of the pods that a selector selects.
    Pods {
        /// The selector.
        selector: Arc<PodSelector>,
        /// The family.
        family: IpFamily,
    },
    /// Address, protocol and number of a named port of the pods that a selector selects.
    NamedPort {
        /// The selector.
        selector: Arc<PodSelector>,
        /// Only pods of this node.
        local: bool,
        /// The port's name.
        name: Text,
        /// Its protocol.
        protocol: Protocol,
        /// The family.
        family: IpFamily,
    },
    /// Blocks of addresses less their exceptions: disjoint ranges of one family, in order.
    Blocks {
        /// The ranges.
        ranges: Vec<IpRange>,
        /// The family.
        family: IpFamily,
    },
    /// Ports: disjoint ranges in order, none touching the next.
    Ports(Vec<(u16, u16)>),
}

impl SetSpec {
    /// What stands for the same pods or ports in the other family; `None` where nothing does.
    pub fn in_the_other_family(&self) -> Option<Self> {
        let mut other = self.clone();
        match &mut other {
            Self::Pods { family, .. } | Self::NamedPort { family, .. } => {
                *family = match family {
                    IpFamily::V4 => IpFamily::V6,
                    IpFamily::V6 => IpFamily::V4,
                };
                Some(other)
            }
            Self::Blocks { .. } | Self::Ports(_) => None,
        }
    }

    /// The selector whose members the set holds.
    pub fn selector(&self) -> Option<&Arc<PodSelector>> {
        match self {
            Self::Pods { selector, .. } | Self::NamedPort { selector, .. } => Some(selector),
            Self::Blocks { .. } | Self::Ports(_) => None,
        }
    }

    /// The set with all its elements.
    pub fn build(&self, index: &Index, node: &Text) -> Set {
        let comment = names::comment(&self.to_string());
        let (key, elements) = match self {
            Self::Pods { selector, family } => {
                let mut keys = OrdSet::new();
                for pod in index.members(selector) {
                    keys.extend(self.keys_of(index, node, pod));
                }
                (vec![family.datatype()], Elements::Keys(keys))
            }
            Self::NamedPort {
                selector,
                local,
                family,
                ..
            } => {
                let mut keys = OrdSet::new();
                if *local {
                    for pod in index.members_on(selector, node) {
                        keys.extend(self.keys_of(index, node, pod));
                    }
                } else {
                    for pod in index.members(selector) {
                        keys.extend(self.keys_of(index, node, pod));
                    }
                }
                let key = vec![
                    family.datatype(),
                    Datatype::InetProto,
                    Datatype::InetService,
                ];
                (key, Elements::Keys(keys))
            }
            Self::Blocks { ranges, family } => {
                let ranges = ranges.iter().map(|r| (key_of(r.first()), key_of(r.last())));
                (vec![family.datatype()], Elements::Ranges(ranges.collect()))
            }
            Self::Ports(ranges) => (vec![Datatype::InetService], port_elements(ranges)),
        };
        Set {
            header: SetHeader { key, comment },
            elements,
        }
    }

    /// Brings the elements of the members with these addresses up to date.
    pub fn refresh(&self, set: &mut Set, index: &Index, node: &Text, addresses: &BTreeSet<IpAddr>) {
        let (Some(selector), Elements::Keys(keys)) = (self.selector(), &mut set.elements) else {
            return;
        };
        for address in addresses {
            visit(Visited::Elements, 1);
            if Some(&IpFamily::of(*address).datatype()) != set.header.key.first() {
                continue;
            }
            let front = key_of(*address);
            let width = front.as_bytes().len();
            let stale: Vec<Key> = keys
                .range(front..)
                .take_while(|key| key.as_bytes().get(..width) == Some(front.as_bytes()))
                .copied()
                .collect();
            let current: Vec<Key> = index
                .member_at(selector, *address)
                .map(|pod| self.keys_of(index, node, pod))
                .unwrap_or_default();
            for key in stale.iter().filter(|key| !current.contains(key)) {
                keys.remove(key);
            }
            for key in current {
                if !stale.contains(&key) {
                    keys.insert(key);
                }
            }
        }
    }

    /// The elements that a member makes.
    fn keys_of(&self, index: &Index, node: &Text, pod: &Pod) -> Vec<Key> {
        visit(Visited::Elements, 1);
        let addresses = index.addresses(pod);
        let address = |family| match family {
            IpFamily::V4 => addresses.v4.map(IpAddr::V4),
            IpFamily::V6 => addresses.v6.map(IpAddr::V6),
        };
        match self {
            Self::Pods { family, .. } => address(*family).map(key_of).into_iter().collect(),
            Self::NamedPort {
                local,
                name,
                protocol,
                family,
                ..
            } => {
                let Some(address) = address(*family) else {
                    return Vec::new();
                };
                if *local && pod.node.as_ref() != Some(node) {
                    return Vec::new();
                }
                let ports = pod.ports.iter();
                ports
                    .filter(|port| port.name == *name && port.protocol == *protocol)
                    .filter_map(|port| {
                        let values = [
                            value_of(address),
                            Value::Proto(protocol.number()),
                            Value::Service(port.number),
                        ];
                        Key::new(&values).ok()
                    })
                    .collect()
            }
            Self::Blocks { .. } | Self::Ports(_) => Vec::new(),
        }
    }
}

/// Single ports make a plain set, which is a hash; a range among them makes it an interval set.
fn port_elements(ranges: &[(u16, u16)]) -> Elements {
    if ranges.iter().all(|(first, last)| first == last) {
        let keys: OrdSet<Key> = ranges.iter().map(|(port, _)| Key::from(*port)).collect();
        Elements::Keys(keys)
    } else {
        let ranges = ranges
            .iter()
            .map(|(first, last)| (Key::from(*first), Key::from(*last)));
        Elements::Ranges(ranges.collect::<OrdMap<Key, Key>>())
    }
}

/// An address as a key.
pub fn key_of(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// An address as a value.
pub fn value_of(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(v4) => Value::Ipv4(v4),
        IpAddr::V6(v6) => Value::Ipv6(v6),
    }
}

impl std::fmt::Display for SetSpec {
    /// The comment that the set carries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pods { selector, .. } => write!(f, "{selector}"),
            Self::NamedPort {
                selector,
                name,
                protocol,
                local,
                ..
            } => {
                let here = if *local { " on this node" } else { "" };
                write!(f, "port {name}/{protocol} of {selector}{here}")
            }
            Self::Blocks { ranges, .. } => {
                let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
            Self::Ports(ranges) => {
                let texts = ranges.iter().map(|(first, last)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                });
                f.write_str(&texts.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
