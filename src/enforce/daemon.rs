//! What `selvedge run` does: one loop that takes in what the source and the host have to say, and lets the reconciler
//! act on it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use selvedge_nft::{Conntrack, Dataplane, DataplaneError, IfName, Kernel, Ownership};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::info;

use super::cni::Cni;
use super::committer::Outcome;
use super::hearing::{heard, listen};
use super::host::{self, Filtered, Link};
use super::links::{self, LinksError};
use super::lock::Lock;
use super::reconciler::{Change, Reconciler};
use super::revocation::{Revoked, Revoker};
use super::serving::Serving;
use super::settings::{DaemonError, Settings, Source};
use super::standing::Standing;
use crate::cluster::Text;
use crate::cluster::object::{Event, Object, ObjectKey, ObjectKind};
use crate::cni::Ask;
use crate::compile::Host;
use crate::observe::{Condition, ErrorKind, Observer};
use crate::source::kube::{self, Connection};
use crate::source::{Notice, SourceProblem, Update, watch};

/// How often the host's switches are looked at, and a port or socket that could not be had.
const HOST_CHECK: Duration = Duration::from_secs(10);

/// Notices that may wait for the source to show them; the log has all.
const NOTICES: usize = 256;

/// What reaches the loop.
enum Input {
    Source(Update),
    Links(Result<Vec<Link>, LinksError>),
    Revoked(Revoked),
    Cni(Ask),
    Stopped(&'static str),
}

/// A part's way into the loop. That it ends, and be it by a panic, is not to go unnoticed.
struct Feed {
    part: &'static str,
    sender: mpsc::UnboundedSender<Input>,
}

impl Feed {
    fn send(&self, input: Input) -> bool {
        self.sender.send(input).is_ok()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.send(Input::Stopped(self.part));
    }
}

/// Enforces the policies of a source in the network namespace that this thread is in, until SIGTERM or SIGINT. The rules
/// stay in force then.
///
/// # Errors
/// [`DaemonError`] when it can't start; once it works nothing ends it but a signal.
pub async fn run(settings: Settings) -> Result<(), DaemonError> {
    let lock = Lock::acquire()?;
    let mut dataplane = Kernel::open()?;
    let interference = listen(&mut dataplane);
    run_on(dataplane, interference, settings).await?;
    // Whoever reads that may start another one.
    drop(lock);
    info!("selvedge ends; the rules stay in force (`selvedge cleanup` removes them)");
    Ok(())
}

/// Does so on any dataplane; what is readable when there is interference, if that can be heard.
///
/// # Errors
/// As [`run`], whose lock it does not take.
pub async fn run_on<D: Dataplane>(
    mut dataplane: D,
    interference: Option<AsyncFd<OwnedFd>>,
    settings: Settings,
) -> Result<(), DaemonError> {
    let ownership = ownership(settings.own_table, &mut dataplane)?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|source| DaemonError::Signals { source })?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|source| DaemonError::Signals { source })?;
    let host = host::unknown(settings.bridge)?;
    let node = Text::from(settings.node.as_str());
    let observer = Observer::new();
    let mut serving = Serving::start(settings.http, observer.clone())?;
    let reconciler = Reconciler::new(dataplane, node.clone(), host.clone());
    let reconciler = reconciler
        .observed_by(observer.clone())
        .with_ownership(ownership)
        .with_anti_spoof(settings.anti_spoof);
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let feed = |part| Feed {
        part,
        sender: sender.clone(),
    };
    let (notices, to_show) = mpsc::channel(NOTICES);
    let source = match settings.source {
        Source::Files(path) => {
            let feed = feed("the watch of the files");
            let place = path.display().to_string();
            let observer = observer.clone();
            let send = move |update: Update| {
                if update
                    .problems
                    .as_ref()
                    .is_some_and(|lines| !lines.is_empty())
                {
                    observer.metrics.error(ErrorKind::Source);
                }
                feed.send(Input::Source(update))
            };
            watch::watch(path, send).map_err(|source| DaemonError::Source {
                path: place.clone(),
                source,
            })?;
            place
        }
        Source::Kube { access, silence } => {
            let feed = feed("the watch of the API server");
            let connection = Connection::new(access).await?;
            let (place, node) = (connection.place().to_owned(), settings.node.clone());
            let observer = observer.clone();
            tokio::spawn(async move {
                let send = |update| feed.send(Input::Source(update));
                kube::watch(connection, &node, silence, observer, to_show, send).await;
            });
            place
        }
    };
    let (filter, bridges) = mpsc::unbounded_channel();
    tokio::spawn(links::filter(bridges));
    let interfaces = feed("the watch of the network interfaces");
    let links = tokio::spawn(links::watch(move |links| {
        interfaces.send(Input::Links(links))
    }));
    info!(
        node = settings.node,
        source = %source,
        "selvedge {} starts",
        env!("CARGO_PKG_VERSION")
    );
    let mut state = State::new(reconciler, node, settings.bridge, host, observer.clone());
    state.notices = Some(notices);
    state.filter = Some(filter);
    state.closing = settings.block_new_pods.then_some(settings.pod_cidrs);
    if settings.revoke {
        let feed = feed("the revocation of connections");
        let tell = move |revoked| {
            feed.send(Input::Revoked(revoked));
        };
        let revoker = Revoker::start(Conntrack::open, observer.clone(), tell);
        state.revoker = Some(revoker.map_err(|source| DaemonError::Thread { source })?);
    }
    let hear_plugin = |state: &mut State<D>| {
        let Some(socket) = settings.cni.as_ref().filter(|_| state.cni.is_none()) else {
            return false;
        };
        state.hear_plugin(socket, || {
            let feed = feed("the CNI plugin's socket");
            move |ask| feed.send(Input::Cni(ask))
        })
    };
    hear_plugin(&mut state);
    let mut check = tokio::time::interval(HOST_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry_at: Option<Instant> = None;
    loop {
        observer.health.beat();
        let wake = retry_at.unwrap_or_else(|| Instant::now() + HOST_CHECK);
        tokio::select! {
            // Inputs last but for the retry: under a steady stream of them all else must be heard too.
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = check.tick() => {
                serving.check();
                state.check();
                state.have_filtered();
                if hear_plugin(&mut state) {
                    retry_at = state.step();
                }
            }
            () = heard(interference.as_ref()) => {
                if state.reconciler.listen() {
                    retry_at = state.step();
                }
            }
            input = inputs.recv() => {
                let Some(input) = input else { break };
                state.take(input)?;
                // All that is waiting becomes one transaction.
                while let Ok(input) = inputs.try_recv() {
                    state.take(input)?;
                }
                retry_at = state.step();
            }
            () = tokio::time::sleep_until(wake.into()), if retry_at.is_some() => {
                retry_at = state.step();
            }
        }
    }
    links.abort();
    Ok(())
}

/// Whose the tables are to be: ours, if that is wanted and the kernel knows of it.
fn ownership(own_table: bool, dataplane: &mut impl Dataplane) -> Result<Ownership, DataplaneError> {
    if !own_table {
        return Ok(Ownership::Anyone);
    }
    if dataplane.can_own()? {
        return Ok(Ownership::Own);
    }
    info!(
        "this kernel, older than Linux 6.9, can't keep others from changing the ruleset; what they change is put right"
    );
    Ok(Ownership::Anyone)
}

/// What the loop knows.
struct State<D> {
    reconciler: Reconciler<D>,
    node: Text,
    bridge: Option<IfName>,
    /// Whether the host's bridge is one that was found.
    bridge_found: bool,
    /// What is known of the host, and what the reconciler was told of it.
    host: Host,
    told: Host,
    pod_cidrs: Vec<IpNetwork>,
    /// The blocks that are closed to unknown pods: those named or, where none is, the Node's; `None` to close none.
    closing: Option<Vec<IpNetwork>>,
    nodes: BTreeSet<Text>,
    links: Option<Vec<Link>>,
    /// Where the pods' bridge is named, so that what it bridges meets netfilter.
    filter: Option<mpsc::UnboundedSender<String>>,
    /// Whether it does, whatever net.bridge says; and the bridge that was named for it last.
    filtered: Filtered,
    named: Option<u32>,
    /// Whether the source has been read as a whole.
    synced: bool,
    /// Whether the interfaces are known, or known to be unknowable.
    linked: bool,
    changes: Vec<Change>,
    /// What ends connections, if that is wanted.
    revoker: Option<Revoker>,
    /// Where the source hears what is to be shown of its objects.
    notices: Option<mpsc::Sender<Notice>>,
    /// What hears the CNI plugin, if that is wanted.
    cni: Option<Cni>,
    observer: Arc<Observer>,
    source_problems: Standing,
    host_problems: Standing,
    link_problems: Standing,
    cni_problems: Standing,
}

impl<D: Dataplane> State<D> {
    fn new(
        reconciler: Reconciler<D>,
        node: Text,
        bridge: Option<IfName>,
        host: Host,
        observer: Arc<Observer>,
    ) -> Self {
        Self {
            reconciler,
            node,
            bridge,
            bridge_found: false,
            told: host.clone(),
            host,
            pod_cidrs: Vec::new(),
            closing: None,
            nodes: BTreeSet::new(),
            links: None,
            filter: None,
            filtered: Filtered::default(),
            named: None,
            synced: false,
            linked: false,
            changes: Vec::new(),
            revoker: None,
            notices: None,
            cni: None,
            observer,
            source_problems: Standing::default(),
            host_problems: Standing::default(),
            link_problems: Standing::default(),
            cni_problems: Standing::default(),
        }
    }

    /// Begins to hear the CNI plugin; whether it does. Who holds the socket's place must not keep policies from being enforced.
    fn hear_plugin<S>(&mut self, socket: &Path, way: impl FnOnce() -> S) -> bool
    where
        S: Fn(Ask) -> bool + Send + Sync + 'static,
    {
        match Cni::start(socket, &self.observer, way) {
            Ok((cni, known)) => {
                self.cni_problems.update([]);
                self.changes.push(known);
                self.cni = Some(cni);
                true
            }
            Err(error) => {
                self.observer.metrics.error(ErrorKind::Attachment);
                let effect = "pods that start by the CNI plugin wait; it is tried again";
                self.cni_problems.update([format!("{error}; {effect}")]);
                false
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), DaemonError> {
        match input {
            Input::Stopped(part) => return Err(DaemonError::Stopped { part }),
            Input::Revoked(revoked) => {
                let names = revoked.names(|address| self.reconciler.pod_at(address));
                let connections = revoked.ended;
                info!(
                    connections,
                    "ended connections that are denied now: {names}"
                );
            }
            Input::Cni(ask) => {
                if let Some(cni) = &mut self.cni {
                    self.changes.extend(cni.take(ask, &self.reconciler));
                }
            }
            Input::Source(update) => {
                let first = update.synced && !self.synced;
                self.synced |= update.synced;
                self.observer.metrics.source_synced(self.synced);
                if !update.events.is_empty() {
                    self.reconciler.heard(update.at);
                }
                if let Some(cni) = &mut self.cni {
                    cni.hears(update.behind, &self.reconciler);
                }
                if let Some(problems) = update.problems {
                    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    self.source_health(problems);
                    self.source_problems.update(lines);
                } else if first {
                    self.source_health(Vec::new());
                }
                for event in update.events {
                    self.note(&event);
                    self.changes.push(Change::Cluster(event));
                }
                if first {
                    self.check();
                }
            }
            Input::Links(Ok(links)) => {
                self.linked = true;
                self.links = Some(links);
            }
            Input::Links(Err(error)) => {
                self.observer.metrics.error(ErrorKind::Links);
                self.link_problems.update([format!(
                    "{error}; the pods' bridge can't be followed, and its ports can't be guarded anew"
                )]);
                self.linked = true;
                self.links = None;
            }
        }
        Ok(())
    }

    /// Says how the source stands. Objects that can't be read close what they concern, and hold up nothing.
    fn source_health(&self, problems: Vec<SourceProblem>) {
        let mut lines: Vec<String> = Vec::new();
        if !self.synced {
            lines.push("not everything has been read yet".to_owned());
        }
        lines.extend(problems.iter().map(ToString::to_string));
        self.observer.health.set(Condition::Source, lines);
    }

    /// Takes from an event what concerns this host.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Apply(Object::Node(node)) => {
                if node.name == self.node {
                    self.pod_cidrs.clone_from(&node.pod_cidrs);
                }
                self.nodes.insert(node.name.clone());
            }
            Event::Delete {
                key: ObjectKey::Node(name),
                ..
            } => {
                self.nodes.remove(name);
            }
            Event::Retain {
                kind: ObjectKind::Node,
                keys,
            } => self
                .nodes
                .retain(|name| keys.contains(&ObjectKey::Node(name.clone()))),
            _ => {}
        }
    }

    /// Acts on what was taken, once everything is known that the first commit needs; the answer is when to try again.
    fn step(&mut self) -> Option<Instant> {
        if !(self.synced && self.linked) {
            self.reconciler.take(self.changes.drain(..), Instant::now());
            self.tell_cni(false);
            return None;
        }
        let mut good_news = None;
        if let Some(links) = &self.links {
            let before = self.bridge_found.then_some(&self.host.bridge);
            let found = host::find(links, &self.pod_cidrs, self.bridge.as_ref(), before);
            let health = &self.observer.health;
            health.set(Condition::KubeProxy, host::ipvs(links));
            self.bridge_found = found.host.is_some();
            match self.bridge_found {
                // A bridge that is there again is ready once it is guarded.
                true => good_news = Some(found.warnings),
                false => self.tell_links(found.warnings),
            }
            let host = found
                .host
                .unwrap_or_else(|| Host::new(self.host.bridge, []));
            if (host.bridge, &host.ports) != (self.host.bridge, &self.host.ports) {
                info!(bridge = %host.bridge, ports = host.ports.len(), "the pods' bridge has changed");
                (self.host.bridge, self.host.ports) = (host.bridge, host.ports);
            }
        }
        self.have_filtered();
        let mut host = self.host.clone();
        host.closed = self.closed();
        if host != self.told {
            self.told = host.clone();
            self.changes.push(Change::Host(host));
        }
        let settle = self
            .cni
            .as_mut()
            .and_then(|cni| cni.settle(self.links.as_deref()));
        self.changes.extend(settle);
        let outcome = self.reconciler.step(self.changes.drain(..), Instant::now());
        if let Some(warnings) = good_news {
            self.tell_links(warnings);
        }
        self.tell_cni(!matches!(outcome, Outcome::Retry(_)));
        if let Some(revoker) = &self.revoker
            && let Some((concern, in_force)) = self.reconciler.take_concern()
        {
            revoker.order(concern, in_force);
        }
        for notice in self.reconciler.take_notices() {
            // Where the source shows none, or can't at the moment, there is the log.
            let _ = self.notices.as_ref().map(|sender| sender.try_send(notice));
        }
        // What others do while nobody listens, during a large commit, is known after it, and nothing becomes readable for it.
        if self.reconciler.listen() {
            return Some(Instant::now());
        }
        match outcome {
            Outcome::Unchanged | Outcome::Committed(_) => self.reconciler.next_trial(),
            Outcome::Retry(at) => Some(at),
        }
    }

    /// The pods' bridge, once it is found.
    fn bridge_link(&self) -> Option<&Link> {
        let mut links = self.links.iter().flatten();
        links.find(|link| self.bridge_found && link.name == self.host.bridge.as_str())
    }

    /// Has what the pods' bridge passes on meet netfilter, and takes note of whether it does.
    fn have_filtered(&mut self) {
        let bridge = self.bridge_link().cloned();
        let filtered = bridge
            .as_ref()
            .map(|bridge| bridge.filtered)
            .unwrap_or_default();
        if filtered == Filtered::WHOLLY {
            self.named = None;
        } else if let (Some(bridge), Some(filter)) = (bridge, &self.filter)
            && self.named.replace(bridge.index) != Some(bridge.index)
        {
            // Should nobody take it, net.bridge has the say as before.
            let _ = filter.send(bridge.name);
        }
        if std::mem::replace(&mut self.filtered, filtered) != filtered {
            self.check();
        }
    }

    /// Tells what is wrong with the host's interfaces, by which the node is not ready where the bridge is not found.
    fn tell_links(&mut self, warnings: Vec<String>) {
        let waiting = warnings.iter().filter(|_| !self.bridge_found).cloned();
        self.observer.health.set(Condition::Bridge, waiting);
        self.link_problems.update(warnings);
    }

    /// The blocks that are closed to unknown pods.
    fn closed(&self) -> Vec<IpNetwork> {
        match &self.closing {
            None => Vec::new(),
            Some(named) if named.is_empty() => self.pod_cidrs.clone(),
            Some(named) => {
                let parts = named.iter().flat_map(|net| self.own_part(*net));
                parts.collect()
            }
        }
    }

    /// What of a block is this node's: all nodes may be told the cluster's, where other nodes' pods are, too.
    fn own_part(&self, net: IpNetwork) -> Vec<IpNetwork> {
        let within = |cidr: &&IpNetwork| cidr.prefix() > net.prefix() && net.contains(cidr.ip());
        let own: Vec<IpNetwork> = self.pod_cidrs.iter().filter(within).copied().collect();
        // Flannel may have its leases from elsewhere than the Node has its blocks.
        let bridge = self.bridge_link().into_iter();
        let mut addresses = bridge.flat_map(|bridge| &bridge.addresses);
        let elsewhere = addresses.any(|address| {
            net.contains(*address) && !own.iter().any(|part| part.contains(*address))
        });
        match own.is_empty() || elsewhere {
            true => vec![net],
            false => own,
        }
    }

    /// Why new pods are not blocked though they should be.
    fn open_to_new_pods(&self) -> Option<String> {
        let open = self.synced && self.closing.is_some() && self.closed().is_empty();
        open.then(|| {
            "new pods are not blocked: the node's pod CIDR is not known; give it with --pod-cidr, or the Node with spec.podCIDR".to_owned()
        })
    }

    /// Answers the CNI plugin, where what it waits for is done.
    fn tell_cni(&mut self, in_force: bool) {
        if let Some(cni) = &mut self.cni {
            cni.tell(&mut self.reconciler, in_force);
        }
    }

    /// Looks at what nobody sends news of.
    fn check(&mut self) {
        // What could not be set is tried again.
        self.named = None;
        let directory = Path::new(host::BRIDGE_SYSCTLS);
        let mut problems = host::bridge_netfilter(directory, self.filtered);
        let health = &self.observer.health;
        health.set(Condition::BridgeNetfilter, problems.clone());
        if self.synced && self.nodes.contains(&self.node) {
            health.set(Condition::Node, []);
        } else if self.synced {
            let known: Vec<&str> = self.nodes.iter().map(|node| &**node).collect();
            let line = format!(
                "there is no Node {} in the source; it has {}",
                self.node,
                match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                }
            );
            health.set(Condition::Node, [line.clone()]);
            problems.push(line);
        }
        let open = self.open_to_new_pods();
        health.set(Condition::NewPods, open.clone());
        problems.extend(open);
        self.host_problems.update(problems);
    }
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
