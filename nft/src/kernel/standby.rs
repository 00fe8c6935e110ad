//! Tables that are made anew as soon as others delete them, before anything is known but that they are gone.
//!
//! Whoever deletes a table of many elements keeps everyone else from committing until the kernel has freed them: a fifth
//! of a second for a million, from the moment on that its socket is closed (`nft_rcv_nl_event`). Some hundred
//! microseconds before, the kernel tells of what it deletes. So what is to be there then is encoded beforehand.

use std::collections::BTreeSet;

use super::batch::Batch;
use super::commit;
use super::read::Reader;
use super::socket::Socket;
use crate::dataplane::DataplaneError;
use crate::diff::diff;
use crate::ruleset::{Ruleset, TableId};
use crate::transaction::Transaction;

/// All of some tables, and what makes them where none of them is.
struct Prepared {
    tables: BTreeSet<TableId>,
    transaction: Transaction,
    batch: Batch,
}

/// What stands by.
#[derive(Default)]
pub(super) struct Standby {
    tables: BTreeSet<TableId>,
    prepared: Vec<Prepared>,
}

impl Standby {
    /// Encodes what makes all of these tables, and what makes each alone.
    pub(super) fn new(ruleset: &Ruleset, seq: &mut u32) -> Result<Self, DataplaneError> {
        let alone = ruleset.tables.iter();
        let alone = alone.map(|(id, table)| Ruleset {
            tables: [(id.clone(), table.clone())].into_iter().collect(),
        });
        let together = (ruleset.tables.len() > 1).then(|| ruleset.clone());
        let prepared = together.into_iter().chain(alone).map(|ruleset| {
            let transaction = diff(&Ruleset::default(), &ruleset);
            Ok(Prepared {
                tables: ruleset.tables.keys().cloned().collect(),
                batch: commit::encode(seq, &transaction)?,
                transaction,
            })
        });
        Ok(Self {
            prepared: prepared.collect::<Result<_, _>>()?,
            tables: ruleset.tables.keys().cloned().collect(),
        })
    }

    /// Makes those of the tables that are gone, and says which. Where that fails it is left to whoever repairs the rest.
    pub(super) fn step_in(&self, socket: &mut Socket, seq: &mut u32) -> BTreeSet<TableId> {
        let mut gone = self.tables.clone();
        gone.retain(|table| {
            let channel = &mut *socket;
            let exists = Reader { channel, seq }.exists(table);
            matches!(exists, Ok(false))
        });
        let mut prepared = self.prepared.iter();
        let Some(prepared) = prepared.find(|prepared| prepared.tables == gone) else {
            return BTreeSet::new();
        };
        let Prepared {
            batch, transaction, ..
        } = prepared;
        match commit::carry_out(socket, batch, transaction) {
            Ok(()) => gone,
            Err(_) => BTreeSet::new(),
        }
    }
}
