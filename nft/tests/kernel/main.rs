//! The kernel as a dataplane, each test in a network namespace of its own. They need root.

mod errors;
mod foreign;
mod intervals;
mod lab;
mod listing;
mod random;
mod roundtrip;
mod scale;
