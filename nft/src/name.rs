//! The identifiers the kernel and nft's scanner both accept, as types that cannot hold anything else.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A text that is no valid name, comment or interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is invalid: {reason}")]
pub struct InvalidName {
    /// What the text was meant to be.
    pub what: &'static str,
    /// The text itself.
    pub text: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

/// The name of a table, chain, set, map or counter: 1 to 255 bytes of `[A-Za-z0-9/._-]` that start with a letter.
///
/// The bound is the kernel's `NFT_NAME_MAXLEN` less its NUL, the alphabet is that of an identifier in nft's scanner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 255;

    /// Takes `text` as a name.
    ///
    /// # Errors
    /// [`InvalidName`] when the text is empty, too long, or has a byte outside of the alphabet.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let fail = |reason| {
            Err(InvalidName {
                what: "name",
                text: text.to_owned(),
                reason,
            })
        };
        if text.len() > Self::MAX {
            return fail("longer than 255 bytes");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return fail("it must start with a letter");
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
        {
            return fail("only letters, digits and / . _ - are allowed");
        }
        Ok(Self(text.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A comment on a table, chain, rule, set or element: 1 to 128 bytes without quotes, backslashes or control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comment(Arc<str>);

impl Comment {
    /// The longest comment, in bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
    pub const MAX: usize = 128;

    /// Takes `text` as a comment.
    ///
    /// # Errors
    /// [`InvalidName`] when the text is empty, too long, or has a character that nft's scanner would not give back.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let fail = |reason| {
            Err(InvalidName {
                what: "comment",
                text: text.to_owned(),
                reason,
            })
        };
        if text.is_empty() || text.len() > Self::MAX {
            return fail("it must have 1 to 128 bytes");
        }
        if text
            .chars()
            .any(|c| c == '"' || c == '\\' || c.is_control())
        {
            return fail("quotes, backslashes and control characters are not allowed");
        }
        Ok(Self(text.into()))
    }

    /// The mark of an object read from the kernel that these values can't express: why, between quotes.
    ///
    /// No comment that [`Comment::new`] makes has quotes, so an object with this mark equals none that is desired, and
    /// a diff makes it anew.
    pub(crate) fn foreign(reason: &str) -> Self {
        let mut end = reason.len().min(Self::MAX - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self(format!("\"{}\"", &reason[..end]).into())
    }

    /// Whether this marks an object read from the kernel that these values can't express. It can't be committed.
    pub fn is_foreign(&self) -> bool {
        self.0.contains('"')
    }

    /// The comment's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The name of a network interface: 1 to 15 bytes, no `/`, white space, quotes or control characters (`dev_valid_name`),
/// and no trailing `*`, which nft would read as a wildcard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    len: u8,
    bytes: [u8; 15],
}

impl IfName {
    /// The longest interface name, in bytes (`IFNAMSIZ` less its NUL).
    pub const MAX: usize = 15;

    /// Takes `text` as an interface name.
    ///
    /// # Errors
    /// [`InvalidName`] when the kernel would not accept the text as one, or nft's text form could not carry it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let fail = |reason| {
            Err(InvalidName {
                what: "interface name",
                text: text.to_owned(),
                reason,
            })
        };
        if text.is_empty() || text.len() > Self::MAX {
            return fail("it must have 1 to 15 bytes");
        }
        if text == "." || text == ".." || text.ends_with('*') {
            return fail("it must not be . or .. or end in *");
        }
        if text
            .bytes()
            .any(|b| !b.is_ascii_graphic() || b"/\"\\:".contains(&b))
        {
            return fail("only printable ASCII without / : \\ and quotes is allowed");
        }
        let mut bytes = [0; 15];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self {
            len: text.len() as u8,
            bytes,
        })
    }

    /// The interface name's text.
    pub fn as_str(&self) -> &str {
        // The bytes come from a &str of ASCII, so this never falls back.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_start_with_a_letter() {
        assert!(Name::new("egress/shop/api-0.v1_x").is_ok());
        assert!(Name::new(&"a".repeat(255)).is_ok());
        assert!(Name::new(&"a".repeat(256)).is_err());
        for bad in ["", "0a", "/a", "a b", "a\"", "ä"] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn comments_hold_what_nft_can_quote() {
        assert!(Comment::new("app in (web, api) in ns shop").is_ok());
        assert!(Comment::new(&"c".repeat(129)).is_err());
        for bad in ["", "say \"hi\"", "two\nlines", "back\\slash"] {
            assert!(Comment::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        assert_eq!(IfName::new("veth0@x").unwrap().as_str(), "veth0@x");
        for bad in ["", "a/b", "a b", "..", "veth*", "sixteen-bytes-xx"] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }
}
