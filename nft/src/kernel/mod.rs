//! The kernel as a dataplane: transactions and rulesets over netlink.
//!
//! ```text
//!  Transaction ── batch ─┬─ encode (rules → expressions), objects ── ffi (libnftnl) ─┐
//!                        └─ elements (keys → attributes) ─────────── wire ───────────┴─ socket ── kernel
//!  Ruleset ────── read ──┬─ decode (expressions → rules) ─────────── ffi (libnftnl) ─┬─ request ────┘
//!                        └─ elements, described (attributes → keys) ─ wire ──────────┘
//! ```
//!
//! A transaction is one batch in one `sendmsg`; the kernel carries it out whole or not at all, within that call. All
//! unsafe code is in `ffi`.

mod batch;
mod commit;
pub(crate) mod conntrack;
mod decode;
mod described;
mod elements;
mod encode;
mod expr;
#[allow(unsafe_code)]
mod ffi;
mod monitor;
mod objects;
mod read;
#[cfg(any(test, feature = "recording"))]
pub(crate) mod recording;
mod request;
mod socket;
mod standby;
mod survey;
mod userdata;
mod wire;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nftnl::nftnl_sys::libc;

use crate::dataplane::{Committed, Dataplane, DataplaneError, Interference, Parts, Touched};
use crate::name::Name;
use crate::ruleset::{Family, Ruleset, TableId};
use crate::survey::Survey;
use crate::transaction::{Op, Transaction};
use monitor::Monitor;
use read::Reader;
use request::Fault;
use socket::Socket;
use standby::Standby;

/// How often a read that changes interrupt is begun again, and how long it waits before, times the attempt.
const READ_ATTEMPTS: u32 = 10;
const READ_PAUSE: Duration = Duration::from_millis(2);

/// A batch of so many bytes is carried out while nobody listens: each of its elements would be told, and of more than
/// some 1,500 the socket may have no room for the news (212,992 bytes on every Linux, where no more is permitted); then all
/// would have to be read back.
const LARGE_BATCH: usize = 16 * 1024;

/// The nftables of the network namespace in which it was opened.
pub struct Kernel {
    socket: Socket,
    /// The last sequence number used.
    seq: u32,
    monitor: Option<Monitor>,
    standby: Standby,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("port_id", &self.port_id())
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens the nftables of the calling thread's network namespace and asks them for their generation, so that a
    /// missing permission or kernel part is known at once. The namespace stays the same wherever the value is used.
    ///
    /// # Errors
    /// [`DataplaneError::Unreachable`] when there is no netlink socket, no capability NET_ADMIN or no nf_tables.
    pub fn open() -> Result<Self, DataplaneError> {
        let mut kernel = Self {
            socket: Socket::open()?,
            seq: 0,
            monitor: None,
            standby: Standby::default(),
        };
        kernel.generation()?;
        Ok(kernel)
    }

    /// The socket's port, by which notifications of our own changes are known.
    pub fn port_id(&self) -> u32 {
        self.socket.port_id()
    }

    /// The generation of the namespace's nftables: each commit, of anyone to any table, advances it.
    ///
    /// # Errors
    /// [`DataplaneError`] when the kernel does not answer.
    pub fn generation(&mut self) -> Result<u32, DataplaneError> {
        self.reader().generation()
    }

    /// Begins to listen for what others do to these tables, for [`Dataplane::interference`]. It must be called in the
    /// network namespace that the value was opened in.
    ///
    /// # Errors
    /// [`DataplaneError::Unreachable`] when the kernel's notifications can't be had.
    pub fn listen(&mut self, tables: Vec<TableId>) -> Result<(), DataplaneError> {
        self.monitor = Some(Monitor::open(tables, self.port_id())?);
        Ok(())
    }

    /// What becomes readable when there is interference to be taken, once [`Kernel::listen`] was called.
    pub fn news(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(AsFd::as_fd)
    }

    /// Reads what everyone's tables hold, of all families, as far as a [`Survey`] tells it.
    ///
    /// # Errors
    /// [`DataplaneError`] when it can't be read, or keeps changing.
    pub fn survey(&mut self) -> Result<Survey, DataplaneError> {
        repeated(|| survey::survey(&mut self.reader()))
    }

    fn reader(&mut self) -> Reader<'_> {
        Reader {
            channel: &mut self.socket,
            seq: &mut self.seq,
        }
    }

    /// Reads what was touched if nothing changes meanwhile.
    fn reread_once(&mut self, known: &Ruleset, touched: &Touched) -> Result<Ruleset, Fault> {
        let mut reader = self.reader();
        let before = reader.generation()?;
        let mut ruleset = known.clone();
        for (id, parts) in &touched.tables {
            let read = match (known.tables.get(id), parts) {
                (Some(known), Parts::These { chains, sets }) => {
                    reader.parts(id, known, chains, sets)?
                }
                _ => reader.table(id)?,
            };
            match read {
                Some(table) => ruleset.tables.insert(id.clone(), Arc::new(table)),
                None => ruleset.tables.remove(id),
            };
        }
        match reader.generation()? == before {
            true => Ok(ruleset),
            false => Err(Fault::Changed),
        }
    }

    /// Does what commits while nobody here listens to what the kernel would tell of each element. `work` gives how many
    /// transactions were carried out, and what it comes to.
    fn unheard<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> (usize, T),
    ) -> Result<T, DataplaneError> {
        let before = self.generation()?;
        if let Some(monitor) = &self.monitor {
            monitor.pause()?;
        }
        let (committed, outcome) = work(self);
        if let Some(monitor) = &self.monitor {
            monitor.listen()?;
        }
        let after = self.generation()?;
        if let Some(monitor) = &mut self.monitor
            && after != monitor::generation_after(before, committed)
        {
            monitor.miss();
        }
        Ok(outcome)
    }
}

/// Reads until nothing changes meanwhile.
fn repeated<T>(mut read: impl FnMut() -> Result<T, Fault>) -> Result<T, DataplaneError> {
    for attempt in 1..=READ_ATTEMPTS {
        match read() {
            Ok(read) => return Ok(read),
            Err(Fault::Failed(error)) => return Err(error),
            Err(Fault::Changed) => thread::sleep(READ_PAUSE * attempt),
        }
    }
    Err(DataplaneError::Interrupted {
        attempts: READ_ATTEMPTS,
    })
}

impl Dataplane for Kernel {
    /// The kernel is asked to check a transaction that makes such a table, and not to carry it out.
    fn can_own(&mut self) -> Result<bool, DataplaneError> {
        let name = format!("selvedge-trial-{}", self.port_id());
        let name = Name::new(&name).map_err(|error| DataplaneError::Malformed {
            object: "the name of a table".to_owned(),
            reason: error.to_string(),
        })?;
        let add = Op::AddTable {
            table: TableId {
                family: Family::Inet,
                name,
            },
            comment: None,
            owned: true,
        };
        let transaction = Transaction { ops: vec![add] };
        let trial = commit::encode(&mut self.seq, &transaction)?.trial();
        match commit::carry_out(&mut self.socket, &trial, &transaction) {
            Ok(()) => Ok(true),
            Err(DataplaneError::Refused { source, .. })
                if [Some(libc::EOPNOTSUPP), Some(libc::EINVAL)]
                    .contains(&source.raw_os_error()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        repeated(|| self.reader().ruleset(tables))
    }

    fn reread(&mut self, known: &Ruleset, touched: &Touched) -> Result<Ruleset, DataplaneError> {
        repeated(|| self.reread_once(known, touched))
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError> {
        let batch = commit::encode(&mut self.seq, transaction)?;
        if batch.messages == 0 {
            return Ok(Committed::default());
        }
        match batch.bytes.len() > LARGE_BATCH && self.monitor.is_some() {
            true => self.unheard(|kernel| {
                let outcome = commit::carry_out(&mut kernel.socket, &batch, transaction);
                (usize::from(outcome.is_ok()), outcome)
            })??,
            false => commit::carry_out(&mut self.socket, &batch, transaction)?,
        }
        Ok(Committed::of(&batch))
    }

    fn commit_in_turn(
        &mut self,
        transactions: &[Transaction],
    ) -> Result<Committed, (usize, DataplaneError)> {
        if let [transaction] = transactions {
            return self.commit(transaction).map_err(|error| (0, error));
        }
        let (committed, outcome) = self
            .unheard(|kernel| {
                let in_turn = commit::in_turn(&mut kernel.socket, &mut kernel.seq, transactions);
                (in_turn.0.batches, in_turn)
            })
            .map_err(|error| (0, error))?;
        outcome.map(|()| committed)
    }

    fn stand_by(&mut self, ruleset: &Ruleset) -> Result<(), DataplaneError> {
        self.standby = Standby::default();
        self.standby = Standby::new(ruleset, &mut self.seq)?;
        Ok(())
    }

    fn interference(&mut self) -> Vec<Interference> {
        let Some(monitor) = &mut self.monitor else {
            return Vec::new();
        };
        let (standby, socket, seq) = (&self.standby, &mut self.socket, &mut self.seq);
        let mut made = BTreeSet::new();
        let mut heard = monitor.heard(|| made = standby.step_in(socket, seq));
        if !heard.is_empty() {
            // It may have been a second time since then, or have gone unheard.
            made.extend(standby.step_in(socket, seq));
        }
        if !made.is_empty() {
            heard.push(Interference::Replaced {
                tables: made.into_iter().collect(),
            });
        }
        heard
    }
}
