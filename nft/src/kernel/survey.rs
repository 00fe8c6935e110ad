//! Everyone's tables, chains, rules and sets, read for what a [`Survey`] says of them.

use std::collections::HashMap;

use nftnl::nftnl_sys::libc;

use super::read::{Reader, TABLE_OWNER_ATTR};
use super::request::{Answer, Fault, Question, malformed};
use super::wire::{Attr, Malformed, Message};
use crate::survey::{Survey, SurveyedBase, SurveyedChain, SurveyedTable};

/// The names of tables, and of what stands in them: `NFTA_*_TABLE` is 1, chains are the third, sets the second.
const TABLE_ATTR: u16 = 1;
const CHAIN_NAME_ATTR: u16 = 3;
const SET_NAME_ATTR: u16 = 2;
const SET_FLAGS_ATTR: u16 = 3;
/// `NFTA_CHAIN_HOOK` with `NFTA_HOOK_HOOKNUM` and `NFTA_HOOK_PRIORITY`, `NFTA_CHAIN_POLICY`, `NFTA_CHAIN_TYPE`.
const CHAIN_HOOK_ATTR: u16 = 4;
const HOOK_NUMBER_ATTR: u16 = 1;
const HOOK_PRIORITY_ATTR: u16 = 2;
const CHAIN_POLICY_ATTR: u16 = 5;
const CHAIN_TYPE_ATTR: u16 = 7;
/// `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`; of an expression `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const RULE_CHAIN_ATTR: u16 = 2;
const RULE_EXPRESSIONS_ATTR: u16 = 4;
const EXPR_NAME_ATTR: u16 = 1;
const EXPR_DATA_ATTR: u16 = 2;
/// `NFTA_IMMEDIATE_DATA` → `NFTA_DATA_VERDICT` → `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const IMMEDIATE_DATA_ATTR: u16 = 2;
const DATA_VERDICT_ATTR: u16 = 2;
const VERDICT_CODE_ATTR: u16 = 1;
const VERDICT_CHAIN_ATTR: u16 = 2;
/// `NFTA_LOOKUP_DREG`; register 0 takes verdicts.
const LOOKUP_DREG_ATTR: u16 = 3;
/// `NFTA_TARGET_NAME`, of iptables' own targets.
const TARGET_NAME_ATTR: u16 = 1;
/// `NFTA_QUEUE_FLAGS` and `NFT_QUEUE_FLAG_BYPASS`.
const QUEUE_FLAGS_ATTR: u16 = 3;
const QUEUE_BYPASS: u8 = 1;

type Places = HashMap<(u8, String), usize>;

/// Reads everything once.
pub(super) fn survey(reader: &mut Reader<'_>) -> Result<Survey, Fault> {
    let mut survey = Survey::default();
    let mut places = Places::new();
    dump(reader, libc::NFT_MSG_GETTABLE, "a table", |message| {
        let name = text(message, TABLE_ATTR)?;
        let owner = message.attrs().find(TABLE_OWNER_ATTR)?;
        let owner = owner.map(|owner| owner.u32()).transpose()?;
        places.insert((number(message), name.clone()), survey.tables.len());
        survey.tables.push(SurveyedTable {
            family: family(number(message)),
            name,
            owner,
            ..SurveyedTable::default()
        });
        Ok(())
    })?;
    let mut chains = HashMap::new();
    dump(reader, libc::NFT_MSG_GETCHAIN, "a chain", |message| {
        if let Some(place) = place(&places, message)? {
            let chain = chain(message)?;
            let all = &mut survey.tables[place].chains;
            chains.insert((place, chain.name.clone()), all.len());
            all.push(chain);
        }
        Ok(())
    })?;
    dump(reader, libc::NFT_MSG_GETRULE, "a rule", |message| {
        let Some(place) = place(&places, message)? else {
            return Ok(());
        };
        let name = text(message, RULE_CHAIN_ATTR)?;
        if let Some(at) = chains.get(&(place, name)) {
            rule(&mut survey.tables[place].chains[*at], message)?;
        }
        Ok(())
    })?;
    dump(reader, libc::NFT_MSG_GETSET, "a set", |message| {
        let flags = message.attrs().find(SET_FLAGS_ATTR)?;
        let flags = flags.map_or(Ok(0), |flags| flags.u32())?;
        let named = flags & libc::NFT_SET_ANONYMOUS as u32 == 0;
        if let (true, Some(place)) = (named, place(&places, message)?) {
            let name = text(message, SET_NAME_ATTR)?;
            survey.tables[place].sets.push(name);
        }
        Ok(())
    })?;
    Ok(survey)
}

/// All objects of a kind, of all families.
fn dump(
    reader: &mut Reader<'_>,
    operation: libc::c_int,
    object: &str,
    mut each: impl FnMut(Message<'_>) -> Result<(), Malformed>,
) -> Result<(), Fault> {
    let question = Question {
        operation,
        family: libc::AF_UNSPEC as u8,
        all: true,
    };
    let each = |message: Message<'_>| each(message).map_err(|reason| malformed(object, &reason));
    match reader.ask(question, |_| {}, each)? {
        Answer::Complete => Ok(()),
        Answer::Missing | Answer::Interrupted => Err(Fault::Changed),
    }
}

fn text(message: Message<'_>, attr: u16) -> Result<String, Malformed> {
    let found = message.attrs().find(attr)?;
    Ok(found.map(|attr| attr.text()).unwrap_or_default())
}

/// Where the object's table stands in the survey.
fn place(places: &Places, message: Message<'_>) -> Result<Option<usize>, Malformed> {
    let table = text(message, TABLE_ATTR)?;
    Ok(places.get(&(number(message), table)).copied())
}

/// The family's number; 0, which is none, for a message without nfnetlink's header.
fn number(message: Message<'_>) -> u8 {
    message.family().unwrap_or(0)
}

fn family(number: u8) -> String {
    match i32::from(number) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_NETDEV => "netdev",
        libc::NFPROTO_BRIDGE => "bridge",
        other => return format!("family {other}"),
    }
    .to_owned()
}

fn chain(message: Message<'_>) -> Result<SurveyedChain, Malformed> {
    let base = match message.attrs().find(CHAIN_HOOK_ATTR)? {
        None => None,
        Some(hook) => {
            let value = |attr| -> Result<u32, Malformed> {
                let found: Option<Attr<'_>> = hook.nested().find(attr)?;
                found.map_or(Ok(u32::MAX), |attr| attr.u32())
            };
            let policy = message.attrs().find(CHAIN_POLICY_ATTR)?;
            let policy = policy.map_or(Ok(libc::NF_ACCEPT as u32), |policy| policy.u32())?;
            let family = i32::from(number(message));
            Some(SurveyedBase {
                kind: text(message, CHAIN_TYPE_ATTR)?,
                hook: hook_name(family, value(HOOK_NUMBER_ATTR)?),
                priority: value(HOOK_PRIORITY_ATTR)?.cast_signed(),
                drops: policy == libc::NF_DROP as u32,
            })
        }
    };
    Ok(SurveyedChain {
        name: text(message, CHAIN_NAME_ATTR)?,
        base,
        ..SurveyedChain::default()
    })
}

fn hook_name(family: i32, number: u32) -> &'static str {
    const NAMES: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
    match family {
        libc::NFPROTO_ARP | libc::NFPROTO_NETDEV => "other",
        _ => NAMES.get(number as usize).copied().unwrap_or("other"),
    }
}

/// Adds a rule to what is known of its chain.
fn rule(chain: &mut SurveyedChain, message: Message<'_>) -> Result<(), Malformed> {
    chain.rules += 1;
    let Some(expressions) = message.attrs().find(RULE_EXPRESSIONS_ATTR)? else {
        return Ok(());
    };
    let (mut drops, mut queues) = (false, false);
    for expression in expressions.nested() {
        let expression = expression?;
        let Some(name) = expression.nested().find(EXPR_NAME_ATTR)? else {
            continue;
        };
        let data = expression.nested().find(EXPR_DATA_ATTR)?;
        let within = |attr| match data {
            Some(data) => data.nested().find(attr),
            None => Ok(None),
        };
        match name.text().as_str() {
            "immediate" => drops |= verdict(chain, within(IMMEDIATE_DATA_ATTR)?)?,
            "reject" => drops = true,
            "target" => {
                let target = within(TARGET_NAME_ATTR)?.map(|attr| attr.text());
                drops |= matches!(target.as_deref(), Some("DROP" | "REJECT"));
                queues |= matches!(target.as_deref(), Some("NFQUEUE"));
            }
            "queue" => {
                let flags = within(QUEUE_FLAGS_ATTR)?.and_then(|attr| attr.payload.last().copied());
                match flags.unwrap_or(0) & QUEUE_BYPASS {
                    0 => drops = true,
                    _ => queues = true,
                }
            }
            "lookup" => {
                let register = within(LOOKUP_DREG_ATTR)?;
                let register = register.map_or(Ok(u32::MAX), |attr| attr.u32())?;
                chain.maps |= register == libc::NFT_REG_VERDICT as u32;
            }
            _ => {}
        }
    }
    chain.drops += usize::from(drops);
    chain.queues += usize::from(queues);
    Ok(())
}

/// Whether a verdict drops; where it leads is noted.
fn verdict(chain: &mut SurveyedChain, data: Option<Attr<'_>>) -> Result<bool, Malformed> {
    let verdict = match data {
        Some(data) => data.nested().find(DATA_VERDICT_ATTR)?,
        None => None,
    };
    let Some(verdict) = verdict else {
        return Ok(false);
    };
    if let Some(target) = verdict.nested().find(VERDICT_CHAIN_ATTR)? {
        chain.jumps.insert(target.text());
    }
    let code = verdict.nested().find(VERDICT_CODE_ATTR)?;
    Ok(code.map_or(Ok(u32::MAX), |code| code.u32())? == libc::NF_DROP as u32)
}
