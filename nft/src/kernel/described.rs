//! Tables, chains, sets and counters, as the kernel's attributes describe them.
//!
//! Not by libnftnl, which ends the process (`abi_breakage`) when an attribute has another size than it knows.

use nftnl::nftnl_sys::libc;

use super::elements;
use super::objects::{
    DATA_VERDICT, SET_CONCAT, TYPE_BITS, hook_number, policy_number, type_number,
};
use super::userdata;
use super::wire::{Attrs, Malformed};
use crate::name::Comment;
use crate::ruleset::{BaseChain, Chain, ChainPolicy, Elements, Hook, Set, SetHeader};
use crate::value::Datatype;

/// `enum nft_table_attributes`.
pub(super) mod table_attr {
    pub const FLAGS: u16 = 2;
    pub const USER_DATA: u16 = 6;
}

/// `enum nft_chain_attributes`.
pub(super) mod chain_attr {
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const FLAGS: u16 = 10;
    pub const USER_DATA: u16 = 12;
}

/// `enum nft_hook_attributes`.
mod hook_attr {
    pub const NUMBER: u16 = 1;
    pub const PRIORITY: u16 = 2;
}

/// `enum nft_set_attributes`.
pub(super) mod set_attr {
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LEN: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DESCRIPTION: u16 = 9;
    pub const USER_DATA: u16 = 13;
}

/// `NFTA_SET_DESC_SIZE`.
const SIZE: u16 = 1;

/// `enum nft_object_attributes`.
pub(super) mod object_attr {
    pub const NAME: u16 = 2;
    pub const TYPE: u16 = 3;
    pub const USER_DATA: u16 = 8;
}

/// The text of an attribute; empty where there is none.
pub(super) fn text(attrs: &Attrs<'_>, kind: u16) -> Result<String, Malformed> {
    let found = attrs.clone().find(kind)?;
    Ok(found.map(|attr| attr.text()).unwrap_or_default())
}

/// The number in an attribute.
pub(super) fn number(attrs: &Attrs<'_>, kind: u16) -> Result<Option<u32>, Malformed> {
    let found = attrs.clone().find(kind)?;
    found.map(|attr| attr.u32()).transpose()
}

/// The bytes of an attribute.
pub(super) fn data<'a>(attrs: &Attrs<'a>, kind: u16) -> Result<Option<&'a [u8]>, Malformed> {
    let found = attrs.clone().find(kind)?;
    Ok(found.map(|attr| attr.payload))
}

/// `NFT_CHAIN_BASE`, which the kernel may report of a base chain.
const CHAIN_BASE: u32 = 1;
/// `NFT_CHAIN_BINDING`: the chain belongs to a rule.
pub(super) const CHAIN_BINDING: u32 = 4;

/// A chain without its rules, and its flags.
pub(super) fn chain(attrs: &Attrs<'_>) -> Result<(Chain, u32), Malformed> {
    let mut chain = Chain {
        comment: data(attrs, chain_attr::USER_DATA)?.and_then(userdata::comment),
        ..Chain::default()
    };
    let flags = number(attrs, chain_attr::FLAGS)?.unwrap_or(0);
    let mut foreign = (flags & !CHAIN_BASE != 0).then(|| format!("chain flags {flags:#x}"));
    if let Some(at) = attrs.clone().find(chain_attr::HOOK)? {
        let hook_at = number(&at.nested(), hook_attr::NUMBER)?;
        let hook = [
            Hook::Prerouting,
            Hook::Input,
            Hook::Forward,
            Hook::Output,
            Hook::Postrouting,
        ]
        .into_iter()
        .find(|hook| Some(hook_number(*hook)) == hook_at);
        let verdict = number(attrs, chain_attr::POLICY)?.unwrap_or_default();
        let policy = [ChainPolicy::Accept, ChainPolicy::Drop]
            .into_iter()
            .find(|policy| policy_number(*policy) == verdict);
        let kind = text(attrs, chain_attr::TYPE)?;
        match (hook, policy) {
            (Some(hook), Some(policy)) if kind == "filter" => {
                let priority = number(&at.nested(), hook_attr::PRIORITY)?.unwrap_or_default();
                chain.base = Some(BaseChain {
                    hook,
                    priority: priority.cast_signed(),
                    policy,
                });
            }
            _ => foreign = Some(format!("a chain of type {kind} at another hook or so")),
        }
    }
    if let Some(reason) = foreign {
        chain.comment = Some(Comment::foreign(&reason));
    }
    Ok((chain, flags))
}

/// A set without its elements, the kind of which is told, and its flags.
pub(super) fn set(attrs: &Attrs<'_>) -> Result<(Set, u32), Malformed> {
    const INTERVAL: u32 = libc::NFT_SET_INTERVAL as u32;
    const MAP: u32 = libc::NFT_SET_MAP as u32;
    let flags = number(attrs, set_attr::FLAGS)?.unwrap_or(0);
    let mut header = SetHeader {
        key: Vec::new(),
        comment: data(attrs, set_attr::USER_DATA)?.and_then(userdata::set_comment),
    };
    let verdicts = number(attrs, set_attr::DATA_TYPE)? == Some(DATA_VERDICT);
    // Later versions of nft mark every concatenation, the kernel does not care.
    let kind = match flags & !SET_CONCAT {
        0 => Some(Elements::Keys(imbl::OrdSet::new())),
        INTERVAL => Some(Elements::Ranges(imbl::OrdMap::new())),
        MAP if verdicts => Some(Elements::Verdicts(imbl::OrdMap::new())),
        _ => None,
    };
    let key_type = number(attrs, set_attr::KEY_TYPE)?.unwrap_or(0);
    header.key = datatypes(key_type).unwrap_or_default();
    let key_len = number(attrs, set_attr::KEY_LEN)?;
    let fits = elements::key_len(&header).is_ok_and(|len| Some(len as u32) == key_len);
    let size = match attrs.clone().find(set_attr::DESCRIPTION)? {
        Some(description) => number(&description.nested(), SIZE)?,
        None => None,
    };
    let sized = size.is_some_and(|size| size != 0);
    let reason = match &kind {
        None => Some(format!("set flags {flags:#x}")),
        Some(_) if !fits => Some("a key of another type".to_owned()),
        // Of keys it may be ours; should it be too small it turns out to be full.
        Some(Elements::Ranges(_) | Elements::Verdicts(_)) if sized => {
            Some("a set of limited size".to_owned())
        }
        Some(_) => None,
    };
    if let Some(reason) = reason {
        header.comment = Some(Comment::foreign(&reason));
    }
    let set = Set {
        header,
        elements: kind.unwrap_or(Elements::Keys(imbl::OrdSet::new())),
    };
    Ok((set, flags))
}

/// The types of a set's key, last one in the lowest bits.
fn datatypes(mut number: u32) -> Option<Vec<Datatype>> {
    let all = [
        Datatype::Ipv4Addr,
        Datatype::Ipv6Addr,
        Datatype::InetProto,
        Datatype::InetService,
        Datatype::EtherType,
        Datatype::IfName,
        Datatype::IcmpType,
        Datatype::Icmpv6Type,
    ];
    let mut types = Vec::new();
    while number != 0 {
        let low = number & ((1 << TYPE_BITS) - 1);
        types.push(all.into_iter().find(|one| type_number(*one) == low)?);
        number >>= TYPE_BITS;
    }
    types.reverse();
    Some(types)
}
