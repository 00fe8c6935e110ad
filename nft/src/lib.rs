//! Typed nftables, knowing nothing of Kubernetes.
//!
//! ```text
//!  Ruleset (values, Eq) ── diff(current, desired) ──> Transaction ──> Dataplane
//!     │                                                               ├ Kernel  one netlink batch, acknowledged
//!     ├── text: what `nft -f` loads                                   └ Fake    the kernel's reference rules in memory
//!     └── Dataplane::read gives the same values back
//! ```
//!
//! Beside them [`Conntrack`]: the connections that the kernel tracks, read and ended one by one.
//!
//! Rules are written at the level of nft's own language (`ip saddr @web tcp dport 80 accept`): what the kernel's
//! expressions need besides (protocol dependencies, byte orders, register numbers) is the codec's business.

#![deny(unsafe_code)]

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod conntrack;
mod dataplane;
mod diff;
mod fake;
mod kernel;
mod name;
mod outline;
mod refs;
mod rule;
mod ruleset;
mod survey;
#[cfg(test)]
mod testing;
pub mod text;
mod transaction;
mod value;

pub use conntrack::{ConntrackError, Detail, Entries, Entry, Tuple};
pub use dataplane::{Committed, Dataplane, DataplaneError, Interference, Parts, Process, Touched};
pub use diff::{diff, diff_with_room};
pub use fake::{Fake, Fault, errno};
pub use kernel::Kernel;
pub use kernel::conntrack::Conntrack;
#[cfg(any(test, feature = "recording"))]
#[doc(hidden)]
pub use kernel::recording::Recording;
pub use name::{Comment, IfName, InvalidName, Name};
pub use rule::{Field, LimitUnit, Operand, Operator, Rule, Statement, TcpFlags, Verdict, ct_state};
pub use ruleset::{
    BaseChain, Chain, ChainPolicy, Counter, Elements, Family, Hook, MapEntry, Ownership, Ruleset,
    Set, SetHeader, Table, TableId,
};
pub use survey::{Survey, SurveyedBase, SurveyedChain, SurveyedTable};
pub use transaction::{Op, Transaction};
pub use value::{Datatype, Key, KeyError, Value};
