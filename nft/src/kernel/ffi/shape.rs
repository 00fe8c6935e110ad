//! What libnftnl takes for granted of a rule's message.
//!
//! It holds each attribute that it knows against the size it expects, and where a kernel sends another, ends the process
//! (`abi_breakage`, in its `common.c` and at the end of each callback for attributes). Expressions without a name it
//! reads at NULL. So only what has the expected shape gets there, and of expressions only those that
//! [`crate::rule::Statement`] can say at all.

use std::io;

use super::invalid;
use super::wire::{Attr, Attrs, Malformed, Message};

/// What an attribute has to hold.
#[derive(Clone, Copy)]
enum Shape {
    /// A number of so many bytes: more are as wrong as less.
    Number(usize),
    /// A text of at least one byte.
    Text,
    /// Attributes; these have the shapes that are given.
    Nest(&'static [(u16, Shape)]),
    /// Expressions one after another.
    Exprs,
}

use Shape::{Exprs, Nest, Number, Text};

const U16: Shape = Number(2);
const U32: Shape = Number(4);
const U64: Shape = Number(8);

/// `enum nft_rule_attributes`: what libnftnl looks into.
const RULE: &[(u16, Shape)] = &[
    (1, Text),
    (2, Text),
    (3, U64),
    (4, Exprs),
    (5, Nest(&[(1, U32), (2, U32)])),
    (6, U64),
    (9, U32),
    (10, U32),
];

/// `NFTA_DATA_VERDICT` with its code, chain, and the chain's number; `NFTA_DATA_VALUE` may be of any size.
const DATA: Shape = Nest(&[(2, Nest(&[(1, U32), (2, Text), (3, U32)]))]);

/// The expressions, by name, and what libnftnl looks into of their attributes (`enum nft_*_attributes`).
const EXPRESSIONS: &[(&str, &[(u16, Shape)])] = &[
    (
        "bitwise",
        &[
            (1, U32),
            (2, U32),
            (3, U32),
            (4, DATA),
            (5, DATA),
            (6, U32),
            (7, DATA),
        ],
    ),
    ("cmp", &[(1, U32), (2, U32), (3, DATA)]),
    ("counter", &[(1, U64), (2, U64)]),
    ("ct", &[(1, U32), (2, U32), (3, Number(1)), (4, U32)]),
    ("immediate", &[(1, U32), (2, DATA)]),
    ("limit", &[(1, U64), (2, U64), (3, U32), (4, U32), (5, U32)]),
    (
        "log",
        &[(1, U16), (2, Text), (3, U32), (4, U16), (5, U32), (6, U32)],
    ),
    (
        "lookup",
        &[(1, Text), (2, U32), (3, U32), (4, U32), (5, U32)],
    ),
    ("meta", &[(1, U32), (2, U32), (3, U32)]),
    (
        "objref",
        &[(1, U32), (2, Text), (3, U32), (4, Text), (5, U32)],
    ),
    (
        "payload",
        &[
            (1, U32),
            (2, U32),
            (3, U32),
            (4, U32),
            (5, U32),
            (6, U32),
            (7, U32),
            (8, U32),
        ],
    ),
    ("range", &[(1, U32), (2, U32), (3, DATA), (4, DATA)]),
];

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const LIST_ELEMENT: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

/// Whether a rule's message has the shape that libnftnl takes for granted.
///
/// # Errors
/// What has another, or an expression that is not known.
pub(super) fn check_rule(message: Message<'_>) -> io::Result<()> {
    if message.payload().len() < 4 {
        return Err(invalid("a message without nfnetlink's header"));
    }
    all(message.attrs(), RULE).map_err(|malformed| invalid(&malformed.reason))
}

fn all(attrs: Attrs<'_>, shapes: &[(u16, Shape)]) -> Result<(), Malformed> {
    for attr in attrs {
        let attr = attr?;
        let known = shapes.iter().find(|(kind, _)| *kind == attr.kind);
        if let Some((_, shape)) = known {
            one(attr, *shape)?;
        }
    }
    Ok(())
}

fn one(attr: Attr<'_>, shape: Shape) -> Result<(), Malformed> {
    let len = attr.payload.len();
    let fits = match shape {
        Number(bytes) => len == bytes,
        Text => len > 0,
        Nest(shapes) => return all(attr.nested(), shapes),
        Exprs => return exprs(attr.nested()),
    };
    match fits {
        true => Ok(()),
        false => {
            let kind = attr.kind;
            let reason = format!("attribute {kind} can't have {len} bytes");
            Err(Malformed::new(reason))
        }
    }
}

fn exprs(list: Attrs<'_>) -> Result<(), Malformed> {
    for item in list {
        let item = item?;
        if item.kind != LIST_ELEMENT {
            return Err(Malformed::new("expressions that are no list"));
        }
        let name = item.nested().find(EXPR_NAME)?;
        let name = name.map(|name| name.text()).unwrap_or_default();
        let known = EXPRESSIONS.iter().find(|(known, _)| *known == name);
        let Some((_, shapes)) = known else {
            return Err(Malformed::new(format!("the expression {name:?}")));
        };
        // The last of several counts for libnftnl, so each must fit.
        for attr in item.nested() {
            let attr = attr?;
            match attr.kind {
                EXPR_NAME if attr.text() != name => {
                    return Err(Malformed::new("an expression of two names"));
                }
                EXPR_DATA => all(attr.nested(), shapes)?,
                _ => {}
            }
        }
    }
    Ok(())
}
