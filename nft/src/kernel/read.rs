//! The kernel's tables read back into values.
//!
//! What the values can't say is not left out: the object it belongs to (or the table, for one that has no place among
//! the values) gets a comment that no desired object has, so that a diff makes it anew. See [`Comment::is_foreign`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nftnl::nftnl_sys::libc;

use super::decode;
use super::described::{
    CHAIN_BINDING, chain, chain_attr, data, number, object_attr, set, set_attr, table_attr, text,
};
use super::elements::{Dump, Outcome};
use super::expr::OBJECT_COUNTER;
use super::ffi::{self, Object};
use super::objects::{family_number, ownership};
use super::request::{Answer, Channel, Fault, Question, ask, malformed};
use super::userdata;
use super::wire::{self, Message};
use crate::dataplane::DataplaneError;
use crate::name::{Comment, Name};
use crate::rule::{Rule, Statement};
use crate::ruleset::{Chain, Counter, Ruleset, Set, Table, TableId};

/// How often a dump is repeated while the kernel moves its elements, and how long each waits for that to end.
const TORN_ATTEMPTS: u32 = 20;
const TORN_PAUSE: Duration = Duration::from_millis(5);

/// The first attribute of all of nf_tables' messages: the table's name. The second of an element list: the set's.
pub(super) const TABLE_ATTR: u16 = 1;
pub(super) const SET_ATTR: u16 = 2;
/// `NFTA_CHAIN_NAME`.
pub(super) const CHAIN_NAME_ATTR: u16 = 3;
/// `NFTA_TABLE_OWNER`.
pub(super) const TABLE_OWNER_ATTR: u16 = 7;
/// `NFTA_FLOWTABLE_NAME`.
const FLOWTABLE_NAME_ATTR: u16 = 2;
/// `NFT_MSG_GETFLOWTABLE`.
const GET_FLOWTABLE: libc::c_int = 23;
/// `NFTA_RULE_CHAIN`.
pub(super) const RULE_CHAIN_ATTR: u16 = 2;
/// `NFTA_GEN_ID`.
pub(super) const GENERATION_ATTR: u16 = 1;

/// Reads one state; how to know that it was one is the caller's business.
pub(super) struct Reader<'a> {
    pub channel: &'a mut dyn Channel,
    /// The last sequence number used.
    pub seq: &'a mut u32,
}

/// Which objects of a kind.
#[derive(Clone, Copy)]
enum Which<'a> {
    /// All of a table.
    All,
    /// The one that an attribute names, if it is there.
    Named(u16, &'a Name),
    /// All that belong to what an attribute names.
    Of(u16, &'a Name),
}

fn unreadable(object: &str, error: &io::Error) -> DataplaneError {
    DataplaneError::Malformed {
        object: object.to_owned(),
        reason: error.to_string(),
    }
}

impl Reader<'_> {
    pub(super) fn ask(
        &mut self,
        question: Question,
        attributes: impl FnOnce(&mut Vec<u8>),
        each: impl FnMut(Message<'_>) -> Result<(), DataplaneError>,
    ) -> Result<Answer, DataplaneError> {
        *self.seq = self.seq.wrapping_add(1);
        ask(self.channel, *self.seq, question, attributes, each)
    }

    /// All objects of a kind in a table.
    fn dump(
        &mut self,
        operation: libc::c_int,
        table: &TableId,
        each: impl FnMut(Message<'_>) -> Result<(), DataplaneError>,
    ) -> Result<(), Fault> {
        self.objects(operation, table, Which::All, each)
    }

    /// Objects of a kind in a table.
    fn objects(
        &mut self,
        operation: libc::c_int,
        table: &TableId,
        which: Which<'_>,
        each: impl FnMut(Message<'_>) -> Result<(), DataplaneError>,
    ) -> Result<(), Fault> {
        let question = Question {
            operation,
            family: family_number(table.family),
            all: !matches!(which, Which::Named(..)),
        };
        let names = |out: &mut Vec<u8>| {
            wire::put_text(out, TABLE_ATTR, table.name.as_str());
            if let Which::Named(attr, name) | Which::Of(attr, name) = which {
                wire::put_text(out, attr, name.as_str());
            }
        };
        match (self.ask(question, names, each)?, which) {
            (Answer::Complete, _) | (Answer::Missing, Which::Named(..)) => Ok(()),
            (Answer::Missing | Answer::Interrupted, _) => Err(Fault::Changed),
        }
    }

    /// The ruleset's generation: a number that each change of the namespace's nftables advances.
    pub(super) fn generation(&mut self) -> Result<u32, DataplaneError> {
        let question = Question {
            operation: libc::NFT_MSG_GETGEN,
            family: libc::AF_UNSPEC as u8,
            all: false,
        };
        let mut generation = None;
        let object = "the ruleset's generation";
        self.ask(
            question,
            |_| {},
            |message| {
                let found = message.attrs().find(GENERATION_ATTR);
                if let Some(attr) = found.map_err(|reason| malformed(object, &reason))? {
                    generation = Some(attr.u32().map_err(|reason| malformed(object, &reason))?);
                }
                Ok(())
            },
        )?;
        generation.ok_or_else(|| DataplaneError::Malformed {
            object: object.to_owned(),
            reason: "it is missing".to_owned(),
        })
    }

    /// The tables, if nothing changes meanwhile.
    pub(super) fn ruleset(&mut self, tables: &[TableId]) -> Result<Ruleset, Fault> {
        let before = self.generation()?;
        let mut ruleset = Ruleset::default();
        for id in tables {
            if let Some(table) = self.table(id)? {
                ruleset.tables.insert(id.clone(), Arc::new(table));
            }
        }
        match self.generation()? == before {
            true => Ok(ruleset),
            false => Err(Fault::Changed),
        }
    }

    /// Whether there is such a table.
    pub(super) fn exists(&mut self, id: &TableId) -> Result<bool, Fault> {
        Ok(self.empty_table(id, &mut Vec::new())?.is_some())
    }

    /// A table and all that is in it; `None` when it does not exist.
    pub(super) fn table(&mut self, id: &TableId) -> Result<Option<Table>, Fault> {
        let mut strays = Vec::new();
        let Some(mut table) = self.empty_table(id, &mut strays)? else {
            return Ok(None);
        };
        self.counters(id, &mut table, &mut strays)?;
        self.flowtables(id, &mut strays)?;
        self.sets(id, &mut table, Which::All, &mut strays)?;
        let mut chains = self.chains(id, Which::All, &mut strays)?;
        self.rules(id, Which::All, &mut chains)?;
        table.chains = shared(chains).collect();
        if !strays.is_empty() {
            strays.sort();
            table.comment = Some(Comment::foreign(&strays.join(", ")));
        }
        Ok(Some(table))
    }

    /// A table that was `known` before others touched these parts of it; `None` when it does not exist.
    pub(super) fn parts(
        &mut self,
        id: &TableId,
        known: &Table,
        chains: &BTreeSet<Name>,
        sets: &BTreeSet<Name>,
    ) -> Result<Option<Table>, Fault> {
        let mut strays = Vec::new();
        let Some(found) = self.empty_table(id, &mut strays)? else {
            return Ok(None);
        };
        let as_known = (&found.comment, found.ownership) == (&known.comment, known.ownership);
        if !(as_known && strays.is_empty()) {
            return self.table(id);
        }
        // Objects that have a name among the values are no strays.
        let mut table = known.clone();
        for name in sets {
            table.sets.remove(name);
            self.sets(id, &mut table, Which::Named(SET_ATTR, name), &mut strays)?;
        }
        for name in chains {
            let which = Which::Named(CHAIN_NAME_ATTR, name);
            let mut found = self.chains(id, which, &mut strays)?;
            self.rules(id, Which::Of(RULE_CHAIN_ATTR, name), &mut found)?;
            table.chains.remove(name);
            table.chains.extend(shared(found));
        }
        Ok(Some(table))
    }

    /// A table without what is in it.
    fn empty_table(
        &mut self,
        id: &TableId,
        strays: &mut Vec<String>,
    ) -> Result<Option<Table>, Fault> {
        let question = Question {
            operation: libc::NFT_MSG_GETTABLE,
            family: family_number(id.family),
            all: false,
        };
        let own = self.channel.port_id();
        let mut found = None;
        let answer = self.ask(
            question,
            |out| wire::put_text(out, TABLE_ATTR, id.name.as_str()),
            |message| {
                let attrs = message.attrs();
                let failed = |reason| malformed(&format!("table {id}"), &reason);
                let comment = data(&attrs, table_attr::USER_DATA).map_err(failed)?;
                let flags = number(&attrs, table_attr::FLAGS)
                    .map_err(failed)?
                    .unwrap_or(0);
                let owner = number(&attrs, TABLE_OWNER_ATTR).map_err(failed)?;
                let ownership = ownership(flags, owner, own);
                found = Some((comment.and_then(userdata::comment), flags, ownership));
                Ok(())
            },
        )?;
        let (comment, flags, ownership) = match (answer, found) {
            (Answer::Missing, _) | (Answer::Complete, None) => return Ok(None),
            (Answer::Interrupted, _) => return Err(Fault::Changed),
            (Answer::Complete, Some(found)) => found,
        };
        if ownership.is_none() {
            strays.push(format!("table flags {flags:#x}"));
        }
        Ok(Some(Table {
            ownership: ownership.unwrap_or_default(),
            comment,
            ..Table::default()
        }))
    }

    fn counters(
        &mut self,
        id: &TableId,
        table: &mut Table,
        strays: &mut Vec<String>,
    ) -> Result<(), Fault> {
        self.dump(libc::NFT_MSG_GETOBJ, id, |message| {
            let attrs = message.attrs();
            let failed = |reason| malformed(&format!("an object of table {id}"), &reason);
            if text(&attrs, TABLE_ATTR).map_err(failed)? != id.name.as_str() {
                return Ok(());
            }
            let name = text(&attrs, object_attr::NAME).map_err(failed)?;
            let kind = number(&attrs, object_attr::TYPE).map_err(failed)?;
            match (Name::new(&name), kind.unwrap_or(0)) {
                (Ok(name), OBJECT_COUNTER) => {
                    let data = data(&attrs, object_attr::USER_DATA).map_err(failed)?;
                    let comment = data.and_then(userdata::comment);
                    table.counters.insert(name, Arc::new(Counter { comment }));
                }
                (_, kind) => strays.push(format!("object {name} of type {kind}")),
            }
            Ok(())
        })
    }

    fn flowtables(&mut self, id: &TableId, strays: &mut Vec<String>) -> Result<(), Fault> {
        self.dump(GET_FLOWTABLE, id, |message| {
            let read = |attr| match message.attrs().find(attr) {
                Ok(found) => Ok(found.map(|attr| attr.text()).unwrap_or_default()),
                Err(reason) => Err(malformed(&format!("a flowtable of table {id}"), &reason)),
            };
            if read(TABLE_ATTR)? == id.name.as_str() {
                strays.push(format!("flowtable {}", read(FLOWTABLE_NAME_ATTR)?));
            }
            Ok(())
        })
    }

    fn sets(
        &mut self,
        id: &TableId,
        table: &mut Table,
        which: Which<'_>,
        strays: &mut Vec<String>,
    ) -> Result<(), Fault> {
        let mut found = Vec::new();
        self.objects(libc::NFT_MSG_GETSET, id, which, |message| {
            let attrs = message.attrs();
            let failed = |reason| malformed(&format!("a set of table {id}"), &reason);
            if text(&attrs, TABLE_ATTR).map_err(failed)? != id.name.as_str() {
                return Ok(());
            }
            let text = text(&attrs, set_attr::NAME).map_err(failed)?;
            let (set, flags) = set(&attrs).map_err(failed)?;
            match Name::new(&text) {
                Ok(name) => found.push((name, set)),
                // An anonymous set goes with its rule, which is foreign for naming it.
                Err(_) if flags & libc::NFT_SET_ANONYMOUS as u32 != 0 => {}
                Err(_) => strays.push(format!("set {text}")),
            }
            Ok(())
        })?;
        for (name, mut set) in found {
            if !set.header.comment.as_ref().is_some_and(Comment::is_foreign) {
                self.elements(id, &name, &mut set)?;
            }
            table.sets.insert(name, Arc::new(set));
        }
        Ok(())
    }

    fn elements(&mut self, id: &TableId, name: &Name, set: &mut Set) -> Result<(), Fault> {
        let question = Question {
            operation: libc::NFT_MSG_GETSETELEM,
            family: family_number(id.family),
            all: true,
        };
        for _ in 0..TORN_ATTEMPTS {
            let mut dump = Dump::default();
            let answer = self.ask(
                question,
                |out| {
                    wire::put_text(out, TABLE_ATTR, id.name.as_str());
                    wire::put_text(out, SET_ATTR, name.as_str());
                },
                |message| {
                    dump.take(message)
                        .map_err(|reason| malformed(&format!("set {id} {name}"), &reason))
                },
            )?;
            if answer != Answer::Complete {
                return Err(Fault::Changed);
            }
            match dump.finish(&set.elements, &set.header.key) {
                Outcome::Elements(elements) => {
                    set.elements = elements;
                    return Ok(());
                }
                Outcome::Foreign(reason) => {
                    set.header.comment = Some(Comment::foreign(reason));
                    return Ok(());
                }
                // A hash table that grew in one commit is resized behind it; a dump across that can miss elements.
                Outcome::Torn => thread::sleep(TORN_PAUSE),
            }
        }
        Err(Fault::Changed)
    }

    fn chains(
        &mut self,
        id: &TableId,
        which: Which<'_>,
        strays: &mut Vec<String>,
    ) -> Result<BTreeMap<Name, Chain>, Fault> {
        let mut chains = BTreeMap::new();
        self.objects(libc::NFT_MSG_GETCHAIN, id, which, |message| {
            let attrs = message.attrs();
            let failed = |reason| malformed(&format!("a chain of table {id}"), &reason);
            // The kernel gives the chains of all tables of the family.
            if text(&attrs, TABLE_ATTR).map_err(failed)? != id.name.as_str() {
                return Ok(());
            }
            let text = text(&attrs, chain_attr::NAME).map_err(failed)?;
            let (chain, flags) = chain(&attrs).map_err(failed)?;
            match Name::new(&text) {
                Ok(name) => drop(chains.insert(name, chain)),
                // A chain bound to its rule goes with it, which is foreign for naming it.
                Err(_) if flags & CHAIN_BINDING != 0 => {}
                Err(_) => strays.push(format!("chain {text}")),
            }
            Ok(())
        })?;
        Ok(chains)
    }

    fn rules(
        &mut self,
        id: &TableId,
        which: Which<'_>,
        chains: &mut BTreeMap<Name, Chain>,
    ) -> Result<(), Fault> {
        self.objects(libc::NFT_MSG_GETRULE, id, which, |message| {
            let object = format!("a rule of table {id}");
            let read = |attr| match message.attrs().find(attr) {
                Ok(found) => Ok(found.map(|attr| attr.text()).unwrap_or_default()),
                Err(reason) => Err(malformed(&object, &reason)),
            };
            if read(TABLE_ATTR)? != id.name.as_str() {
                return Ok(());
            }
            // A rule of a chain that has no place among the values is lost with it.
            if let Some(chain) = chains.get_mut(read(RULE_CHAIN_ATTR)?.as_str()) {
                chain.rules.push(rule(id, message)?);
            }
            Ok(())
        })
    }
}

fn shared(chains: BTreeMap<Name, Chain>) -> impl Iterator<Item = (Name, Arc<Chain>)> {
    let chains = chains.into_iter();
    chains.map(|(name, chain)| (name, Arc::new(chain)))
}

fn rule(id: &TableId, message: Message<'_>) -> Result<Rule, DataplaneError> {
    let object = match Object::<ffi::Rule>::parse(message) {
        Ok(object) => object,
        // An expression that none of our rules has.
        Err(error) => {
            let unknown = format!("[ {error} ]");
            return Ok(Rule::new(vec![Statement::Foreign(unknown)]));
        }
    };
    let exprs = object
        .exprs()
        .map_err(|error| unreadable(&format!("a rule of table {id}"), &error))?;
    let data = object.bytes(ffi::rule::USER_DATA);
    let comment = data.and_then(userdata::comment);
    if object.u32(ffi::rule::COMPAT_PROTOCOL).is_some() {
        let compat = "[ a rule of iptables ]".to_owned();
        return Ok(Rule {
            statements: vec![Statement::Foreign(compat)],
            comment,
        });
    }
    Ok(decode::rule(id.family, exprs, comment))
}
