//! Random rulesets through the kernel and back, and through nft's own listing.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use selvedge_nft::{
    Comment, Dataplane, DataplaneError, Datatype, Field, IfName, Kernel, LimitUnit, MapEntry, Op,
    Operand, Operator, Rule, Ruleset, Statement, Table, TcpFlags, Transaction, Value, Verdict,
};

use crate::lab::*;

const INET_FIELDS: [Field; 18] = [
    Field::IpSaddr,
    Field::IpDaddr,
    Field::Ip6Saddr,
    Field::Ip6Daddr,
    Field::TcpSport,
    Field::TcpDport,
    Field::UdpSport,
    Field::UdpDport,
    Field::SctpSport,
    Field::SctpDport,
    Field::ThSport,
    Field::ThDport,
    Field::IcmpType,
    Field::Icmpv6Type,
    Field::NdTarget,
    Field::MetaL4proto,
    Field::Iifname,
    Field::Oifname,
];

fn value(datatype: Datatype) -> BoxedStrategy<Value> {
    match datatype {
        Datatype::Ipv4Addr => any::<u32>()
            .prop_map(|bits| Value::Ipv4(Ipv4Addr::from_bits(bits)))
            .boxed(),
        Datatype::Ipv6Addr => any::<u128>()
            .prop_map(|bits| Value::Ipv6(Ipv6Addr::from_bits(bits)))
            .boxed(),
        Datatype::InetProto => {
            // Mostly those that dependencies are about.
            let known = select(vec![1u8, 6, 17, 58, 132]);
            prop_oneof![known, any::<u8>()]
                .prop_map(Value::Proto)
                .boxed()
        }
        Datatype::InetService => any::<u16>().prop_map(Value::Service).boxed(),
        Datatype::EtherType => {
            let known = select(vec![0x0800u16, 0x86dd, 0x8100]);
            prop_oneof![known, any::<u16>()]
                .prop_map(Value::EtherType)
                .boxed()
        }
        Datatype::IfName => "[a-z][a-z0-9.@_-]{0,14}"
            .prop_map(|text| Value::IfName(IfName::new(&text).unwrap()))
            .boxed(),
        Datatype::IcmpType => any::<u8>().prop_map(Value::IcmpType).boxed(),
        Datatype::Icmpv6Type => any::<u8>().prop_map(Value::Icmpv6Type).boxed(),
    }
}

/// The network of an address, without its host bits.
fn network(address: Value, bits: u8) -> Operand {
    let value = match address {
        Value::Ipv4(a) => Value::Ipv4(Ipv4Addr::from_bits(a.to_bits() & !(u32::MAX >> bits))),
        Value::Ipv6(a) => Value::Ipv6(Ipv6Addr::from_bits(a.to_bits() & !(u128::MAX >> bits))),
        other => other,
    };
    Operand::Prefix(value, bits)
}

fn comparison(field: Field) -> BoxedStrategy<Statement> {
    let datatype = field.datatype();
    let equal = select(vec![Operator::Eq, Operator::Neq]);
    let any_operator = select(vec![
        Operator::Eq,
        Operator::Neq,
        Operator::Lt,
        Operator::Gt,
        Operator::Lte,
        Operator::Gte,
    ]);
    let ordered = datatype != Datatype::IfName;
    let operators = match ordered {
        true => any_operator.boxed(),
        false => equal.clone().boxed(),
    };
    let single = (operators, value(datatype))
        .prop_map(move |(op, value)| Statement::Match {
            field,
            op,
            operand: Operand::Value(value),
        })
        .boxed();
    if !ordered {
        return single;
    }
    let range = (equal.clone(), value(datatype), value(datatype)).prop_map(move |(op, a, b)| {
        let operand = Operand::Range(a.min(b), a.max(b));
        Statement::Match { field, op, operand }
    });
    let longest = match datatype {
        Datatype::Ipv4Addr => 31u8,
        Datatype::Ipv6Addr => 127,
        _ => return prop_oneof![single, range].boxed(),
    };
    let prefix = (equal, value(datatype), 1..=longest).prop_map(move |(op, address, bits)| {
        let operand = network(address, bits);
        Statement::Match { field, op, operand }
    });
    prop_oneof![single, range, prefix].boxed()
}

/// A lookup in a set that [`table`] has for the key's types.
fn lookup(fields: Vec<Field>) -> impl Strategy<Value = Statement> {
    let key = prop::collection::vec(select(fields), 1..3);
    (key, any::<bool>(), any::<bool>()).prop_map(|(key, map, inverted)| {
        let types: Vec<&str> = key.iter().map(|field| field.datatype().name()).collect();
        let types = types.join(".");
        match map {
            true => Statement::VerdictMap {
                map: name(&format!("map.{types}")),
                key,
            },
            false => Statement::Lookup {
                set: name(&format!("set.{types}")),
                key,
                inverted,
            },
        }
    })
}

fn statement(fields: Vec<Field>) -> impl Strategy<Value = Statement> {
    // Connection tracking on bridges is a kernel part that is often missing.
    let conntrack = !fields.contains(&Field::EtherType);
    let unit = select(vec![
        LimitUnit::Second,
        LimitUnit::Minute,
        LimitUnit::Hour,
        LimitUnit::Day,
    ]);
    let limit = (1..10_000u64, unit, 1..1000u32).prop_map(|(rate, unit, burst)| Statement::Limit {
        rate,
        unit,
        burst,
    });
    let prefix = prop::option::of("[ -!#-\\[\\]-~]{1,127}");
    let log = (any::<u16>(), prefix).prop_map(|(group, prefix)| Statement::Log {
        group,
        prefix: prefix.map(|text| Comment::new(&text).unwrap()),
    });
    let flags = (any::<u8>(), any::<bool>(), any::<u8>()).prop_map(|(mask, equal, value)| {
        Statement::TcpFlags {
            mask: TcpFlags(mask),
            op: if equal { Operator::Eq } else { Operator::Neq },
            value: TcpFlags(value),
        }
    });
    prop_oneof![
        8 => select(fields.clone()).prop_flat_map(comparison),
        4 => lookup(fields),
        1 => limit,
        1 => log,
        1 => flags,
        1 => (1..128u32).prop_map(move |bits| match conntrack {
            true => Statement::CtState(bits),
            false => Statement::Counter,
        }),
        1 => Just(Statement::Counter),
        1 => Just(Statement::NamedCounter(name("count"))),
        1 => select(vec![Verdict::Accept, Verdict::Continue, Verdict::Jump(name("target"))])
            .prop_map(Statement::Verdict),
    ]
}

fn rule(fields: Vec<Field>) -> impl Strategy<Value = Rule> {
    let statements = prop::collection::vec(statement(fields), 0..7);
    let comment = prop::option::of("[ -!#-\\[\\]-~]{1,128}");
    (statements, comment).prop_map(|(statements, comment)| Rule {
        statements,
        comment: comment.map(|text| Comment::new(&text).unwrap()),
    })
}

/// The table that the rules go into: a set and a map for every key that they may name.
fn table(fields: &[Field]) -> Table {
    let mut types: Vec<Datatype> = fields.iter().map(|field| field.datatype()).collect();
    types.sort();
    types.dedup();
    let mut keys_of = vec![vec![]];
    let mut all = Vec::new();
    for _ in 0..2 {
        keys_of = keys_of
            .iter()
            .flat_map(|key: &Vec<Datatype>| {
                types
                    .iter()
                    .map(move |one| [&key[..], &[*one][..]].concat())
            })
            .collect();
        all.extend(keys_of.clone());
    }
    let mut table = Table::default();
    for key in all {
        let len = |one: &Datatype| match key.len() {
            1 => one.len(),
            _ => one.padded_len(),
        };
        if key.iter().map(len).sum::<usize>() > selvedge_nft::Key::MAX {
            continue;
        }
        let names: Vec<&str> = key.iter().map(|one| one.name()).collect();
        let types = names.join(".");
        let (set_name, map_name) = (format!("set.{types}"), format!("map.{types}"));
        table.sets.insert(name(&set_name), set(&key, keys([])));
        table.sets.insert(name(&map_name), set(&key, verdicts([])));
    }
    table.chains.insert(name("rules"), chain([]));
    table.chains.insert(name("target"), chain([]));
    table.counters.insert(name("count"), Default::default());
    table
}

/// Commits random rules one chain at a time and reads them back. Rules that can't be said in netlink say so before they
/// are sent; all others the kernel must take, and give back as they were.
fn rules_come_back(id: selvedge_nft::TableId, fields: Vec<Field>) {
    in_namespace(|| {
        let mut expected: Ruleset = ruleset([(id.clone(), table(&fields))]);
        let kernel = RefCell::new(kernel_with(&expected));
        let taken = RefCell::new(0);
        let mut runner = TestRunner::new(Config::with_cases(1000));
        let rules = prop::collection::vec(rule(fields), 1..4);
        let expected = RefCell::new(&mut expected);
        runner
            .run(&rules, |rules| {
                let (table, chain_name) = (id.clone(), name("rules"));
                let flush = Op::FlushChain {
                    table: table.clone(),
                    name: chain_name.clone(),
                };
                let adds = rules.iter().map(|rule| Op::AddRule {
                    table: table.clone(),
                    chain: chain_name.clone(),
                    rule: rule.clone(),
                });
                let ops = std::iter::once(flush).chain(adds).collect();
                match kernel.borrow_mut().commit(&Transaction { ops }) {
                    Err(DataplaneError::Refused { source, .. })
                        if source.kind() == std::io::ErrorKind::InvalidInput
                            && source.raw_os_error().is_none() =>
                    {
                        return Ok(());
                    }
                    other => other.map_err(|error| TestCaseError::fail(error.to_string()))?,
                };
                *taken.borrow_mut() += 1;
                let mut expected = expected.borrow_mut();
                let mut wanted = Table::clone(&expected.tables[&id]);
                wanted.chains.insert(chain_name.clone(), chain(rules));
                expected.tables.insert(id.clone(), wanted.into());
                let found = kernel.borrow_mut().read(std::slice::from_ref(&id)).unwrap();
                let rules_of = |ruleset: &Ruleset| ruleset.tables[&id].chains[&chain_name].clone();
                prop_assert_eq!(&rules_of(&found), &rules_of(&expected));
                prop_assert!(found == **expected, "something else changed");
                Ok(())
            })
            .unwrap();
        let taken = taken.into_inner();
        assert!(
            taken > 300,
            "only {taken} of the random rules could be said"
        );
    });
}

#[test]
fn random_inet_rules_come_back() {
    rules_come_back(inet(), INET_FIELDS.to_vec());
}

#[test]
fn random_bridge_rules_come_back() {
    let mut fields = INET_FIELDS.to_vec();
    // More often than the others: its explicit and implied forms look alike.
    fields.extend([Field::EtherType; 4]);
    fields.extend([Field::ArpSaddrIp; 2]);
    rules_come_back(bridge(), fields);
}

/// Random sets and maps of one key.
fn elements_of(key: Vec<Datatype>) -> impl Strategy<Value = selvedge_nft::Set> {
    let values: Vec<_> = key.iter().map(|one| value(*one)).collect();
    let verdict = select(vec![
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Goto(name("target")),
    ]);
    let comment = prop::option::of("[ -!#-\\[\\]-~]{1,128}");
    let entries = prop::collection::vec((values, verdict, comment.clone()), 0..40);
    (entries, comment, any::<bool>()).prop_map(move |(entries, comment, map)| {
        let comment_of = |text: &Option<String>| text.as_ref().map(|t| Comment::new(t).unwrap());
        let found = entries.iter();
        let elements = match map {
            false => keys(found.map(|(values, _, _)| crate::lab::key(values))),
            true => selvedge_nft::Elements::Verdicts(
                found
                    .map(|(values, verdict, comment)| {
                        let entry = MapEntry {
                            verdict: verdict.clone(),
                            comment: comment_of(comment),
                        };
                        (crate::lab::key(values), entry)
                    })
                    .collect(),
            ),
        };
        selvedge_nft::Set {
            header: selvedge_nft::SetHeader {
                key: key.clone(),
                comment: comment_of(&comment),
            },
            elements,
        }
    })
}

#[test]
fn random_sets_come_back() {
    use Datatype::*;
    let keys = select(vec![
        vec![Ipv4Addr],
        vec![Ipv6Addr],
        vec![InetProto],
        vec![InetService],
        vec![EtherType],
        vec![IfName],
        vec![IcmpType],
        vec![Icmpv6Type],
        vec![Ipv4Addr, InetProto, InetService],
        vec![Ipv6Addr, InetProto, InetService],
        vec![Ipv4Addr, Ipv4Addr],
        vec![IfName, Ipv4Addr],
        vec![EtherType, InetProto, IcmpType, Icmpv6Type, InetService],
    ]);
    let sets = prop::collection::vec(keys.prop_flat_map(elements_of), 1..6);
    in_namespace(|| {
        let kernel = RefCell::new(Kernel::open().unwrap());
        let mut runner = TestRunner::new(Config::with_cases(150));
        runner
            .run(&sets, |sets| {
                let mut table = Table::default();
                table.chains.insert(name("target"), chain([]));
                for (number, set) in sets.into_iter().enumerate() {
                    table.sets.insert(name(&format!("s{number}")), set.into());
                }
                let desired = ruleset([(inet(), table)]);
                let mut kernel = kernel.borrow_mut();
                kernel.commit(&make(&desired)).unwrap();
                let found = read(&mut kernel);
                let table = inet();
                let ops = vec![Op::DeleteTable { table }];
                kernel.commit(&Transaction { ops }).unwrap();
                prop_assert_eq!(found, desired);
                Ok(())
            })
            .unwrap();
    });
}
