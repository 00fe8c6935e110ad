//! What the kernel said, kept, and told again to what reads it: whatever bytes it may be.
//!
//! A recording is the datagrams of any number of answers, one after another. Each request gets those up to the end of
//! one answer, with the request's own number in them.

use std::io;

use nftnl::nftnl_sys::libc;

use super::conntrack::wire::entry;
use super::read::Reader;
use super::request::{Channel, Fault};
use super::socket::Socket;
use super::wire::{self, Message};
use super::{Kernel, monitor, survey};
use crate::conntrack::Entries;
use crate::dataplane::{DataplaneError, Interference};
use crate::ruleset::{Ruleset, TableId};
use crate::survey::Survey;

/// Where a message's sequence number stands in it.
const SEQ: std::ops::Range<usize> = 8..12;

/// Datagrams, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    datagrams: Vec<Vec<u8>>,
}

impl Recording {
    /// What the kernel answers when the tables are read, and what is read from it.
    ///
    /// # Errors
    /// [`DataplaneError`] when they can't be read, or change meanwhile.
    pub fn of_tables(
        kernel: &mut Kernel,
        tables: &[TableId],
    ) -> Result<(Self, Ruleset), DataplaneError> {
        Self::of(kernel, |reader| reader.ruleset(tables))
    }

    /// The same of everyone's tables.
    ///
    /// # Errors
    /// As [`Recording::of_tables`].
    pub fn of_survey(kernel: &mut Kernel) -> Result<(Self, Survey), DataplaneError> {
        Self::of(kernel, survey::survey)
    }

    fn of<T>(
        kernel: &mut Kernel,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
    ) -> Result<(Self, T), DataplaneError> {
        let mut recorder = Recorder {
            socket: &mut kernel.socket,
            heard: Self::default(),
        };
        let mut reader = Reader {
            channel: &mut recorder,
            seq: &mut kernel.seq,
        };
        let read = read(&mut reader).map_err(failure)?;
        Ok((recorder.heard, read))
    }

    /// A recording from bytes, whatever they are: of each datagram its length in two bytes, the lower first, and then
    /// as many as that or as are left.
    pub fn from_bytes(mut bytes: &[u8]) -> Self {
        let mut datagrams = Vec::new();
        while let Some((len, rest)) = bytes.split_first_chunk() {
            let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
            let (datagram, rest) = rest.split_at(len);
            datagrams.push(datagram.to_vec());
            bytes = rest;
        }
        Self { datagrams }
    }

    /// The bytes that [`Recording::from_bytes`] reads; of a datagram at most the first 65,535.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for datagram in &self.datagrams {
            let len = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&datagram[..usize::from(len)]);
        }
        bytes
    }

    /// The tables as read from it.
    ///
    /// # Errors
    /// [`DataplaneError`] when that can't be done.
    pub fn ruleset(&self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        self.answering(|reader| reader.ruleset(tables))
    }

    /// Everyone's tables as read from it.
    ///
    /// # Errors
    /// [`DataplaneError`] when that can't be done.
    pub fn survey(&self) -> Result<Survey, DataplaneError> {
        self.answering(survey::survey)
    }

    fn answering<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
    ) -> Result<T, DataplaneError> {
        let mut player = Player {
            left: self.datagrams.clone().into_iter(),
            seq: [0; 4],
            current: Vec::new(),
        };
        let mut reader = Reader {
            channel: &mut player,
            seq: &mut 0,
        };
        read(&mut reader).map_err(failure)
    }

    /// What it tells of the tables as notifications.
    pub fn interference(&self, tables: &[TableId]) -> Vec<Interference> {
        let mut touched = Default::default();
        let messages = self.messages();
        messages
            .filter_map(|message| monitor::take(message, tables, &mut touched))
            .collect()
    }

    /// The connections that it tells of.
    pub fn connections(&self) -> Entries {
        let mut entries = Entries::default();
        for message in self.messages() {
            match entry(message.attrs()) {
                Ok(entry) => entries.kept.push(entry),
                Err(_) => entries.unreadable += 1,
            }
        }
        entries
    }

    fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let all = self.datagrams.iter();
        all.flat_map(|datagram| wire::messages(datagram).flatten())
    }
}

fn failure(fault: Fault) -> DataplaneError {
    match fault {
        Fault::Changed => DataplaneError::Interrupted { attempts: 1 },
        Fault::Failed(error) => error,
    }
}

/// Takes down what a socket receives.
struct Recorder<'a> {
    socket: &'a mut Socket,
    heard: Recording,
}

impl Channel for Recorder<'_> {
    fn drain(&mut self) {
        self.socket.drain();
    }

    fn send(&mut self, request: &[u8]) -> Result<(), DataplaneError> {
        self.socket.send(request)
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        let datagram = self.socket.receive()?;
        self.heard.datagrams.push(datagram.to_vec());
        Ok(datagram)
    }

    fn port_id(&self) -> u32 {
        self.socket.port_id()
    }
}

/// Tells a recording.
struct Player {
    left: std::vec::IntoIter<Vec<u8>>,
    /// The last request's number.
    seq: [u8; 4],
    current: Vec<u8>,
}

impl Channel for Player {
    fn drain(&mut self) {}

    fn send(&mut self, request: &[u8]) -> Result<(), DataplaneError> {
        if let Some(seq) = request.get(SEQ).and_then(|seq| seq.first_chunk()) {
            self.seq = *seq;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        let next = self.left.next();
        self.current = next.ok_or(io::Error::from_raw_os_error(libc::EAGAIN))?;
        let mut at = 0;
        let lens: Vec<usize> = wire::messages(&self.current)
            .map_while(|message| Some(message.ok()?.bytes().len()))
            .collect();
        for len in lens {
            self.current[at..][SEQ].copy_from_slice(&self.seq);
            at += len.next_multiple_of(4);
        }
        Ok(&self.current)
    }

    /// Nobody's: a table in it is never our own.
    fn port_id(&self) -> u32 {
        0
    }
}
