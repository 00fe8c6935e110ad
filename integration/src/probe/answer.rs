//! What the lab's servers answer on their sockets, without ever waiting.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use socket2::Socket;

use super::Protocol;
use super::sctp::Packet;

/// For answers that pile up behind a slow reader.
const CONNECTION_BUFFER: usize = 64 * 1024;

/// A connection that echoes.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pending: Vec<u8>,
}

/// Accepts whoever waits; each is greeted first.
pub(super) fn accept(socket: &Socket, greeting: &str, connections: &mut Vec<Connection>) {
    while let Ok((socket, _)) = socket.accept() {
        let ready = socket.set_nonblocking(true).is_ok() && socket.set_tcp_nodelay(true).is_ok();
        if ready {
            connections.push(Connection {
                socket,
                pending: greeting.as_bytes().to_vec(),
            });
        }
    }
}

impl Connection {
    pub(super) fn events(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        if self.pending.len() < CONNECTION_BUFFER {
            events |= PollFlags::POLLIN;
        }
        if !self.pending.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        events
    }

    /// Reads and writes what goes without waiting; an error is the connection's end.
    pub(super) fn echo(&mut self) -> io::Result<()> {
        loop {
            while !self.pending.is_empty() {
                match self.socket.write(&self.pending) {
                    Ok(length) => drop(self.pending.drain(..length)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if self.pending.len() >= CONNECTION_BUFFER {
                return Ok(());
            }
            let mut buffer = [0; 16 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self
                    .pending
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Answers every datagram that waits, from the address that it was sent to.
pub(super) fn answer(socket: &Socket, mut reply: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
        let (length, from, info) = match received {
            Ok(message) => {
                let info = message.cmsgs().ok().and_then(|mut all| all.next());
                (message.bytes, message.address, info)
            }
            Err(Errno::EAGAIN) => return,
            // An ICMP error about an earlier answer; what else there is shows in the next turn.
            Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => continue,
            Err(_) => return,
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        let (Some(from), Some(text)) = (from, reply(datagram)) else {
            continue;
        };
        // A raw IPv6 socket delivers the protocol number where the port stands, and refuses it in an answer.
        let parts = [IoSlice::new(&text)];
        let sent = match info {
            Some(ControlMessageOwned::Ipv6PacketInfo(mut info)) => {
                // The way back is the routing table's choice, except where an address says nothing without its link.
                if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(socket.as_raw_fd(), &parts, &control, flags, Some(&from))
            }
            Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
                // The kernel takes the source address from ipi_spec_dst; ipi_addr is what the packet said.
                info.ipi_spec_dst = info.ipi_addr;
                info.ipi_ifindex = 0;
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(socket.as_raw_fd(), &parts, &control, flags, Some(&from))
            }
            _ => Err(Errno::EINVAL),
        };
        if sent.is_err() {
            // Sent to a multicast or broadcast address, which can be nobody's source.
            let _ = sendmsg(socket.as_raw_fd(), &parts, &[], flags, Some(&from));
        }
    }
}

/// The answer to an INIT.
pub(super) fn answer_sctp(
    packet: &[u8],
    name: &str,
    listening: &BTreeSet<(Protocol, u16)>,
) -> Option<Vec<u8>> {
    let packet = Packet::decode(packet)?;
    let serves = listening.contains(&(Protocol::Sctp, packet.destination));
    Some(packet.answer(serves.then_some(name))?.encode())
}
