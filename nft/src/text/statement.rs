//! Rules and their statements.

use std::fmt;

use super::{Quoted, Style, value};
use crate::rule::{
    Field, LimitUnit, Operand, Operator, Rule, Statement, TcpFlags, Verdict, ct_state,
};
use crate::value::Value;

/// One rule on one line, without indent. A rule that was not understood when it was read becomes a comment.
pub(crate) fn rule(f: &mut fmt::Formatter<'_>, rule: &Rule, style: Style) -> fmt::Result {
    let foreign = |s: &Statement| matches!(s, Statement::Foreign(_));
    if rule.statements.iter().any(foreign) {
        f.write_str("# ")?;
    }
    for (at, statement) in rule.statements.iter().enumerate() {
        if at > 0 {
            f.write_str(" ")?;
        }
        self::statement(f, statement, style)?;
    }
    if let Some(comment) = &rule.comment {
        write!(f, " comment {}", Quoted(comment))?;
    }
    Ok(())
}

fn statement(f: &mut fmt::Formatter<'_>, statement: &Statement, style: Style) -> fmt::Result {
    match statement {
        Statement::Match {
            field: Field::NdTarget,
            op,
            operand,
        } => target(f, *op, operand),
        Statement::Match { field, op, operand } => {
            write!(f, "{} ", field_name(*field))?;
            if let Some(sign) = sign(*op) {
                write!(f, "{sign} ")?;
            }
            match operand {
                Operand::Value(v) => value::value(f, v, style),
                Operand::Range(first, last) => value::range(f, first, last),
                Operand::Prefix(network, length) => value::prefix(f, network, *length),
            }
        }
        Statement::TcpFlags { mask, op, value } => {
            f.write_str("tcp flags ")?;
            match style {
                Style::List => listed_flags(f, *mask, *op, *value),
                Style::Script => masked_flags(f, *mask, *op, *value),
            }
        }
        Statement::CtState(bits) => {
            f.write_str("ct state ")?;
            ct_states(f, *bits)
        }
        Statement::Lookup { key, set, inverted } => {
            fields(f, key)?;
            let sign = if *inverted { "!= " } else { "" };
            write!(f, " {sign}@{set}")
        }
        Statement::VerdictMap { key, map } => {
            fields(f, key)?;
            write!(f, " vmap @{map}")
        }
        Statement::Counter => f.write_str("counter"),
        Statement::NamedCounter(name) => write!(f, "counter name \"{name}\""),
        Statement::Limit { rate, unit, burst } => {
            write!(f, "limit rate {rate}/{}", unit_name(*unit))?;
            // nft's default, which it does not print.
            if *burst == 5 {
                return Ok(());
            }
            write!(f, " burst {burst} packets")
        }
        Statement::Log { group, prefix } => {
            f.write_str("log ")?;
            if let Some(prefix) = prefix {
                write!(f, "prefix {} ", Quoted(prefix))?;
            }
            write!(f, "group {group}")
        }
        Statement::Verdict(verdict) => self::verdict(f, verdict),
        Statement::Foreign(text) => {
            f.write_str("not understood: ")?;
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .try_for_each(|c| write!(f, "{c}"))
        }
    }
}

pub(super) fn verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    match verdict {
        Verdict::Accept => f.write_str("accept"),
        Verdict::Drop => f.write_str("drop"),
        Verdict::Return => f.write_str("return"),
        Verdict::Continue => f.write_str("continue"),
        Verdict::Jump(chain) => write!(f, "jump {chain}"),
        Verdict::Goto(chain) => write!(f, "goto {chain}"),
    }
}

fn fields(f: &mut fmt::Formatter<'_>, key: &[Field]) -> fmt::Result {
    for (at, field) in key.iter().enumerate() {
        if at > 0 {
            f.write_str(" . ")?;
        }
        f.write_str(field_name(*field))?;
    }
    Ok(())
}

const fn field_name(field: Field) -> &'static str {
    match field {
        Field::IpSaddr => "ip saddr",
        Field::IpDaddr => "ip daddr",
        Field::Ip6Saddr => "ip6 saddr",
        Field::Ip6Daddr => "ip6 daddr",
        Field::ArpSaddrIp => "arp saddr ip",
        Field::TcpSport => "tcp sport",
        Field::TcpDport => "tcp dport",
        Field::UdpSport => "udp sport",
        Field::UdpDport => "udp dport",
        Field::SctpSport => "sctp sport",
        Field::SctpDport => "sctp dport",
        Field::ThSport => "th sport",
        Field::ThDport => "th dport",
        Field::IcmpType => "icmp type",
        Field::Icmpv6Type => "icmpv6 type",
        Field::NdTarget => "@th,64,128",
        Field::EtherType => "ether type",
        Field::MetaL4proto => "meta l4proto",
        Field::Iifname => "iifname",
        Field::Oifname => "oifname",
    }
}

/// A field that is a number to nft: a prefix of whole bytes is a shorter one, any other is masked.
fn target(f: &mut fmt::Formatter<'_>, op: Operator, operand: &Operand) -> fmt::Result {
    let number = |value: &Value| match value {
        Value::Ipv6(address) => address.to_bits(),
        _ => 0,
    };
    let name = field_name(Field::NdTarget);
    let sign = sign(op).map(|sign| format!("{sign} ")).unwrap_or_default();
    match operand {
        Operand::Value(value) => write!(f, "{name} {sign}{:#x}", number(value)),
        Operand::Range(first, last) => {
            let (first, last) = (number(first), number(last));
            write!(f, "{name} {sign}{first:#x}-{last:#x}")
        }
        Operand::Prefix(network, length) => {
            let (network, rest) = (number(network), 128 - u32::from(*length).min(128));
            if rest.is_multiple_of(8) {
                let short = network.checked_shr(rest).unwrap_or(0);
                return write!(f, "@th,64,{length} {sign}{short:#x}");
            }
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            let sign = self::sign(op).unwrap_or("==");
            write!(f, "{name} & {mask:#x} {sign} {network:#x}")
        }
    }
}

/// The sign of a comparison; nft leaves that of equality out.
const fn sign(op: Operator) -> Option<&'static str> {
    match op {
        Operator::Eq => None,
        Operator::Neq => Some("!="),
        Operator::Lt => Some("<"),
        Operator::Gt => Some(">"),
        Operator::Lte => Some("<="),
        Operator::Gte => Some(">="),
    }
}

const fn unit_name(unit: LimitUnit) -> &'static str {
    match unit {
        LimitUnit::Second => "second",
        LimitUnit::Minute => "minute",
        LimitUnit::Hour => "hour",
        LimitUnit::Day => "day",
    }
}

/// nft lists in a form of its own each of: all bits looked at, none of the bits, any of the bits, just one bit, and the
/// rest. It does not load all that it lists.
fn listed_flags(
    f: &mut fmt::Formatter<'_>,
    mask: TcpFlags,
    op: Operator,
    value: TcpFlags,
) -> fmt::Result {
    let unequal = op == Operator::Neq;
    let sign = if unequal { "!=" } else { "==" };
    let single = value.0.is_power_of_two();
    match (mask.0, value.0) {
        (0xff, _) if single => {
            write!(f, "{sign} ")?;
            flags(f, value, ",")
        }
        (0xff, bits) => write!(f, "{sign} {bits:#x}"),
        (_, 0) => {
            f.write_str(if unequal { "" } else { "! " })?;
            flags(f, mask, ",")
        }
        (mask_bits, bits) if mask_bits == bits && single => {
            f.write_str("& ")?;
            flags(f, mask, ",")?;
            write!(f, " {sign} ")?;
            flags(f, value, ",")
        }
        _ => {
            f.write_str(if unequal { "!= " } else { "" })?;
            flags(f, value, ",")?;
            f.write_str(" / ")?;
            flags(f, mask, ",")
        }
    }
}

/// The one form that says it all.
fn masked_flags(
    f: &mut fmt::Formatter<'_>,
    mask: TcpFlags,
    op: Operator,
    value: TcpFlags,
) -> fmt::Result {
    let sign = if op == Operator::Neq { "!=" } else { "==" };
    f.write_str("& ")?;
    operand(f, mask)?;
    write!(f, " {sign} ")?;
    operand(f, value)
}

fn operand(f: &mut fmt::Formatter<'_>, bits: TcpFlags) -> fmt::Result {
    match bits.0.count_ones() {
        0 => f.write_str("0x0"),
        1 => flags(f, bits, ""),
        _ => {
            f.write_str("(")?;
            flags(f, bits, " | ")?;
            f.write_str(")")
        }
    }
}

fn flags(f: &mut fmt::Formatter<'_>, flags: TcpFlags, separator: &str) -> fmt::Result {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set = NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags.0 >> bit & 1 == 1);
    separated(f, set.map(|(_, name)| *name), separator)
}

fn ct_states(f: &mut fmt::Formatter<'_>, bits: u32) -> fmt::Result {
    const NAMES: [(u32, &str); 5] = [
        (ct_state::INVALID, "invalid"),
        (ct_state::ESTABLISHED, "established"),
        (ct_state::RELATED, "related"),
        (ct_state::NEW, "new"),
        (ct_state::UNTRACKED, "untracked"),
    ];
    let set = NAMES.iter().filter(|(bit, _)| bits & bit != 0);
    separated(f, set.map(|(_, name)| *name), ",")
}

fn separated<'a>(
    f: &mut fmt::Formatter<'_>,
    mut words: impl Iterator<Item = &'a str>,
    separator: &str,
) -> fmt::Result {
    if let Some(first) = words.next() {
        f.write_str(first)?;
    }
    words.try_for_each(|word| write!(f, "{separator}{word}"))
}
