//! The ruleset evaluator: walks a compiled ruleset with a packet, as `nft_do_chain` would.
//!
//! Base chains of a hook are called by priority; an accept ends one base chain, a drop ends all. A rule that asks for a
//! field the packet does not have is left (`NFT_BREAK`). Counters and logs pass, and so does a limit, as if its rate
//! were never reached.
//!
//! In a bridge's hook a packet is a frame: with its port, the EtherType on the wire, and the IP packet in it. ARP, and
//! what a neighbour advertisement is about, no [`Packet`] can say: rules that ask for them are left, so that of the
//! chains against false addresses those of IPv4 and IPv6 sources are walked, and the rest is for tests with frames.

use std::fmt;

use selvedge_nft::{
    BaseChain, Chain, ChainPolicy, Datatype, Elements, Family, Field, Hook, Key, Name, Operand,
    Operator, Rule, Ruleset, Set, Statement, Table, TableId, Value, Verdict,
};

use super::packet::{FieldValue, Packet};

/// What became of a packet at a hook, and by which rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// Whether it went on.
    pub accepted: bool,
    /// Every verdict that was reached, in order.
    pub steps: Vec<Step>,
}

/// One verdict on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: TableId,
    /// The chain.
    pub chain: Name,
    /// The rule's index in the chain; `None` for a base chain's policy.
    pub rule: Option<usize>,
    /// The verdict.
    pub verdict: Verdict,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.table, self.chain)?;
        match self.rule {
            Some(rule) => write!(f, "rule {rule}: ")?,
            None => f.write_str("policy: ")?,
        }
        match &self.verdict {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        f.write_str(if self.accepted { "accepted" } else { "dropped" })
    }
}

/// A ruleset that the kernel would not have taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A rule names a chain that is not in its table.
    #[error("table {table} has no chain {chain}")]
    NoChain {
        /// The table.
        table: TableId,
        /// The chain.
        chain: Name,
    },
    /// A rule names a set or map that is not in its table.
    #[error("table {table} has no set {set}")]
    NoSet {
        /// The table.
        table: TableId,
        /// The set.
        set: Name,
    },
    /// A rule uses a set for what it is not: a map as a set, a set as a map, or with a key of another type.
    #[error("set {set} of table {table} is of another type than the rule that looks it up")]
    Type {
        /// The table.
        table: TableId,
        /// The set.
        set: Name,
    },
    /// Chains call each other deeper than the kernel's stack (`NFT_JUMP_STACK_SIZE`), or in a circle.
    #[error("chain {chain} of table {table} is called from too deep")]
    Depth {
        /// The table.
        table: TableId,
        /// The chain.
        chain: Name,
    },
    /// A statement that was read from a kernel and is not known.
    #[error("a statement of another's making: {text}")]
    Foreign {
        /// As far as it could be read.
        text: String,
    },
}

/// The kernel's `NFT_JUMP_STACK_SIZE`.
const DEPTH: usize = 16;
/// More transfers of control than any loop-free ruleset of ours makes.
const TRANSFERS: usize = 100_000;

/// Sends a packet through the base chains of one hook. Where two have one priority, the order of the tables' and chains'
/// names decides.
///
/// # Errors
/// [`WalkError`] when the packet comes to something that the kernel would not have taken.
pub fn walk(
    ruleset: &Ruleset,
    family: Family,
    hook: Hook,
    packet: &Packet,
) -> Result<Walk, WalkError> {
    BaseChains::of(ruleset, family, hook).walk(packet)
}

/// The base chains of one hook in the order in which the kernel calls them: found once, for many packets.
#[derive(Debug)]
pub struct BaseChains<'a> {
    chains: Vec<(&'a TableId, &'a Table, &'a Name, &'a Chain, BaseChain)>,
}

impl<'a> BaseChains<'a> {
    /// Those of a ruleset. It looks at every chain.
    pub fn of(ruleset: &'a Ruleset, family: Family, hook: Hook) -> Self {
        let mut chains = Vec::new();
        for (id, table) in ruleset.tables.iter().filter(|(id, _)| id.family == family) {
            for (name, chain) in &table.chains {
                if let Some(base) = chain.base.filter(|base| base.hook == hook) {
                    chains.push((id, &**table, name, &**chain, base));
                }
            }
        }
        chains.sort_by_key(|(.., base)| base.priority);
        Self { chains }
    }

    /// Sends a packet through them.
    ///
    /// # Errors
    /// As [`walk`].
    pub fn walk(&self, packet: &Packet) -> Result<Walk, WalkError> {
        let mut walk = Walk {
            accepted: true,
            steps: Vec::new(),
        };
        for (id, table, name, chain, base) in &self.chains {
            let mut walker = Walker {
                id,
                table,
                packet,
                steps: &mut walk.steps,
            };
            if !walker.base_chain(name, chain, base.policy)? {
                walk.accepted = false;
                break;
            }
        }
        Ok(walk)
    }
}

struct Walker<'a> {
    id: &'a TableId,
    table: &'a Table,
    packet: &'a Packet,
    steps: &'a mut Vec<Step>,
}

/// A place in a chain: the next rule.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a Name,
    chain: &'a Chain,
    next: usize,
}

impl<'a> Walker<'a> {
    /// Whether the packet leaves the base chain accepted.
    fn base_chain(
        &mut self,
        name: &'a Name,
        chain: &'a Chain,
        policy: ChainPolicy,
    ) -> Result<bool, WalkError> {
        let mut callers: Vec<Place<'a>> = Vec::new();
        let mut here = Place {
            name,
            chain,
            next: 0,
        };
        let mut transfers = 0;
        loop {
            let Some(rule) = here.chain.rules.get(here.next) else {
                match callers.pop() {
                    Some(caller) => here = caller,
                    None => break,
                }
                continue;
            };
            let number = here.next;
            here.next += 1;
            let Some(verdict) = self.rule(rule)? else {
                continue;
            };
            self.steps.push(Step {
                table: self.id.clone(),
                chain: here.name.clone(),
                rule: Some(number),
                verdict: verdict.clone(),
            });
            match verdict {
                Verdict::Accept => return Ok(true),
                Verdict::Drop => return Ok(false),
                Verdict::Continue => {}
                Verdict::Return => match callers.pop() {
                    Some(caller) => here = caller,
                    None => break,
                },
                Verdict::Jump(to) => {
                    callers.push(here);
                    here = self.place(&to)?;
                }
                Verdict::Goto(to) => here = self.place(&to)?,
            }
            transfers += 1;
            if callers.len() > DEPTH || transfers > TRANSFERS {
                return Err(WalkError::Depth {
                    table: self.id.clone(),
                    chain: here.name.clone(),
                });
            }
        }
        let verdict = match policy {
            ChainPolicy::Accept => Verdict::Accept,
            ChainPolicy::Drop => Verdict::Drop,
        };
        self.steps.push(Step {
            table: self.id.clone(),
            chain: name.clone(),
            rule: None,
            verdict,
        });
        Ok(policy == ChainPolicy::Accept)
    }

    fn place(&self, chain: &Name) -> Result<Place<'a>, WalkError> {
        let found = self.table.chains.get_key_value(chain);
        let (name, chain) = found.ok_or_else(|| WalkError::NoChain {
            table: self.id.clone(),
            chain: chain.clone(),
        })?;
        Ok(Place {
            name,
            chain,
            next: 0,
        })
    }

    /// The rule's verdict; `None` where it does not match or has none.
    fn rule(&self, rule: &Rule) -> Result<Option<Verdict>, WalkError> {
        for statement in &rule.statements {
            let goes_on = match statement {
                Statement::Match { field, op, operand } => {
                    let value = self.packet.field(*field);
                    value.is_some_and(|value| compare(value, *op, operand))
                }
                Statement::TcpFlags { mask, op, value } => {
                    let masked = self.packet.tcp_flags().map(|flags| flags.0 & mask.0);
                    masked.is_some_and(|masked| match op {
                        Operator::Neq => masked != value.0,
                        _ => masked == value.0,
                    })
                }
                Statement::CtState(bits) => self.packet.ct_state & bits != 0,
                Statement::Lookup { key, set, inverted } => {
                    let set = self.set(set, key)?;
                    match self.key(key) {
                        Some(key) => self.is_member(&key, set)? != *inverted,
                        None => false,
                    }
                }
                Statement::VerdictMap { key, map } => {
                    let map = self.set(map, key)?;
                    let Elements::Verdicts(entries) = &map.1.elements else {
                        return Err(self.type_error(map.0));
                    };
                    let entry = self.key(key).and_then(|key| entries.get(&key));
                    match entry.map(|entry| &entry.verdict) {
                        None => false,
                        Some(Verdict::Continue) => true,
                        Some(verdict) => return Ok(Some(verdict.clone())),
                    }
                }
                Statement::Counter
                | Statement::NamedCounter(_)
                | Statement::Limit { .. }
                | Statement::Log { .. } => true,
                Statement::Verdict(verdict) => return Ok(Some(verdict.clone())),
                Statement::Foreign(text) => {
                    return Err(WalkError::Foreign { text: text.clone() });
                }
            };
            if !goes_on {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// A set that has a key of these fields' types.
    fn set(&self, set: &Name, key: &[Field]) -> Result<(&'a Name, &'a Set), WalkError> {
        let found = self.table.sets.get_key_value(set);
        let (name, set) = found.ok_or_else(|| WalkError::NoSet {
            table: self.id.clone(),
            set: set.clone(),
        })?;
        let types = key.iter().map(|field| field.datatype());
        if types.eq(set.header.key.iter().copied()) {
            Ok((name, set))
        } else {
            Err(self.type_error(name))
        }
    }

    fn type_error(&self, set: &Name) -> WalkError {
        WalkError::Type {
            table: self.id.clone(),
            set: set.clone(),
        }
    }

    /// The packet's key for these fields; `None` where it lacks one of them.
    fn key(&self, fields: &[Field]) -> Option<Key> {
        if let [field] = fields {
            return Key::from_bytes(self.packet.field(*field)?.as_bytes()).ok();
        }
        let mut bytes = Vec::with_capacity(Key::MAX);
        for field in fields {
            bytes.extend_from_slice(self.packet.field(*field)?.padded());
        }
        Key::from_bytes(&bytes).ok()
    }

    fn is_member(&self, key: &Key, (name, set): (&Name, &Set)) -> Result<bool, WalkError> {
        match &set.elements {
            Elements::Keys(keys) => Ok(keys.contains(key)),
            Elements::Ranges(ranges) => match set.header.key.as_slice() {
                [_] => Ok(ranges.get_prev(key).is_some_and(|(_, last)| key <= last)),
                types => Ok(ranges
                    .iter()
                    .any(|(first, last)| is_within(key, first, last, types))),
            },
            Elements::Verdicts(_) => Err(self.type_error(name)),
        }
    }
}

/// Whether every field of a concatenation is within its own bounds.
fn is_within(key: &Key, first: &Key, last: &Key, types: &[Datatype]) -> bool {
    let mut at = 0;
    types.iter().all(|datatype| {
        let field = |key: &Key| {
            let bytes = key.as_bytes().get(at..at + datatype.len());
            bytes.map(<[u8]>::to_vec)
        };
        let fields = (field(first), field(key), field(last));
        at += datatype.padded_len();
        match fields {
            (Some(first), Some(key), Some(last)) => first <= key && key <= last,
            _ => false,
        }
    })
}

fn compare(value: FieldValue, op: Operator, operand: &Operand) -> bool {
    let own = value.as_bytes();
    let mut buffer = [0; 16];
    match operand {
        Operand::Value(other) => {
            let len = other.write(&mut buffer);
            let other = buffer.get(..len).unwrap_or_default();
            match op {
                Operator::Eq => own == other,
                Operator::Neq => own != other,
                Operator::Lt => own < other,
                Operator::Gt => own > other,
                Operator::Lte => own <= other,
                Operator::Gte => own >= other,
            }
        }
        Operand::Range(first, last) => {
            let within = bytes(first).as_slice() <= own && own <= bytes(last).as_slice();
            within == (op != Operator::Neq)
        }
        Operand::Prefix(net, len) => same_prefix(own, &bytes(net), *len) == (op != Operator::Neq),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut buffer = [0; 16];
    let len = value.write(&mut buffer);
    buffer.get(..len).unwrap_or_default().to_vec()
}

/// Whether two values are equal in their first `len` bits.
fn same_prefix(one: &[u8], other: &[u8], len: u8) -> bool {
    let mut left = u32::from(len);
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            let bits = left.min(8);
            left -= bits;
            let mask = u8::MAX.checked_shl(8 - bits).unwrap_or(0);
            one & mask == other & mask
        })
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
