//! Tables, chains, sets and counters as libnftnl's objects. [`super::described`] is the way back.

use std::io;

use nftnl::nftnl_sys::libc;

use super::elements;
use super::expr::OBJECT_COUNTER;
use super::ffi::{self, Object};
use super::userdata;
use crate::name::{Comment, Name};
use crate::ruleset::{
    BaseChain, ChainPolicy, Elements, Family, Hook, Ownership, SetHeader, TableId,
};
use crate::value::Datatype;

/// `NFT_SET_CONCAT`.
pub(super) const SET_CONCAT: u32 = 0x80;
/// The data type of a verdict map: `NFT_DATA_VERDICT`.
pub(super) const DATA_VERDICT: u32 = 0xffff_ff00;
/// Bits that one type takes in a concatenation's key type, in nft.
pub(super) const TYPE_BITS: u32 = 6;

/// `NFT_TABLE_F_OWNER`, since Linux 5.12.
const TABLE_OWNER: u32 = 0x2;
/// `NFT_TABLE_F_PERSIST`, since Linux 6.9.
const TABLE_PERSIST: u32 = 0x4;
/// The flags of a table that is ours alone while we live, and anyone's afterwards.
pub(super) const TABLE_OWNED: u32 = TABLE_OWNER | TABLE_PERSIST;

/// nft's number for a type, which the kernel keeps for it.
pub(super) const fn type_number(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Ipv4Addr => 7,
        Datatype::Ipv6Addr => 8,
        Datatype::EtherType => 10,
        Datatype::InetProto => 12,
        Datatype::InetService => 13,
        Datatype::IcmpType => 14,
        Datatype::Icmpv6Type => 29,
        Datatype::IfName => 41,
    }
}

/// `NFPROTO_*`.
pub(super) const fn family_number(family: Family) -> u8 {
    match family {
        Family::Inet => libc::NFPROTO_INET as u8,
        Family::Bridge => libc::NFPROTO_BRIDGE as u8,
    }
}

/// The family of an `NFPROTO_*`, if it is one of ours.
pub(super) fn family_of(number: u8) -> Option<Family> {
    let families = [Family::Inet, Family::Bridge];
    families
        .into_iter()
        .find(|family| family_number(*family) == number)
}

/// `NF_INET_*`, which `NF_BR_*` equal.
pub(super) const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING as u32,
        Hook::Input => libc::NF_INET_LOCAL_IN as u32,
        Hook::Forward => libc::NF_INET_FORWARD as u32,
        Hook::Output => libc::NF_INET_LOCAL_OUT as u32,
        Hook::Postrouting => libc::NF_INET_POST_ROUTING as u32,
    }
}

/// `NF_ACCEPT` or `NF_DROP`.
pub(super) const fn policy_number(policy: ChainPolicy) -> u32 {
    match policy {
        ChainPolicy::Accept => libc::NF_ACCEPT as u32,
        ChainPolicy::Drop => libc::NF_DROP as u32,
    }
}

pub(super) fn comment_data(comment: Option<&Comment>) -> io::Result<Option<Vec<u8>>> {
    match comment {
        Some(comment) if comment.is_foreign() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a foreign comment can be read but not written",
        )),
        Some(comment) => Ok(Some(userdata::of_comment(comment))),
        None => Ok(None),
    }
}

pub(super) fn table_object(table: &TableId) -> io::Result<Object<ffi::Table>> {
    let mut object = Object::new()?;
    object.set_text(ffi::table::NAME, table.name.as_str())?;
    Ok(object)
}

/// Who may change a table with these flags and this owner, as the socket with the port `own` sees it; `None` for other flags.
pub(super) fn ownership(flags: u32, owner: Option<u32>, own: u32) -> Option<Ownership> {
    match (flags, owner) {
        (0, _) => Some(Ownership::Anyone),
        (TABLE_PERSIST, _) => Some(Ownership::Orphan),
        (TABLE_OWNED, Some(owner)) if owner == own => Some(Ownership::Own),
        (TABLE_OWNED | TABLE_OWNER, Some(owner)) if owner != own => Some(Ownership::Other(owner)),
        _ => None,
    }
}

pub(super) fn counter_object(table: &TableId, name: &Name) -> io::Result<Object<ffi::Stateful>> {
    let mut object = Object::new()?;
    object.set_text(ffi::stateful::TABLE, table.name.as_str())?;
    object.set_text(ffi::stateful::NAME, name.as_str())?;
    object.set_u32(ffi::stateful::TYPE, OBJECT_COUNTER);
    Ok(object)
}

pub(super) fn rule_object(table: &TableId, chain: &Name) -> io::Result<Object<ffi::Rule>> {
    let mut object = Object::new()?;
    object.set_text(ffi::rule::TABLE, table.name.as_str())?;
    object.set_text(ffi::rule::CHAIN, chain.as_str())?;
    Ok(object)
}

pub(super) fn chain_object(
    table: &TableId,
    name: &Name,
    base: Option<BaseChain>,
    comment: Option<&Comment>,
) -> io::Result<Object<ffi::Chain>> {
    let mut object = Object::new()?;
    object.set_text(ffi::chain::TABLE, table.name.as_str())?;
    object.set_text(ffi::chain::NAME, name.as_str())?;
    if let Some(base) = base {
        object.set_text(ffi::chain::TYPE, "filter")?;
        object.set_u32(ffi::chain::HOOK, hook_number(base.hook));
        object.set_u32(ffi::chain::PRIORITY, base.priority.cast_unsigned());
        object.set_u32(ffi::chain::POLICY, policy_number(base.policy));
    }
    if let Some(data) = comment_data(comment)? {
        object.set_bytes(ffi::chain::USER_DATA, &data)?;
    }
    Ok(object)
}

pub(super) fn set_object(
    table: &TableId,
    name: &Name,
    header: &SetHeader,
    kind: &Elements,
    id: u32,
) -> io::Result<Object<ffi::Set>> {
    let len = elements::key_len(header)?;
    if header.comment.as_ref().is_some_and(Comment::is_foreign) {
        comment_data(header.comment.as_ref())?;
    }
    let types = header.key.iter();
    let key_type = types.fold(0, |all, one| all << TYPE_BITS | type_number(*one));
    let mut object = Object::<ffi::Set>::new()?;
    object.set_text(ffi::set::TABLE, table.name.as_str())?;
    object.set_text(ffi::set::NAME, name.as_str())?;
    object.set_u32(ffi::set::KEY_TYPE, key_type);
    object.set_u32(ffi::set::KEY_LEN, len as u32);
    object.set_u32(ffi::set::ID, id);
    let mut flags = 0;
    match kind {
        Elements::Keys(_) => {}
        Elements::Ranges(_) => flags |= libc::NFT_SET_INTERVAL as u32,
        Elements::Verdicts(_) => {
            flags |= libc::NFT_SET_MAP as u32;
            object.set_u32(ffi::set::DATA_TYPE, DATA_VERDICT);
        }
    }
    if header.key.len() > 1 && matches!(kind, Elements::Ranges(_)) {
        flags |= SET_CONCAT;
        let lens: Vec<u8> = header.key.iter().map(|field| field.len() as u8).collect();
        object.set_field_lens(&lens)?;
    }
    object.set_u32(ffi::set::FLAGS, flags);
    let data = userdata::of_set(&header.key, header.comment.as_ref());
    object.set_bytes(ffi::set::USER_DATA, &data)?;
    Ok(object)
}
