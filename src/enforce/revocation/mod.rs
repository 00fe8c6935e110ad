//! Revocation: connections that were open when a change of policy took their permission away are ended.
//!
//! Established connections pass by the first rule of each base chain, whatever the policies say by now. So once a commit
//! that may have taken permission away is acknowledged, the tracked connections of the addresses concerned are judged as
//! if they began now, and those that would be denied are deleted from connection tracking. Their next packet is new: a
//! rule drops it, as it does a TCP segment that is no SYN.
//!
//! ```text
//!  Committer ─ Concern ─> Revoker ─ orders ─> thread: Schedule ─ sweep ─┬ Connections: read, end (ctnetlink)
//!            └ the acknowledged ruleset ──────────────────────> Judge ──┘
//! ```
//!
//! - [`concern`]: whom a commit may have taken permission from · [`judge`]: which connections are denied
//! - [`schedule`]: when to sweep · [`sweep`]: one sweep · [`revoker`]: the thread that sweeps, beside the daemon's loop
//!
//! The judge is the compiled ruleset that the kernel has acknowledged, walked as the kernel walks it: what one node's rules
//! say about a packet is what counts there, it costs the same for any number of policies, and a ruleset can be handed to
//! another thread as it is. That it agrees with the policies is held by the tests of [`crate::verdict`].

pub mod concern;
pub mod judge;
pub mod revoker;
pub mod schedule;
pub mod sweep;

#[cfg(test)]
mod fixtures;

pub use concern::Concern;
pub use revoker::Revoker;
pub use sweep::{Connections, Revoked};
