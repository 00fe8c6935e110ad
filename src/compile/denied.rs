//! Addresses that are denied for what they are, whatever the policies say: those that nobody may use now, and those of
//! the node's own blocks that no pod is known by, where only known pods may communicate.
//!
//! The rules come after the one for established connections, which costs those nothing; what is open when an address
//! comes to be denied is ended by revocation. They come after neighbour discovery, too: a pod that is not known yet
//! finds its neighbours, and is found.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use imbl::OrdSet;
use ipnetwork::IpNetwork;
use selvedge_nft::{Elements, Field, Name, Operand, Operator, Rule, Set, Statement, Value};

use super::base::{counted_drop, pods_end, set};
use super::sets::{IpFamily, key_of};
use super::{Host, names};
use crate::cluster::Text;
use crate::cluster::object::Addresses;
use crate::index::{Index, PodKey};
use crate::policy::Direction;

/// The name of the set of addresses that nobody may use: `withheld4`.
pub fn withheld_set(family: IpFamily) -> Name {
    names::fixed(match family {
        IpFamily::V4 => "withheld4",
        IpFamily::V6 => "withheld6",
    })
}

/// The name of the set of addresses that known pods have: `known4`.
pub fn known_set(family: IpFamily) -> Name {
    names::fixed(match family {
        IpFamily::V4 => "known4",
        IpFamily::V6 => "known6",
    })
}

/// The addresses that are withheld, as sets. An empty one is named by no rule.
pub fn withheld(host: &Host) -> [(Name, Set); 2] {
    IpFamily::ALL.map(|family| {
        let own = host.withheld.iter().copied();
        let keys = own.filter(|address| IpFamily::of(*address) == family);
        let keys: OrdSet<_> = keys.map(key_of).collect();
        let text = "pods that are gone had them, and nobody has them yet";
        let set = set(&[family.datatype()], text, Elements::Keys(keys));
        (withheld_set(family), set)
    })
}

/// The rules about what a pod sends, or about what it receives.
pub fn rules(host: &Host, direction: Direction) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in IpFamily::ALL {
        let mut withheld = host.withheld.iter();
        if withheld.any(|address| IpFamily::of(*address) == family) {
            let field = pods_end(direction, family);
            let is_withheld = Statement::lookup([field], withheld_set(family));
            rules.push(counted_drop([is_withheld]));
        }
    }
    for net in &host.closed {
        let family = IpFamily::of(net.ip());
        let field = pods_end(direction, family);
        let unknown = Statement::Lookup {
            key: vec![field],
            set: known_set(family),
            inverted: true,
        };
        rules.push(counted_drop(
            within(field, *net).into_iter().chain([unknown]),
        ));
    }
    rules
}

/// Whether an address is of a block; `None` for the block of all.
fn within(field: Field, net: IpNetwork) -> Option<Statement> {
    let value = match net.network() {
        IpAddr::V4(v4) => Value::Ipv4(v4),
        IpAddr::V6(v6) => Value::Ipv6(v6),
    };
    let whole = 8 * value.datatype().len();
    let operand = match net.prefix() {
        0 => return None,
        bits if usize::from(bits) >= whole => Operand::Value(value),
        bits => Operand::Prefix(value, bits),
    };
    Some(Statement::Match {
        field,
        op: Operator::Eq,
        operand,
    })
}

/// The addresses of the closed blocks that the node has itself: `flannel.1`'s and the bridge's.
fn own(closed: &[IpNetwork]) -> impl Iterator<Item = IpAddr> {
    closed.iter().flat_map(|net| {
        [0, 1]
            .map(|n| -> IpAddr {
                match net.network() {
                    IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().saturating_add(n)).into(),
                    IpAddr::V6(v6) => {
                        Ipv6Addr::from_bits(v6.to_bits().saturating_add(n.into())).into()
                    }
                }
            })
            .into_iter()
            .filter(|address| net.contains(*address))
    })
}

/// The addresses that may be used where all others of their blocks may not: those of the node's pods, and the node's
/// own.
#[derive(Debug, Default)]
pub struct Known {
    /// The blocks; without any, there is nothing to know.
    closed: Vec<IpNetwork>,
    /// The addresses that each pod had when it was last looked at.
    pods: BTreeMap<PodKey, Addresses>,
}

impl Known {
    /// Nobody yet, in these blocks.
    pub fn new(closed: &[IpNetwork]) -> Self {
        Self {
            closed: closed.to_vec(),
            pods: BTreeMap::new(),
        }
    }

    /// The blocks.
    pub fn closed(&self) -> &[IpNetwork] {
        &self.closed
    }

    /// The sets, with the node's own addresses alone: one for each family that a block is of.
    pub fn sets(&self) -> Vec<(Name, Set)> {
        let closed = |family| {
            let mut blocks = self.closed.iter();
            blocks.any(|net| IpFamily::of(net.ip()) == family)
        };
        let families = IpFamily::ALL.into_iter().filter(|family| closed(*family));
        let sets = families.map(|family| {
            let keys = own(&self.closed).filter(|address| IpFamily::of(*address) == family);
            let text = "pods of this node, and what is the node's own";
            let keys = Elements::Keys(keys.map(key_of).collect());
            (known_set(family), set(&[family.datatype()], text, keys))
        });
        sets.collect()
    }

    /// Takes note of the addresses that a pod of the node has now: those that are known no more, and those that are now.
    pub fn update(
        &mut self,
        index: &Index,
        node: &Text,
        pod: &PodKey,
        now: Addresses,
    ) -> (Vec<IpAddr>, Vec<IpAddr>) {
        if self.closed.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let before = self.pods.get(pod).cloned().unwrap_or_default();
        // Another pod may have the address by now.
        let stays = |address: &IpAddr| {
            let owner = index.owner(*address);
            let taken =
                owner.is_some_and(|pod| pod.selectable() && pod.node.as_ref() == Some(node));
            taken || own(&self.closed).any(|own| own == *address)
        };
        let lost = before.iter().filter(|address| !now.contains(*address));
        let lost = lost.filter(|address| !stays(address)).collect();
        let gained = now.iter().filter(|address| !before.contains(*address));
        let gained = gained.collect();
        match now == Addresses::default() {
            true => drop(self.pods.remove(pod)),
            false => drop(self.pods.insert(pod.clone(), now)),
        }
        (lost, gained)
    }
}
