//! What the daemon is told, and why it can't do its work.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use selvedge_nft::{DataplaneError, IfName, InvalidName};

use super::lock::LockError;
use crate::observe::{HttpAddress, HttpError};
use crate::source::kube::{Access, AccessError};

/// What the daemon is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the objects come from.
    pub source: Source,
    /// The node's name.
    pub node: String,
    /// The pods' bridge, where it shall not be looked for.
    pub bridge: Option<IfName>,
    /// Where health and metrics are served.
    pub http: HttpAddress,
    /// Whether connections are ended that a change of policy denies.
    pub revoke: bool,
    /// Whether nobody else may change the tables, where the kernel can keep others from it.
    pub own_table: bool,
    /// Whether addresses of the node's pod CIDRs are closed to pods that are not known yet.
    pub block_new_pods: bool,
    /// The blocks that this is about, where they shall not be the Node's.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Whether a port takes nothing from its pod but what bears the pod's own addresses, where those are known.
    pub anti_spoof: bool,
    /// Where the CNI plugin is heard, if it is.
    pub cni: Option<PathBuf>,
}

/// Where the objects come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file or directory of manifests.
    Files(PathBuf),
    /// The API server.
    Kube {
        /// The way to it.
        access: Access,
        /// How long its streams may be silent.
        silence: Duration,
    },
}

/// Why the daemon can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one does it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no nftables to do it with.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The files can't be watched.
    #[error("{path} can't be watched: {source}")]
    Source {
        /// The path that was given.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no way to the API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Health and metrics can't be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There is no thread that could end connections.
    #[error("a thread can't be started: {source}")]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
    /// Signals can't be caught.
    #[error("signals can't be caught: {source}")]
    Signals {
        /// The system's answer.
        source: io::Error,
    },
    /// The bridge's name is none.
    #[error(transparent)]
    Bridge(#[from] InvalidName),
    /// A part of the daemon has ended that must not, so that nothing new would be enforced.
    #[error("{part} has stopped, which is a bug; the rules stay in force, start it again")]
    Stopped {
        /// The part.
        part: &'static str,
    },
}
