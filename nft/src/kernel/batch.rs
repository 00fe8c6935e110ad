//! A transaction as one buffer of netlink messages, and which operation each message belongs to.

use std::io;

use nftnl::nftnl_sys::libc;

use super::elements::{self, Change};
use super::encode;
use super::ffi::{self, Object, Scratch};
use super::objects::{
    TABLE_OWNED, chain_object, comment_data, counter_object, family_number, rule_object,
    set_object, table_object,
};
use super::wire::{self, Header, NFT_HEADER, nft_message};
use crate::name::Name;
use crate::ruleset::{Elements, SetHeader, TableId};
use crate::transaction::{Op, Transaction};

/// The longest message of a rule. The kernel takes one of 64 KiB, but ends a dump without a word at a rule that does not
/// fit the 32 KiB of a dump's datagram, where it has counters, a handle and more besides what was sent.
const MAX_RULE_BYTES: usize = 16 * 1024;

/// A transaction's messages.
pub(super) struct Batch {
    /// All of them, from the batch's begin to its end.
    pub bytes: Vec<u8>,
    /// How many, without begin and end.
    pub messages: usize,
    /// The sequence number of the batch's begin; the messages' follow it one by one.
    pub first_seq: u32,
    /// For each operation, the sequence number of its first message (or of the next operation's, if it has none).
    op_seqs: Vec<u32>,
}

/// An operation that can't be said in netlink.
#[derive(Debug)]
pub(super) struct Unsayable {
    /// Its index in the transaction.
    pub index: usize,
    /// Why.
    pub reason: io::Error,
}

impl Batch {
    /// Encodes a transaction; `first_seq` and the numbers after it are the batch's.
    pub(super) fn encode(transaction: &Transaction, first_seq: u32) -> Result<Self, Unsayable> {
        let mut encoder = Encoder {
            out: Vec::with_capacity(4096),
            scratch: Scratch::new(),
            seq: first_seq,
            set_id: 0,
            last: None,
        };
        encoder.edge(libc::NFNL_MSG_BATCH_BEGIN as u16);
        let mut op_seqs = Vec::with_capacity(transaction.ops.len());
        for (index, op) in transaction.ops.iter().enumerate() {
            op_seqs.push(encoder.seq);
            encoder
                .op(op)
                .map_err(|reason| Unsayable { index, reason })?;
        }
        let messages = (encoder.seq - first_seq - 1) as usize;
        if let Some(last) = encoder.last {
            // One acknowledgement is enough to know the outcome: errors come unasked, and before it.
            wire::add_flags(&mut encoder.out, last, libc::NLM_F_ACK as u16);
        }
        encoder.edge(libc::NFNL_MSG_BATCH_END as u16);
        Ok(Self {
            bytes: encoder.out,
            messages,
            first_seq,
            op_seqs,
        })
    }

    /// The batch without its end: the kernel checks all of it, answers, and carries nothing out (`nfnetlink_rcv_batch`).
    pub(super) fn trial(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() - NFT_HEADER);
        self
    }

    /// The sequence number of the last message before the batch's end: the one that is acknowledged.
    pub(super) fn last_seq(&self) -> u32 {
        self.first_seq + self.messages as u32
    }

    /// Whether this is the number of one of the batch's messages, its begin included.
    pub(super) fn contains(&self, seq: u32) -> bool {
        (self.first_seq..=self.last_seq()).contains(&seq)
    }

    /// The operation that the message with this number belongs to; `None` for the batch's begin.
    pub(super) fn op_of(&self, seq: u32) -> Option<usize> {
        self.op_seqs
            .partition_point(|first| *first <= seq)
            .checked_sub(1)
    }
}

struct Encoder {
    out: Vec<u8>,
    scratch: Scratch,
    /// The next message's sequence number.
    seq: u32,
    /// The last set's number within the batch.
    set_id: u32,
    /// Where the last message before the batch's end begins.
    last: Option<usize>,
}

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;

impl Encoder {
    /// The batch's begin or end.
    fn edge(&mut self, kind: u16) {
        let header = Header {
            kind,
            flags: 0,
            family: libc::AF_UNSPEC as u8,
            seq: self.seq,
            resource: libc::NFNL_SUBSYS_NFTABLES as u16,
        };
        let start = wire::begin_message(&mut self.out, header);
        wire::end_message(&mut self.out, start);
        self.seq += 1;
    }

    fn header(&self, table: &TableId, operation: libc::c_int, flags: u16) -> Header {
        Header {
            kind: nft_message(operation),
            flags,
            family: family_number(table.family),
            seq: self.seq,
            resource: 0,
        }
    }

    fn push<K: ffi::Kind>(
        &mut self,
        mut object: Object<K>,
        table: &TableId,
        operation: libc::c_int,
        flags: u16,
    ) {
        let mut header = self.header(table, operation, flags);
        header.flags |= libc::NLM_F_REQUEST as u16;
        self.last = Some(object.append(&mut self.out, &mut self.scratch, header));
        self.seq += 1;
    }

    fn op(&mut self, op: &Op) -> io::Result<()> {
        match op {
            Op::AddTable {
                table,
                comment,
                owned,
            } => {
                let mut object = table_object(table)?;
                let flags = if *owned { TABLE_OWNED } else { 0 };
                object.set_u32(ffi::table::FLAGS, flags);
                if let Some(data) = comment_data(comment.as_ref())? {
                    object.set_bytes(ffi::table::USER_DATA, &data)?;
                }
                self.push(object, table, libc::NFT_MSG_NEWTABLE, CREATE);
            }
            Op::AdoptTable { table } => {
                let mut object = table_object(table)?;
                object.set_u32(ffi::table::FLAGS, TABLE_OWNED);
                self.push(object, table, libc::NFT_MSG_NEWTABLE, 0);
            }
            Op::DeleteTable { table } => {
                self.push(table_object(table)?, table, libc::NFT_MSG_DELTABLE, 0);
            }
            Op::AddCounter {
                table,
                name,
                counter,
            } => {
                let mut object = counter_object(table, name)?;
                if let Some(data) = comment_data(counter.comment.as_ref())? {
                    object.set_bytes(ffi::stateful::USER_DATA, &data)?;
                }
                self.push(object, table, libc::NFT_MSG_NEWOBJ, CREATE);
            }
            Op::DeleteCounter { table, name } => {
                let object = counter_object(table, name)?;
                self.push(object, table, libc::NFT_MSG_DELOBJ, 0);
            }
            Op::AddSet {
                table,
                name,
                header,
                kind,
                size,
            } => {
                self.set_id += 1;
                let mut object = set_object(table, name, header, kind, self.set_id)?;
                if let Some(size) = size {
                    object.set_u32(ffi::set::SIZE, *size);
                }
                self.push(object, table, libc::NFT_MSG_NEWSET, CREATE);
            }
            Op::DeleteSet { table, name } => {
                let mut object = Object::<ffi::Set>::new()?;
                object.set_text(ffi::set::TABLE, table.name.as_str())?;
                object.set_text(ffi::set::NAME, name.as_str())?;
                self.push(object, table, libc::NFT_MSG_DELSET, 0);
            }
            Op::AddElements {
                table,
                name,
                header,
                elements,
            } => {
                let message = self.header(table, libc::NFT_MSG_NEWSETELEM, CREATE);
                self.elements(message, (&table.name, name), header, elements, Change::Add)?;
            }
            Op::DeleteElements {
                table,
                name,
                header,
                elements,
            } => {
                let message = self.header(table, libc::NFT_MSG_DELSETELEM, 0);
                let names = (&table.name, name);
                self.elements(message, names, header, elements, Change::Delete)?;
            }
            Op::AddChain {
                table,
                name,
                base,
                comment,
            } => {
                let object = chain_object(table, name, *base, comment.as_ref())?;
                self.push(object, table, libc::NFT_MSG_NEWCHAIN, CREATE);
            }
            Op::DeleteChain { table, name } => {
                let object = chain_object(table, name, None, None)?;
                self.push(object, table, libc::NFT_MSG_DELCHAIN, 0);
            }
            Op::FlushChain { table, name } => {
                let object = rule_object(table, name)?;
                self.push(object, table, libc::NFT_MSG_DELRULE, 0);
            }
            Op::AddRule { table, chain, rule } => {
                let mut object = rule_object(table, chain)?;
                for expr in encode::rule(table.family, rule)? {
                    object.push(&expr)?;
                }
                if let Some(data) = comment_data(rule.comment.as_ref())? {
                    object.set_bytes(ffi::rule::USER_DATA, &data)?;
                }
                self.push(object, table, libc::NFT_MSG_NEWRULE, APPEND);
                if self.out.len() - self.last.unwrap_or(0) > MAX_RULE_BYTES {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "the rule is longer than the kernel can give back",
                    ));
                }
            }
        }
        Ok(())
    }

    fn elements(
        &mut self,
        message: Header,
        names: (&Name, &Name),
        header: &SetHeader,
        elements: &Elements,
        change: Change,
    ) -> io::Result<()> {
        // An element has 16 bytes of attributes besides a key, a range has two of them.
        self.out.reserve(elements.len().saturating_mul(24));
        let starts = elements::encode(&mut self.out, message, names, header, elements, change)?;
        self.seq += starts.len() as u32;
        self.last = starts.last().copied().or(self.last);
        Ok(())
    }
}

/// An operation in words, after "refused to". A rule's own text may be long, so its comment stands for it.
pub(super) fn describe(op: &Op) -> String {
    match op {
        Op::AddRule { table, chain, rule } => match &rule.comment {
            Some(comment) => format!("add rule \"{comment}\" to chain {table} {chain}"),
            None => format!("add a rule to chain {table} {chain}"),
        },
        _ => op.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::ruleset::Family;
    use crate::value::{Datatype, Key};
    use std::net::Ipv4Addr;

    #[test]
    fn each_message_is_known_by_its_operation() {
        let table = TableId {
            family: Family::Inet,
            name: Name::new("t").unwrap(),
        };
        let set = Name::new("s").unwrap();
        let elements = |count: u32| Op::AddElements {
            table: table.clone(),
            name: set.clone(),
            header: SetHeader {
                key: vec![Datatype::Ipv4Addr],
                comment: None,
            },
            elements: Elements::Keys((0..count).map(|n| Key::from(Ipv4Addr::from(n))).collect()),
        };
        let delete = Op::DeleteTable {
            table: table.clone(),
        };
        let ops = vec![elements(0), elements(10_000), elements(0), delete];
        let batch = Batch::encode(&Transaction { ops }, 100).unwrap();

        // 10,000 elements of 16 bytes need three messages; none of the empty ones needs any.
        assert_eq!(batch.messages, 4);
        assert_eq!(batch.last_seq(), 104);
        assert_eq!(batch.op_of(100), None);
        let of: Vec<_> = (101..=104).map(|seq| batch.op_of(seq)).collect();
        assert_eq!(of, [Some(1), Some(1), Some(1), Some(3)]);
        let messages: Vec<_> = wire::messages(&batch.bytes)
            .collect::<Result<_, _>>()
            .unwrap();
        let seqs: Vec<_> = messages.iter().map(|message| message.seq()).collect();
        assert_eq!(seqs, [100, 101, 102, 103, 104, 105]);
        let acks = messages
            .iter()
            .filter(|message| message.flags() & libc::NLM_F_ACK as u16 != 0);
        assert_eq!(acks.map(|message| message.seq()).collect::<Vec<_>>(), [104]);
    }
}
