//! User data: what the kernel keeps for nft with an object, as type-length-value triples (libnftnl's `udata.h`).

use nftnl::nftnl_sys as sys;

use crate::name::Comment;
use crate::value::Datatype;

/// Comments of tables, chains, rules, counters and elements all have type 0.
const COMMENT: u8 = sys::NFTNL_UDATA_RULE_COMMENT as u8;
const SET_KEY_BYTE_ORDER: u8 = sys::NFTNL_UDATA_SET_KEYBYTEORDER as u8;
const SET_COMMENT: u8 = sys::NFTNL_UDATA_SET_COMMENT as u8;
const ELEMENT_FLAGS: u8 = sys::NFTNL_UDATA_SET_ELEM_FLAGS as u8;

/// nft's `enum byteorder`.
const HOST_ENDIAN: u32 = 1;
const BIG_ENDIAN: u32 = 2;

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    // The longest value is a comment of 128 bytes with its NUL.
    out.push(kind);
    out.push(value.len() as u8);
    out.extend_from_slice(value);
}

fn put_comment(out: &mut Vec<u8>, kind: u8, comment: &Comment) {
    let text = comment.as_str().as_bytes();
    out.push(kind);
    out.push(text.len() as u8 + 1);
    out.extend_from_slice(text);
    out.push(0);
}

/// Of a table, chain, rule, counter or element with this comment.
pub(super) fn of_comment(comment: &Comment) -> Vec<u8> {
    let mut out = Vec::with_capacity(comment.as_str().len() + 3);
    put_comment(&mut out, COMMENT, comment);
    out
}

/// Of a set: the key's byte order, by which nft prints it, and the comment.
pub(super) fn of_set(key: &[Datatype], comment: Option<&Comment>) -> Vec<u8> {
    let order = match key {
        [Datatype::IfName] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => 0,
    };
    let mut out = Vec::new();
    put(&mut out, SET_KEY_BYTE_ORDER, &order.to_ne_bytes());
    if let Some(comment) = comment {
        put_comment(&mut out, SET_COMMENT, comment);
    }
    out
}

/// Of the start of a range that has no end, since it reaches the top of the space.
pub(super) fn of_open_range() -> Vec<u8> {
    let mut out = Vec::new();
    let open = sys::NFTNL_SET_ELEM_F_INTERVAL_OPEN;
    put(&mut out, ELEMENT_FLAGS, &open.to_ne_bytes());
    out
}

fn find(data: &[u8], kind: u8) -> Option<&[u8]> {
    let mut rest = data;
    while let [this, len, after @ ..] = rest {
        let value = after.get(..usize::from(*len))?;
        if *this == kind {
            return Some(value);
        }
        rest = &after[value.len()..];
    }
    None
}

fn comment_of(data: &[u8], kind: u8) -> Option<Comment> {
    let value = find(data, kind)?;
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    let comment = std::str::from_utf8(text)
        .ok()
        .and_then(|text| Comment::new(text).ok());
    Some(comment.unwrap_or_else(|| Comment::foreign("a comment that is none of ours")))
}

/// The comment of a table, chain, rule, counter or element; one that [`Comment`] can't hold becomes a mark.
pub(super) fn comment(data: &[u8]) -> Option<Comment> {
    comment_of(data, COMMENT)
}

/// The comment of a set.
pub(super) fn set_comment(data: &[u8]) -> Option<Comment> {
    comment_of(data, SET_COMMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_come_back_and_others_are_marked() {
        let long = Comment::new(&"c".repeat(Comment::MAX)).unwrap();
        assert_eq!(comment(&of_comment(&long)), Some(long.clone()));
        let data = of_set(&[Datatype::Ipv4Addr], Some(&long));
        assert_eq!(set_comment(&data), Some(long));
        assert_eq!(set_comment(&of_set(&[Datatype::IfName], None)), None);

        for odd in [&b"\0\x04a\"b\0"[..], b"\0\x01\0", b"\0\x02\xff\0"] {
            assert!(comment(odd).unwrap().is_foreign(), "{odd:?}");
        }
        for cut in [&b""[..], b"\0", b"\0\x09ab"] {
            assert_eq!(comment(cut), None, "{cut:?}");
        }
    }
}
