//! What metrics are told: how much there is, and what an error was about.

use selvedge_nft::{Ruleset, Table};

use crate::cni::Command;

/// What an error was about: the label `kind` of `selvedge_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The source could not be read: a directory, a file.
    Source,
    /// An object could not be read as it is written.
    Decode,
    /// The API server could not be reached, or refused.
    Api,
    /// A Kubernetes Event could not be written.
    Event,
    /// A commit was refused, or its outcome is not known.
    Commit,
    /// The kernel's state could not be read back.
    ReadBack,
    /// The host's network interfaces could not be followed.
    Links,
    /// Tracked connections could not be read, judged or ended.
    Revocation,
    /// What the CNI plugin said could not be kept.
    Attachment,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Source,
        Self::Decode,
        Self::Api,
        Self::Event,
        Self::Commit,
        Self::ReadBack,
        Self::Links,
        Self::Revocation,
        Self::Attachment,
    ];

    /// Its name in the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Decode => "decode",
            Self::Api => "api",
            Self::Event => "event",
            Self::Commit => "commit",
            Self::ReadBack => "read_back",
            Self::Links => "links",
            Self::Revocation => "revocation",
            Self::Attachment => "attachment",
        }
    }
}

/// What the CNI plugin asked for: the label `command` of `selvedge_cni_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CniCommand {
    /// A pod's network is made.
    Add,
    /// It goes.
    Del,
    /// Is it as it was?
    Check,
    /// All that there are.
    Gc,
    /// Could an ADD succeed?
    Status,
    /// Nobody knows.
    Unknown,
}

impl CniCommand {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Gc,
        Self::Status,
        Self::Unknown,
    ];

    /// What a request asks for.
    pub const fn of(command: &Command) -> Self {
        match command {
            Command::Add { .. } => Self::Add,
            Command::Del { .. } => Self::Del,
            Command::Check { .. } => Self::Check,
            Command::Gc { .. } => Self::Gc,
            Command::Status => Self::Status,
        }
    }

    /// Its name in the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "del",
            Self::Check => "check",
            Self::Gc => "gc",
            Self::Status => "status",
            Self::Unknown => "unknown",
        }
    }
}

/// What came of it: the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CniOutcome {
    /// It is done.
    Done,
    /// It is not done, and why was said.
    Refused,
    /// It was not done in time.
    Late,
    /// It was not understood.
    Malformed,
}

impl CniOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Refused, Self::Late, Self::Malformed];

    /// Its name in the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Malformed => "malformed",
        }
    }
}

/// How much of the cluster is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Policies.
    pub policies: usize,
    /// What is wrong with them.
    pub policy_problems: usize,
    /// Named ports that they ask for and that no pod has, as far as this node needs to know.
    pub unmet_ports: usize,
    /// Policies that the kernel refuses to take, and that are closed for that.
    pub refused_policies: usize,
    /// Pods of this node that nothing passes for: the kernel refuses their chains, or their policies can't be known any more.
    pub closed_pods: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Pods.
    pub pods: usize,
    /// Pods of this node.
    pub local_pods: usize,
    /// Pods of this node that are isolated for ingress.
    pub isolated_ingress: usize,
    /// Pods of this node that are isolated for egress.
    pub isolated_egress: usize,
}

/// How much the kernel holds that is Selvedge's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Chains.
    pub chains: usize,
    /// Sets and maps.
    pub sets: usize,
    /// Their elements.
    pub elements: usize,
}

impl Held {
    /// Counts what a ruleset holds: a look at each set.
    pub fn by(ruleset: &Ruleset) -> Self {
        let tables = ruleset.tables.values().map(|table| Self::by_table(table));
        tables.fold(Self::default(), |sum, table| Self {
            chains: sum.chains + table.chains,
            sets: sum.sets + table.sets,
            elements: sum.elements + table.elements,
        })
    }

    /// Counts what a table holds: a look at each set.
    pub fn by_table(table: &Table) -> Self {
        Self {
            chains: table.chains.len(),
            sets: table.sets.len(),
            elements: table.sets.values().map(|set| set.elements.len()).sum(),
        }
    }
}
