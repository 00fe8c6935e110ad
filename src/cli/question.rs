//! What `can`, `why` and `matrix` have in common: manifests as a cluster, and names as ends of a connection.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::{Done, Failure, cluster, manifests, print, warn};
use crate::cluster::object::Pod;
use crate::cluster::parse::parse_ip;
use crate::index::Index;
use crate::verdict::endpoint::{Owner, addresses};
use crate::verdict::{Connection, Transport, Verdict, evaluate};

/// Where the cluster is written down, and how to answer.
#[derive(Debug, Args)]
pub(super) struct Input {
    /// A directory (or file, or - for standard input) of manifests instead of the live cluster, as YAML or JSON:
    /// Namespaces, Nodes, Pods, NetworkPolicies; Deployments and other workloads stand for their pods
    #[arg(short = 'f', long = "filename", value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    files: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

/// A form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// A connection, by the names of its ends.
#[derive(Debug, Args)]
pub(super) struct Question {
    /// Who connects: NAMESPACE/POD, or an IP address
    #[arg(value_name = "FROM")]
    pub from: String,
    /// To whom: NAMESPACE/POD, or an IP address. For a Service name one of its pods: policies see what is behind it
    #[arg(value_name = "TO")]
    pub to: String,
    /// The port at the receiving end (a Service's targetPort): tcp/N, udp/N, sctp/N, or icmp
    #[arg(long, value_name = "PROTOCOL/N")]
    pub port: Transport,
    #[command(flatten)]
    pub input: Input,
}

/// The answer to a question, for each address family that both ends have.
#[derive(Debug)]
pub(super) struct Answer {
    pub from: String,
    pub to: String,
    pub transport: Transport,
    pub connections: Vec<(Connection, Verdict)>,
    /// What is worth knowing besides, a line each.
    pub notes: Vec<String>,
}

impl Answer {
    /// Whether the one reaches the other by any of their addresses.
    pub fn allowed(&self) -> bool {
        self.connections
            .iter()
            .any(|(_, verdict)| verdict.allowed())
    }

    /// Whether the two are pods that have no address family in common, and so can't reach each other at all.
    pub fn is_void(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether the address families differ in that.
    pub fn is_split(&self) -> bool {
        let mut verdicts = self
            .connections
            .iter()
            .map(|(_, verdict)| verdict.allowed());
        verdicts.any(|allowed| allowed != self.allowed())
    }

    pub fn done(&self) -> Done {
        match self.allowed() {
            true => Done::Clean,
            false => Done::Findings,
        }
    }
}

/// What a question is asked of.
pub(super) struct Asked {
    pub index: Index,
    /// Whether there was anything that could not be read at all: answers are without it.
    pub unread: bool,
}

impl Asked {
    /// Says so in an answer for programs, too.
    pub fn mark(&self, answer: &mut Value) {
        if self.unread {
            answer["unread"] = true.into();
        }
    }

    /// How a command ends that has answered so: a script must not take an answer for whole that isn't.
    pub fn done(&self, done: Done) -> Result<Done, Failure> {
        match self.unread {
            false => Ok(done),
            true => Err(Failure::Input(
                "what could not be read is not in the answer (see above)".to_owned(),
            )),
        }
    }
}

impl Input {
    /// Reads the manifests, or the cluster.
    pub fn load(&self) -> Result<Asked, Failure> {
        let snapshot = match &self.files {
            Some(path) => manifests::read_with_workloads(path)?,
            None => self.cluster.list()?,
        };
        for problem in &snapshot.problems {
            warn(problem);
        }
        let index = snapshot.index();
        if index.pods().next().is_none() {
            return Err(Failure::Input(match &self.files {
                Some(path) => format!(
                    "{} has no pods: add Pods, or Deployments and the like that stand for theirs",
                    path.display()
                ),
                None => "the cluster has no pods".to_owned(),
            }));
        }
        let unread = snapshot.unread;
        Ok(Asked { index, unread })
    }
}

impl Question {
    /// Evaluates the connection.
    pub fn answer(&self, index: &Index) -> Result<Answer, Failure> {
        let from = resolve(index, &self.from)?;
        let to = resolve(index, &self.to)?;
        let pairs = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)));
        let connections: Vec<(Connection, Verdict)> = pairs
            .filter_map(|(from, to)| Connection::new(*from, *to, self.port).ok())
            .map(|connection| (connection, evaluate(index, &connection)))
            .collect();
        let by_name = self.from.contains('/') && self.to.contains('/');
        if connections.is_empty() && !by_name {
            let list = |addresses: &[IpAddr]| {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                texts.join(", ")
            };
            return Err(Failure::Input(format!(
                "{} and {} have no address family in common: {} and {}",
                self.from,
                self.to,
                list(&from),
                list(&to)
            )));
        }
        let notes = connections.iter();
        let notes = notes.filter_map(|(_, verdict)| through_a_tunnel(index, verdict));
        Ok(Answer {
            from: self.from.clone(),
            to: self.to.clone(),
            transport: self.port,
            notes: notes.collect(),
            connections,
        })
    }
}

/// That a node's packets are answered for otherwise by the address that they have where they reach another node's pod
/// through Flannel's tunnel: `flannel.1`'s, the first of the sending node's pod CIDR.
fn through_a_tunnel(index: &Index, verdict: &Verdict) -> Option<String> {
    let Owner::Node { name } = &verdict.from.owner else {
        return None;
    };
    match &verdict.to.owner {
        Owner::Pod { node, .. } if node.as_ref() != Some(name) => {}
        _ => return None,
    }
    let cidrs = index.node(name)?.pod_cidrs.iter();
    let mut firsts = cidrs.map(|cidr| cidr.network());
    let first = firsts.find(|first| first.is_ipv4() == verdict.to.address.is_ipv4())?;
    let connection = Connection::new(first, verdict.to.address, verdict.transport).ok()?;
    let allowed = evaluate(index, &connection).allowed();
    let word = if allowed { "allowed" } else { "denied" };
    (allowed != verdict.allowed()).then(|| {
        format!(
            "where Flannel's backend is vxlan, {name} sends to other nodes' pods from {first}, its flannel.1: from there it is {word}"
        )
    })
}

/// The addresses that a name or an address means.
fn resolve(index: &Index, text: &str) -> Result<Vec<IpAddr>, Failure> {
    if let Some((namespace, name)) = text.split_once('/') {
        return match index.pod(namespace, name) {
            Some(pod) => of_pod(index, pod, text),
            None => Err(unknown(index, text)),
        };
    }
    let Ok(address) = parse_ip(text) else {
        return Err(unknown(index, text));
    };
    let claims = index
        .pods()
        .filter(|pod| pod.selectable() && pod.addresses.contains(address));
    let claims: Vec<String> = claims.map(full_name).collect();
    if claims.len() > 1 {
        return Err(Failure::Input(format!(
            "{address} is ambiguous: {} have it; name the pod that is meant",
            claims.join(" and ")
        )));
    }
    Ok(vec![address])
}

fn of_pod(index: &Index, pod: &Pod, text: &str) -> Result<Vec<IpAddr>, Failure> {
    let all: Vec<IpAddr> = addresses(index, pod).iter().collect();
    if !all.is_empty() {
        return Ok(all);
    }
    let other = pod
        .addresses
        .iter()
        .find_map(|a| Some((a, index.owner(a)?)));
    Err(Failure::Input(match other {
        _ if pod.finished => format!("{text} has finished, and so has no address any more"),
        Some((address, other)) => format!(
            "{text} has lost its address: {address} is {}'s now",
            full_name(other)
        ),
        None if pod.host_network => format!(
            "{text} uses its node's network, and the input does not say which; name a node's address instead"
        ),
        None => format!("{text} has no address yet"),
    }))
}

/// A pod's namespace and name.
pub(super) fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// How many names are suggested, at most.
const SUGGESTIONS: usize = 3;

/// An end that is not there, with those that may have been meant.
fn unknown(index: &Index, text: &str) -> Failure {
    let what = match text.contains('/') {
        true => format!("there is no pod {text}"),
        false => format!("{text:?} is neither NAMESPACE/POD nor an IP address"),
    };
    let (_, own_name) = text.split_once('/').unwrap_or(("", text));
    let mut near: Vec<(usize, String)> = index
        .pods()
        .filter_map(|pod| {
            let full = full_name(pod);
            let (meant, name) = (text.to_lowercase(), pod.name.to_lowercase());
            let distance = if name == own_name || name.starts_with(&format!("{own_name}-")) {
                0
            } else {
                strsim::damerau_levenshtein(&meant, &full)
                    .min(strsim::damerau_levenshtein(&meant, &name))
            };
            (distance <= 1 + text.len() / 5).then_some((distance, full))
        })
        .collect();
    near.sort();
    let nearest = near.first().map(|(distance, _)| *distance);
    near.retain(|(distance, _)| Some(*distance) == nearest);
    let near: Vec<String> = near.into_iter().map(|(_, name)| name).collect();
    Failure::Input(match near.get(..near.len().min(SUGGESTIONS)) {
        None | Some([]) => match index.pods().next() {
            Some(pod) => format!("{what}; a pod is named like {}", full_name(pod)),
            None => what,
        },
        Some(near) => format!("{what}; did you mean {}?", near.join(" or ")),
    })
}

/// Prints an answer as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<Done, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::input)?;
    print(&(text + "\n"))
}

/// `IPv4` or `IPv6`.
pub(super) fn family(connection: &Connection) -> impl fmt::Display {
    match connection.to().is_ipv4() {
        true => "IPv4",
        false => "IPv6",
    }
}
