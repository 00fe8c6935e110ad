//! A kernel in memory, for tests: it keeps tables and holds transactions against the kernel's rules.
//!
//! A transaction works on a copy that becomes the state only if every operation succeeds. References are counted as
//! nf_tables counts them: what a rule or map entry names can't be deleted, what isn't there can't be named. Where kernels
//! differ it is as strict as the strictest: 6.1 refuses every loop (`ELOOP`), 6.18 only those that a base chain reaches
//! (`EMLINK`).
//!
//! A clone is another handle to the same kernel, so that a test can look on and interfere.

mod kernel;
mod loops;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::kernel::State;
pub use self::kernel::errno;
use crate::dataplane::{Committed, Dataplane, DataplaneError, Interference, Parts, Touched};
use crate::name::Name;
use crate::ruleset::{Ownership, Ruleset, Table, TableId};
use crate::transaction::{Op, Transaction};

/// What goes wrong with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The kernel refuses the first operation with this errno; nothing changes.
    Refused(i32),
    /// The batch does not reach the kernel; nothing changes.
    Unreachable(i32),
    /// The transaction is carried out, and the acknowledgement is lost.
    AcknowledgementLost(i32),
}

/// The kernel in memory.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    log: Vec<Transaction>,
    faults: VecDeque<Fault>,
    read_faults: VecDeque<i32>,
    refused: BTreeMap<Name, i32>,
    reads: usize,
    interference: Vec<Interference>,
    standby: Ruleset,
}

impl Fake {
    /// A kernel without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// All tables as they are now.
    pub fn ruleset(&self) -> Ruleset {
        self.lock().state.ruleset.clone()
    }

    /// Changes the tables behind the back of whoever uses the kernel. No rule of the kernel's is checked.
    pub fn interfere(&self, change: impl FnOnce(&mut Ruleset)) {
        let mut inner = self.lock();
        let before = inner.state.ruleset.clone();
        let mut ruleset = before.clone();
        change(&mut ruleset);
        let all = before.tables.keys().chain(ruleset.tables.keys());
        let changed = all.filter(|id: &&TableId| before.tables.get(*id) != ruleset.tables.get(*id));
        let tables: BTreeMap<TableId, Parts> = changed.map(|id| (id.clone(), Parts::All)).collect();
        let standby = inner.standby.tables.iter();
        let gone = standby
            .filter(|(id, _)| before.tables.contains_key(*id) && !ruleset.tables.contains_key(*id));
        let gone: Vec<_> = gone
            .map(|(id, table)| (id.clone(), table.clone()))
            .collect();
        if !tables.is_empty() {
            let (touched, by) = (Touched { tables }, None);
            inner
                .interference
                .push(Interference::Changed { touched, by });
        }
        if !gone.is_empty() {
            let tables = gone.iter().map(|(id, _)| id.clone()).collect();
            ruleset.tables.extend(gone);
            inner.interference.push(Interference::Replaced { tables });
        }
        inner.state = State::holding(ruleset);
    }

    /// Closes the socket that owns tables, and opens another: they are orphans.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        let mut ruleset = inner.state.ruleset.clone();
        for (id, table) in &inner.state.ruleset.tables {
            if table.ownership == Ownership::Own {
                let mut table = Table::clone(table);
                table.ownership = Ownership::Orphan;
                ruleset.tables.insert(id.clone(), Arc::new(table));
            }
        }
        inner.state = State::holding(ruleset);
    }

    /// The transactions that were carried out, the oldest first; empty ones are not among them.
    pub fn log(&self) -> Vec<Transaction> {
        self.lock().log.clone()
    }

    /// The log, which begins anew.
    pub fn take_log(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.lock().log)
    }

    /// How often the tables were read.
    pub fn reads(&self) -> usize {
        self.lock().reads
    }

    /// Makes the next `times` commits that are not empty fail; after the faults that were set before.
    pub fn fail_commits(&self, times: usize, fault: Fault) {
        self.lock().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Makes the next `times` reads fail.
    pub fn fail_reads(&self, times: usize, errno: i32) {
        let faults = std::iter::repeat_n(errno, times);
        self.lock().read_faults.extend(faults);
    }

    /// Refuses every operation on objects of this name, until [`Fake::heal`].
    pub fn refuse(&self, name: Name, errno: i32) {
        self.lock().refused.insert(name, errno);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.faults.clear();
        inner.read_faults.clear();
        inner.refused.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is swapped whole, so a panic elsewhere leaves a good one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dataplane for Fake {
    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        let mut inner = self.lock();
        inner.reads += 1;
        if let Some(errno) = inner.read_faults.pop_front() {
            return Err(unreachable("read the ruleset", errno));
        }
        let held = &inner.state.ruleset.tables;
        let found = tables
            .iter()
            .filter_map(|id| Some((id.clone(), held.get(id)?.clone())));
        Ok(Ruleset {
            tables: found.collect(),
        })
    }

    /// One message is counted for each operation, and no bytes.
    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError> {
        let mut inner = self.lock();
        let Some(first) = transaction.ops.first() else {
            return Ok(Committed::default());
        };
        let fault = inner.faults.pop_front();
        match fault {
            Some(Fault::Refused(errno)) => return Err(refused(0, first, errno)),
            Some(Fault::Unreachable(errno)) => return Err(unreachable("send the batch", errno)),
            Some(Fault::AcknowledgementLost(_)) | None => {}
        }
        for (index, op) in transaction.ops.iter().enumerate() {
            if let Some(errno) = inner.refused.get(object(op)) {
                return Err(refused(index, op, *errno));
            }
        }
        let state = inner.state.after(&transaction.ops)?;
        inner.state = state;
        inner.log.push(transaction.clone());
        if let Some(Fault::AcknowledgementLost(errno)) = fault {
            return Err(unreachable("await the acknowledgement", errno));
        }
        Ok(Committed {
            batches: 1,
            messages: transaction.len(),
            bytes: 0,
        })
    }

    fn stand_by(&mut self, ruleset: &Ruleset) -> Result<(), DataplaneError> {
        self.lock().standby = ruleset.clone();
        Ok(())
    }

    fn interference(&mut self) -> Vec<Interference> {
        std::mem::take(&mut self.lock().interference)
    }
}

/// The name of the object that the operation is on; of a rule, its chain's; of a table, its own.
fn object(op: &Op) -> &Name {
    op.object().unwrap_or(&op.table().name)
}

fn refused(index: usize, op: &Op, errno: i32) -> DataplaneError {
    DataplaneError::Refused {
        operation: op.to_string(),
        index: Some(index),
        source: io::Error::from_raw_os_error(errno),
    }
}

fn unreachable(doing: &'static str, errno: i32) -> DataplaneError {
    DataplaneError::Unreachable {
        doing,
        source: io::Error::from_raw_os_error(errno),
    }
}
