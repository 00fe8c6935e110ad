//! May this connection pass, and why: two independent answers that must agree.
//!
//! ```text
//!  Index ─┬─ evaluate ──────────────> Verdict   from the policies, by the API's own text
//!         └─ compile ─ Ruleset ─ walk ─> Walk   from the compiled rules, as the kernel would
//! ```
//!
//! - [`connection`]: what is asked · [`endpoint`]: who an address is
//! - [`policy`]: the policy evaluator · [`nearest`]: what a denied connection lacks · [`reach`]: all ports of a pair
//! - [`ruleset`]: the ruleset evaluator · [`journey`]: a packet's way over the nodes
//!
//! The policy evaluator looks at objects alone: it selects pods by their labels, and uses neither the index's lists of
//! members nor anything of the compiler's.

pub mod connection;
pub mod endpoint;
pub mod journey;
pub mod nearest;
pub mod packet;
pub mod policy;
pub mod ports;
pub mod reach;
pub mod ruleset;

pub use connection::{Connection, Transport};
pub use endpoint::{Endpoint, Owner};
pub use policy::{Decision, RuleRef, Verdict, evaluate};
