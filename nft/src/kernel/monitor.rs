//! News of what others do to nftables.
//!
//! The kernel sends each object that a transaction changes, then one NEWGEN message that names the process
//! (`nf_tables_commit`). While anyone listens to them a transaction of a million elements takes 60 times as long, so the
//! group is left for the time of a large one of ours, and the generation says whether anything was missed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use nftnl::nftnl_sys::libc;

use super::objects::family_of;
use super::read::{GENERATION_ATTR, TABLE_ATTR};
use super::socket::Socket;
use super::wire::{self, Message};
use crate::dataplane::{DataplaneError, Interference, Process};
use crate::name::Name;
use crate::ruleset::TableId;

/// `NFTA_GEN_PROC_PID`.
const PROCESS_ID_ATTR: u16 = 2;
/// `NFTA_GEN_PROC_NAME`.
const PROCESS_NAME_ATTR: u16 = 3;

/// Listens for changes of some tables that are not made through one port.
pub(super) struct Monitor {
    socket: Socket,
    tables: Vec<TableId>,
    /// The port whose changes are our own.
    own: u32,
    /// What of the transaction that is being told concerns us.
    touched: BTreeSet<TableId>,
    /// Whether something may have gone unheard.
    missed: bool,
}

impl Monitor {
    /// Begins to listen, in the calling thread's network namespace.
    pub(super) fn open(tables: Vec<TableId>, own: u32) -> Result<Self, DataplaneError> {
        let socket = Socket::open()?;
        let monitor = Self {
            socket,
            tables,
            own,
            touched: BTreeSet::new(),
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

    /// What has been heard since the last call; it does not wait.
    pub(super) fn heard(&mut self) -> Vec<Interference> {
        let mut heard = Vec::new();
        loop {
            let (tables, touched, own) = (&self.tables, &mut self.touched, self.own);
            match self.socket.receive_now() {
                Ok(None) => break,
                Ok(Some(datagram)) => {
                    for message in wire::messages(datagram) {
                        match message {
                            Ok(message) if message.port() == own => {}
                            Ok(message) => heard.extend(take(message, tables, touched)),
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

/// Takes one message in; the last one of a transaction that touched a table of ours gives what it comes to.
pub(super) fn take(
    message: Message<'_>,
    tables: &[TableId],
    touched: &mut BTreeSet<TableId>,
) -> Option<Interference> {
    let [operation, subsystem] = message.kind().to_le_bytes();
    if i32::from(subsystem) != libc::NFNL_SUBSYS_NFTABLES {
        return None;
    }
    let attribute = |kind| message.attrs().find(kind).ok().flatten();
    if i32::from(operation) != libc::NFT_MSG_NEWGEN {
        let family = family_of(message.family()?)?;
        let name = Name::new(&attribute(TABLE_ATTR)?.text()).ok()?;
        let id = TableId { family, name };
        if tables.contains(&id) {
            touched.insert(id);
        }
        return None;
    }
    attribute(GENERATION_ATTR)?;
    let tables: Vec<TableId> = std::mem::take(touched).into_iter().collect();
    let id = attribute(PROCESS_ID_ATTR).and_then(|attr| attr.u32().ok());
    let by = id.map(|id| Process {
        id,
        name: attribute(PROCESS_NAME_ATTR)
            .map(|attr| attr.text())
            .unwrap_or_default(),
    });
    (!tables.is_empty()).then_some(Interference::Changed { tables, by })
}

/// Whether nothing but one transaction of ours has happened between two generations.
pub(super) fn is_next(before: u32, after: u32) -> bool {
    // The kernel skips 0 (`nf_tables_commit`).
    let next = before.wrapping_add(1);
    after == if next == 0 { 1 } else { next }
}
