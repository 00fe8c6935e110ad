//! Questions to the kernel and their answers, one at a time.

use std::io;

use nftnl::nftnl_sys::libc;

use super::wire::{self, Header, Malformed, Message, nft_message};
use crate::dataplane::DataplaneError;

/// Why a read did not come to its end.
pub(super) enum Fault {
    /// The ruleset changed meanwhile: it begins again.
    Changed,
    /// It can't be read.
    Failed(DataplaneError),
}

impl From<DataplaneError> for Fault {
    fn from(error: DataplaneError) -> Self {
        Self::Failed(error)
    }
}

/// What a request goes to, and its answer comes from: the kernel's socket, or what was recorded of one.
pub(super) trait Channel {
    /// Throws away what is left of earlier answers.
    fn drain(&mut self);
    /// Sends a request.
    fn send(&mut self, request: &[u8]) -> Result<(), DataplaneError>;
    /// The next datagram of the answer.
    fn receive(&mut self) -> io::Result<&[u8]>;
    /// Whom the kernel takes us for: the owner of the tables that are our own.
    fn port_id(&self) -> u32;
}

/// A question: what to get, of which family, and whether all of them or one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// `NFT_MSG_GET*`.
    pub operation: libc::c_int,
    /// `NFPROTO_*`.
    pub family: u8,
    /// Whether it is a dump.
    pub all: bool,
}

/// How the kernel answered besides the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is complete.
    Complete,
    /// What was asked for is not there (`ENOENT`).
    Missing,
    /// The ruleset changed between two parts of a dump.
    Interrupted,
}

pub(super) fn malformed(object: &str, reason: &Malformed) -> DataplaneError {
    DataplaneError::Malformed {
        object: object.to_owned(),
        reason: reason.to_string(),
    }
}

/// Asks nf_tables and hands each message of the answer to `each`; see [`exchange`].
///
/// # Errors
/// `Unreachable` when the kernel can't be asked or refuses, `Malformed` for an answer that is none.
pub(super) fn ask(
    channel: &mut dyn Channel,
    seq: u32,
    question: Question,
    attributes: impl FnOnce(&mut Vec<u8>),
    each: impl FnMut(Message<'_>) -> Result<(), DataplaneError>,
) -> Result<Answer, DataplaneError> {
    let flags = match question.all {
        true => libc::NLM_F_DUMP,
        false => libc::NLM_F_ACK,
    };
    let header = Header {
        kind: nft_message(question.operation),
        flags: flags as u16,
        family: question.family,
        seq,
        resource: 0,
    };
    exchange(channel, header, attributes, each)?.map_err(refusal)
}

/// Sends one request, which is to be acknowledged or is a dump, and hands each message of the answer to `each`. An
/// answer is always taken to its end, since a dump that is left behind would stand in the way of the next; of several
/// errors the first is given. The inner error is the kernel's refusal.
///
/// # Errors
/// `Unreachable` when the kernel can't be asked, `Malformed` for an answer that is none.
pub(super) fn exchange(
    channel: &mut dyn Channel,
    header: Header,
    attributes: impl FnOnce(&mut Vec<u8>),
    mut each: impl FnMut(Message<'_>) -> Result<(), DataplaneError>,
) -> Result<Result<Answer, i32>, DataplaneError> {
    let mut request = Vec::with_capacity(128);
    let start = wire::begin_message(&mut request, header);
    attributes(&mut request);
    wire::end_message(&mut request, start);
    channel.drain();
    channel.send(&request)?;

    let mut answer = Answer::Complete;
    let mut failure = None;
    loop {
        let datagram = channel
            .receive()
            .map_err(|source| DataplaneError::Unreachable {
                doing: "waiting for the kernel's answer",
                source,
            })?;
        for message in wire::messages(datagram) {
            let message = message.map_err(|reason| malformed("a netlink answer", &reason))?;
            if message.seq() != header.seq {
                continue;
            }
            if message.flags() & libc::NLM_F_DUMP_INTR as u16 != 0 {
                answer = Answer::Interrupted;
            }
            let end = [libc::NLMSG_ERROR as u16, libc::NLMSG_DONE as u16].contains(&message.kind());
            if !end {
                if failure.is_none() {
                    failure = each(message).err();
                }
                continue;
            }
            return match (message.error(), failure) {
                (_, Some(failure)) => Err(failure),
                (0, None) => Ok(Ok(answer)),
                (libc::ENOENT, None) => Ok(Ok(Answer::Missing)),
                (libc::EINTR | libc::EAGAIN, None) => Ok(Ok(Answer::Interrupted)),
                (errno, None) => Ok(Err(errno)),
            };
        }
    }
}

/// A refusal that is about the whole of nftables rather than an object.
pub(super) fn refusal(errno: i32) -> DataplaneError {
    DataplaneError::Unreachable {
        doing: match errno {
            libc::EPERM => "the capability NET_ADMIN is needed",
            libc::EOPNOTSUPP | libc::EINVAL => "this kernel may lack nf_tables",
            _ => "the kernel refused",
        },
        source: io::Error::from_raw_os_error(errno),
    }
}
