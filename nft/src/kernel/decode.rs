//! Expressions into rules: [`super::encode`] the other way round.
//!
//! A rule is only what encoding it again gives back. Anything else, be it unknown or merely written differently, is one
//! [`Statement::Foreign`] with libnftnl's words for it, and so equals no rule that is desired.

use super::encode::{self, ETHER_TYPE, ICMP, ICMPV6, Net, SCTP, TCP, TCP_FLAGS, UDP};
use super::expr::{Base, Cmp, Data, Expr, MetaKey, Reg, Source};
use crate::name::{Comment, Name};
use crate::rule::{Field, Operand, Operator, Rule, Statement, TcpFlags};
use crate::ruleset::Family;
use crate::value::{Datatype, Value};

/// The rule with these expressions (each with the words for it) and this comment.
pub(super) fn rule(family: Family, exprs: Vec<(Expr, String)>, comment: Option<Comment>) -> Rule {
    let (exprs, words): (Vec<Expr>, Vec<String>) = exprs.into_iter().unzip();
    let rule = terms(&exprs)
        .and_then(|terms| statements(family, &terms))
        .map(|statements| Rule {
            statements,
            comment: comment.clone(),
        });
    match rule {
        Some(rule) if encode::rule(family, &rule).is_ok_and(|again| again == exprs) => rule,
        _ => Rule {
            statements: vec![Statement::Foreign(words.join(" "))],
            comment,
        },
    }
}

/// Expressions that belong together: what is loaded, and what is done with it.
#[derive(Debug)]
enum Term {
    Test {
        source: Source,
        test: Test,
    },
    Lookup {
        key: Vec<Source>,
        set: Name,
        inverted: bool,
        verdict: bool,
    },
    Plain(Statement),
}

/// A comparison of the first register.
#[derive(Debug)]
enum Test {
    Value(Cmp, Data),
    Masked { mask: Data, op: Cmp, data: Data },
    InRange(Data, Data),
    NotInRange(Data, Data),
}

fn terms(exprs: &[Expr]) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut rest = exprs;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let statement = match first {
            Expr::Load { source, to } => {
                let (term, after) = loaded(*source, *to, rest)?;
                terms.push(term);
                rest = after;
                continue;
            }
            Expr::Verdict(verdict) => Statement::Verdict(verdict.clone()),
            Expr::Counter => Statement::Counter,
            Expr::NamedCounter(name) => Statement::NamedCounter(name.clone()),
            Expr::Limit { rate, unit, burst } => Statement::Limit {
                rate: *rate,
                unit: *unit,
                burst: *burst,
            },
            Expr::Log { group, prefix } => Statement::Log {
                group: *group,
                prefix: prefix.clone(),
            },
            Expr::Mask { .. }
            | Expr::Cmp { .. }
            | Expr::NotInRange { .. }
            | Expr::Lookup { .. }
            | Expr::Other(_) => return None,
        };
        terms.push(Term::Plain(statement));
    }
    Some(terms)
}

/// The term that begins with a load, and the expressions after it. Where the registers of a key lie is for the
/// encoding again to see.
fn loaded(source: Source, to: Reg, mut rest: &[Expr]) -> Option<(Term, &[Expr])> {
    let mut key = vec![source];
    while let [Expr::Load { source, .. }, after @ ..] = rest {
        key.push(*source);
        rest = after;
    }
    if to != Reg::FIRST {
        return None;
    }
    if let [
        Expr::Lookup {
            set,
            inverted,
            verdict,
        },
        after @ ..,
    ] = rest
    {
        let term = Term::Lookup {
            key,
            set: set.clone(),
            inverted: *inverted,
            verdict: *verdict,
        };
        return Some((term, after));
    }
    let [source] = key[..] else { return None };
    let (test, after) = match rest {
        [
            Expr::Cmp {
                op: Cmp::Gte,
                data: from,
            },
            Expr::Cmp {
                op: Cmp::Lte,
                data: to,
            },
            after @ ..,
        ] => (Test::InRange(*from, *to), after),
        [Expr::Cmp { op, data }, after @ ..] => (Test::Value(*op, *data), after),
        [Expr::Mask { mask }, Expr::Cmp { op, data }, after @ ..] => {
            let (mask, op, data) = (*mask, *op, *data);
            (Test::Masked { mask, op, data }, after)
        }
        [Expr::NotInRange { from, to }, after @ ..] => (Test::NotInRange(*from, *to), after),
        _ => return None,
    };
    Some((Term::Test { source, test }, after))
}

/// What the dependencies read so far have established.
#[derive(Debug, Default)]
struct Known {
    net: Option<Net>,
    transport: Option<u8>,
}

fn statements(family: Family, terms: &[Term]) -> Option<Vec<Statement>> {
    let mut known = Known::default();
    let mut out = Vec::with_capacity(terms.len());
    for (index, term) in terms.iter().enumerate() {
        let after = &terms[index + 1..];
        if dependency(family, term, after, &mut known) {
            continue;
        }
        out.push(match term {
            Term::Plain(statement) => statement.clone(),
            Term::Lookup {
                key,
                set,
                inverted,
                verdict,
            } => {
                let fields = key.iter().map(|source| field(*source, &known));
                let key: Vec<Field> = fields.collect::<Option<_>>()?;
                match verdict {
                    false => Statement::Lookup {
                        key,
                        set: set.clone(),
                        inverted: *inverted,
                    },
                    true => Statement::VerdictMap {
                        key,
                        map: set.clone(),
                    },
                }
            }
            Term::Test { source, test } => {
                let statement = comparison(*source, test, &known)?;
                match &statement {
                    Statement::Match {
                        field: Field::MetaL4proto,
                        ..
                    } => known.transport = None,
                    Statement::Match {
                        field: Field::EtherType,
                        ..
                    } => known.net = None,
                    _ => {}
                }
                statement
            }
        });
    }
    Some(out)
}

/// Whether the term is the dependency of what follows, which is noted then, rather than a statement of its own.
fn dependency(family: Family, term: &Term, after: &[Term], known: &mut Known) -> bool {
    let Term::Test {
        source,
        test: Test::Value(Cmp::Eq, data),
    } = term
    else {
        return false;
    };
    match (family, *source) {
        (Family::Inet, Source::Meta(MetaKey::Nfproto)) => {
            known.net = Net::from_nfproto(data);
            known.net.is_some()
        }
        (Family::Bridge, Source::Meta(MetaKey::Protocol)) => {
            known.net = Net::from_ether_type(data);
            known.net.is_some()
        }
        (Family::Bridge, ETHER_TYPE) => {
            let Some(net) = Net::from_ether_type(data) else {
                return false;
            };
            let icmp = match net {
                Net::V4 => Some(ICMP),
                Net::V6 => Some(ICMPV6),
                Net::Arp => None,
            };
            // Followed by the field itself, or by its other dependency first.
            let used = match (icmp, after) {
                (None, [first, ..]) => reads_arp(first),
                (Some(icmp), [first, second, ..]) if is_transport(first, icmp) => {
                    reads_icmp_type(second)
                }
                (Some(icmp), [first, ..]) => {
                    known.transport == Some(icmp) && reads_icmp_type(first)
                }
                (_, []) => false,
            };
            if used {
                known.net = Some(net);
            }
            used
        }
        (_, Source::Meta(MetaKey::L4proto)) => {
            let [transport] = *data.as_bytes() else {
                return false;
            };
            // A key's dependencies come before all its fields, so there may be one of the network between.
            let mut after = after.iter().skip_while(|term| is_network(family, term));
            let used = after
                .next()
                .is_some_and(|term| reads_field_of(transport, term));
            if used {
                known.transport = Some(transport);
            }
            used
        }
        _ => false,
    }
}

fn is_network(family: Family, term: &Term) -> bool {
    let key = match family {
        Family::Inet => MetaKey::Nfproto,
        Family::Bridge => MetaKey::Protocol,
    };
    matches!(term, Term::Test { source: Source::Meta(read), .. } if *read == key)
}

fn is_transport(term: &Term, transport: u8) -> bool {
    matches!(
        term,
        Term::Test { source: Source::Meta(MetaKey::L4proto), test: Test::Value(Cmp::Eq, data) }
            if data.as_bytes() == [transport]
    )
}

fn sources(term: &Term) -> &[Source] {
    match term {
        Term::Test { source, .. } => std::slice::from_ref(source),
        Term::Lookup { key, .. } => key,
        Term::Plain(_) => &[],
    }
}

/// Whether the term reads a field of this transport protocol.
fn reads_field_of(transport: u8, term: &Term) -> bool {
    let known = Known {
        net: None,
        transport: Some(transport),
    };
    sources(term).iter().any(|source| {
        let flags = transport == TCP && *source == TCP_FLAGS;
        let transport = matches!(
            source,
            Source::Payload {
                base: Base::Transport,
                ..
            }
        );
        flags || transport && field(*source, &known).is_some()
    })
}

/// A prefix reads less than the whole address.
fn reads_arp(term: &Term) -> bool {
    let Source::Payload { base, offset, .. } = encode::source(Field::ArpSaddrIp) else {
        return false;
    };
    let mut sources = sources(term).iter();
    sources.any(|source| {
        matches!(source, Source::Payload { base: b, offset: o, .. } if (*b, *o) == (base, offset))
    })
}

fn reads_icmp_type(term: &Term) -> bool {
    sources(term).contains(&encode::source(Field::IcmpType))
}

/// The field that a load means, given what is known of the packet.
fn field(source: Source, known: &Known) -> Option<Field> {
    let fields: &[Field] = match source {
        Source::Meta(_) => &[Field::MetaL4proto, Field::Iifname, Field::Oifname],
        Source::CtState => return None,
        Source::Payload { base, .. } => match base {
            Base::Link => &[Field::EtherType],
            Base::Network => match known.net? {
                Net::V4 => &[Field::IpSaddr, Field::IpDaddr],
                Net::V6 => &[Field::Ip6Saddr, Field::Ip6Daddr],
                Net::Arp => &[Field::ArpSaddrIp],
            },
            Base::Transport => match known.transport {
                None => &[Field::ThSport, Field::ThDport],
                Some(TCP) => &[Field::TcpSport, Field::TcpDport],
                Some(UDP) => &[Field::UdpSport, Field::UdpDport],
                Some(SCTP) => &[Field::SctpSport, Field::SctpDport],
                Some(ICMP) => &[Field::IcmpType],
                Some(ICMPV6) => &[Field::Icmpv6Type, Field::NdTarget],
                Some(_) => &[],
            },
        },
    };
    fields
        .iter()
        .copied()
        .find(|field| encode::source(*field) == source)
}

fn comparison(source: Source, test: &Test, known: &Known) -> Option<Statement> {
    if source == TCP_FLAGS && known.transport == Some(TCP) {
        return tcp_flags(test);
    }
    if source == Source::CtState {
        return ct_state(test);
    }
    if let Some(statement) = whole_byte_prefix(source, test, known) {
        return Some(statement);
    }
    let field = field(source, known)?;
    let value = |data: &Data| {
        let datatype = field.datatype();
        (data.as_bytes().len() == datatype.len()).then(|| Value::read(datatype, data.as_bytes()))?
    };
    let (op, operand) = match test {
        Test::Value(op, data) => (operator(*op), Operand::Value(value(data)?)),
        Test::InRange(from, to) => (Operator::Eq, Operand::Range(value(from)?, value(to)?)),
        Test::NotInRange(from, to) => (Operator::Neq, Operand::Range(value(from)?, value(to)?)),
        Test::Masked { mask, op, data } => {
            let bits: u32 = mask.as_bytes().iter().map(|b| b.leading_ones()).sum();
            let bits = u8::try_from(bits).ok()?;
            if encode::prefix_mask(mask, bits) != *mask {
                return None;
            }
            (operator(*op), Operand::Prefix(value(data)?, bits))
        }
    };
    Some(Statement::Match { field, op, operand })
}

/// An address of which only the first bytes are loaded is compared with a prefix.
fn whole_byte_prefix(source: Source, test: &Test, known: &Known) -> Option<Statement> {
    let Source::Payload {
        base,
        offset,
        len: short,
    } = source
    else {
        return None;
    };
    let datatype = match (base, known.net?) {
        (Base::Network, Net::V4 | Net::Arp) => Datatype::Ipv4Addr,
        (Base::Network | Base::Transport, Net::V6) => Datatype::Ipv6Addr,
        _ => return None,
    };
    let len = datatype.len() as u32;
    let whole = Source::Payload { base, offset, len };
    let Test::Value(op, data) = test else {
        return None;
    };
    if short >= len || data.as_bytes().len() as u32 != short {
        return None;
    }
    let value = Value::read(datatype, data.padded())?;
    Some(Statement::Match {
        field: field(whole, known)?,
        op: operator(*op),
        operand: Operand::Prefix(value, u8::try_from(short * 8).ok()?),
    })
}

fn tcp_flags(test: &Test) -> Option<Statement> {
    let Test::Masked { mask, op, data } = test else {
        return None;
    };
    let ([mask], [value]) = (mask.as_bytes(), data.as_bytes()) else {
        return None;
    };
    Some(Statement::TcpFlags {
        mask: TcpFlags(*mask),
        op: operator(*op),
        value: TcpFlags(*value),
    })
}

fn ct_state(test: &Test) -> Option<Statement> {
    let Test::Masked {
        mask,
        op: Cmp::Neq,
        data,
    } = test
    else {
        return None;
    };
    let bits = u32::from_ne_bytes(mask.as_bytes().try_into().ok()?);
    (*data == data.zeros()).then_some(Statement::CtState(bits))
}

const fn operator(op: Cmp) -> Operator {
    match op {
        Cmp::Eq => Operator::Eq,
        Cmp::Neq => Operator::Neq,
        Cmp::Lt => Operator::Lt,
        Cmp::Lte => Operator::Lte,
        Cmp::Gt => Operator::Gt,
        Cmp::Gte => Operator::Gte,
    }
}
