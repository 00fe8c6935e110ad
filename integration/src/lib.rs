//! The lab.
#![forbid(unsafe_code)]

mod daemon;
mod error;
mod frame;
mod netns;
mod parallel;
mod probe;
mod service;
mod topology;

pub use daemon::Daemon;
pub use error::Error;
pub use etherparse;
pub use frame::{Capture, FrameSocket};
pub use netns::{Netns, NsCommand};
pub use probe::{DEFAULT_WINDOW, Outcome, Probe, Protocol};
pub use service::Service;
pub use topology::Lab;
pub use topology::builder::{Families, LabBuilder, NodeSpec};
pub use topology::host::{Host, probe_all};
pub use topology::node::Node;
pub use topology::pod::{Pod, PodSpec};
