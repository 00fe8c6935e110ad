//! The kernel as a dataplane, each test in a network namespace of its own. They need root.

// Clippy knows the functions marked as tests, not those they call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agree;
mod conntrack;
mod consistency;
mod errors;
mod foreign;
mod interference;
mod intervals;
mod lab;
mod listing;
mod ownership;
mod random;
mod recording;
mod roundtrip;
mod samples;
mod scale;
mod sized;
mod stages;
mod survey;
