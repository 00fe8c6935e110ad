//! Rules and their statements.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::comment;
use super::sets::{VerdictSeed, value, verdict};
use crate::name::Comment;
use crate::rule::{Field, LimitUnit, Operand, Operator, Statement, TcpFlags, ct_state};
use crate::value::{Datatype, Value};

/// A rule before what it names is known.
#[derive(Debug, Clone)]
pub(super) struct RuleSeed {
    pub(super) statements: Vec<StatementSeed>,
    pub(super) end: Option<EndSeed>,
    pub(super) comment: Option<Comment>,
}

#[derive(Debug, Clone)]
pub(super) enum StatementSeed {
    Plain(Statement),
    Lookup {
        set: Index,
        /// Which of the fields that suit the set.
        fields: Index,
        inverted: bool,
    },
    NamedCounter(Index),
}

#[derive(Debug, Clone)]
pub(super) enum EndSeed {
    Verdict(VerdictSeed),
    Map { map: Index, fields: Index },
}

pub(super) fn rule() -> impl Strategy<Value = RuleSeed> {
    let end = prop_oneof![
        2 => verdict().prop_map(EndSeed::Verdict),
        1 => any::<(Index, Index)>().prop_map(|(map, fields)| EndSeed::Map { map, fields }),
    ];
    (
        vec(statement(), 0..4),
        option::weighted(0.8, end),
        option::weighted(0.2, comment()),
    )
        .prop_map(|(statements, end, comment)| RuleSeed {
            statements,
            end,
            comment,
        })
}

fn statement() -> impl Strategy<Value = StatementSeed> {
    prop_oneof![
        4 => comparison().prop_map(StatementSeed::Plain),
        4 => any::<(Index, Index, bool)>().prop_map(|(set, fields, inverted)| {
            StatementSeed::Lookup { set, fields, inverted }
        }),
        1 => any::<Index>().prop_map(StatementSeed::NamedCounter),
        3 => effect().prop_map(StatementSeed::Plain),
    ]
}

const FIELDS: [Field; 20] = [
    Field::IpSaddr,
    Field::IpDaddr,
    Field::Ip6Saddr,
    Field::Ip6Daddr,
    Field::ArpSaddrIp,
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
    Field::EtherType,
    Field::MetaL4proto,
    Field::Iifname,
    Field::Oifname,
];

/// The fields that a set with this key can be looked up by.
pub(super) fn fields_for(types: &[Datatype]) -> Vec<Vec<Field>> {
    types.iter().fold(vec![Vec::new()], |keys, datatype| {
        let suits = |field: &&Field| field.datatype() == *datatype && **field != Field::NdTarget;
        let fields = FIELDS.iter().filter(suits);
        fields
            .flat_map(|field| {
                keys.iter().map(|key| {
                    let mut key = key.clone();
                    key.push(*field);
                    key
                })
            })
            .collect()
    })
}

fn comparison() -> impl Strategy<Value = Statement> {
    let flags = (1..0xffu8, any::<u8>(), any::<bool>());
    prop_oneof![
        6 => select(FIELDS.to_vec()).prop_flat_map(field_comparison),
        1 => flags.prop_map(|(mask, value, equal)| Statement::TcpFlags {
            mask: TcpFlags(mask),
            op: if equal { Operator::Eq } else { Operator::Neq },
            value: TcpFlags(value & mask),
        }),
        1 => (1..32u8).prop_map(ct_state),
    ]
}

fn ct_state(states: u8) -> Statement {
    let all = [
        ct_state::INVALID,
        ct_state::ESTABLISHED,
        ct_state::RELATED,
        ct_state::NEW,
        ct_state::UNTRACKED,
    ];
    let chosen = all
        .iter()
        .enumerate()
        .filter(|(at, _)| states >> at & 1 == 1);
    Statement::CtState(chosen.map(|(_, bit)| bit).sum())
}

fn field_comparison(field: Field) -> impl Strategy<Value = Statement> {
    let value = || value(field.datatype());
    let operators = vec![
        Operator::Eq,
        Operator::Neq,
        Operator::Lt,
        Operator::Gt,
        Operator::Lte,
        Operator::Gte,
    ];
    (value(), value(), select(operators), 1..32u8).prop_map(move |(a, b, op, length)| {
        let operand = match (op, a, b) {
            // Where there is an order, and more than one value on either side.
            (Operator::Lt | Operator::Gt | Operator::Lte | Operator::Gte, a, _) if !inner(a) => {
                return Statement::eq(field, a);
            }
            (Operator::Lt | Operator::Gt | Operator::Lte | Operator::Gte, a, _) => {
                Operand::Value(a)
            }
            (_, Value::Ipv4(a), Value::Ipv4(b)) if a.octets()[3] > b.octets()[3] => {
                let bits = a.to_bits() & (u32::MAX << (32 - length));
                Operand::Prefix(Value::Ipv4(bits.into()), length)
            }
            (_, Value::Ipv6(a), Value::Ipv6(b)) if a.octets()[15] > b.octets()[15] => {
                let length = length * 4 + 1;
                let bits = a.to_bits() & (u128::MAX << (128 - u32::from(length)));
                Operand::Prefix(Value::Ipv6(bits.into()), length)
            }
            (_, a, b) if inner(a) && inner(b) && a < b => Operand::Range(a, b),
            (_, a, _) => Operand::Value(a),
        };
        Statement::Match { field, op, operand }
    })
}

/// Whether the value is a number that is neither the least nor the greatest of its type.
fn inner(value: Value) -> bool {
    match value {
        Value::Proto(n) | Value::IcmpType(n) | Value::Icmpv6Type(n) => n != 0 && n != u8::MAX,
        Value::Service(n) | Value::EtherType(n) => n != 0 && n != u16::MAX,
        Value::Ipv4(a) => a.to_bits() != 0 && a.to_bits() != u32::MAX,
        Value::Ipv6(a) => a.to_bits() != 0 && a.to_bits() != u128::MAX,
        Value::IfName(_) => false,
    }
}

fn effect() -> impl Strategy<Value = Statement> {
    let units = vec![
        LimitUnit::Second,
        LimitUnit::Minute,
        LimitUnit::Hour,
        LimitUnit::Day,
    ];
    prop_oneof![
        Just(Statement::Counter),
        (1..10_000u64, select(units), 1..20u32).prop_map(|(rate, unit, burst)| Statement::Limit {
            rate,
            unit,
            burst
        }),
        (any::<u16>(), option::of(log_prefix()))
            .prop_map(|(group, prefix)| Statement::Log { group, prefix }),
    ]
}

/// Without a `$`, which nft would read as the beginning of a variable.
fn log_prefix() -> impl Strategy<Value = Comment> {
    let texts = ["denied ", "{a} #b; 'c'", &"p".repeat(127)];
    select(texts.map(str::to_owned).to_vec())
        .prop_filter_map("a comment", |text| Comment::new(&text).ok())
}
