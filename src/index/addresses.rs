//! Which pod an address belongs to.
//!
//! The API may show two pods with one address for a while: one that is going and one that came after it. The younger
//! one has it, so that a successor never lives under its predecessor's labels.
//!
//! Nearly every address has one claimant, and costs an entry of a tree. What several claim is kept apart while they do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cluster::Text;
use crate::cluster::object::Pod;

/// The claims on every pod address.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    /// A tree: under churn a hash table comes to take twice its room.
    owners: BTreeMap<IpAddr, u32>,
    /// All the claimants of each address that has more than one.
    contested: BTreeMap<IpAddr, Vec<u32>>,
}

/// A pod's rank among those that claim one address: the greatest has it. A tie is broken by what names the pod, so that
/// the order of events makes no difference.
pub(super) type Rank<'a> = (i64, &'a str, &'a Text, &'a Text);

/// See [`Rank`].
pub(super) fn rank(pod: &Pod) -> Rank<'_> {
    (pod.created, &pod.uid, &pod.namespace, &pod.name)
}

impl AddressBook {
    /// The pod that has the address.
    pub fn owner(&self, address: IpAddr) -> Option<u32> {
        self.owners.get(&address).copied()
    }

    /// Whether several pods claim the address.
    pub fn is_contested(&self, address: IpAddr) -> bool {
        self.contested.contains_key(&address)
    }

    /// Adds a pod's claim; the rank of every claimant is to be known. Whose the address was, where it changes hands.
    pub fn claim<'a>(
        &mut self,
        address: IpAddr,
        pod: u32,
        rank: impl Fn(u32) -> Option<Rank<'a>>,
    ) -> Option<u32> {
        let owner = match self.owners.insert(address, pod) {
            Some(owner) if owner != pod => owner,
            _ => return None,
        };
        let claimants = self.contested.entry(address).or_insert_with(|| vec![owner]);
        claimants.push(pod);
        if rank(pod) > rank(owner) {
            return Some(owner);
        }
        self.owners.insert(address, owner);
        None
    }

    /// Takes a pod's claim back. Whose the address is now, where it changes hands.
    pub fn release<'a>(
        &mut self,
        address: IpAddr,
        pod: u32,
        rank: impl Fn(u32) -> Option<Rank<'a>>,
    ) -> Option<u32> {
        let owned = self.owner(address) == Some(pod);
        let Some(claimants) = self.contested.get_mut(&address) else {
            if owned {
                self.owners.remove(&address);
            }
            return None;
        };
        claimants.retain(|claimant| *claimant != pod);
        let heir = claimants.iter().copied().max_by_key(|pod| rank(*pod));
        if claimants.len() < 2 {
            self.contested.remove(&address);
        }
        let heir = heir.filter(|_| owned)?;
        self.owners.insert(address, heir);
        Some(heir)
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
