//! `selvedge render`.

use std::path::PathBuf;

use clap::Args;
use selvedge_nft::IfName;

use super::{Done, Failure, interface, manifests, print, warn};
use crate::cluster::Text;
use crate::compile::Compiler;
use crate::enforce::host;

const EXAMPLES: &str = "\
Examples:
  selvedge render ./examples --node node-a
  selvedge render ./examples --node node-a | nft -c -f -       does the kernel's own tool accept it?
  kubectl get ns,nodes,pods,netpol -A -o yaml | selvedge render - --node node-a

Exit codes: 0 rendered, 1 rendered with problems (on stderr; what a policy says and can't be read closes it), 2 nothing to render.";

/// Print the rules that a node would enforce as an nft script, without touching a kernel.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Render {
    /// The directory (or file, or - for standard input) of manifests: Namespaces, Nodes, Pods and NetworkPolicies, as YAML or JSON
    #[arg(value_name = "DIR")]
    source: PathBuf,
    /// The node's name, as in the pods' spec.nodeName
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: String,
    /// The pods' bridge [default: cni0]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    bridge: Option<IfName>,
}

impl Render {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let snapshot = manifests::read(&self.source)?;
        for problem in &snapshot.problems {
            warn(problem);
        }
        let node = Text::from(self.node.as_str());
        manifests::check_node(&snapshot, &node)?;
        let mut index = snapshot.index();
        let host = host::unknown(self.bridge).map_err(Failure::input)?;
        let mut compiler = Compiler::new(node, host);
        let ruleset = compiler.update(&mut index);
        let warnings = compiler.warnings();
        for warning in &warnings {
            warn(warning);
        }
        print(&selvedge_nft::text::script(&ruleset))?;
        match snapshot.problems.is_empty() && warnings.is_empty() {
            true => Ok(Done::Clean),
            false => Ok(Done::Findings),
        }
    }
}
