//! A Flannel cluster without a cluster: nodes and pods as network namespaces, probed with real packets.
//!
//! Each node has a bridge `cni0`, a VXLAN device `flannel.1` and br_netfilter on; each pod is a veth pair. Without a
//! policy engine everything reaches everything. Namespaces have no names: they vanish with the process, however it
//! ends, and nothing outside them is changed. All of it needs root.
//!
//! ```
//! use selvedge_lab::{Lab, Probe, Protocol::Tcp};
//!
//! let lab = Lab::builder()
//!     .node("node-1")
//!     .node("node-2")
//!     .pod("shop/web", "node-1")
//!     .pod("shop/db", "node-2")
//!     .build()?;
//! let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
//! db.listen(Tcp, 5432)?;
//! assert!(web.reaches(&db, Tcp, 5432)?);
//! let outcome = web.probe(Probe::tcp(db.ipv4()?, 5432))?;
//! assert_eq!(outcome.answered_by(), Some("shop/db"));
//!
//! lab.node("node-2")?.netns().nft(
//!     "table inet test { chain forward { type filter hook forward priority 0; tcp dport 5432 drop; }; }",
//! )?;
//! assert!(!web.reaches(&db, Tcp, 5432)?);
//! # Ok::<(), selvedge_lab::Error>(())
//! ```
//!
//! - [`Lab`], [`LabBuilder`]: nodes, pods, hosts outside the cluster, ClusterIPs ([`Service`])
//! - [`Host`]: what they have in common: a [`Netns`], servers ([`Host::listen`]), probes ([`Host::probe`])
//! - [`Probe`], [`Outcome`], [`Matrix`]: can this reach that, many at a time
//! - [`TcpFlow`], [`UdpStream`], [`Connects`]: traffic in the background, counted
//! - [`FrameSocket`], [`Capture`]: whole Ethernet frames
//! - [`Netns::command`], [`Daemon`]: programs inside a namespace
//! - [`stage`]: a lab made from a cluster's manifests, and enforced
//! - [`paired`]: two things measured in turns, for benchmarks
//! - [`api`]: an API server stand-in, a proxy that makes API servers fail, clusters to fill
#![forbid(unsafe_code)]

pub mod api;
mod daemon;
mod error;
mod frame;
mod matrix;
mod netns;
pub mod paired;
mod parallel;
mod probe;
mod random;
mod service;
pub mod stage;
mod topology;
mod traffic;
mod wait;

pub use daemon::Daemon;
pub use error::Error;
pub use etherparse;
pub use frame::{Capture, FrameSocket};
pub use matrix::{Key, Matrix, Measured, use_colour};
pub use netns::{Netns, NsCommand};
pub use nix::sys::signal::Signal;
pub use probe::{DEFAULT_WINDOW, Outcome, Probe, Protocol};
pub use service::Service;
pub use topology::Lab;
pub use topology::builder::{Families, LabBuilder, NodeSpec};
pub use topology::host::{Host, probe_all};
pub use topology::node::Node;
pub use topology::pod::{Pod, PodSpec};
pub use traffic::connects::{ConnectCounts, Connects};
pub use traffic::tcp::{TcpCounts, TcpFlow};
pub use traffic::udp::{UdpCounts, UdpStream};
pub use wait::wait_until;
