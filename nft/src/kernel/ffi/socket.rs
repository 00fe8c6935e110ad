//! libmnl's socket, with what the crate mnl has no safe form for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mnl::{Bus, Socket, mnl_sys};
use nftnl::nftnl_sys::libc;

/// A bound netlink socket for netfilter.
pub(in super::super) struct RawSocket(Socket);

// SAFETY: the socket is a plain allocation and a file descriptor, neither tied to the thread that made them; it is used
// through one owner at a time.
unsafe impl Send for RawSocket {}

impl RawSocket {
    /// Opens and binds it in the calling thread's network namespace.
    pub(in super::super) fn open() -> io::Result<Self> {
        Ok(Self(Socket::new(Bus::Netfilter)?))
    }

    /// Its port.
    pub(in super::super) fn port_id(&self) -> u32 {
        self.0.portid()
    }

    /// Sends all of `data` in one call.
    pub(in super::super) fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    /// Turns on a socket option of netlink's own (`NETLINK_*`).
    pub(in super::super) fn enable(&self, option: libc::c_int) -> io::Result<()> {
        self.set(option, 1)
    }

    /// Joins a multicast group (`NFNLGRP_*`).
    pub(in super::super) fn join(&self, group: libc::c_int) -> io::Result<()> {
        self.set(libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Leaves it.
    pub(in super::super) fn leave(&self, group: libc::c_int) -> io::Result<()> {
        self.set(libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    fn set(&self, option: libc::c_int, mut value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the socket is open, and `len` bytes are readable at `value`.
        let result = unsafe {
            mnl_sys::mnl_socket_setsockopt(
                self.0.as_raw_socket(),
                option,
                (&raw mut value).cast(),
                len,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket keeps the descriptor open while `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
