//! The daemon's side of the CNI plugin: whose network is made on this node is heard before the pod starts, and is in force
//! when the plugin is answered.
//!
//! ```text
//!  selvedge-cni ─ unix socket ─ Server ─ Ask ─> the loop: waits for the pod, commits ─ Progress ─> Server ─ reply
//!                                                 └ Store: what a restarted daemon must know
//! ```
//!
//! - [`server`]: the socket, which is root's alone and which no client can hold · [`socket`]: its place
//! - [`store`]: attachments in files beside it
//! - [`install`]: the plugin's way into Flannel's configuration · [`conflist`]: what is changed in it
//!
//! What the plugin and the daemon say to each other is in the crate `selvedge-cni`, with the plugin itself.

pub mod conflist;
pub mod install;
pub mod server;
pub mod socket;
pub mod store;

use std::net::IpAddr;

pub use selvedge_cni::protocol::{Attachment, Command, Id, PodId, Reason, Refusal, SOCKET, Valid};
use serde::{Deserialize, Serialize};
pub use server::{Ask, Progress, Server};
pub use socket::SocketError;
pub use store::Store;

/// An attachment that is known of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The attachment.
    pub attachment: Attachment,
    /// The addresses that the API gave the pod when the attachment was made, or, where it had not shown the pod by then
    /// (`None`), those that it shows first: of a sandbox before this one. As long as it says the same, it has not heard of
    /// this one.
    pub instead_of: Option<Vec<IpAddr>>,
    /// Whether its end has been said (DEL): nobody may use its addresses until another has them.
    pub detached: bool,
}
