//! Which pod an address belongs to.
//!
//! The API may show two pods with one address for a while: one that is going and one that came after it. The younger
//! one has it, so that a successor never lives under its predecessor's labels.

use std::collections::HashMap;
use std::net::IpAddr;

/// A claim on an address: the greatest one has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// When the pod was made, in seconds since the epoch.
    pub created: i64,
    /// A tie is broken by what names the pod, so that the order of events makes no difference.
    pub identity: String,
    /// The pod.
    pub pod: u32,
}

/// The claims on every pod address.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    claims: HashMap<IpAddr, Vec<Claim>>,
}

impl AddressBook {
    /// The pod that has the address.
    pub fn owner(&self, address: IpAddr) -> Option<u32> {
        let claims = self.claims.get(&address)?;
        claims.iter().max().map(|claim| claim.pod)
    }

    /// Adds a claim.
    pub fn claim(&mut self, address: IpAddr, claim: Claim) {
        self.claims.entry(address).or_default().push(claim);
    }

    /// Takes a pod's claim back.
    pub fn release(&mut self, address: IpAddr, pod: u32) {
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|claim| claim.pod != pod);
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
    }
}
