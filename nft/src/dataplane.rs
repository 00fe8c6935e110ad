//! What can hold a ruleset: the kernel, or the fake in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::AddAssign;

use nftnl::nftnl_sys::libc;

use crate::name::Name;
use crate::ruleset::{Ruleset, TableId};
use crate::transaction::{Op, Transaction};

/// A place that holds tables and carries out transactions.
pub trait Dataplane {
    /// Reads the tables named; one that does not exist is absent from the answer.
    ///
    /// The answer is one consistent state: a read that a change interrupted is repeated.
    ///
    /// # Errors
    /// [`DataplaneError`] when the state can't be read.
    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError>;

    /// Reads what others have touched of tables that were `known` before they did; all else is taken from there.
    ///
    /// # Errors
    /// [`DataplaneError`] when the state can't be read.
    fn reread(&mut self, known: &Ruleset, touched: &Touched) -> Result<Ruleset, DataplaneError> {
        let tables: Vec<TableId> = touched.tables.keys().cloned().collect();
        let mut read = self.read(&tables)?;
        let mut ruleset = known.clone();
        for id in &tables {
            match read.tables.remove(id) {
                Some(table) => ruleset.tables.insert(id.clone(), table),
                None => ruleset.tables.remove(id),
            };
        }
        Ok(ruleset)
    }

    /// Carries out the whole transaction, or nothing of it. An empty one sends nothing.
    ///
    /// # Errors
    /// [`DataplaneError::Refused`] names the first operation that was refused; nothing has changed then. After any
    /// other error the state is unknown and must be read back.
    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError>;

    /// Carries out the transactions one after the other, each of them whole or not at all. The first that fails ends it.
    ///
    /// # Errors
    /// That of the transaction that failed, as of [`Dataplane::commit`], with its index. Those before it are in force.
    fn commit_in_turn(
        &mut self,
        transactions: &[Transaction],
    ) -> Result<Committed, (usize, DataplaneError)> {
        let mut committed = Committed::default();
        for (at, transaction) in transactions.iter().enumerate() {
            committed += self.commit(transaction).map_err(|error| (at, error))?;
        }
        Ok(committed)
    }

    /// Whether it has tables that are [`Ownership::Own`](crate::Ownership::Own): the kernel since Linux 6.9.
    ///
    /// # Errors
    /// [`DataplaneError`] when it can't be asked.
    fn can_own(&mut self) -> Result<bool, DataplaneError> {
        Ok(false)
    }

    /// From now on tables of this ruleset that others delete are made anew, as they are in it, by
    /// [`Dataplane::interference`], before it tells of that. An earlier call counts no more.
    ///
    /// # Errors
    /// [`DataplaneError`] when it can't be prepared; then nothing stands by.
    fn stand_by(&mut self, _ruleset: &Ruleset) -> Result<(), DataplaneError> {
        Ok(())
    }

    /// What others have done to the tables that are listened for, since the last call. It waits for none, but
    /// for the kernel where it makes tables anew ([`Dataplane::stand_by`]).
    fn interference(&mut self) -> Vec<Interference> {
        Vec::new()
    }
}

/// What somebody else has done to tables that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interference {
    /// A transaction changed them.
    Changed {
        /// What of them.
        touched: Touched,
        /// Who did it, if the kernel says so.
        by: Option<Process>,
    },
    /// They were deleted, and are there again as in what stood by ([`Dataplane::stand_by`]).
    Replaced {
        /// These of them.
        tables: Vec<TableId>,
    },
    /// Something may have happened unheard: too much at once, or while nobody listened.
    Unheard,
}

/// What of some tables may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// By table; others are as they were.
    pub tables: BTreeMap<TableId, Parts>,
}

/// What of a table may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// Anything: it was made or deleted, or what it has no other place for here.
    All,
    /// These objects.
    These {
        /// Chains, or their rules.
        chains: BTreeSet<Name>,
        /// Sets and maps, or their elements.
        sets: BTreeSet<Name>,
    },
}

impl Touched {
    /// Adds what else may have changed.
    pub fn join(&mut self, other: Self) {
        for (id, parts) in other.tables {
            let known = self.tables.entry(id).or_insert_with(Parts::none);
            match (known, parts) {
                (
                    Parts::These { chains, sets },
                    Parts::These {
                        chains: more_chains,
                        sets: more_sets,
                    },
                ) => {
                    chains.extend(more_chains);
                    sets.extend(more_sets);
                }
                (Parts::All, _) => {}
                (known, Parts::All) => *known = Parts::All,
            }
        }
    }
}

impl Parts {
    pub(crate) fn none() -> Self {
        Self::These {
            chains: BTreeSet::new(),
            sets: BTreeSet::new(),
        }
    }

    pub(crate) fn chain(name: Name) -> Self {
        Self::These {
            chains: [name].into(),
            sets: BTreeSet::new(),
        }
    }

    pub(crate) fn set(name: Name) -> Self {
        Self::These {
            chains: BTreeSet::new(),
            sets: [name].into(),
        }
    }
}

/// A process, as the kernel names it in its notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, in the PID namespace of the kernel's choice.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
}

/// What it took to carry out a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// Batches.
    pub batches: usize,
    /// Netlink messages, without the batch's begin and end.
    pub messages: usize,
    /// Bytes of the batch.
    pub bytes: usize,
}

impl AddAssign for Committed {
    fn add_assign(&mut self, more: Self) {
        self.batches += more.batches;
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// Why a dataplane could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The kernel refused one operation, and so the whole transaction.
    #[error("the kernel refused to {operation}: {source}")]
    Refused {
        /// The operation and its object, in words.
        operation: String,
        /// The operation's index in the transaction, where it is known.
        index: Option<usize>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink socket can't be used: no permission, no nf_tables, no buffer.
    #[error("nftables can't be reached ({doing}): {source}")]
    Unreachable {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("the kernel's answer about {object} can't be read: {reason}")]
    Malformed {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state kept changing while it was read.
    #[error("the ruleset kept changing while it was read ({attempts} attempts)")]
    Interrupted {
        /// How often it was tried.
        attempts: u32,
    },
}

impl DataplaneError {
    /// The set for which it refused the transaction, if that is because it takes no more elements.
    pub fn full_set(&self, transaction: &Transaction) -> Option<(TableId, Name)> {
        match self {
            Self::Refused {
                index: Some(index),
                source,
                ..
            } if source.raw_os_error() == Some(libc::ENFILE) => {
                match transaction.ops.get(*index)? {
                    Op::AddElements { table, name, .. } => Some((table.clone(), name.clone())),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}
