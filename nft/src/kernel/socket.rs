//! The netlink socket: one call a batch, buffers that grow to fit, and answers from the kernel only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nftnl::nftnl_sys::libc;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockopt, recv, recvfrom, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::ffi::RawSocket;
use super::request::Channel;
use crate::dataplane::DataplaneError;

/// More than any datagram of a dump (the kernel's are up to 32 KiB) or acknowledgement has.
const RECEIVE_BYTES: usize = 256 * 1024;
/// The kernel answers before the call that asked returns; waiting longer means that no answer will come.
const ANSWER_SECONDS: i64 = 10;
/// What the kernel wants free of a send buffer besides the data (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;

pub(super) struct Socket {
    raw: RawSocket,
    send_buffer: usize,
    received: Vec<u8>,
}

fn unreachable(doing: &'static str) -> impl Fn(io::Error) -> DataplaneError {
    move |source| DataplaneError::Unreachable { doing, source }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, DataplaneError> {
        let raw = RawSocket::open().map_err(|source| {
            let doing = match source.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => "this kernel has no nfnetlink",
                _ => "opening a netlink socket",
            };
            DataplaneError::Unreachable { doing, source }
        })?;
        let set_up = unreachable("setting up the netlink socket");
        fcntl(raw.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|errno| set_up(errno.into()))?;
        // Without it each error would carry the message that it is about, up to 64 KiB of elements.
        raw.enable(libc::NETLINK_CAP_ACK).map_err(&set_up)?;
        let timeout = TimeVal::seconds(ANSWER_SECONDS);
        setsockopt(&raw, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| set_up(errno.into()))?;
        let send_buffer =
            getsockopt(&raw, sockopt::SndBuf).map_err(|errno| set_up(errno.into()))?;
        Ok(Self {
            raw,
            send_buffer,
            received: vec![0; RECEIVE_BYTES],
        })
    }

    /// The socket's port.
    pub(super) fn port_id(&self) -> u32 {
        self.raw.port_id()
    }

    /// Sends all of `data` in one call.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<(), DataplaneError> {
        self.grow(data.len())?;
        let sent = loop {
            match self.raw.send(data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let sending = unreachable("sending to the kernel");
        match sent {
            Ok(len) if len == data.len() => Ok(()),
            Ok(_) => Err(sending(io::ErrorKind::WriteZero.into())),
            Err(error) => Err(sending(error)),
        }
    }

    /// Makes the send buffer as large as one message of `len` bytes needs.
    fn grow(&mut self, len: usize) -> Result<(), DataplaneError> {
        let needed = len + SEND_OVERHEAD;
        if needed <= self.send_buffer {
            return Ok(());
        }
        let failed = unreachable("growing the send buffer to the transaction's size");
        if i32::try_from(needed).is_err() {
            return Err(failed(io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        // The kernel doubles what it is told. Forcing needs the capability that changing nftables needs too.
        setsockopt(&self.raw, sockopt::SndBufForce, &needed)
            .or_else(|_| setsockopt(&self.raw, sockopt::SndBuf, &needed))
            .map_err(|errno| failed(errno.into()))?;
        self.send_buffer =
            getsockopt(&self.raw, sockopt::SndBuf).map_err(|errno| failed(errno.into()))?;
        if self.send_buffer < needed {
            let reason = format!(
                "the transaction has {len} bytes, net.core.wmem_max allows {}",
                self.send_buffer
            );
            return Err(failed(io::Error::other(reason)));
        }
        Ok(())
    }

    /// The next datagram from the kernel.
    ///
    /// # Errors
    /// `ENOBUFS` when some had no room and were lost; those that had are still there.
    pub(super) fn receive(&mut self) -> io::Result<&[u8]> {
        let fd = self.raw.as_fd().as_raw_fd();
        loop {
            match recvfrom::<NetlinkAddr>(fd, &mut self.received) {
                // Port 0 is the kernel; anyone may write to a netlink port.
                Ok((len, Some(sender))) if sender.pid() == 0 => {
                    return Ok(self.received.get(..len).unwrap_or_default());
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Makes room for so many bytes of messages that wait to be received, where that is permitted.
    pub(super) fn make_room(&self, bytes: usize) {
        // Without the capability in the first user namespace it stays as it is, and more gets lost.
        let _ = setsockopt(&self.raw, sockopt::RcvBufForce, &bytes);
    }

    /// Joins a multicast group.
    pub(super) fn join(&self, group: libc::c_int) -> Result<(), DataplaneError> {
        let joining = unreachable("listening to the kernel's notifications");
        self.raw.join(group).map_err(joining)
    }

    /// Leaves a multicast group.
    pub(super) fn leave(&self, group: libc::c_int) -> Result<(), DataplaneError> {
        let leaving = unreachable("listening to the kernel's notifications");
        self.raw.leave(group).map_err(leaving)
    }

    /// The next datagram from the kernel, if one is there.
    ///
    /// # Errors
    /// `ENOBUFS` when some had no room and were lost.
    pub(super) fn receive_now(&mut self) -> io::Result<Option<&[u8]>> {
        let fd = self.raw.as_fd().as_raw_fd();
        loop {
            match recv(fd, &mut self.received, MsgFlags::MSG_DONTWAIT) {
                // Multicast is the kernel's alone to send, to this group.
                Ok(len) => return Ok(Some(self.received.get(..len).unwrap_or_default())),
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Throws away what is left of earlier answers.
    pub(super) fn drain(&mut self) {
        let fd = self.raw.as_fd().as_raw_fd();
        loop {
            match recv(fd, &mut self.received, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

impl Channel for Socket {
    fn drain(&mut self) {
        self.drain();
    }

    fn send(&mut self, request: &[u8]) -> Result<(), DataplaneError> {
        self.send(request)
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        self.receive()
    }

    fn port_id(&self) -> u32 {
        self.port_id()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
