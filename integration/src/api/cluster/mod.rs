//! A cluster for tests to fill: the stand-in's, or the real one that `SELVEDGE_TEST_KUBECONFIG` names.
//!
//! Tests change it through the API alone, and make all they need under names of their own, so that each runs against
//! either.

mod calls;
mod objects;

use std::env;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::Error;
use crate::random::random;
use crate::wait::wait_until;

use super::background::Background;
use super::kinds::Kind;
use super::path::Target;
use super::proxy::Proxy;
use super::server::ApiServer;
use super::settings::Settings;

pub use objects::NewPod;

/// The environment variable that names a real cluster's kubeconfig.
pub const KUBECONFIG: &str = "SELVEDGE_TEST_KUBECONFIG";

/// How long a real cluster may take to empty a namespace.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster and what a test has made in it. Dropping it removes that.
///
/// All calls wait for the answer; none may be made from an asynchronous task that the answer depends on.
pub struct Cluster {
    client: Client,
    /// After the client, whose tasks run here.
    background: Background,
    server: Option<ApiServer>,
    /// Part of every name, so that tests don't meet.
    nonce: String,
    made: Mutex<Vec<Target>>,
}

impl Cluster {
    /// The real cluster that `SELVEDGE_TEST_KUBECONFIG` names, or else a stand-in of its own.
    ///
    /// # Errors
    /// When the kubeconfig can't be used.
    pub fn for_tests() -> Result<Self, Error> {
        match env::var_os(KUBECONFIG) {
            Some(path) => Self::real(Path::new(&path)),
            None => Self::stand_in(),
        }
    }

    /// A stand-in with the usual settings.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stand_in() -> Result<Self, Error> {
        Self::stand_in_with(Settings::default())
    }

    /// A stand-in with these settings.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stand_in_with(settings: Settings) -> Result<Self, Error> {
        let server = ApiServer::with(settings)?;
        let client = server.client();
        Self::of(client, Background::start("api-client")?, Some(server))
    }

    /// The cluster of a kubeconfig's current context.
    ///
    /// # Errors
    /// When the kubeconfig can't be used.
    pub fn real(kubeconfig: &Path) -> Result<Self, Error> {
        let unusable = |why: String| Error::invalid(format!("{}: {why}", kubeconfig.display()));
        let config = Kubeconfig::read_from(kubeconfig).map_err(|e| unusable(e.to_string()))?;
        let background = Background::start("api-client")?;
        let client = background.wait(async move {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(config, &options).await;
            let config = config.map_err(|e| e.to_string())?;
            Client::try_from(config).map_err(|e| e.to_string())
        })?;
        Self::of(client.map_err(unusable)?, background, None)
    }

    fn of(
        client: Client,
        background: Background,
        server: Option<ApiServer>,
    ) -> Result<Self, Error> {
        Ok(Self {
            client,
            background,
            server,
            nonce: format!("{:06x}", random() & 0xff_ffff),
            made: Mutex::default(),
        })
    }

    /// The stand-in; none on a real cluster, where a test then leaves out what only the stand-in can show.
    pub fn server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A proxy before it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn proxy(&self) -> Result<Proxy, Error> {
        Proxy::new(self.client())
    }

    /// A name that no other test has: `NAME-` and some letters. For namespaces and nodes.
    pub fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.nonce)
    }

    fn remember(&self, target: Target) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(target);
    }

    /// Deletes a namespace and plays the kubelet for its pods until it is gone.
    ///
    /// # Errors
    /// The API's, and [`Error::Timeout`].
    pub fn remove_namespace(&self, namespace: &str) -> Result<(), Error> {
        let target = Target::object(Kind::Namespace, None, namespace);
        match self.delete(&target) {
            // Conflict: it terminates already.
            Err(Error::Api { code: 404, .. }) => return Ok(()),
            Err(Error::Api { code: 409, .. }) | Ok(_) => {}
            Err(error) => return Err(error),
        }
        let what = format!("the end of namespace {namespace}");
        wait_until(&what, PATIENCE, || {
            for pod in self.list(&Target::collection(Kind::Pod, Some(namespace)))? {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                self.finish_pod(namespace, name)?;
            }
            Ok(self.find(&target)?.is_none())
        })
    }

    /// Removes everything that was made, and says what could not be.
    ///
    /// # Errors
    /// The API's, and [`Error::Timeout`].
    pub fn finish(self) -> Result<(), Error> {
        self.clean_up()
    }

    fn clean_up(&self) -> Result<(), Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        while let Some(target) = made.pop() {
            let removed = match (target.kind, &target.name) {
                (Kind::Namespace, Some(name)) => self.remove_namespace(name),
                _ => self.delete(&target).map(drop),
            };
            match removed {
                Ok(()) | Err(Error::Api { code: 404, .. }) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A stand-in goes with all it holds.
        if let (None, Err(error)) = (&self.server, self.clean_up()) {
            eprintln!("left behind in the cluster: {error}");
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.server.is_some() {
            "stand-in"
        } else {
            "real"
        };
        write!(f, "Cluster({kind}, {})", self.nonce)
    }
}
