//! The connections that the kernel tracks, over ctnetlink.

pub(super) mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nftnl::nftnl_sys::libc;

use super::request::{self, Answer};
use super::socket::Socket;
use super::wire::{Header, conntrack_message};
use crate::conntrack::{ConntrackError, Entries, Entry};
use wire::Direction;

/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` and `IPCTNL_MSG_CT_GET_STATS`.
const GET: u8 = 1;
const DELETE: u8 = 2;
const STATS: u8 = 5;

/// So many addresses at most the kernel is asked for one by one.
const FEW: usize = 8;

/// As long as to send and read so many entries the kernel takes for one look at all of its table, found or not: 11 ms for
/// 262,144 buckets, which all network namespaces share, and 1.8 µs an entry (Linux 6.18).
const LOOK: usize = 6_000;

/// How often a dump that the kernel says is inconsistent is begun again.
const ATTEMPTS: usize = 3;

/// The connection tracking of the network namespace in which it was opened.
pub struct Conntrack {
    socket: Socket,
    seq: u32,
}

impl std::fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conntrack").finish_non_exhaustive()
    }
}

impl Conntrack {
    /// Opens that of the calling thread's network namespace. It stays the same wherever the value is used.
    ///
    /// # Errors
    /// [`ConntrackError::Unreachable`] when there is no netlink socket.
    pub fn open() -> Result<Self, ConntrackError> {
        Ok(Self {
            socket: Socket::open()?,
            seq: 0,
        })
    }

    /// All entries that `keep` wants.
    ///
    /// # Errors
    /// [`ConntrackError`] when they can't be read; without the capability NET_ADMIN, for one.
    pub fn all(&mut self, keep: impl Fn(&Entry) -> bool) -> Result<Entries, ConntrackError> {
        self.read(libc::AF_UNSPEC, None, keep)
    }

    /// The entries that involve any of the addresses (see [`Entry::involves`]) and that `keep` wants, each once.
    ///
    /// A few IPv4 addresses the kernel looks for itself, from 5.8 on, where it tracks so much that this is the lesser work:
    /// each address costs it two looks at its whole table. For others, and for IPv6, where its filter leaves out exactly what
    /// it is asked for (`ctnetlink_filter_match_tuple`, seen on 6.18), all entries are read and looked through here.
    ///
    /// # Errors
    /// As [`Conntrack::all`].
    pub fn involving(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Entries, ConntrackError> {
        let of = |address: &IpAddr| addresses.contains(address);
        let wanted =
            |entry: &Entry| (of(&entry.original.source) || of(&entry.reply.source)) && keep(entry);
        let v4 = addresses.iter().filter(|address| address.is_ipv4());
        let v4: BTreeSet<&IpAddr> = v4.collect();
        let v6 = addresses.len() - v4.len();
        if v4.is_empty() || v4.len() > FEW || self.tracked()? <= 2 * v4.len() * LOOK {
            let family = match (v4.is_empty(), v6 == 0) {
                (_, true) => libc::AF_INET,
                (true, false) => libc::AF_INET6,
                (false, false) => libc::AF_UNSPEC,
            };
            return self.read(family, None, wanted);
        }
        let mut entries = Entries::default();
        for address in &v4 {
            let filter = Some((Direction::Original, **address));
            let began = |entry: &Entry| entry.original.source == **address;
            entries.add(self.read(libc::AF_INET, filter, |e| began(e) && keep(e))?);
            let filter = Some((Direction::Reply, **address));
            // Those that began at one of them are there already.
            let reached =
                |entry: &Entry| entry.reply.source == **address && !of(&entry.original.source);
            entries.add(self.read(libc::AF_INET, filter, |e| reached(e) && keep(e))?);
        }
        if v6 > 0 {
            entries.add(self.read(libc::AF_INET6, None, wanted)?);
        }
        Ok(entries)
    }

    /// How many entries there are, of all families.
    ///
    /// # Errors
    /// As [`Conntrack::all`].
    pub fn tracked(&mut self) -> Result<usize, ConntrackError> {
        let header = self.header(STATS, libc::NLM_F_ACK, libc::AF_UNSPEC);
        let mut tracked = None;
        let answer = request::exchange(
            &mut self.socket,
            header,
            |_| {},
            |message| {
                tracked = wire::tracked(message.attrs()).ok();
                Ok(())
            },
        )?;
        match (answer, tracked) {
            // A kernel that does not say has as many as there may be.
            (Ok(_), tracked) => Ok(tracked.unwrap_or(usize::MAX)),
            (Err(libc::EINVAL | libc::EOPNOTSUPP), _) => Ok(usize::MAX),
            (Err(errno), _) => Err(refusal(errno)),
        }
    }

    /// Deletes an entry, and not one that took its place, as far as its id tells: the kernel makes it of the entry's place
    /// in memory and its tuples, so that the same connection, begun anew, may have it again. Whether it was there.
    ///
    /// # Errors
    /// [`ConntrackError`] when the kernel does not do it.
    pub fn delete(&mut self, entry: &Entry) -> Result<bool, ConntrackError> {
        let family = match entry.original.source {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let header = self.header(DELETE, libc::NLM_F_ACK, family);
        let put = |out: &mut Vec<u8>| wire::put_entry(out, entry);
        match request::exchange(&mut self.socket, header, put, |_| Ok(()))? {
            Ok(Answer::Missing) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn read(
        &mut self,
        family: libc::c_int,
        source: Option<(Direction, IpAddr)>,
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Entries, ConntrackError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let header = self.header(GET, libc::NLM_F_DUMP, family);
            let put = |out: &mut Vec<u8>| {
                if let Some((direction, address)) = source {
                    wire::put_source_filter(out, direction, address);
                }
            };
            let mut entries = Entries::default();
            let answer = request::exchange(&mut self.socket, header, put, |message| {
                match wire::entry(message.attrs()) {
                    Ok(entry) if keep(&entry) => entries.kept.push(entry),
                    Ok(_) => {}
                    // One that can't be read is no reason not to see the others.
                    Err(_) => entries.unreadable += 1,
                }
                Ok(())
            })?;
            match answer {
                // What was read is good as far as it goes, and nobody can do better than to have tried again.
                Ok(Answer::Interrupted) if attempts < ATTEMPTS => {}
                Ok(_) => return Ok(entries),
                // A kernel that knows filters, and not this one.
                Err(libc::EINVAL | libc::EOPNOTSUPP) if source.is_some() => {
                    return self.read(family, None, keep);
                }
                Err(errno) => return Err(refusal(errno)),
            }
        }
    }

    fn header(&mut self, operation: u8, flags: libc::c_int, family: libc::c_int) -> Header {
        self.seq = self.seq.wrapping_add(1);
        Header {
            kind: conntrack_message(operation),
            flags: flags as u16,
            family: family as u8,
            seq: self.seq,
            resource: 0,
        }
    }
}

fn refusal(errno: i32) -> ConntrackError {
    ConntrackError::Unreachable {
        doing: match errno {
            libc::EPERM => "the capability NET_ADMIN is needed",
            libc::EINVAL => "this kernel may lack nf_conntrack_netlink",
            _ => "the kernel refused",
        },
        source: io::Error::from_raw_os_error(errno),
    }
}
