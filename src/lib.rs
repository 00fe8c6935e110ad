//! Selvedge: NetworkPolicy for Flannel clusters.
//!
//! ```text
//!  YAML directory ─ source ─ Event ─ index ─ compile ─ Ruleset ─ diff ─ Transaction ─ Dataplane
//!                              │       │    (pure)       (selvedge-nft)                ├ kernel
//!                           cluster  policy                                            └ text (render)
//! ```
//!
//! - [`cluster`]: what we know of pods, namespaces and nodes
//! - [`policy`]: the one policy form, and the dialects that lower into it
//! - [`index`]: who selects whom, kept as events come
//! - [`compile`]: the index's nftables ruleset for one node

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod cluster;
pub mod compile;
pub mod index;
pub mod policy;
