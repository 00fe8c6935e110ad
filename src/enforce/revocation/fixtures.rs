//! What the tests share: a node with pods and policies, its ruleset, and connections.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use selvedge_nft::{
    Chain, ConntrackError, Detail, Entries, Entry, Family, Name, Ruleset, Table, Transaction,
    Tuple, diff,
};

use super::Connections;
use crate::cluster::Text;
use crate::cluster::object::{Event, Node, Object, ObjectKey, Pod};
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use crate::compile::{Compiler, Host};
use crate::enforce::host;
use crate::index::Index;
use crate::policy::Action;
use crate::policy::{Dialect, Peer, Peers, Policy, PolicyKey, Ports, Rule, Tier};

/// The node `node-a` and its compiler.
pub struct Cluster {
    index: Index,
    compiler: Compiler,
    host: Host,
    pub ruleset: Ruleset,
}

impl Cluster {
    /// The node alone, already compiled.
    pub fn new() -> Self {
        let host = host::unknown(None).unwrap();
        let mut cluster = Self {
            index: Index::new(),
            compiler: Compiler::new(Text::from("node-a"), host.clone()),
            host,
            ruleset: Ruleset::default(),
        };
        cluster.commit([apply(Object::Node(Node {
            name: Text::from("node-a"),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            addresses: Vec::new(),
        }))]);
        cluster
    }

    /// The same with another host: the bridge of before, changed.
    pub fn change_host(&mut self, change: impl FnOnce(&mut Host)) -> (Ruleset, Transaction) {
        change(&mut self.host);
        self.compiler.set_host(self.host.clone());
        self.commit([])
    }

    /// Takes events in: the ruleset before, and the transaction to the one that is there now.
    pub fn commit(&mut self, events: impl IntoIterator<Item = Event>) -> (Ruleset, Transaction) {
        for event in events {
            self.index.apply(event);
        }
        let after = self.compiler.update(&mut self.index);
        let before = std::mem::replace(&mut self.ruleset, after);
        let transaction = diff(&before, &self.ruleset);
        (before, transaction)
    }
}

/// Changes a chain behind everyone's back.
pub fn change_chain(ruleset: &mut Ruleset, name: &str, change: impl FnOnce(&mut Chain)) {
    let (id, table) = ruleset
        .tables
        .iter()
        .find(|(id, _)| id.family == Family::Inet)
        .unwrap();
    let (id, mut table) = (id.clone(), Table::clone(table));
    let name = Name::new(name).unwrap();
    let mut chain = Chain::clone(&table.chains[&name]);
    change(&mut chain);
    table.chains.insert(name, Arc::new(chain));
    ruleset.tables.insert(id, Arc::new(table));
}

pub fn apply(object: Object) -> Event {
    Event::Apply(object)
}

pub fn address(last: u8) -> IpAddr {
    [10, 244, 1, last].into()
}

/// A pod `shop/pod-N` of this node or, from 100 on, of another, with the label `app=APP`.
pub fn pod(number: u8, app: &str) -> Event {
    let node = if number < 100 { "node-a" } else { "node-b" };
    apply(Object::Pod(Pod {
        namespace: Text::from("shop"),
        name: Text::from(format!("pod-{number}").as_str()),
        uid: Box::default(),
        created: 0,
        node: Some(Text::from(node)),
        host_network: false,
        finished: false,
        labels: [("app", app)].into_iter().collect(),
        addresses: [address(number)].into_iter().collect(),
        ports: Arc::new([]),
    }))
}

pub fn gone(number: u8) -> Event {
    Event::Delete {
        key: ObjectKey::Pod(
            Text::from("shop"),
            Text::from(format!("pod-{number}").as_str()),
        ),
        uid: None,
    }
}

fn key(name: &str) -> PolicyKey {
    PolicyKey {
        dialect: Dialect::NetworkPolicy,
        namespace: Text::from("shop"),
        name: Text::from(name),
    }
}

fn labelled(app: &str) -> PodSelector {
    PodSelector {
        scope: Scope::Namespace(Text::from("shop")),
        pods: LabelSelector::new([Requirement {
            key: Text::from("app"),
            operator: Operator::In([Text::from(app)].into()),
        }]),
    }
}

/// A policy that lets the pods of these apps in to those of one, on every port.
pub fn policy(name: &str, to: &str, from: &[&str]) -> Event {
    let rule = |app: &&str| Rule {
        action: Action::Accept,
        peers: Peers::Of(vec![Peer::Pods(labelled(app))]),
        ports: Ports::Any,
    };
    apply(Object::Policy(Arc::new(Policy {
        key: key(name),
        tier: Tier::NetworkPolicy,
        subject: labelled(to),
        ingress: Some(from.iter().map(rule).collect()),
        egress: None,
        problems: Vec::new(),
    })))
}

pub fn without_policy(name: &str) -> Event {
    Event::Delete {
        key: ObjectKey::Policy(key(name)),
        uid: None,
    }
}

/// A TCP connection from one pod to another's port 80, by a ClusterIP's port 8080.
pub fn tcp(from: u8, to: u8) -> Entry {
    let ports = |source, destination| Detail::Ports {
        source,
        destination,
    };
    let tuple = |source, destination, detail| Tuple {
        source,
        destination,
        protocol: 6,
        detail,
        zone: None,
    };
    Entry {
        original: tuple(address(from), [10, 96, 0, 1].into(), ports(4000, 8080)),
        reply: tuple(address(to), address(from), ports(80, 4000)),
        id: u32::from(from) << 8 | u32::from(to),
        zone: 0,
        expected: false,
        closed: false,
    }
}

/// Connections in memory. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Tracked {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeSet<Entry>,
    reads: Vec<Option<BTreeSet<IpAddr>>>,
    failing_reads: usize,
    unending: bool,
    /// What comes when the first one is ended.
    late: Option<Entry>,
}

impl Tracked {
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let tracked = Self::default();
        tracked.lock().entries.extend(entries);
        tracked
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().copied().collect()
    }

    /// What was asked for: addresses, or all.
    pub fn reads(&self) -> Vec<Option<BTreeSet<IpAddr>>> {
        self.lock().reads.clone()
    }

    /// Makes the next reads fail.
    pub fn fail_reads(&self, times: usize) {
        self.lock().failing_reads = times;
    }

    /// Lets one slip in while another is ended.
    pub fn slips_in(&self, entry: Entry) {
        self.lock().late = Some(entry);
    }

    /// Makes every end fail.
    pub fn fail_ends(&self) {
        self.lock().unending = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

fn refused() -> ConntrackError {
    ConntrackError::Unreachable {
        doing: "being asked in a test",
        source: std::io::Error::from_raw_os_error(105),
    }
}

impl Connections for Tracked {
    fn read(
        &mut self,
        of: Option<&BTreeSet<IpAddr>>,
        keep: &dyn Fn(&Entry) -> bool,
    ) -> Result<Entries, ConntrackError> {
        let mut inner = self.lock();
        inner.reads.push(of.cloned());
        if let Some(left) = inner.failing_reads.checked_sub(1) {
            inner.failing_reads = left;
            return Err(refused());
        }
        let of =
            |entry: &&Entry| of.is_none_or(|of| of.iter().any(|address| entry.involves(*address)));
        let entries = inner.entries.iter().filter(of);
        Ok(Entries {
            kept: entries.filter(|entry| keep(entry)).copied().collect(),
            unreadable: 0,
        })
    }

    fn end(&mut self, entry: &Entry) -> Result<bool, ConntrackError> {
        let mut inner = self.lock();
        match inner.unending {
            true => Err(refused()),
            false => {
                let late = inner.late.take();
                inner.entries.extend(late);
                Ok(inner.entries.remove(entry))
            }
        }
    }

    fn own_addresses(&mut self) -> Result<BTreeSet<IpAddr>, ConntrackError> {
        Ok([address(1)].into())
    }
}
