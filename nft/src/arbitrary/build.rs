//! From seeds to rulesets: what is named is there, and what a rule matches makes sense together.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::sample::Index;

use super::TableSeed;
use super::rules::{EndSeed, RuleSeed, StatementSeed, fields_for};
use super::sets::{ElementsSeed, SetSeed, VerdictSeed};
use crate::name::Name;
use crate::rule::{Field, Operator, Rule, Statement, Verdict};
use crate::ruleset::{
    Chain, Counter, Elements, Family, MapEntry, Ownership, Ruleset, Set, SetHeader, Table, TableId,
};

pub(super) fn ruleset(seeds: &BTreeMap<TableId, TableSeed>) -> Ruleset {
    let tables = seeds.iter().map(|(id, seed)| {
        let builder = Builder {
            family: id.family,
            seed,
        };
        (id.clone(), Arc::new(builder.table()))
    });
    Ruleset {
        tables: tables.collect(),
    }
}

struct Builder<'a> {
    family: Family,
    seed: &'a TableSeed,
}

impl Builder<'_> {
    fn table(&self) -> Table {
        let counters = self.seed.counters.iter().map(|(name, comment)| {
            let comment = comment.clone();
            (name.clone(), Arc::new(Counter { comment }))
        });
        let sets = self.seed.sets.iter();
        let chains = self.seed.chains.iter().map(|(name, seed)| {
            let rules = seed.rules.iter().filter_map(|rule| self.rule(name, rule));
            let chain = Chain {
                base: seed.base,
                comment: seed.comment.clone(),
                rules: rules.collect(),
            };
            (name.clone(), Arc::new(chain))
        });
        Table {
            ownership: Ownership::Anyone,
            comment: self.seed.comment.clone(),
            counters: counters.collect(),
            sets: sets
                .map(|(name, seed)| (name.clone(), Arc::new(self.set(name, seed))))
                .collect(),
            chains: chains.collect(),
        }
    }

    fn set(&self, name: &Name, seed: &SetSeed) -> Set {
        let elements = match &seed.elements {
            ElementsSeed::Keys(keys) => Elements::Keys(keys.iter().copied().collect()),
            ElementsSeed::Ranges(ranges) => Elements::Ranges(ranges.iter().copied().collect()),
            ElementsSeed::Verdicts(entries) => {
                let entries = entries.iter().map(|(key, verdict, comment)| {
                    let entry = MapEntry {
                        verdict: self.verdict(name, *verdict),
                        comment: comment.clone(),
                    };
                    (*key, entry)
                });
                Elements::Verdicts(entries.collect())
            }
        };
        Set {
            header: SetHeader {
                key: seed.types.clone(),
                comment: seed.comment.clone(),
            },
            elements,
        }
    }

    fn verdict(&self, from: &Name, seed: VerdictSeed) -> Verdict {
        let chain = |index| self.callee(from, index).unwrap_or(Verdict::Drop);
        match seed {
            VerdictSeed::Accept => Verdict::Accept,
            VerdictSeed::Drop => Verdict::Drop,
            VerdictSeed::Return => Verdict::Return,
            VerdictSeed::Continue => Verdict::Continue,
            VerdictSeed::Jump(index) => chain(index),
            VerdictSeed::Goto(index) => match chain(index) {
                Verdict::Jump(name) => Verdict::Goto(name),
                other => other,
            },
        }
    }

    /// A jump to one of the regular chains that `from` may call.
    fn callee(&self, from: &Name, index: Index) -> Option<Verdict> {
        let chains = self.seed.chains.iter();
        let callees: Vec<_> = chains
            .filter(|(name, chain)| chain.base.is_none() && self.after(from, name))
            .map(|(name, _)| name)
            .collect();
        pick(&callees, index).map(|name| Verdict::Jump((*name).clone()))
    }

    fn after(&self, from: &Name, to: &Name) -> bool {
        let at = |name| self.seed.order.iter().position(|other| other == name);
        at(from) < at(to)
    }

    fn rule(&self, chain: &Name, seed: &RuleSeed) -> Option<Rule> {
        let mut claims = Claims::new(self.family);
        let mut statements = Vec::new();
        for statement in &seed.statements {
            let statement = match statement {
                StatementSeed::Plain(statement) => Some(statement.clone()),
                StatementSeed::Lookup {
                    set,
                    fields,
                    inverted,
                } => self.lookup(*set, *fields, *inverted),
                StatementSeed::NamedCounter(index) => {
                    let names: Vec<_> = self.seed.counters.keys().collect();
                    pick(&names, *index).map(|name| Statement::NamedCounter((*name).clone()))
                }
            };
            statements.extend(statement.filter(|statement| claims.claim(statement)));
        }
        match &seed.end {
            Some(EndSeed::Verdict(verdict)) => {
                statements.push(self.verdict(chain, *verdict).into());
            }
            Some(EndSeed::Map { map, fields }) => {
                let map = self.verdict_map(chain, *map, *fields);
                statements.extend(map.filter(|statement| claims.claim(statement)));
            }
            None => {}
        }
        (!statements.is_empty()).then(|| Rule {
            statements,
            comment: seed.comment.clone(),
        })
    }

    fn lookup(&self, set: Index, fields: Index, inverted: bool) -> Option<Statement> {
        let sets = self.seed.sets.iter();
        let sets: Vec<_> = sets
            .filter(|(_, set)| !matches!(set.elements, ElementsSeed::Verdicts(_)))
            .collect();
        let (name, set) = pick(&sets, set)?;
        Some(Statement::Lookup {
            key: pick(&fields_for(&set.types), fields)?.clone(),
            set: (*name).clone(),
            inverted,
        })
    }

    fn verdict_map(&self, chain: &Name, map: Index, fields: Index) -> Option<Statement> {
        let sets = self.seed.sets.iter();
        let maps: Vec<_> = sets
            .filter(|(name, set)| {
                matches!(set.elements, ElementsSeed::Verdicts(_)) && self.after(chain, name)
            })
            .collect();
        let (name, map) = pick(&maps, map)?;
        Some(Statement::VerdictMap {
            key: pick(&fields_for(&map.types), fields)?.clone(),
            map: (*name).clone(),
        })
    }
}

fn pick<T>(items: &[T], index: Index) -> Option<&T> {
    (!items.is_empty()).then(|| index.get(items))
}

/// What a rule's statements match so far.
///
/// A rule matches one network protocol, one transport protocol, and each field once: nft refuses contradictions, and
/// leaves out what another field implies. Source ports come before destination ports, since nft writes two neighbouring
/// comparisons in that order; for `th` it has no readable form at all. One comparison is by order, since nft takes two
/// neighbouring ones for a range, whatever their fields.
struct Claims {
    family: Family,
    fields: Vec<Field>,
    network: Option<u8>,
    transport: Option<u8>,
    counted: bool,
    ordered: bool,
}

impl Claims {
    fn new(family: Family) -> Self {
        Self {
            family,
            fields: Vec::new(),
            network: None,
            transport: None,
            counted: false,
            ordered: false,
        }
    }

    /// Whether the statement goes together with the ones before it, which it belongs to from now on.
    fn claim(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Match { field, op, .. } => {
                let ordered = !matches!(op, Operator::Eq | Operator::Neq);
                let first = !(ordered && self.ordered);
                let claimed = first && self.claim_fields(&[*field]);
                self.ordered |= ordered && claimed;
                claimed
            }
            Statement::Lookup { key, .. } | Statement::VerdictMap { key, .. } => {
                self.claim_fields(key)
            }
            Statement::TcpFlags { .. } => self.claim_protocols(&[], None, Some(6)),
            // Connections are not tracked on bridges unless a module for it is there.
            Statement::CtState(_) => self.family == Family::Inet,
            Statement::Counter | Statement::NamedCounter(_) => {
                !std::mem::replace(&mut self.counted, true)
            }
            _ => true,
        }
    }

    fn claim_fields(&mut self, fields: &[Field]) -> bool {
        let of = |protocols: &[(&[Field], u8)]| {
            let mut found = fields.iter().filter_map(|field| {
                let mut protocols = protocols.iter();
                protocols.find_map(|(of, protocol)| of.contains(field).then_some(*protocol))
            });
            let first = found.next();
            (first, found.all(|other| Some(other) == first))
        };
        let (network, one_network) = of(&[
            (&[Field::IpSaddr, Field::IpDaddr, Field::IcmpType], 4),
            (&[Field::Ip6Saddr, Field::Ip6Daddr, Field::Icmpv6Type], 6),
            (&[Field::EtherType], 0),
            (&[Field::ArpSaddrIp], 3),
        ]);
        let (transport, one_transport) = of(&[
            (&[Field::TcpSport, Field::TcpDport], 6),
            (&[Field::UdpSport, Field::UdpDport], 17),
            (&[Field::SctpSport, Field::SctpDport], 132),
            (&[Field::IcmpType], 1),
            (&[Field::Icmpv6Type], 58),
            (&[Field::ThSport, Field::ThDport, Field::MetaL4proto], 0),
        ]);
        let unique = (1..fields.len()).all(|at| {
            let (before, rest) = fields.split_at(at);
            rest.first().is_some_and(|field| !before.contains(field))
        });
        // ARP has no transport protocol, and is for bridges.
        let arp = [network, self.network].contains(&Some(3));
        if arp && (self.family != Family::Bridge || transport.or(self.transport).is_some()) {
            return false;
        }
        if fields.contains(&Field::NdTarget) && self.transport != Some(58) {
            return false;
        }
        // A frame's own type says what is in it: nft leaves a match on it out where a later field implies it.
        let frame = network == Some(0) || (self.network == Some(0) && network.is_none());
        if frame && (self.family != Family::Bridge || transport.or(self.transport).is_some()) {
            return false;
        }
        one_network && one_transport && unique && self.claim_protocols(fields, network, transport)
    }

    fn claim_protocols(
        &mut self,
        fields: &[Field],
        network: Option<u8>,
        transport: Option<u8>,
    ) -> bool {
        let agrees =
            |old: Option<u8>, new: Option<u8>| old.is_none() || new.is_none() || old == new;
        if !agrees(self.network, network) || !agrees(self.transport, transport) {
            return false;
        }
        // `th` and `meta l4proto` say nothing of each other, but nft would: once only.
        if transport == Some(0) && self.transport.is_some() {
            return false;
        }
        // Nor has ARP any, or a frame whose own type is looked at.
        if matches!(self.network, Some(0 | 3)) && transport.is_some() {
            return false;
        }
        let source =
            |field: &Field| matches!(field, Field::TcpSport | Field::UdpSport | Field::SctpSport);
        let destination =
            |field: &Field| matches!(field, Field::TcpDport | Field::UdpDport | Field::SctpDport);
        let backwards = fields.iter().any(source) && self.fields.iter().any(destination);
        if backwards || fields.iter().any(|field| self.fields.contains(field)) {
            return false;
        }
        self.fields.extend(fields);
        self.network = self.network.or(network);
        self.transport = self.transport.or(transport);
        true
    }
}
