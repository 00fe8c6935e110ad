//! Netlink messages and attributes as bytes, without libraries: what elements, requests and answers are made of.
//!
//! Everything is appended to one contiguous buffer and read from slices whose bounds are checked.

use nftnl::nftnl_sys::libc;

/// Length of `struct nlmsghdr`.
pub(super) const NLMSG_HEADER: usize = 16;
/// Length of `struct nlmsghdr` and `struct nfgenmsg`.
pub(super) const NFT_HEADER: usize = 20;
/// Length of `struct nlattr`.
const ATTR_HEADER: usize = 4;

/// What a netlink message begins with, nfnetlink's own header included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`, without `NLM_F_REQUEST`, which all have.
    pub flags: u16,
    /// `nfgen_family`: an `NFPROTO_*`.
    pub family: u8,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `res_id`, of a batch's begin and end the subsystem.
    pub resource: u16,
}

/// The message type of an nf_tables operation (`NFT_MSG_*`).
pub(super) const fn nft_message(operation: libc::c_int) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | operation as u16
}

/// The message type of an operation of connection tracking (`IPCTNL_MSG_CT_*`).
pub(super) const fn conntrack_message(operation: u8) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK as u16) << 8) | operation as u16
}

/// Appends a message's headers; gives where it begins, for [`end_message`].
pub(super) fn begin_message(out: &mut Vec<u8>, header: Header) -> usize {
    let start = out.len();
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&header.kind.to_ne_bytes());
    out.extend_from_slice(&(header.flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.extend_from_slice(&header.seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.push(header.family);
    out.push(libc::NFNETLINK_V0 as u8);
    out.extend_from_slice(&header.resource.to_be_bytes());
    start
}

/// Writes the length of the message that begins at `start` and ends here.
pub(super) fn end_message(out: &mut [u8], start: usize) {
    let len = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// Adds flags to the message that begins at `start`.
pub(super) fn add_flags(out: &mut [u8], start: usize, flags: u16) {
    let at = start + 6;
    let old = u16::from_ne_bytes([out[at], out[at + 1]]);
    out[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
}

/// Appends an attribute. Payloads are bounded by their types far below an attribute's 65,531 bytes.
pub(super) fn put(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let len = (ATTR_HEADER + payload.len()) as u16;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(payload);
    pad(out);
}

/// Appends an attribute with a number in network order.
pub(super) fn put_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    put(out, kind, &value.to_be_bytes());
}

/// Appends an attribute with a text and its NUL.
pub(super) fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let len = (ATTR_HEADER + text.len() + 1) as u16;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    pad(out);
}

/// Begins a nested attribute; gives where, for [`end_nest`].
pub(super) fn begin_nest(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&0u16.to_ne_bytes());
    out.extend_from_slice(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
    start
}

/// Ends the nested attribute that began at `start`; it has at most 65,535 bytes.
pub(super) fn end_nest(out: &mut [u8], start: usize) {
    let len = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Bytes that are no netlink message or attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Malformed {
    /// What is wrong with them.
    pub reason: String,
}

impl Malformed {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// One netlink message; its slice is as long as its header says and has at least a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The whole message with its header.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// `nlmsg_type`.
    pub(super) fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[4], self.bytes[5]])
    }

    /// `nlmsg_flags`.
    pub(super) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]])
    }

    /// `nlmsg_seq`.
    pub(super) fn seq(&self) -> u32 {
        u32::from_ne_bytes([self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]])
    }

    /// `nlmsg_pid`: of a notification, the port that asked for the change.
    pub(super) fn port(&self) -> u32 {
        u32::from_ne_bytes([
            self.bytes[12],
            self.bytes[13],
            self.bytes[14],
            self.bytes[15],
        ])
    }

    /// `nfgen_family`, if there is nfnetlink's header.
    pub(super) fn family(&self) -> Option<u8> {
        self.payload().first().copied()
    }

    /// What follows `struct nlmsghdr`.
    pub(super) fn payload(&self) -> &'a [u8] {
        &self.bytes[NLMSG_HEADER..]
    }

    /// The attributes after nfnetlink's header.
    pub(super) fn attrs(&self) -> Attrs<'a> {
        Attrs {
            rest: self.bytes.get(NFT_HEADER..).unwrap_or_default(),
        }
    }

    /// The error number of an `NLMSG_ERROR` or `NLMSG_DONE`, 0 when there is none.
    pub(super) fn error(&self) -> i32 {
        match self.payload().first_chunk() {
            Some(number) => i32::from_ne_bytes(*number).saturating_neg(),
            None => 0,
        }
    }
}

/// The messages of one datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = match rest.first_chunk() {
            Some(len) => u32::from_ne_bytes(*len) as usize,
            None => 0,
        };
        if len < NLMSG_HEADER || len > rest.len() {
            let all = rest.len();
            rest = &[];
            return Some(Err(Malformed::new(format!(
                "a message of {len} bytes in the last {all} of a datagram"
            ))));
        }
        let bytes = &rest[..len];
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message { bytes }))
    })
}

/// One attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attr<'a> {
    /// Its type, without the flags.
    pub kind: u16,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The attributes nested in this one.
    pub(super) fn nested(&self) -> Attrs<'a> {
        Attrs { rest: self.payload }
    }

    /// A number in network order.
    pub(super) fn u32(&self) -> Result<u32, Malformed> {
        let bytes = <[u8; 4]>::try_from(self.payload);
        bytes.map(u32::from_be_bytes).map_err(|_| self.misfit(4))
    }

    /// A number in network order.
    pub(super) fn u16(&self) -> Result<u16, Malformed> {
        let bytes = <[u8; 2]>::try_from(self.payload);
        bytes.map(u16::from_be_bytes).map_err(|_| self.misfit(2))
    }

    /// A number of one byte.
    pub(super) fn u8(&self) -> Result<u8, Malformed> {
        match self.payload {
            [byte] => Ok(*byte),
            _ => Err(self.misfit(1)),
        }
    }

    fn misfit(&self, wanted: usize) -> Malformed {
        let (kind, len) = (self.kind, self.payload.len());
        Malformed::new(format!(
            "attribute {kind} has {len} bytes instead of {wanted}"
        ))
    }

    /// A text, up to its NUL.
    pub(super) fn text(&self) -> String {
        let end = self.payload.iter().position(|b| *b == 0);
        String::from_utf8_lossy(&self.payload[..end.unwrap_or(self.payload.len())]).into_owned()
    }
}

/// Attributes one after the other.
#[derive(Debug, Clone)]
pub(super) struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The first attribute of this type.
    pub(super) fn find(self, kind: u16) -> Result<Option<Attr<'a>>, Malformed> {
        for attr in self {
            let attr = attr?;
            if attr.kind == kind {
                return Ok(Some(attr));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let len = match self.rest.first_chunk() {
            Some(len) => usize::from(u16::from_ne_bytes(*len)),
            None => 0,
        };
        if len < ATTR_HEADER || len > self.rest.len() {
            let all = self.rest.len();
            self.rest = &[];
            return Some(Err(Malformed::new(format!(
                "an attribute of {len} bytes in the last {all} of a message"
            ))));
        }
        let kind = u16::from_ne_bytes([self.rest[2], self.rest[3]]);
        let payload = &self.rest[ATTR_HEADER..len];
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let flags = (libc::NLA_F_NESTED | libc::NLA_F_NET_BYTEORDER) as u16;
        Some(Ok(Attr {
            kind: kind & !flags,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        let header = Header {
            kind: nft_message(libc::NFT_MSG_NEWSETELEM),
            flags: 0,
            family: 1,
            seq: 7,
            resource: 0,
        };
        let start = begin_message(&mut out, header);
        put_text(&mut out, 1, "odd");
        let nest = begin_nest(&mut out, 3);
        put_u32(&mut out, 2, 0x0102_0304);
        end_nest(&mut out, nest);
        end_message(&mut out, start);
        add_flags(&mut out, start, libc::NLM_F_ACK as u16);

        let all: Vec<_> = messages(&out).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].seq(), 7);
        assert_eq!(
            all[0].flags(),
            (libc::NLM_F_ACK | libc::NLM_F_REQUEST) as u16
        );
        let text = all[0].attrs().find(1).unwrap().unwrap().text();
        assert_eq!(text, "odd");
        let nest = all[0].attrs().find(3).unwrap().unwrap();
        let number = nest.nested().find(2).unwrap().unwrap().u32().unwrap();
        assert_eq!(number, 0x0102_0304);
    }

    #[test]
    fn truncated_and_lying_bytes_are_errors_not_panics() {
        let mut out = Vec::new();
        let header = Header {
            kind: 0,
            flags: 0,
            family: 1,
            seq: 7,
            resource: 0,
        };
        let start = begin_message(&mut out, header);
        put_text(&mut out, 1, "name");
        put_u32(&mut out, 2, 1);
        end_message(&mut out, start);
        for len in 1..out.len() {
            assert!(messages(&out[..len]).any(|m| m.is_err()), "{len} bytes");
        }
        for byte in 0..out.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = out.clone();
                bad[byte] = value;
                for message in messages(&bad).flatten() {
                    for attr in message.attrs().flatten() {
                        let _ = (attr.text(), attr.u32(), attr.nested().count());
                    }
                    let _ = message.error();
                }
            }
        }
    }
}
