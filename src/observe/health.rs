//! What stands in the way of being ready, and whether the daemon's loop moves.
//!
//! Ready means: what the policies ask for is in force on this node. That takes a commit that the kernel acknowledged,
//! bridged packets that meet netfilter, and no kube-proxy that delivers past it. It does not take the API server: a
//! daemon that has lost it enforces what it knows, and says so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the loop may stand still before it is taken for dead. The longest commits take some 20 s.
pub const LONGEST_STANDSTILL: Duration = Duration::from_secs(60);

/// Something that must be so, or at least is worth knowing, for policies to be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The source of objects can be reached and has been read. It holds up the first commit, and nothing after it.
    Source,
    /// The source has this node. Worth knowing: without it the node's pod CIDR is not known.
    Node,
    /// The pods' bridge is known. Worth knowing: Flannel makes it with the node's first pod.
    Bridge,
    /// Bridged packets meet netfilter in this network namespace: bridge-nf-call-iptables and -ip6tables are 1.
    BridgeNetfilter,
    /// kube-proxy is not in IPVS mode, which delivers past hook forward.
    KubeProxy,
    /// New pods are blocked, where that is wanted.
    NewPods,
    /// The kernel has acknowledged the ruleset that is wanted.
    Commit,
}

impl Condition {
    /// All of them, in the order in which one leads to another.
    pub const ALL: [Self; 7] = [
        Self::Source,
        Self::Node,
        Self::Bridge,
        Self::BridgeNetfilter,
        Self::KubeProxy,
        Self::NewPods,
        Self::Commit,
    ];

    /// Its name in `/readyz?verbose`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Node => "node",
            Self::Bridge => "bridge",
            Self::BridgeNetfilter => "bridge-netfilter",
            Self::KubeProxy => "kube-proxy",
            Self::NewPods => "new-pods",
            Self::Commit => "commit",
        }
    }

    /// What is so until somebody has looked.
    const fn at_first(self) -> &'static str {
        match self {
            Self::Source => "the objects have not been read yet",
            Self::Node => "the nodes have not been read yet",
            Self::Bridge => "the network interfaces have not been read yet",
            Self::BridgeNetfilter => "net.bridge has not been looked at yet",
            Self::KubeProxy => "the network interfaces have not been searched for kube-ipvs0 yet",
            Self::NewPods => "the node's pod CIDR has not been looked at yet",
            Self::Commit => "the first commit has not been made",
        }
    }

    /// Whether it stands in the way of being ready where it is not met.
    const fn blocks(self, committed: bool) -> bool {
        match self {
            Self::BridgeNetfilter | Self::KubeProxy | Self::NewPods | Self::Commit => true,
            Self::Source => !committed,
            Self::Node | Self::Bridge => false,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is met.
    Met,
    /// It is not, which is worth knowing.
    Noted,
    /// It is not, and stands in the way of being ready.
    Blocking,
}

/// All conditions, as they stand at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each condition, in order, and what is not as it should be, a line each.
    pub conditions: Vec<(Condition, Standing, Vec<String>)>,
}

impl Report {
    /// Whether nothing stands in the way.
    pub fn ready(&self) -> bool {
        self.conditions
            .iter()
            .all(|(_, standing, _)| *standing != Standing::Blocking)
    }

    /// What stands in the way, `condition: line` each; nothing when ready.
    pub fn reasons(&self) -> Vec<String> {
        self.conditions
            .iter()
            .filter(|(_, standing, _)| *standing == Standing::Blocking)
            .flat_map(|(condition, _, lines)| {
                lines.iter().map(move |l| format!("{condition}: {l}"))
            })
            .collect()
    }
}

impl fmt::Display for Report {
    /// Every condition, as Kubernetes' own components write it: `[+]commit ok`, `[-]commit: …`; and `[!]source: …` for
    /// what does not stand in the way. The last line says whether it is ready.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (condition, standing, lines) in &self.conditions {
            let mark = match standing {
                Standing::Met => {
                    writeln!(f, "[+]{condition} ok")?;
                    continue;
                }
                Standing::Noted => "[!]",
                Standing::Blocking => "[-]",
            };
            for line in lines {
                writeln!(f, "{mark}{condition}: {line}")?;
            }
        }
        match self.ready() {
            true => writeln!(f, "readyz check passed"),
            false => writeln!(f, "readyz check failed"),
        }
    }
}

/// What is known of the conditions.
#[derive(Debug, Default)]
struct Conditions {
    /// What is wrong with each that somebody has looked at.
    lines: BTreeMap<Condition, Vec<String>>,
    /// Whether a commit has ever been acknowledged.
    committed: bool,
}

impl Conditions {
    fn set(&mut self, condition: Condition, lines: Vec<String>) {
        self.committed |= condition == Condition::Commit && lines.is_empty();
        self.lines.insert(condition, lines);
    }

    fn report(&self) -> Report {
        let conditions = Condition::ALL.map(|condition| {
            let lines = match self.lines.get(&condition) {
                Some(lines) => lines.clone(),
                None => vec![condition.at_first().to_owned()],
            };
            let standing = match (lines.is_empty(), condition.blocks(self.committed)) {
                (true, _) => Standing::Met,
                (false, true) => Standing::Blocking,
                (false, false) => Standing::Noted,
            };
            (condition, standing, lines)
        });
        Report {
            conditions: conditions.into(),
        }
    }
}

/// What the daemon says about itself, and others ask.
#[derive(Debug)]
pub struct Health {
    made: Instant,
    /// When the loop last moved, in milliseconds since then.
    moved: AtomicU64,
    conditions: Mutex<Conditions>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            moved: AtomicU64::new(0),
            conditions: Mutex::default(),
        }
    }
}

impl Health {
    /// Says how a condition stands now: what is wrong with it, a line each; no line when it is met. It stands so until
    /// the next time. Line breaks within a line become blanks.
    pub fn set(&self, condition: Condition, lines: impl IntoIterator<Item = String>) {
        let lines = lines
            .into_iter()
            .map(|line| line.replace(['\n', '\r'], " "));
        let lines = lines.collect();
        self.lock().set(condition, lines);
    }

    /// All conditions, as they stand.
    pub fn report(&self) -> Report {
        self.lock().report()
    }

    /// Says that the loop moves. To be said several times in every [`LONGEST_STANDSTILL`], by the loop itself.
    pub fn beat(&self) {
        let moved = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(moved, Ordering::Relaxed);
    }

    /// For how long the loop had stood still at a time.
    pub fn standstill(&self, now: Instant) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        now.saturating_duration_since(self.made)
            .saturating_sub(moved)
    }

    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
