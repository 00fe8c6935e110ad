//! Transactions into the kernel: one after the other, each encoded while the one before it is carried out.

use std::io;
use std::sync::mpsc;
use std::thread;

use nftnl::nftnl_sys::libc;

use super::batch::{self, Batch, Unsayable};
use super::socket::Socket;
use super::{request, wire};
use crate::dataplane::{Committed, DataplaneError};
use crate::transaction::Transaction;

/// How many batches wait, encoded, for the one that is carried out.
const WAITING: usize = 4;

/// Encodes a transaction with the sequence numbers that come after `seq`.
pub(super) fn encode(seq: &mut u32, transaction: &Transaction) -> Result<Batch, DataplaneError> {
    if *seq > u32::MAX / 2 {
        *seq = 0;
    }
    let unsayable = |Unsayable { index, reason }| DataplaneError::Refused {
        operation: transaction
            .ops
            .get(index)
            .map(batch::describe)
            .unwrap_or_default(),
        index: Some(index),
        source: reason,
    };
    let batch = Batch::encode(transaction, *seq + 1).map_err(unsayable)?;
    if batch.messages > 0 {
        *seq = batch.last_seq() + 1;
    }
    Ok(batch)
}

/// Sends a batch, and waits for its outcome.
pub(super) fn carry_out(
    socket: &mut Socket,
    batch: &Batch,
    transaction: &Transaction,
) -> Result<(), DataplaneError> {
    socket.drain();
    socket.send(&batch.bytes)?;
    outcome(socket, batch, transaction)
}

/// What was carried out of several transactions, and which failed, if one did.
pub(super) type InTurn = (Committed, Result<(), (usize, DataplaneError)>);

/// Carries them out one after the other, until one fails. While one is carried out another thread encodes the next.
pub(super) fn in_turn(socket: &mut Socket, seq: &mut u32, transactions: &[Transaction]) -> InTurn {
    let beside = thread::scope(|scope| {
        let (give, batches) = mpsc::sync_channel(WAITING);
        let seq = &mut *seq;
        let encoder = move || {
            for transaction in transactions {
                // Nobody takes any more once one has failed.
                if give.send(encode(seq, transaction)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("encoder".to_owned());
        thread.spawn_scoped(scope, encoder).ok()?;
        Some(each(socket, batches.into_iter(), transactions))
    });
    // Where no thread is to be had, they are encoded in turn, too.
    beside.unwrap_or_else(|| {
        let batches = transactions.iter();
        let batches = batches.map(|transaction| encode(seq, transaction));
        each(socket, batches, transactions)
    })
}

fn each(
    socket: &mut Socket,
    batches: impl Iterator<Item = Result<Batch, DataplaneError>>,
    transactions: &[Transaction],
) -> InTurn {
    let mut committed = Committed::default();
    for (at, (batch, transaction)) in batches.zip(transactions).enumerate() {
        let outcome = batch.and_then(|batch| {
            if batch.messages > 0 {
                carry_out(socket, &batch, transaction)?;
                committed += Committed::of(&batch);
            }
            Ok(())
        });
        if let Err(error) = outcome {
            return (committed, Err((at, error)));
        }
    }
    (committed, Ok(()))
}

impl Committed {
    /// That this batch was carried out.
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            batches: 1,
            messages: batch.messages,
            bytes: batch.bytes.len(),
        }
    }
}

/// Waits for the outcome of a batch that has been sent.
fn outcome(
    socket: &mut Socket,
    batch: &Batch,
    transaction: &Transaction,
) -> Result<(), DataplaneError> {
    let mut first: Option<(u32, i32)> = None;
    let mut lost = false;
    loop {
        let datagram = match socket.receive() {
            Ok(datagram) => datagram,
            Err(error) => {
                // Answers come in order, so the first is there even when later ones had no room.
                lost |= error.raw_os_error() == Some(libc::ENOBUFS);
                match first {
                    Some((seq, errno)) => return Err(refused(batch, transaction, seq, errno)),
                    None if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                    None => {
                        return Err(DataplaneError::Unreachable {
                            doing: "waiting for the kernel's acknowledgement",
                            source: error,
                        });
                    }
                }
            }
        };
        for message in wire::messages(datagram) {
            let message = message.map_err(|reason| request::malformed("a transaction", &reason))?;
            let seq = message.seq();
            if message.kind() != libc::NLMSG_ERROR as u16 || !batch.contains(seq) {
                continue;
            }
            let errno = message.error();
            if errno != 0 {
                first.get_or_insert((seq, errno));
            }
            // The last message's answer ends all others; one about the batch itself may be the only one.
            let end = seq == batch.last_seq() || seq == batch.first_seq || lost;
            match first {
                Some((seq, errno)) if end => {
                    return Err(refused(batch, transaction, seq, errno));
                }
                None if end => return Ok(()),
                _ => {}
            }
        }
    }
}

/// The error for the kernel's refusal of the message with this number.
fn refused(batch: &Batch, transaction: &Transaction, seq: u32, errno: i32) -> DataplaneError {
    let index = batch.op_of(seq);
    let source = io::Error::from_raw_os_error(errno);
    match index.and_then(|index| transaction.ops.get(index)) {
        Some(op) => DataplaneError::Refused {
            // Permission itself is asked of the batch as a whole (`nft_table_lookup`).
            operation: match errno {
                libc::EPERM => format!(
                    "{}, which belongs to another process as long as that runs",
                    batch::describe(op)
                ),
                _ => batch::describe(op),
            },
            index,
            source,
        },
        None => match errno {
            libc::EPERM | libc::EOPNOTSUPP => request::refusal(errno),
            // Another change came between; the batch was not carried out.
            libc::ERESTART | libc::EINTR => DataplaneError::Interrupted { attempts: 1 },
            _ => DataplaneError::Refused {
                operation: "carry out the transaction".to_owned(),
                index: None,
                source,
            },
        },
    }
}
