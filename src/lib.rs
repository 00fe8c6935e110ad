//! Selvedge: NetworkPolicy for Flannel clusters.
//!
//! ```text
//!      API server ┐
//!  YAML directory ┴ source ─ Event ─ index ─ compile ─ Ruleset ─ diff ─ Transaction ─ Dataplane
//!                               │       │    (pure)       (selvedge-nft)                ├ kernel
//!                            cluster  policy                                            └ text (render)
//!                                       └ verdict (pure): may this connection pass, and why
//! ```
//!
//! - [`source`]: where objects come from: the API server, or files of manifests; both are watched
//! - [`cluster`]: what we know of pods, namespaces and nodes
//! - [`policy`]: the one policy form, and the dialects that lower into it
//! - [`index`]: who selects whom, kept as events come
//! - [`compile`]: the index's nftables ruleset for one node
//! - [`verdict`]: whether a connection passes, by the policies and by the compiled ruleset, which must agree
//! - [`enforce`]: the reconciler: keeps the kernel's ruleset as compiled, and owns the dataplane
//! - [`cni`]: the CNI plugin's other end, and its way into Flannel's configuration
//! - [`observe`]: metrics and health, over HTTP
//! - [`doctor`]: what enforcement needs of a node, and what stands in its way
//! - [`limits`]: how much of anything is too much
//! - [`cli`]: the command line, one file a subcommand
//! - [`work`]: counts what a change looks at, for the tests

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod compile;
pub mod doctor;
pub mod enforce;
pub mod index;
pub mod limits;
pub mod observe;
pub mod policy;
pub mod source;
#[cfg(any(test, feature = "synthetic"))]
pub mod synthetic;
pub mod verdict;
pub mod work;
