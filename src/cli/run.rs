//! `selvedge run`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;
use selvedge_nft::IfName;

use super::{Done, Failure, cluster, interface, log, manifests};
use crate::cluster::Text;
use crate::enforce::{self, DaemonError, Settings, Source};
use crate::observe::HttpAddress;
use crate::source::kube::SILENCE;

const EXAMPLES: &str = "\
Examples:
  selvedge run --node node-a                          the cluster's policies, from its API server
  selvedge run --source /etc/selvedge --node node-a   those of a directory
  NODE_NAME=node-a selvedge run --source policies.yaml --bridge cni0 --log-format json

It works in the network namespace it is started in, and needs CAP_NET_ADMIN there. On SIGTERM it ends and the rules
stay in force; `selvedge cleanup` removes them.";

/// Enforce the policies of a cluster, or of a directory, on this node, and follow every change of them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// A directory (or file) of manifests instead of the API server: Namespaces, Nodes, Pods and NetworkPolicies, as
    /// YAML or JSON
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    source: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
    /// How long the API server's streams may be silent before they are made anew; it should be more than the minute
    /// between two bookmarks
    #[arg(long, value_name = "SECONDS", default_value_t = SILENCE.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    api_silence: u64,
    /// This node's name, as in the pods' spec.nodeName
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: String,
    /// The pods' bridge [default: the bridge that has an address in the node's pod CIDR]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    bridge: Option<IfName>,
    /// Where /livez, /readyz and /metrics are served: ADDRESS:PORT, or off
    #[arg(long, value_name = "ADDRESS", env = "SELVEDGE_HTTP", default_value_t)]
    http: HttpAddress,
    /// Whether connections that are open are ended when a change of policy denies them. Off: they go on until they end
    #[arg(
        long,
        value_name = "ON|OFF",
        env = "SELVEDGE_REVOKE",
        default_value = "on",
        hide_possible_values = true
    )]
    revoke: Switch,
    /// Whether nobody but the daemon may change Selvedge's tables while it runs, where the kernel can see to that (Linux
    /// 6.9): `nft flush ruleset` leaves them out. Off: what others change is put right
    #[arg(
        long,
        value_name = "ON|OFF",
        env = "SELVEDGE_OWN_TABLE",
        default_value = "on",
        hide_possible_values = true
    )]
    own_table: Switch,
    /// Whether an address of this node's pod CIDR may be used before Selvedge knows of a pod that has it. Block: it
    /// reaches nobody but its own node, and nobody reaches it, also while Selvedge is stopped
    #[arg(
        long,
        value_name = "ALLOW|BLOCK",
        env = "SELVEDGE_NEW_PODS",
        default_value = "allow",
        hide_possible_values = true
    )]
    new_pods: NewPods,
    /// What --new-pods block is about, where it shall not be the Node's pod CIDRs; repeat it for several. Of a wider block
    /// than the Node's it is the Node's part
    #[arg(long, value_name = "CIDR", value_parser = pod_cidr)]
    pod_cidr: Vec<IpNetwork>,
    /// Whether a pod is kept from sending with addresses that are not its own, where the CNI plugin has said whose port
    /// is whose
    #[arg(
        long,
        value_name = "ON|OFF",
        env = "SELVEDGE_ANTI_SPOOF",
        default_value = "on",
        hide_possible_values = true
    )]
    anti_spoof: Switch,
    /// Where the CNI plugin is heard (`selvedge cni install`), a socket in a directory of its own; or off
    #[arg(long, value_name = "PATH|off", env = "SELVEDGE_CNI_SOCKET", default_value = "off", value_parser = socket)]
    cni_socket: CniSocket,
    #[command(flatten)]
    log: log::Options,
}

/// A path, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CniSocket(Option<PathBuf>);

fn socket(text: &str) -> Result<CniSocket, String> {
    match (text, Path::new(text)) {
        ("off", _) => Ok(CniSocket(None)),
        (_, path) if path.is_absolute() && path.file_name().is_some() => {
            Ok(CniSocket(Some(path.to_owned())))
        }
        _ => Err("it must be an absolute path, or off".to_owned()),
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What becomes of pods that are not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NewPods {
    Allow,
    Block,
}

/// A block of addresses, with or without host bits.
fn pod_cidr(text: &str) -> Result<IpNetwork, String> {
    let wrong = || format!("{text:?} is not a CIDR such as 10.244.1.0/24 or fd00:10:244:1::/64");
    let net: IpNetwork = match text.contains('/') {
        true => text.parse().map_err(|_| wrong())?,
        false => return Err(wrong()),
    };
    if net.prefix() == 0 {
        return Err("a node's pods do not have all addresses there are".to_owned());
    }
    IpNetwork::new(net.network(), net.prefix()).map_err(|_| wrong())
}

impl Run {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        self.log.install()?;
        let source = match self.source {
            Some(path) => {
                // A path or a name that is not there at the start is more likely misspelt than late.
                let snapshot = manifests::read(&path)?;
                manifests::check_node(&snapshot, &Text::from(self.node.as_str()))?;
                Source::Files(path)
            }
            None => Source::Kube {
                access: self.cluster.access(),
                silence: Duration::from_secs(self.api_silence),
            },
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::unreachable)?;
        let settings = Settings {
            source,
            node: self.node,
            bridge: self.bridge,
            http: self.http,
            revoke: self.revoke == Switch::On,
            own_table: self.own_table == Switch::On,
            block_new_pods: self.new_pods == NewPods::Block,
            pod_cidrs: self.pod_cidr,
            anti_spoof: self.anti_spoof == Switch::On,
            cni: self.cni_socket.0,
        };
        match runtime.block_on(enforce::run(settings)) {
            Ok(()) => Ok(Done::Clean),
            Err(
                error @ (DaemonError::Bridge(_) | DaemonError::Access(_) | DaemonError::Http(_)),
            ) => Err(Failure::input(error)),
            Err(error) => Err(Failure::unreachable(error)),
        }
    }
}
