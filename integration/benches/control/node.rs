//! What the daemon does between its sources and the kernel, step by step and timed.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use selvedge::cluster::Text;
use selvedge::cluster::object::Event;
use selvedge::compile::{Compiler, Host, compile, tables};
use selvedge::enforce::{Committer, Outcome};
use selvedge::index::Index;
use selvedge::synthetic::{Cluster, NODE};
use selvedge_lab::Netns;
use selvedge_nft::{
    Committed, Dataplane, DataplaneError, IfName, Interference, Kernel, Ruleset, TableId,
    Transaction,
};

/// A node of the cluster, in a network namespace of its own.
pub struct Node {
    netns: Netns,
    name: Text,
    host: Host,
    index: Index,
    compiler: Compiler,
    committer: Committer<Metered>,
    kernel: Arc<Mutex<Kernel>>,
    last: Rc<Cell<Committed>>,
}

/// What a step took.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub index: Duration,
    pub compile: Duration,
    /// The difference and its acknowledged commit.
    pub commit: Duration,
    pub committed: Committed,
    pub elements: usize,
}

impl Step {
    pub fn whole(&self) -> Duration {
        self.index + self.compile + self.commit
    }
}

impl Node {
    /// Starts with everything there is, one object at a time.
    pub fn start(cluster: &Cluster) -> Result<(Self, Step), Box<dyn Error>> {
        Self::start_with(NODE, |index| {
            for object in cluster.objects() {
                index.apply(Event::Apply(object));
            }
        })
    }

    /// Starts with what `fill` puts into the index.
    pub fn start_with(
        name: &str,
        fill: impl FnOnce(&mut Index),
    ) -> Result<(Self, Step), Box<dyn Error>> {
        let netns = Netns::new("bench")?;
        let kernel = Arc::new(Mutex::new(netns.run(Kernel::open)??));
        let host = Host::new(IfName::new("cni0")?, [IfName::new("veth0")?]);
        let last = Rc::new(Cell::new(Committed::default()));
        let metered = Metered {
            kernel: kernel.clone(),
            last: last.clone(),
        };
        let name = Text::from(name);
        let mut node = Self {
            netns,
            compiler: Compiler::new(name.clone(), host.clone()),
            name,
            host,
            index: Index::new(),
            committer: Committer::new(metered, tables()),
            kernel,
            last,
        };
        let step = node.step(fill)?;
        Ok((node, step))
    }

    /// Listens for news from now on, as the daemon does: the kernel tells every change, and that costs. Until then the
    /// node starts: the daemon itself doesn't listen to its own large transactions, but to the kernel a listener in any
    /// namespace is one, and nodes that start one after the other would slow each other down.
    pub fn listen(&self) -> Result<(), Box<dyn Error>> {
        let kernel = &self.kernel;
        Ok(self.netns.run(|| lock(kernel).listen(tables()))??)
    }

    /// One event, until the kernel has acknowledged what follows from it.
    pub fn event(&mut self, event: Event) -> Result<Step, Box<dyn Error>> {
        self.step(|index| index.apply(event))
    }

    fn step(&mut self, change: impl FnOnce(&mut Index)) -> Result<Step, Box<dyn Error>> {
        self.last.set(Committed::default());
        let started = Instant::now();
        change(&mut self.index);
        let indexed = started.elapsed();
        let ruleset = self.compiler.update(&mut self.index);
        self.compiler.new_warnings();
        let compiled = started.elapsed();
        let outcome = self.committer.reconcile(&ruleset, true, started);
        let done = started.elapsed();
        if let Outcome::Retry(_) = outcome {
            return Err("the kernel did not commit".into());
        }
        if self.committer.listen() {
            return Err("somebody else has changed the ruleset".into());
        }
        Ok(Step {
            index: indexed,
            compile: compiled - indexed,
            commit: done - compiled,
            committed: self.last.get(),
            elements: elements(&ruleset),
        })
    }

    /// Holds what the kernel holds against what is compiled from nothing; how many elements that is.
    pub fn verify(&mut self) -> Result<usize, Box<dyn Error>> {
        let read = self
            .netns
            .run(|| Kernel::open()?.read(&tables()))
            .map_err(Box::new)??;
        if read != compile(&self.index, &self.name, &self.host) {
            return Err("the kernel holds another ruleset than the compiler makes".into());
        }
        Ok(elements(&read))
    }
}

fn elements(ruleset: &Ruleset) -> usize {
    let sets = ruleset
        .tables
        .values()
        .flat_map(|table| table.sets.values());
    sets.map(|set| set.elements.len()).sum()
}

fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel, and what its last commit took.
struct Metered {
    kernel: Arc<Mutex<Kernel>>,
    last: Rc<Cell<Committed>>,
}

impl Dataplane for Metered {
    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        lock(&self.kernel).read(tables)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError> {
        let committed = lock(&self.kernel).commit(transaction)?;
        self.last.set(committed);
        Ok(committed)
    }

    fn interference(&mut self) -> Vec<Interference> {
        lock(&self.kernel).interference()
    }
}
