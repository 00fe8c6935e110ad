//! networking.k8s.io/v1 NetworkPolicy, lowered into the policy form.
//!
//! What each field means follows the API's own text. What can't be read is closed where it stands, and said:
//! a peer or port that is wrong matches nothing, a rule's other peers and ports stay as they are. A `podSelector` that
//! can't be read leaves open which pods are meant, so it selects all it may mean, and allows them nothing. What is over a
//! limit ([`crate::limits`]) counts as what can't be read.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    Action, Dialect, Direction, Peer, Peers, Policy, PolicyKey, Port, PortMatch, Ports, Problem,
    Problems, Rule, Tier,
};
use crate::cluster::Text;
use crate::cluster::cidr::IpBlock;
use crate::cluster::parse::parse_cidr;
use crate::cluster::port::Protocol;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use crate::limits;

/// Lowers a NetworkPolicy. It never fails: what can't be read is in [`Policy::problems`], and closed.
pub fn lower(policy: &api::NetworkPolicy) -> Policy {
    let key = PolicyKey {
        dialect: Dialect::NetworkPolicy,
        namespace: Text::from(policy.metadata.namespace.as_deref().unwrap_or("default")),
        name: Text::from(policy.metadata.name.as_deref().unwrap_or_default()),
    };
    let spec = policy.spec.clone().unwrap_or_default();
    let mut lowering = Lowering {
        namespace: key.namespace.clone(),
        problems: Problems::default(),
        blocks: Budget::of(limits::BLOCKS),
        values: Budget::of(limits::VALUES),
    };
    let ingress_rules = spec.ingress.unwrap_or_default();
    let egress_rules = spec.egress.unwrap_or_default();
    let directions = lowering.directions(spec.policy_types.as_deref(), !egress_rules.is_empty());
    let subject = lowering.subject(spec.pod_selector.as_ref());

    let ingress = directions.contains(&Direction::Ingress).then(|| {
        let rules = ingress_rules.iter();
        let rules = rules.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
        lowering.rules(Direction::Ingress, &subject.selector, rules)
    });
    let egress = directions.contains(&Direction::Egress).then(|| {
        let rules = egress_rules.iter();
        let rules = rules.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
        lowering.rules(Direction::Egress, &subject.selector, rules)
    });

    let mut policy = Policy {
        key,
        tier: Tier::NetworkPolicy,
        subject: subject.selector,
        ingress,
        egress,
        problems: lowering.problems.into_vec(),
    };
    if !subject.exact {
        for rules in [&mut policy.ingress, &mut policy.egress]
            .into_iter()
            .flatten()
        {
            rules.clear();
        }
    }
    policy
}

/// A policy's subject; not exact when it may select more pods than was meant.
struct Subject {
    selector: PodSelector,
    exact: bool,
}

/// How much of something a policy may still have.
struct Budget {
    most: usize,
    left: usize,
}

impl Budget {
    fn of(most: usize) -> Self {
        Self { most, left: most }
    }

    /// Takes so much of it; where there is not enough, an error says so, and nothing is left.
    fn take(&mut self, count: usize, what: &str) -> Result<(), String> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(format!(
                    "with it the policy has more than {} {what}",
                    self.most
                ))
            }
        }
    }
}

/// What an API rule says: its peers and its ports.
type Parts<'a> = (
    Option<&'a [api::NetworkPolicyPeer]>,
    Option<&'a [api::NetworkPolicyPort]>,
);

struct Lowering {
    namespace: Text,
    problems: Problems,
    blocks: Budget,
    values: Budget,
}

impl Lowering {
    /// The rules of one direction, of a policy with that subject.
    fn rules<'a>(
        &mut self,
        direction: Direction,
        subject: &PodSelector,
        rules: impl Iterator<Item = Parts<'a>>,
    ) -> Vec<Rule> {
        let field = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut ways = Budget::of(limits::WAYS);
        let mut named = Budget::of(limits::NAMED);
        let rules = rules.enumerate().map(|(n, (peers, ports))| {
            let at = format!("spec.{direction}[{n}]");
            let rule = self.rule(&at, field, peers, ports);
            let taken = ways
                .take(rule.ways(), &format!("ways to meet its {direction} rules"))
                .and_then(|()| {
                    let what = format!("values times named ports in its {direction} rules");
                    named.take(rule.named_values(subject), &what)
                });
            match taken {
                Ok(()) => rule,
                Err(reason) => {
                    self.problem(at, format!("{reason}; this rule allows nothing"));
                    Rule::nothing()
                }
            }
        });
        rules.collect()
    }

    fn problem(&mut self, location: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(Problem {
            location: location.into(),
            reason: reason.into(),
        });
    }

    /// The directions that the policy isolates: as `policyTypes` says or, where it says nothing, ingress always and
    /// egress with at least one egress rule.
    fn directions(&mut self, types: Option<&[String]>, has_egress: bool) -> BTreeSet<Direction> {
        let types = types.unwrap_or_default();
        if types.is_empty() {
            let egress = has_egress.then_some(Direction::Egress);
            return [Direction::Ingress].into_iter().chain(egress).collect();
        }
        let mut directions = BTreeSet::new();
        for (n, text) in types.iter().enumerate() {
            match text.as_str() {
                "Ingress" => drop(directions.insert(Direction::Ingress)),
                "Egress" => drop(directions.insert(Direction::Egress)),
                other => {
                    self.problem(
                        format!("spec.policyTypes[{n}]"),
                        format!(
                            "{other:?} is neither Ingress nor Egress; both directions are isolated"
                        ),
                    );
                    directions.extend(Direction::ALL);
                }
            }
        }
        directions
    }

    fn subject(&mut self, selector: Option<&meta::LabelSelector>) -> Subject {
        let default = meta::LabelSelector::default();
        let (requirements, failures) = self.requirements(selector.unwrap_or(&default));
        let exact = failures.is_empty();
        for (at, reason) in failures {
            self.problem(
                format!("spec.podSelector{at}"),
                format!("{reason}; every pod it may select is isolated and allowed nothing by this policy"),
            );
        }
        Subject {
            selector: PodSelector {
                scope: Scope::Namespace(self.namespace.clone()),
                pods: LabelSelector::new(requirements),
            },
            exact,
        }
    }

    fn rule(
        &mut self,
        at: &str,
        peers_field: &str,
        peers: Option<&[api::NetworkPolicyPeer]>,
        ports: Option<&[api::NetworkPolicyPort]>,
    ) -> Rule {
        let peers = match peers.unwrap_or_default() {
            [] => Peers::Any,
            peers => {
                let peers = peers.iter().enumerate();
                Peers::Of(
                    peers
                        .filter_map(|(n, peer)| {
                            self.peer(&format!("{at}.{peers_field}[{n}]"), peer)
                        })
                        .collect(),
                )
            }
        };
        let ports = match ports.unwrap_or_default() {
            [] => Ports::Any,
            ports => {
                let ports = ports.iter().enumerate();
                Ports::Of(
                    ports
                        .filter_map(|(n, port)| self.port(&format!("{at}.ports[{n}]"), port))
                        .collect(),
                )
            }
        };
        Rule {
            action: Action::Accept,
            peers,
            ports,
        }
    }

    fn peer(&mut self, at: &str, peer: &api::NetworkPolicyPeer) -> Option<Peer> {
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(_) if selects => {
                self.problem(
                    at,
                    "an ipBlock can't stand beside a selector; this peer matches nothing",
                );
                None
            }
            Some(block) => self.block(&format!("{at}.ipBlock"), block).map(Peer::Block),
            None if !selects => {
                self.problem(
                    at,
                    "a peer needs a podSelector, a namespaceSelector or an ipBlock; this one matches nothing",
                );
                None
            }
            None => {
                let scope = match &peer.namespace_selector {
                    None => Scope::Namespace(self.namespace.clone()),
                    Some(selector) => Scope::Namespaces(
                        self.selector(&format!("{at}.namespaceSelector"), selector)?,
                    ),
                };
                let pods = match &peer.pod_selector {
                    None => LabelSelector::default(),
                    Some(selector) => self.selector(&format!("{at}.podSelector"), selector)?,
                };
                Some(Peer::Pods(PodSelector { scope, pods }))
            }
        }
    }

    fn selector(&mut self, at: &str, selector: &meta::LabelSelector) -> Option<LabelSelector> {
        let (requirements, failures) = self.requirements(selector);
        let exact = failures.is_empty();
        for (place, reason) in failures {
            self.problem(
                format!("{at}{place}"),
                format!("{reason}; this peer matches nothing"),
            );
        }
        exact.then(|| LabelSelector::new(requirements))
    }

    /// The requirements that could be read and, for those that could not, where they stand and why.
    fn requirements(
        &mut self,
        selector: &meta::LabelSelector,
    ) -> (Vec<Requirement>, Vec<(String, String)>) {
        let mut good = Vec::new();
        let mut failures = Vec::new();
        let labels = selector.match_labels.iter().flatten();
        let values = "values in its selectors";
        match self.values.take(labels.clone().count(), values) {
            Ok(()) => {
                for (key, value) in labels {
                    match valid_key(key).and_then(|()| valid_value(value)) {
                        Ok(()) => good.push(Requirement {
                            key: Text::from(key.as_str()),
                            operator: Operator::In([Text::from(value.as_str())].into()),
                        }),
                        Err(reason) => failures.push((".matchLabels".to_owned(), reason)),
                    }
                }
            }
            Err(reason) => failures.push((".matchLabels".to_owned(), reason)),
        }
        for (n, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let count = expression
                .values
                .as_ref()
                .map_or(1, |values| values.len().max(1));
            let operator = self
                .values
                .take(count, values)
                .and_then(|()| operator(expression));
            match operator {
                Ok(operator) => good.push(Requirement {
                    key: Text::from(expression.key.as_str()),
                    operator,
                }),
                Err(reason) => failures.push((format!(".matchExpressions[{n}]"), reason)),
            }
        }
        (good, failures)
    }

    /// The block; `None` where it can't be read, or where something is excepted that isn't in it: what was meant then can't be
    /// told.
    fn block(&mut self, at: &str, block: &api::IPBlock) -> Option<IpBlock> {
        let except = block.except.as_deref().unwrap_or_default();
        let count = 1 + except.len();
        if let Err(reason) = self.blocks.take(count, "address blocks and exceptions") {
            self.problem(at, format!("{reason}; this peer matches nothing"));
            return None;
        }
        let net = self.cidr(&format!("{at}.cidr"), &block.cidr);
        let except: Vec<Option<IpNetwork>> = except
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let at = format!("{at}.except[{n}]");
                let except = self.cidr(&at, text)?;
                match net.is_none_or(|net| is_within(except, net)) {
                    true => Some(except),
                    false => {
                        let reason = format!("{text:?} is no part of {}", block.cidr);
                        self.problem(at, format!("{reason}; this peer matches nothing"));
                        None
                    }
                }
            })
            .collect();
        let mut except: Vec<IpNetwork> = except.into_iter().collect::<Option<_>>()?;
        except.sort_unstable();
        except.dedup();
        Some(IpBlock { net: net?, except })
    }

    fn cidr(&mut self, at: &str, text: &str) -> Option<IpNetwork> {
        parse_cidr(text)
            .map_err(|reason| self.problem(at, format!("{reason}; this peer matches nothing")))
            .ok()
    }

    fn port(&mut self, at: &str, port: &api::NetworkPolicyPort) -> Option<Port> {
        let protocol = match port.protocol.as_deref() {
            None => Protocol::Tcp,
            Some(text) => match Protocol::parse(text) {
                Some(protocol) => protocol,
                None => {
                    self.problem(
                        format!("{at}.protocol"),
                        format!("{text:?} is none of TCP, UDP, SCTP; this port matches nothing"),
                    );
                    return None;
                }
            },
        };
        let port = match (&port.port, port.end_port) {
            (None, None) => Ok(PortMatch::Any),
            (None, Some(_)) => Err("endPort needs a port to start from".to_owned()),
            (Some(IntOrString::Int(first)), None) => {
                number(*first).map(|first| PortMatch::Range(first, first))
            }
            (Some(IntOrString::Int(first)), Some(last)) => range(*first, last),
            (Some(IntOrString::String(_)), Some(_)) => {
                Err("endPort goes with a numeric port only".to_owned())
            }
            (Some(IntOrString::String(name)), None) => named(name),
        };
        match port {
            Ok(port) => Some(Port { protocol, port }),
            Err(reason) => {
                self.problem(at, format!("{reason}; this port matches nothing"));
                None
            }
        }
    }
}

fn number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("port {number} is not in 1-65535")),
    }
}

fn range(first: i32, last: i32) -> Result<PortMatch, String> {
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(format!("endPort {last} is before port {first}"));
    }
    Ok(PortMatch::Range(first, last))
}

/// A port's name: as the API demands, lower-case letters, digits and dashes with at least one letter.
fn named(name: &str) -> Result<PortMatch, String> {
    if name.bytes().any(|b| b.is_ascii_alphabetic()) {
        Ok(PortMatch::Named(Text::from(name)))
    } else {
        Err(format!(
            "{name:?} is no port name; a number is written without quotes"
        ))
    }
}

/// Whether a block is a part of another, and not all of it.
fn is_within(part: IpNetwork, whole: IpNetwork) -> bool {
    part.prefix() > whole.prefix() && whole.contains(part.network())
}

/// Whether a label can have that key: `name` or `prefix/name`.
fn valid_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let domain = |prefix: &str| {
        let part = |part: &str| {
            let small = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let inner = |b: u8| small(b) || b == b'-';
            part.bytes().all(inner) && part.starts_with(|c: char| c != '-') && !part.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(part)
    };
    match !name.is_empty() && is_label_text(name) && prefix.is_none_or(domain) {
        true => Ok(()),
        false => Err(format!("{key:?} can't be a label's key")),
    }
}

/// Whether a label can have that value.
fn valid_value(value: &str) -> Result<(), String> {
    match is_label_text(value) {
        true => Ok(()),
        false => Err(format!("{value:?} can't be a label's value")),
    }
}

/// At most 63 letters, digits, dashes, underscores and dots, the first and the last of them a letter or digit.
fn is_label_text(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && end(bytes.first()) && end(bytes.last())
}

/// What an expression asks of its key. A key or value that no label can have is refused, as the API does: it would be met
/// by nobody, or by everybody.
fn operator(expression: &meta::LabelSelectorRequirement) -> Result<Operator, String> {
    valid_key(&expression.key)?;
    let values = expression.values.iter().flatten();
    values.clone().try_for_each(|value| valid_value(value))?;
    let values: BTreeSet<Text> = values.map(|value| Text::from(value.as_str())).collect();
    let operator = expression.operator.as_str();
    match (operator, values.is_empty()) {
        ("In", false) => Ok(Operator::In(values)),
        ("NotIn", false) => Ok(Operator::NotIn(values)),
        ("In" | "NotIn", true) => Err(format!("operator {operator} needs values")),
        ("Exists", true) => Ok(Operator::Exists),
        ("DoesNotExist", true) => Ok(Operator::DoesNotExist),
        ("Exists" | "DoesNotExist", false) => Err(format!("operator {operator} takes no values")),
        _ => Err(format!(
            "operator {operator:?} is none of In, NotIn, Exists, DoesNotExist"
        )),
    }
}
