//! The API server stand-in as tests hold it.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use kube::Client;
use serde_json::Value;

use crate::error::{During, Error};

use super::background::Background;
use super::path::Target;
use super::routes::router;
use super::settings::Settings;
use super::store::Shared;

/// An API server in this process, with the API's real semantics for pods, namespaces, nodes, events and
/// networkpolicies. It ends with its last handle.
///
/// Like a real one it only stores: no scheduler, no kubelet (but see [`Settings::kubelet`]). The one controller that it
/// has is the one that empties deleted namespaces.
pub struct ApiServer {
    shared: Shared,
    background: Background,
}

impl ApiServer {
    /// A server with the usual settings, not listening anywhere.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new() -> Result<Self, Error> {
        Self::with(Settings::default())
    }

    /// A server with these settings.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn with(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            shared: Shared::new(settings),
            background: Background::start("api-server")?,
        })
    }

    /// The API as a tower service, for use without a socket; its futures need a tokio runtime with timers.
    pub fn service(&self) -> Router {
        router(self.shared.clone())
    }

    /// A client of it without a socket. It works on any runtime, as long as the server lives.
    pub fn client(&self) -> Client {
        let _inside = self.background.handle().enter();
        Client::new(self.service(), "default")
    }

    /// Listens on a free port of 127.0.0.1, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When it can't.
    pub fn listen(&self) -> Result<SocketAddr, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").during("listen on 127.0.0.1")?;
        let address = listener
            .local_addr()
            .during("read the listener's address")?;
        listener
            .set_nonblocking(true)
            .during("set a listener nonblocking")?;
        let service = self.service();
        self.background.handle().spawn(async move {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let _ = axum::serve(listener, service).await;
            }
        });
        Ok(address)
    }

    /// Changes settings, from the next request on.
    pub fn change(&self, edit: impl FnOnce(&mut Settings)) {
        edit(&mut self.shared.lock().settings);
    }

    /// Throws the history away: lists that are being continued and watches from older versions get 410. Watches that
    /// run go on.
    pub fn compact(&self) {
        self.shared.lock().compact();
    }

    /// Stores an object as it is, past every check: what an older server, or another hand in etcd, may have left.
    pub fn plant(&self, target: &Target, object: Value) {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let key = (part(&target.namespace), part(&target.name));
        self.shared.lock().put(target.kind, &key, object);
    }

    /// The newest resourceVersion.
    pub fn revision(&self) -> u64 {
        self.shared.lock().revision()
    }

    /// How many watches run at the moment.
    pub fn watches(&self) -> usize {
        self.shared.lock().watches()
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiServer(revision {})", self.revision())
    }
}
