//! News of what others do to nftables.
//!
//! The kernel sends each object that a transaction changes, then one NEWGEN message that names the process
//! (`nf_tables_commit`). While anyone listens to them a transaction of a million elements takes 60 times as long, so the
//! group is left for the time of a large one of ours, and the generation says whether anything was missed.

use std::os::fd::{AsFd, BorrowedFd};

use nftnl::nftnl_sys::libc;

use super::objects::family_of;
use super::read::{CHAIN_NAME_ATTR, GENERATION_ATTR, RULE_CHAIN_ATTR, SET_ATTR, TABLE_ATTR};
use super::socket::Socket;
use super::wire::{self, Message};
use crate::dataplane::{DataplaneError, Interference, Parts, Process, Touched};
use crate::name::Name;
use crate::ruleset::TableId;

/// `NFTA_GEN_PROC_PID`.
const PROCESS_ID_ATTR: u16 = 2;
/// `NFTA_GEN_PROC_NAME`.
const PROCESS_NAME_ATTR: u16 = 3;

/// Room for the news of one foreign transaction: a flush of tables with 8,000 rules tells of each, and in the end of the
/// process, which would be lost with the rest. It is memory only while they wait; the kernel takes it twice.
const ROOM: usize = 4 * 1024 * 1024;

/// Listens for changes of some tables that are not made through one port.
pub(super) struct Monitor {
    socket: Socket,
    tables: Vec<TableId>,
    /// The port whose changes are our own.
    own: u32,
    /// What of the transaction that is being told concerns us.
    touched: Touched,
    /// Whether something may have gone unheard.
    missed: bool,
}

impl Monitor {
    /// Begins to listen, in the calling thread's network namespace.
    pub(super) fn open(tables: Vec<TableId>, own: u32) -> Result<Self, DataplaneError> {
        let socket = Socket::open()?;
        socket.make_room(ROOM);
        let monitor = Self {
            socket,
            tables,
            own,
            touched: Touched::default(),
            missed: false,
        };
        monitor.listen()?;
        Ok(monitor)
    }

    /// Listens (again).
    pub(super) fn listen(&self) -> Result<(), DataplaneError> {
        self.socket.join(libc::NFNLGRP_NFTABLES)
    }

    /// Listens no more, until the next [`Monitor::listen`]. What has been heard stays to be read.
    pub(super) fn pause(&self) -> Result<(), DataplaneError> {
        self.socket.leave(libc::NFNLGRP_NFTABLES)
    }

    /// Takes note that something may have gone unheard.
    pub(super) fn miss(&mut self) {
        self.missed = true;
    }

    /// What has been heard since the last call; it does not wait. As soon as others are heard to delete anything of the
    /// tables, `alarm` is called, once, before the rest of it is heard.
    pub(super) fn heard(&mut self, alarm: impl FnOnce()) -> Vec<Interference> {
        let mut heard = Vec::new();
        let mut alarm = Some(alarm);
        loop {
            let (tables, touched, own) = (&self.tables, &mut self.touched, self.own);
            match self.socket.receive_now() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for message in wire::messages(datagram) {
                        match message {
                            Ok(message) if message.port() == own => {}
                            Ok(message) => {
                                if deletes(&message, tables)
                                    && let Some(alarm) = alarm.take()
                                {
                                    alarm();
                                }
                                heard.extend(take(message, tables, touched));
                            }
                            Err(_) => self.missed = true,
                        }
                    }
                }
                // Some had no room. Those that had must be taken all the same: while there are any, more get lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.missed = true,
                Err(_) => {
                    self.missed = true;
                    break;
                }
            }
        }
        if std::mem::take(&mut self.missed) {
            heard.push(Interference::Unheard);
        }
        heard
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a message tells that something of these tables is deleted, or one of them.
fn deletes(message: &Message<'_>, tables: &[TableId]) -> bool {
    let [operation, subsystem] = message.kind().to_le_bytes();
    let deletions = [
        libc::NFT_MSG_DELTABLE,
        libc::NFT_MSG_DELCHAIN,
        libc::NFT_MSG_DELRULE,
        libc::NFT_MSG_DELSET,
        libc::NFT_MSG_DELSETELEM,
        libc::NFT_MSG_DELOBJ,
    ];
    i32::from(subsystem) == libc::NFNL_SUBSYS_NFTABLES
        && deletions.contains(&operation.into())
        && table_of(message).is_some_and(|table| tables.contains(&table))
}

/// The table that a message is about.
fn table_of(message: &Message<'_>) -> Option<TableId> {
    let family = family_of(message.family()?)?;
    let name = message.attrs().find(TABLE_ATTR).ok().flatten()?;
    let name = Name::new(&name.text()).ok()?;
    Some(TableId { family, name })
}

/// Takes one message in; the last one of a transaction that touched a table of ours gives what it comes to.
pub(super) fn take(
    message: Message<'_>,
    tables: &[TableId],
    touched: &mut Touched,
) -> Option<Interference> {
    let [operation, subsystem] = message.kind().to_le_bytes();
    if i32::from(subsystem) != libc::NFNL_SUBSYS_NFTABLES {
        return None;
    }
    let attribute = |kind| message.attrs().find(kind).ok().flatten();
    if i32::from(operation) != libc::NFT_MSG_NEWGEN {
        let id = table_of(&message)?;
        if tables.contains(&id) {
            let named = |kind| Name::new(&attribute(kind)?.text()).ok();
            let parts = match i32::from(operation) {
                // Of a chain that is renamed nothing but its new name is told (`nf_tables_updchain`): what looks like a
                // new one may be one that is missed.
                libc::NFT_MSG_NEWCHAIN => None,
                libc::NFT_MSG_DELCHAIN => named(CHAIN_NAME_ATTR).map(Parts::chain),
                libc::NFT_MSG_NEWRULE | libc::NFT_MSG_DELRULE => {
                    named(RULE_CHAIN_ATTR).map(Parts::chain)
                }
                libc::NFT_MSG_NEWSET
                | libc::NFT_MSG_DELSET
                | libc::NFT_MSG_NEWSETELEM
                | libc::NFT_MSG_DELSETELEM => named(SET_ATTR).map(Parts::set),
                _ => None,
            };
            // What has no place among the values is told of its table only.
            let tables = [(id, parts.unwrap_or(Parts::All))].into();
            touched.join(Touched { tables });
        }
        return None;
    }
    attribute(GENERATION_ATTR)?;
    let touched = std::mem::take(touched);
    let id = attribute(PROCESS_ID_ATTR).and_then(|attr| attr.u32().ok());
    let by = id.map(|id| Process {
        id,
        name: attribute(PROCESS_NAME_ATTR)
            .map(|attr| attr.text())
            .unwrap_or_default(),
    });
    (!touched.tables.is_empty()).then_some(Interference::Changed { touched, by })
}

/// The generation once so many transactions have been carried out after this one.
pub(super) fn generation_after(before: u32, transactions: usize) -> u32 {
    // The kernel skips 0 (`nf_tables_commit`).
    let after = u64::from(before) + transactions as u64;
    let last = u64::from(u32::MAX);
    u32::try_from(after.saturating_sub(1) % last + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::generation_after;

    #[test]
    fn no_generation_is_called_0() {
        assert_eq!(generation_after(7, 0), 7);
        assert_eq!(generation_after(7, 3), 10);
        assert_eq!(generation_after(u32::MAX - 1, 1), u32::MAX);
        assert_eq!(generation_after(u32::MAX, 1), 1);
        assert_eq!(generation_after(u32::MAX - 1, 4), 3);
    }
}
