//! Sets, maps, and values of every type.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::comment;
use crate::name::{Comment, IfName};
use crate::value::{Datatype, Key, Value};

/// A set or map before the chains that its verdicts name are known.
#[derive(Debug, Clone)]
pub(super) struct SetSeed {
    pub(super) types: Vec<Datatype>,
    pub(super) comment: Option<Comment>,
    pub(super) elements: ElementsSeed,
}

#[derive(Debug, Clone)]
pub(super) enum ElementsSeed {
    Keys(Vec<Key>),
    Ranges(Vec<(Key, Key)>),
    Verdicts(Vec<(Key, VerdictSeed, Option<Comment>)>),
}

/// A verdict before the chain that it names is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum VerdictSeed {
    Accept,
    Drop,
    Return,
    Continue,
    Jump(Index),
    Goto(Index),
}

pub(super) fn verdict() -> impl Strategy<Value = VerdictSeed> {
    prop_oneof![
        1 => Just(VerdictSeed::Accept),
        1 => Just(VerdictSeed::Drop),
        1 => Just(VerdictSeed::Return),
        1 => Just(VerdictSeed::Continue),
        3 => any::<Index>().prop_map(VerdictSeed::Jump),
        3 => any::<Index>().prop_map(VerdictSeed::Goto),
    ]
}

/// What sets are keyed by here; the rules know fields for each.
const SHAPES: [&[Datatype]; 15] = [
    &[Datatype::Ipv4Addr],
    &[Datatype::Ipv6Addr],
    &[Datatype::InetService],
    &[Datatype::InetProto],
    &[Datatype::IfName],
    &[Datatype::IcmpType],
    &[Datatype::Icmpv6Type],
    &[Datatype::EtherType],
    &[Datatype::Ipv4Addr, Datatype::Ipv4Addr],
    &[Datatype::Ipv4Addr, Datatype::InetService],
    &[
        Datatype::Ipv4Addr,
        Datatype::InetProto,
        Datatype::InetService,
    ],
    &[
        Datatype::Ipv6Addr,
        Datatype::InetProto,
        Datatype::InetService,
    ],
    &[Datatype::IfName, Datatype::InetService],
    &[Datatype::IfName, Datatype::EtherType],
    &[Datatype::IfName, Datatype::Ipv4Addr],
];

pub(super) fn set() -> impl Strategy<Value = SetSeed> {
    (select(SHAPES.to_vec()), 0..3).prop_flat_map(|(types, kind)| {
        let elements = match kind {
            // `type ifname; flags interval` is for wildcards, which this crate has no form for.
            0 if types != [Datatype::IfName] => vec(range(types), 0..9)
                .prop_map(|ranges| ElementsSeed::Ranges(disjoint(types, ranges)))
                .boxed(),
            1 => vec(
                (key(types), verdict(), option::weighted(0.3, comment())),
                0..9,
            )
            .prop_map(ElementsSeed::Verdicts)
            .boxed(),
            _ => vec(key(types), 0..12).prop_map(ElementsSeed::Keys).boxed(),
        };
        (option::weighted(0.3, comment()), elements).prop_map(move |(comment, elements)| SetSeed {
            types: types.to_vec(),
            comment,
            elements,
        })
    })
}

/// A value of the type, often one of a few.
pub(super) fn value(datatype: Datatype) -> BoxedStrategy<Value> {
    let byte = prop_oneof![
        0..10u8,
        select(vec![17, 58, 128, 132, 135, 254, 255]),
        any::<u8>()
    ];
    match datatype {
        Datatype::Ipv4Addr => prop_oneof![
            3 => (0..16u8).prop_map(|n| Ipv4Addr::new(10, 244, 1, n)),
            1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
            1 => select(vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST]),
        ]
        .prop_map(Value::Ipv4)
        .boxed(),
        Datatype::Ipv6Addr => prop_oneof![
            3 => (0..16u16).prop_map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)),
            1 => any::<u128>().prop_map(Ipv6Addr::from_bits),
            1 => any::<u32>().prop_map(|n| Ipv6Addr::from_bits(n.into())),
            1 => select(vec![Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)]),
        ]
        .prop_map(Value::Ipv6)
        .boxed(),
        Datatype::InetProto => byte.prop_map(Value::Proto).boxed(),
        Datatype::IcmpType => byte.prop_map(Value::IcmpType).boxed(),
        Datatype::Icmpv6Type => byte.prop_map(Value::Icmpv6Type).boxed(),
        Datatype::InetService => prop_oneof![80..90u16, any::<u16>(), select(vec![0, 53, 65535])]
            .prop_map(Value::Service)
            .boxed(),
        Datatype::EtherType => {
            let known = vec![0x800, 0x806, 0x86dd, 0x8100, 0x88a8];
            prop_oneof![select(known), any::<u16>()]
                .prop_map(Value::EtherType)
                .boxed()
        }
        Datatype::IfName => select(vec!["lo", "cni0", "drop", "veth0@x", "veth12345678901"])
            .prop_filter_map("an interface name", |name| IfName::new(name).ok())
            .prop_map(Value::IfName)
            .boxed(),
    }
}

fn values(types: &[Datatype]) -> Vec<BoxedStrategy<Value>> {
    types.iter().map(|datatype| value(*datatype)).collect()
}

fn key(types: &[Datatype]) -> impl Strategy<Value = Key> + use<> {
    values(types).prop_filter_map("a key that fits", |values| Key::new(&values).ok())
}

/// The bounds of a range, field by field; each in order.
type Bounds = (Vec<Value>, Vec<Value>);

fn range(types: &[Datatype]) -> impl Strategy<Value = Bounds> + use<> {
    let pairs = (
        values(types),
        values(types),
        vec(any::<bool>(), types.len()),
    );
    pairs.prop_map(|(a, b, wide)| {
        let fields = a.into_iter().zip(b).zip(wide);
        fields
            .map(|((a, b), wide)| match (a, wide) {
                (Value::IfName(_), _) | (_, false) => (a, a),
                _ => (a.min(b), a.max(b)),
            })
            .unzip()
    })
}

/// Those ranges that don't overlap one before them.
fn disjoint(types: &[Datatype], ranges: Vec<Bounds>) -> Vec<(Key, Key)> {
    let mut kept: Vec<Bounds> = Vec::new();
    for (first, last) in ranges {
        let overlaps = |(other_first, other_last): &Bounds| {
            (0..types.len()).all(|at| {
                first.get(at) <= other_last.get(at) && other_first.get(at) <= last.get(at)
            })
        };
        if !kept.iter().any(overlaps) {
            kept.push((first, last));
        }
    }
    kept.iter()
        .filter_map(|(first, last)| Some((Key::new(first).ok()?, Key::new(last).ok()?)))
        .collect()
}
