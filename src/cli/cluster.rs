//! The options that lead to a cluster's API server.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::source::Snapshot;
use crate::source::kube::{self, Access, Connection};

/// Where the API server is.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// The kubeconfig file [default: the pod's service account; else $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Options {
    pub fn access(&self) -> Access {
        Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }

    /// Everything there is in the cluster now.
    pub fn list(&self) -> Result<Snapshot, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::unreachable)?;
        runtime.block_on(async {
            let connection = Connection::new(self.access())
                .await
                .map_err(Failure::input)?;
            kube::list(&connection).await.map_err(|error| {
                let place = connection.place();
                Failure::Unreachable(format!("the API server at {place} can't be read: {error}"))
            })
        })
    }
}
