//! `selvedge run`.

use std::path::PathBuf;

use clap::Args;
use selvedge_nft::IfName;

use super::{Done, Failure, interface, log, manifests};
use crate::cluster::Text;
use crate::enforce::{self, DaemonError, Settings};

const EXAMPLES: &str = "\
Examples:
  selvedge run --source /etc/selvedge --node node-a
  NODE_NAME=node-a selvedge run --source policies.yaml --bridge cni0 --log-format json

It works in the network namespace it is started in, and needs CAP_NET_ADMIN there. On SIGTERM it ends and the rules
stay in force; `selvedge cleanup` removes them.";

/// Enforce the policies of a directory on this node, and follow every change of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The directory (or file) of manifests: Namespaces, Nodes, Pods and NetworkPolicies, as YAML or JSON
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// This node's name, as in the pods' spec.nodeName
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: String,
    /// The pods' bridge [default: the bridge that has an address in the node's pod CIDR]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    bridge: Option<IfName>,
    #[command(flatten)]
    log: log::Options,
}

impl Run {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        self.log.install()?;
        // A path or a name that is not there at the start is more likely misspelt than late.
        let snapshot = manifests::read(&self.source)?;
        manifests::check_node(&snapshot, &Text::from(self.node.as_str()))?;
        drop(snapshot);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::unreachable)?;
        let settings = Settings {
            source: self.source,
            node: self.node,
            bridge: self.bridge,
        };
        match runtime.block_on(enforce::run(settings)) {
            Ok(()) => Ok(Done::Clean),
            Err(error @ DaemonError::Bridge(_)) => Err(Failure::input(error)),
            Err(error) => Err(Failure::unreachable(error)),
        }
    }
}
