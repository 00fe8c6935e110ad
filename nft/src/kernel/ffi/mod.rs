//! The unsafe edge: libnftnl's objects and libmnl's socket as values whose functions are safe to call.
//!
//! What makes them safe is checked here and nowhere else:
//! - attributes are typed, so a number never goes where libnftnl wants a text;
//! - texts have no NUL and at most [`MAX_TEXT`] bytes, user data at most [`MAX_DATA`], a rule at most [`MAX_EXPRS`]
//!   expressions, so that a message, which libnftnl writes without looking at the buffer's end, fits [`Scratch`];
//! - of the kernel's messages libnftnl reads rules alone, and those after [`shape`] has looked at them: an attribute of
//!   another size than it knows makes it end the process, and one that is missing, read NULL;
//! - data of expressions is [`super::expr::Data`], at most 16 bytes: libnftnl 1.2.4 copies it into 64-byte buffers unchecked.

mod expr;
mod shape;
mod socket;

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nftnl::nftnl_sys as sys;
use sys::libc::{c_char, c_void, nlmsghdr};

pub(super) use socket::RawSocket;

use super::wire::{self, Header};

/// The longest text of an attribute, in bytes: `NFT_NAME_MAXLEN` less its NUL.
const MAX_TEXT: usize = 255;
/// The most user data, in bytes: `NFT_USERDATA_MAXLEN`.
const MAX_DATA: usize = 256;
/// The most expressions of a rule: `NFT_RULE_MAXEXPRS`.
const MAX_EXPRS: usize = 128;
/// The most bytes one expression takes in a message: two texts or values, and a dozen numbers.
const MAX_EXPR_BYTES: usize = 700;
/// The most bytes of any message: its expressions, and its names, numbers and user data.
const SCRATCH_BYTES: usize = MAX_EXPRS * MAX_EXPR_BYTES + 4 * MAX_TEXT + MAX_DATA + 1024;

/// Where libnftnl writes a message before it goes to its place in the batch.
pub(super) struct Scratch {
    words: Vec<u32>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            words: vec![0; SCRATCH_BYTES.div_ceil(4)],
        }
    }
}

/// A kind of libnftnl's objects. The functions are libnftnl's, by their names.
pub(super) trait Kind {
    /// The C type.
    type Raw;
    unsafe fn alloc() -> *mut Self::Raw;
    unsafe fn free(object: *mut Self::Raw);
    unsafe fn is_set(object: *mut Self::Raw, attr: u16) -> bool;
    unsafe fn set_text(object: *mut Self::Raw, attr: u16, text: *const c_char);
    unsafe fn set_u32(object: *mut Self::Raw, attr: u16, value: u32);
    unsafe fn set_data(object: *mut Self::Raw, attr: u16, data: *const c_void, len: u32);
    unsafe fn text(object: *mut Self::Raw, attr: u16) -> *const c_char;
    unsafe fn u32(object: *mut Self::Raw, attr: u16) -> u32;
    unsafe fn data(object: *mut Self::Raw, attr: u16, len: *mut u32) -> *const c_void;
    unsafe fn build(message: *mut nlmsghdr, object: *mut Self::Raw);
}

macro_rules! kind {
    ($(#[$doc:meta])* $kind:ident: $raw:ident, $alloc:ident, $free:ident, $is_set:ident, $set_text:ident, $set_u32:ident,
     $set_data:ident, $text:ident, $u32:ident, $data:ident, $build:ident) => {
        $(#[$doc])*
        pub(super) enum $kind {}

        // Each function hands its arguments on to libnftnl's function of the same meaning.
        impl Kind for $kind {
            type Raw = sys::$raw;
            unsafe fn alloc() -> *mut Self::Raw {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$alloc() }
            }
            unsafe fn free(object: *mut Self::Raw) {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$free(object) }
            }
            unsafe fn is_set(object: *mut Self::Raw, attr: u16) -> bool {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$is_set(object, attr) }
            }
            unsafe fn set_text(object: *mut Self::Raw, attr: u16, text: *const c_char) {
                // SAFETY: the caller keeps libnftnl's contract. Whether it could be copied is seen by reading it back.
                let _ = unsafe { sys::$set_text(object, attr, text) };
            }
            unsafe fn set_u32(object: *mut Self::Raw, attr: u16, value: u32) {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$set_u32(object, attr, value) }
            }
            unsafe fn set_data(object: *mut Self::Raw, attr: u16, data: *const c_void, len: u32) {
                // SAFETY: the caller keeps libnftnl's contract.
                let _ = unsafe { sys::$set_data(object, attr, data, len) };
            }
            unsafe fn text(object: *mut Self::Raw, attr: u16) -> *const c_char {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$text(object, attr) }
            }
            unsafe fn u32(object: *mut Self::Raw, attr: u16) -> u32 {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$u32(object, attr) }
            }
            unsafe fn data(object: *mut Self::Raw, attr: u16, len: *mut u32) -> *const c_void {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$data(object, attr, len) }
            }
            unsafe fn build(message: *mut nlmsghdr, object: *mut Self::Raw) {
                // SAFETY: the caller keeps libnftnl's contract.
                unsafe { sys::$build(message, object) }
            }
        }
    };
}

kind!(
    /// `nftnl_table`.
    Table: nftnl_table, nftnl_table_alloc, nftnl_table_free, nftnl_table_is_set, nftnl_table_set_str,
    nftnl_table_set_u32, nftnl_table_set_data, nftnl_table_get_str, nftnl_table_get_u32, nftnl_table_get_data,
    nftnl_table_nlmsg_build_payload
);
kind!(
    /// `nftnl_chain`.
    Chain: nftnl_chain, nftnl_chain_alloc, nftnl_chain_free, nftnl_chain_is_set, nftnl_chain_set_str,
    nftnl_chain_set_u32, nftnl_chain_set_data, nftnl_chain_get_str, nftnl_chain_get_u32, nftnl_chain_get_data,
    nftnl_chain_nlmsg_build_payload
);
kind!(
    /// `nftnl_rule`.
    Rule: nftnl_rule, nftnl_rule_alloc, nftnl_rule_free, nftnl_rule_is_set, nftnl_rule_set_str,
    nftnl_rule_set_u32, nftnl_rule_set_data, nftnl_rule_get_str, nftnl_rule_get_u32, nftnl_rule_get_data,
    nftnl_rule_nlmsg_build_payload
);
kind!(
    /// `nftnl_set`.
    Set: nftnl_set, nftnl_set_alloc, nftnl_set_free, nftnl_set_is_set, nftnl_set_set_str,
    nftnl_set_set_u32, nftnl_set_set_data, nftnl_set_get_str, nftnl_set_get_u32, nftnl_set_get_data,
    nftnl_set_nlmsg_build_payload
);
kind!(
    /// `nftnl_obj`.
    Stateful: nftnl_obj, nftnl_obj_alloc, nftnl_obj_free, nftnl_obj_is_set, nftnl_obj_set_str,
    nftnl_obj_set_u32, nftnl_obj_set_data, nftnl_obj_get_str, nftnl_obj_get_u32, nftnl_obj_get_data,
    nftnl_obj_nlmsg_build_payload
);

/// An attribute of `K` that holds a text, a 32-bit number or bytes, as `V` says.
pub(super) struct Attr<K, V>(u16, PhantomData<(K, V)>);
/// An attribute with a text.
pub(super) enum Text {}
/// An attribute with a 32-bit number.
pub(super) enum Number {}
/// An attribute with bytes.
pub(super) enum Bytes {}

macro_rules! attrs {
    ($module:ident: $kind:ident { $($name:ident: $value:ident = $attr:ident),* $(,)? }) => {
        #[doc = concat!("Attributes of [`", stringify!($kind), "`].")]
        pub(super) mod $module {
            use super::{Attr, PhantomData, sys};
            $(pub(in super::super) const $name: Attr<super::$kind, super::$value> = Attr(sys::$attr as u16, PhantomData);)*
        }
    };
}

attrs!(table: Table {
    NAME: Text = NFTNL_TABLE_NAME,
    FLAGS: Number = NFTNL_TABLE_FLAGS,
    USER_DATA: Bytes = NFTNL_TABLE_USERDATA,
});
attrs!(chain: Chain {
    TABLE: Text = NFTNL_CHAIN_TABLE,
    NAME: Text = NFTNL_CHAIN_NAME,
    TYPE: Text = NFTNL_CHAIN_TYPE,
    HOOK: Number = NFTNL_CHAIN_HOOKNUM,
    PRIORITY: Number = NFTNL_CHAIN_PRIO,
    POLICY: Number = NFTNL_CHAIN_POLICY,
    USER_DATA: Bytes = NFTNL_CHAIN_USERDATA,
});
attrs!(rule: Rule {
    TABLE: Text = NFTNL_RULE_TABLE,
    CHAIN: Text = NFTNL_RULE_CHAIN,
    COMPAT_PROTOCOL: Number = NFTNL_RULE_COMPAT_PROTO,
    USER_DATA: Bytes = NFTNL_RULE_USERDATA,
});
attrs!(set: Set {
    TABLE: Text = NFTNL_SET_TABLE,
    NAME: Text = NFTNL_SET_NAME,
    FLAGS: Number = NFTNL_SET_FLAGS,
    KEY_TYPE: Number = NFTNL_SET_KEY_TYPE,
    KEY_LEN: Number = NFTNL_SET_KEY_LEN,
    DATA_TYPE: Number = NFTNL_SET_DATA_TYPE,
    ID: Number = NFTNL_SET_ID,
    SIZE: Number = NFTNL_SET_DESC_SIZE,
    FIELD_LENS: Bytes = NFTNL_SET_DESC_CONCAT,
    USER_DATA: Bytes = NFTNL_SET_USERDATA,
});
attrs!(stateful: Stateful {
    TABLE: Text = NFTNL_OBJ_TABLE,
    NAME: Text = NFTNL_OBJ_NAME,
    TYPE: Number = NFTNL_OBJ_TYPE,
    USER_DATA: Bytes = NFTNL_OBJ_USERDATA,
});

/// An object of libnftnl, freed when dropped.
pub(super) struct Object<K: Kind> {
    raw: NonNull<K::Raw>,
    /// How many expressions a rule has been given.
    exprs: usize,
}

impl<K: Kind> Drop for Object<K> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `alloc` and is freed once, here.
        unsafe { K::free(self.raw.as_ptr()) }
    }
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// The text as C wants it, within [`MAX_TEXT`].
fn c_text(text: &str) -> io::Result<CString> {
    if text.len() > MAX_TEXT {
        return Err(invalid("a text has more than 255 bytes"));
    }
    CString::new(text).map_err(|_| invalid("a text has a NUL"))
}

impl<K: Kind> Object<K> {
    /// An object with nothing set.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes nothing; NULL means that there was no memory.
        let raw = NonNull::new(unsafe { K::alloc() }).ok_or_else(out_of_memory)?;
        Ok(Self { raw, exprs: 0 })
    }

    /// Sets a text of at most [`MAX_TEXT`] bytes.
    pub(super) fn set_text(&mut self, attr: Attr<K, Text>, text: &str) -> io::Result<()> {
        let text = c_text(text)?;
        // SAFETY: the attribute holds a text by its type; libnftnl copies it.
        unsafe { K::set_text(self.raw.as_ptr(), attr.0, text.as_ptr()) };
        // SAFETY: as above; NULL means that the copy failed.
        if unsafe { K::text(self.raw.as_ptr(), attr.0) }.is_null() {
            return Err(out_of_memory());
        }
        Ok(())
    }

    /// Sets a number.
    pub(super) fn set_u32(&mut self, attr: Attr<K, Number>, value: u32) {
        // SAFETY: the attribute holds a 32-bit number by its type.
        unsafe { K::set_u32(self.raw.as_ptr(), attr.0, value) }
    }

    /// Sets bytes, at most [`MAX_DATA`].
    pub(super) fn set_bytes(&mut self, attr: Attr<K, Bytes>, data: &[u8]) -> io::Result<()> {
        if data.is_empty() || data.len() > MAX_DATA {
            return Err(invalid("an attribute's data has 1 to 256 bytes"));
        }
        let (start, len) = (data.as_ptr().cast(), data.len() as u32);
        // SAFETY: the attribute holds bytes by its type; `len` bytes are readable at `start` and are copied. The lengths
        // of a set's fields go through `set_field_lens`, which knows their bound.
        unsafe { K::set_data(self.raw.as_ptr(), attr.0, start, len) };
        // SAFETY: the object is alive. An attribute that is not set means that the copy failed.
        if !unsafe { K::is_set(self.raw.as_ptr(), attr.0) } {
            return Err(out_of_memory());
        }
        Ok(())
    }

    /// The number, if it is set.
    pub(super) fn u32(&self, attr: Attr<K, Number>) -> Option<u32> {
        // SAFETY: the object is alive.
        if !unsafe { K::is_set(self.raw.as_ptr(), attr.0) } {
            return None;
        }
        // SAFETY: the attribute is set and holds a 32-bit number by its type.
        Some(unsafe { K::u32(self.raw.as_ptr(), attr.0) })
    }

    /// The bytes, if they are set.
    pub(super) fn bytes(&self, attr: Attr<K, Bytes>) -> Option<&[u8]> {
        // SAFETY: the object is alive.
        if !unsafe { K::is_set(self.raw.as_ptr(), attr.0) } {
            return None;
        }
        let mut len = 0;
        // SAFETY: the attribute is set and holds bytes by its type; libnftnl writes their count to `len`.
        let data = unsafe { K::data(self.raw.as_ptr(), attr.0, &raw mut len) };
        if data.is_null() {
            return None;
        }
        // SAFETY: libnftnl says that `len` bytes are there; they stay unchanged while `self` is borrowed.
        Some(unsafe { std::slice::from_raw_parts(data.cast(), len as usize) })
    }

    /// Appends the message of this kind about the object; gives where it begins.
    pub(super) fn append(
        &mut self,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
        header: Header,
    ) -> usize {
        let start = scratch.words.as_mut_ptr();
        // SAFETY: the scratch is aligned for nlmsghdr and has SCRATCH_BYTES, which no message outgrows: texts, data and
        // expressions are bounded where they are set (see the module's head). The header written here makes it the
        // empty message that libnftnl appends attributes to.
        let len = unsafe {
            let message = sys::nftnl_nlmsg_build_hdr(
                start.cast::<c_char>(),
                header.kind,
                u16::from(header.family),
                header.flags,
                header.seq,
            );
            K::build(message, self.raw.as_ptr());
            (*message).nlmsg_len as usize
        };
        let at = out.len();
        for word in &scratch.words[..len.div_ceil(4)] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.truncate(at + len);
        at
    }
}

impl Object<Set> {
    /// Describes a concatenation: the widths of its fields in bytes, of which a key has at most
    /// six ([`crate::Key::MAX`] bytes, each field padded to four).
    pub(super) fn set_field_lens(&mut self, lens: &[u8]) -> io::Result<()> {
        // libnftnl copies them into an array of 16 and counts them up to the first zero.
        if lens.is_empty() || lens.len() > 6 || lens.contains(&0) {
            return Err(invalid("a concatenation has 1 to 6 fields"));
        }
        self.set_bytes(set::FIELD_LENS, lens)
    }
}

impl Object<Rule> {
    /// The rule that a message from the kernel describes; its contents are copied.
    pub(super) fn parse(message: wire::Message<'_>) -> io::Result<Self> {
        shape::check_rule(message)?;
        let object = Self::new()?;
        let bytes = message.bytes();
        // libnftnl wants an aligned message. The zeros after its end stop a text without a NUL.
        let mut words = vec![0u32; bytes.len().div_ceil(4) + 1];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(4)) {
            let mut four = [0; 4];
            four[..chunk.len()].copy_from_slice(chunk);
            *word = u32::from_ne_bytes(four);
        }
        // SAFETY: `words` is aligned for nlmsghdr and holds the whole message: `Message` has checked that `nlmsg_len`
        // is its slice's length. `shape` has checked that its attributes
        // are as libnftnl takes for granted: it walks them within that length and copies what it keeps; a text without
        // a NUL ends in the zero word behind the message. The object is ours and alive.
        let result =
            unsafe { sys::nftnl_rule_nlmsg_parse(words.as_ptr().cast(), object.raw.as_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(object)
    }
}
