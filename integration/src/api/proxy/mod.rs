//! A reverse proxy that makes an API server fail on demand.
//!
//! A [`Proxy`] has any number of [`Endpoint`]s: one a node, in the node's network namespace, so that a daemon there
//! reaches the API by 127.0.0.1. Each fails on its own, and counts what it is asked.

mod chaos;
mod endpoint;
mod forward;
mod reply;
mod seen;
mod weather;
mod wire;

use std::sync::Arc;

use kube::Client;

use crate::error::Error;
use crate::netns::Netns;

use super::background::Background;

pub use chaos::{Chaos, Fault};
pub use endpoint::Endpoint;
pub use reply::{Reply, Which};
pub use seen::Seen;
pub use weather::Cut;

/// Stands between an API server, the stand-in's or a real one, and its clients.
pub struct Proxy {
    upstream: Client,
    background: Arc<Background>,
}

impl Proxy {
    /// A proxy of what this client talks to. It serves until it and all its endpoints are dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(upstream: Client) -> Result<Self, Error> {
        Ok(Self {
            upstream,
            background: Arc::new(Background::start("api-proxy")?),
        })
    }

    /// Listens on a free port of 127.0.0.1 inside a network namespace, whose `lo` must be up.
    ///
    /// # Errors
    /// When it can't.
    pub fn listen(&self, netns: &Netns) -> Result<Endpoint, Error> {
        Endpoint::open(
            self.background.clone(),
            self.upstream.clone(),
            Some(netns.clone()),
        )
    }

    /// Listens on a free port of 127.0.0.1 in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When it can't.
    pub fn listen_here(&self) -> Result<Endpoint, Error> {
        Endpoint::open(self.background.clone(), self.upstream.clone(), None)
    }
}
