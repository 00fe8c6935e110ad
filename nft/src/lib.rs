//! Typed nftables.
