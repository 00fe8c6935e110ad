//! libnftnl's expressions, made from and read into [`Expr`].

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

use nftnl::nftnl_sys as sys;
use sys::libc;

use super::{MAX_EXPRS, Object, Rule, c_text, invalid, out_of_memory};
use crate::kernel::expr::{
    Base, Cmp, Data, Expr, MetaKey, Reg, Source, seconds, unit, verdict, verdict_number,
};
use crate::name::{Comment, Name};

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = libc::NFT_REG_VERDICT as u32;
/// `NFT_OBJECT_COUNTER`.
const OBJECT_COUNTER: u32 = crate::kernel::expr::OBJECT_COUNTER;
/// The longest log prefix, in bytes: `NF_LOG_PREFIXLEN` less its NUL.
const MAX_LOG_PREFIX: usize = 127;

/// An expression that no rule owns yet.
struct New(NonNull<sys::nftnl_expr>);

impl Drop for New {
    fn drop(&mut self) {
        // SAFETY: it came from `nftnl_expr_alloc` and no rule has it: `Object::push` forgets those it hands over.
        unsafe { sys::nftnl_expr_free(self.0.as_ptr()) }
    }
}

impl New {
    fn named(name: &CStr) -> io::Result<Self> {
        // SAFETY: `name` is a NUL-terminated text. NULL means no memory, or a name that libnftnl does not know.
        let raw = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
        NonNull::new(raw).map(Self).ok_or_else(out_of_memory)
    }

    // The setters copy as many bytes as the attribute of that expression has, so the widths at their calls below are
    // those of libnftnl's structures.

    fn u16(self, attr: u32, value: u16) -> Self {
        // SAFETY: the expression is alive; the attribute is 16 bits wide.
        unsafe { sys::nftnl_expr_set_u16(self.0.as_ptr(), attr as u16, value) };
        self
    }

    fn u32(self, attr: u32, value: u32) -> Self {
        // SAFETY: the expression is alive; the attribute is 32 bits wide.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attr as u16, value) };
        self
    }

    fn u64(self, attr: u32, value: u64) -> Self {
        // SAFETY: the expression is alive; the attribute is 64 bits wide.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attr as u16, value) };
        self
    }

    fn text(self, attr: u32, text: &str) -> io::Result<Self> {
        let text = c_text(text)?;
        // SAFETY: the expression is alive; the attribute is a text, which is copied.
        let result =
            unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), attr as u16, text.as_ptr()) };
        if result < 0 {
            return Err(out_of_memory());
        }
        Ok(self)
    }

    fn data(self, attr: u32, data: &Data) -> Self {
        let bytes = data.as_bytes();
        let (start, len) = (bytes.as_ptr().cast(), bytes.len() as u32);
        // SAFETY: the expression is alive; the attribute is a 64-byte buffer, and `Data` has at most 16 bytes.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attr as u16, start, len) };
        self
    }
}

/// libnftnl's expression for `expr`.
fn make(expr: &Expr) -> io::Result<New> {
    let first = Reg::FIRST.number();
    Ok(match expr {
        Expr::Load { source, to } => match source {
            Source::Meta(key) => New::named(c"meta")?
                .u32(sys::NFTNL_EXPR_META_KEY, key.number())
                .u32(sys::NFTNL_EXPR_META_DREG, to.number()),
            Source::Payload { base, offset, len } => New::named(c"payload")?
                .u32(sys::NFTNL_EXPR_PAYLOAD_DREG, to.number())
                .u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base.number())
                .u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
                .u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len),
            Source::CtState => New::named(c"ct")?
                .u32(sys::NFTNL_EXPR_CT_KEY, libc::NFT_CT_STATE as u32)
                .u32(sys::NFTNL_EXPR_CT_DREG, to.number()),
        },
        Expr::Mask { mask } => New::named(c"bitwise")?
            .u32(sys::NFTNL_EXPR_BITWISE_SREG, first)
            .u32(sys::NFTNL_EXPR_BITWISE_DREG, first)
            .u32(sys::NFTNL_EXPR_BITWISE_LEN, mask.as_bytes().len() as u32)
            .data(sys::NFTNL_EXPR_BITWISE_MASK, mask)
            .data(sys::NFTNL_EXPR_BITWISE_XOR, &mask.zeros()),
        Expr::Cmp { op, data } => New::named(c"cmp")?
            .u32(sys::NFTNL_EXPR_CMP_SREG, first)
            .u32(sys::NFTNL_EXPR_CMP_OP, op.number())
            .data(sys::NFTNL_EXPR_CMP_DATA, data),
        Expr::NotInRange { from, to } => New::named(c"range")?
            .u32(sys::NFTNL_EXPR_RANGE_SREG, first)
            .u32(sys::NFTNL_EXPR_RANGE_OP, libc::NFT_RANGE_NEQ as u32)
            .data(sys::NFTNL_EXPR_RANGE_FROM_DATA, from)
            .data(sys::NFTNL_EXPR_RANGE_TO_DATA, to),
        Expr::Lookup {
            set,
            inverted,
            verdict,
        } => {
            let mut lookup = New::named(c"lookup")?
                .u32(sys::NFTNL_EXPR_LOOKUP_SREG, first)
                .text(sys::NFTNL_EXPR_LOOKUP_SET, set.as_str())?;
            if *verdict {
                lookup = lookup.u32(sys::NFTNL_EXPR_LOOKUP_DREG, VERDICT_REGISTER);
            }
            if *inverted {
                lookup = lookup.u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, libc::NFT_LOOKUP_F_INV as u32);
            }
            lookup
        }
        Expr::Verdict(verdict) => {
            let immediate = New::named(c"immediate")?
                .u32(sys::NFTNL_EXPR_IMM_DREG, VERDICT_REGISTER)
                .u32(sys::NFTNL_EXPR_IMM_VERDICT, verdict_number(verdict));
            match verdict.chain() {
                Some(chain) => immediate.text(sys::NFTNL_EXPR_IMM_CHAIN, chain.as_str())?,
                None => immediate,
            }
        }
        Expr::Counter => New::named(c"counter")?,
        Expr::NamedCounter(name) => New::named(c"objref")?
            .u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, OBJECT_COUNTER)
            .text(sys::NFTNL_EXPR_OBJREF_IMM_NAME, name.as_str())?,
        Expr::Limit { rate, unit, burst } => New::named(c"limit")?
            .u64(sys::NFTNL_EXPR_LIMIT_RATE, *rate)
            .u64(sys::NFTNL_EXPR_LIMIT_UNIT, seconds(*unit))
            .u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst)
            .u32(sys::NFTNL_EXPR_LIMIT_TYPE, libc::NFT_LIMIT_PKTS as u32)
            .u32(sys::NFTNL_EXPR_LIMIT_FLAGS, 0),
        Expr::Log { group, prefix } => {
            let log = New::named(c"log")?.u16(sys::NFTNL_EXPR_LOG_GROUP, *group);
            match prefix {
                Some(prefix) if prefix.as_str().len() > MAX_LOG_PREFIX => {
                    return Err(invalid("a log prefix has at most 127 bytes"));
                }
                Some(prefix) => log.text(sys::NFTNL_EXPR_LOG_PREFIX, prefix.as_str())?,
                None => log,
            }
        }
        Expr::Other(_) => return Err(invalid("a foreign expression can't be written")),
    })
}

impl Object<Rule> {
    /// Appends an expression, of which a rule has at most [`MAX_EXPRS`].
    pub(in super::super) fn push(&mut self, expr: &Expr) -> io::Result<()> {
        if self.exprs == MAX_EXPRS {
            return Err(invalid("a rule has at most 128 expressions"));
        }
        let expr = make(expr)?;
        // SAFETY: both are alive. The rule owns and frees the expression from here on, so `New` must not.
        unsafe { sys::nftnl_rule_add_expr(self.raw.as_ptr(), expr.0.as_ptr()) };
        std::mem::forget(expr);
        self.exprs += 1;
        Ok(())
    }

    /// The rule's expressions, each with libnftnl's words for it.
    pub(in super::super) fn exprs(&self) -> io::Result<Vec<(Expr, String)>> {
        // SAFETY: the rule is alive and is not changed while the iterator is. NULL means that there was no memory.
        let iter = unsafe { sys::nftnl_expr_iter_create(self.raw.as_ptr()) };
        if iter.is_null() {
            return Err(out_of_memory());
        }
        let mut exprs = Vec::new();
        // SAFETY: `iter` is alive; it gives NULL at the end, and expressions that the rule owns before.
        while let Some(raw) = NonNull::new(unsafe { sys::nftnl_expr_iter_next(iter) }) {
            let read = Read(raw);
            let words = read.words();
            let expr = read.expr().unwrap_or_else(|| Expr::Other(words.clone()));
            exprs.push((expr, words));
        }
        // SAFETY: it came from `nftnl_expr_iter_create` and is not used again.
        unsafe { sys::nftnl_expr_iter_destroy(iter) };
        Ok(exprs)
    }
}

/// An expression that a rule owns; it lives no longer than the loop in [`Object::exprs`].
struct Read(NonNull<sys::nftnl_expr>);

impl Read {
    fn is_set(&self, attr: u32) -> bool {
        // SAFETY: the expression is alive.
        unsafe { sys::nftnl_expr_is_set(self.0.as_ptr(), attr as u16) }
    }

    // The getters read as many bytes as they say, so the widths at their calls below are those of libnftnl's structures.

    fn u16(&self, attr: u32) -> Option<u16> {
        // SAFETY: the attribute is set and 16 bits wide.
        self.is_set(attr)
            .then(|| unsafe { sys::nftnl_expr_get_u16(self.0.as_ptr(), attr as u16) })
    }

    fn u32(&self, attr: u32) -> Option<u32> {
        // SAFETY: the attribute is set and 32 bits wide.
        self.is_set(attr)
            .then(|| unsafe { sys::nftnl_expr_get_u32(self.0.as_ptr(), attr as u16) })
    }

    fn u64(&self, attr: u32) -> Option<u64> {
        // SAFETY: the attribute is set and 64 bits wide.
        self.is_set(attr)
            .then(|| unsafe { sys::nftnl_expr_get_u64(self.0.as_ptr(), attr as u16) })
    }

    fn text(&self, attr: u32) -> Option<&str> {
        if attr != sys::NFTNL_EXPR_NAME && !self.is_set(attr) {
            return None;
        }
        // SAFETY: the attribute is a text and set, or the expression's name, which is always there.
        let text = unsafe { sys::nftnl_expr_get_str(self.0.as_ptr(), attr as u16) };
        if text.is_null() {
            return None;
        }
        // SAFETY: libnftnl keeps it NUL-terminated while the expression lives.
        unsafe { CStr::from_ptr(text) }.to_str().ok()
    }

    fn data(&self, attr: u32) -> Option<Data> {
        if !self.is_set(attr) {
            return None;
        }
        let mut len = 0;
        // SAFETY: the attribute is set and is data; libnftnl writes its length to `len`.
        let start = unsafe { sys::nftnl_expr_get(self.0.as_ptr(), attr as u16, &raw mut len) };
        if start.is_null() {
            return None;
        }
        // SAFETY: libnftnl says that `len` bytes are there; they are copied at once.
        Data::new(unsafe { std::slice::from_raw_parts(start.cast(), len as usize) })
    }

    /// What libnftnl calls it, as `nft --debug=netlink` prints it.
    fn words(&self) -> String {
        let mut text = [0u8; 512];
        // SAFETY: `text` has as many bytes as are said, and libnftnl ends what it writes within them with a NUL.
        unsafe {
            sys::nftnl_expr_snprintf(
                text.as_mut_ptr().cast(),
                text.len(),
                self.0.as_ptr(),
                sys::NFTNL_OUTPUT_DEFAULT,
                0,
            )
        };
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        let details = String::from_utf8_lossy(&text[..end]);
        let name = self.text(sys::NFTNL_EXPR_NAME).unwrap_or("?");
        format!("[ {name} {}]", details.trim_start())
    }

    fn reads_first(&self, attr: u32) -> bool {
        self.u32(attr).and_then(Reg::from_number) == Some(Reg::FIRST)
    }

    /// The expression; `None` where it is none that [`Expr`] can say.
    fn expr(&self) -> Option<Expr> {
        Some(match self.text(sys::NFTNL_EXPR_NAME)? {
            "meta" => Expr::Load {
                source: Source::Meta(MetaKey::from_number(self.u32(sys::NFTNL_EXPR_META_KEY)?)?),
                to: Reg::from_number(self.u32(sys::NFTNL_EXPR_META_DREG)?)?,
            },
            "payload" => Expr::Load {
                source: Source::Payload {
                    base: Base::from_number(self.u32(sys::NFTNL_EXPR_PAYLOAD_BASE)?)?,
                    offset: self.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET)?,
                    len: self.u32(sys::NFTNL_EXPR_PAYLOAD_LEN)?,
                },
                to: Reg::from_number(self.u32(sys::NFTNL_EXPR_PAYLOAD_DREG)?)?,
            },
            "ct" if self.u32(sys::NFTNL_EXPR_CT_KEY)? == libc::NFT_CT_STATE as u32 => Expr::Load {
                source: Source::CtState,
                to: Reg::from_number(self.u32(sys::NFTNL_EXPR_CT_DREG)?)?,
            },
            "bitwise" if self.u32(sys::NFTNL_EXPR_BITWISE_OP).unwrap_or(0) == 0 => {
                let mask = self.data(sys::NFTNL_EXPR_BITWISE_MASK)?;
                let in_place = self.reads_first(sys::NFTNL_EXPR_BITWISE_SREG)
                    && self.reads_first(sys::NFTNL_EXPR_BITWISE_DREG);
                let xor = self.data(sys::NFTNL_EXPR_BITWISE_XOR)?;
                if !in_place || xor != mask.zeros() {
                    return None;
                }
                Expr::Mask { mask }
            }
            "cmp" if self.reads_first(sys::NFTNL_EXPR_CMP_SREG) => Expr::Cmp {
                op: Cmp::from_number(self.u32(sys::NFTNL_EXPR_CMP_OP)?)?,
                data: self.data(sys::NFTNL_EXPR_CMP_DATA)?,
            },
            "range"
                if self.reads_first(sys::NFTNL_EXPR_RANGE_SREG)
                    && self.u32(sys::NFTNL_EXPR_RANGE_OP)? == libc::NFT_RANGE_NEQ as u32 =>
            {
                Expr::NotInRange {
                    from: self.data(sys::NFTNL_EXPR_RANGE_FROM_DATA)?,
                    to: self.data(sys::NFTNL_EXPR_RANGE_TO_DATA)?,
                }
            }
            "lookup" if self.reads_first(sys::NFTNL_EXPR_LOOKUP_SREG) => {
                let into = self.u32(sys::NFTNL_EXPR_LOOKUP_DREG);
                if into.is_some_and(|register| register != VERDICT_REGISTER) {
                    return None;
                }
                let flags = self.u32(sys::NFTNL_EXPR_LOOKUP_FLAGS).unwrap_or(0);
                Expr::Lookup {
                    set: Name::new(self.text(sys::NFTNL_EXPR_LOOKUP_SET)?).ok()?,
                    inverted: match flags {
                        0 => false,
                        flag if flag == libc::NFT_LOOKUP_F_INV as u32 => true,
                        _ => return None,
                    },
                    verdict: into.is_some(),
                }
            }
            "immediate" if self.u32(sys::NFTNL_EXPR_IMM_DREG)? == VERDICT_REGISTER => {
                let number = self.u32(sys::NFTNL_EXPR_IMM_VERDICT)?;
                Expr::Verdict(verdict(number, self.text(sys::NFTNL_EXPR_IMM_CHAIN))?)
            }
            "counter" => Expr::Counter,
            "objref" if self.u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE)? == OBJECT_COUNTER => {
                Expr::NamedCounter(Name::new(self.text(sys::NFTNL_EXPR_OBJREF_IMM_NAME)?).ok()?)
            }
            "limit" => {
                let kind = self.u32(sys::NFTNL_EXPR_LIMIT_TYPE).unwrap_or(0);
                let flags = self.u32(sys::NFTNL_EXPR_LIMIT_FLAGS).unwrap_or(0);
                if kind != libc::NFT_LIMIT_PKTS as u32 || flags != 0 {
                    return None;
                }
                Expr::Limit {
                    rate: self.u64(sys::NFTNL_EXPR_LIMIT_RATE)?,
                    unit: unit(self.u64(sys::NFTNL_EXPR_LIMIT_UNIT)?)?,
                    burst: self.u32(sys::NFTNL_EXPR_LIMIT_BURST)?,
                }
            }
            "log" => {
                let defaults = !self.is_set(sys::NFTNL_EXPR_LOG_SNAPLEN)
                    && self.u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD).unwrap_or(0) == 0
                    && !self.is_set(sys::NFTNL_EXPR_LOG_LEVEL)
                    && !self.is_set(sys::NFTNL_EXPR_LOG_FLAGS);
                if !defaults {
                    return None;
                }
                let prefix = match self.is_set(sys::NFTNL_EXPR_LOG_PREFIX) {
                    true => Some(Comment::new(self.text(sys::NFTNL_EXPR_LOG_PREFIX)?).ok()?),
                    false => None,
                };
                Expr::Log {
                    group: self.u16(sys::NFTNL_EXPR_LOG_GROUP)?,
                    prefix,
                }
            }
            _ => return None,
        })
    }
}
