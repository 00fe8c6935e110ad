//! `selvedge why`.

use clap::Args;
use serde_json::{Value, json};

use super::question::{Answer, Output, Question, print_json};
use super::terminal::Style;
use super::{Done, Failure, print, warn};
use crate::index::Index;
use crate::policy::{Direction, PolicyKey};
use crate::verdict::nearest::{Nearest, nearest};
use crate::verdict::{Connection, Decision, Endpoint, Owner, RuleRef, Verdict};

const EXAMPLES: &str = "\
Examples:
  selvedge why shop/web-0 shop/db-0 --port tcp/5432 -f ./examples
  selvedge why 192.168.50.200 shop/web-0 --port tcp/8080 -f ./examples -o json

Exit codes: 0 allowed, 1 denied, 2 bad usage or input, also where an answer is without what could not be read.";

/// Say which policies and rules decide about a connection, and what a denied one lacks.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Why {
    #[command(flatten)]
    question: Question,
}

impl Why {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let asked = self.question.input.load()?;
        let index = &asked.index;
        let answer = self.question.answer(index)?;
        match self.question.input.output {
            Output::Json => {
                let mut value = as_json(index, &answer);
                asked.mark(&mut value);
                print_json(&value)?
            }
            Output::Text => print(&as_text(index, &answer, Style::of_stdout()))?,
        };
        answer.notes.iter().for_each(warn);
        asked.done(answer.done())
    }
}

/// One direction of a connection, explained.
struct Side<'a> {
    direction: Direction,
    decision: &'a Decision,
    /// Where it is decided.
    node: Option<&'a str>,
    nearest: Option<Nearest>,
    /// What can't be read in the policies that isolate.
    problems: Vec<String>,
}

fn sides<'a>(index: &Index, connection: &Connection, verdict: &'a Verdict) -> [Side<'a>; 2] {
    Direction::ALL.map(|direction| {
        let decision = verdict.decision(direction);
        let own = match direction {
            Direction::Egress => &verdict.from,
            Direction::Ingress => &verdict.to,
        };
        let isolated_by: &[PolicyKey] = match decision {
            Decision::Isolated { by } => by,
            _ => &[],
        };
        let policies = isolated_by.iter().filter_map(|key| index.policy(key));
        let problems = policies.flat_map(|policy| {
            let problems = policy.problems.iter();
            problems.map(|problem| format!("{} {problem}", policy.key))
        });
        Side {
            direction,
            decision,
            node: match &own.owner {
                Owner::Pod { node, .. } => node.as_deref(),
                Owner::Node { .. } | Owner::Outside => None,
            },
            nearest: match isolated_by {
                [] => None,
                _ => nearest(index, connection, direction),
            },
            problems: problems.collect(),
        }
    })
}

fn as_json(index: &Index, answer: &Answer) -> Value {
    let connections = answer.connections.iter().map(|(connection, verdict)| {
        let mut value = json!({
            "from": verdict.from,
            "to": verdict.to,
            "allowed": verdict.allowed(),
        });
        for side in sides(index, connection, verdict) {
            let mut decision = json!(side.decision);
            decision["allowed"] = json!(side.decision.allowed());
            decision["enforcedOn"] = json!(side.node);
            if let Some(nearest) = &side.nearest {
                decision["nearest"] = json!(nearest);
            }
            if !side.problems.is_empty() {
                decision["problems"] = json!(side.problems);
            }
            value[side.direction.name()] = decision;
        }
        value
    });
    json!({
        "from": answer.from,
        "to": answer.to,
        "port": answer.transport.to_string(),
        "allowed": answer.allowed(),
        "connections": connections.collect::<Vec<_>>(),
    })
}

/// The width of `  ingress  allowed  `.
const COLUMN: usize = 20;

fn as_text(index: &Index, answer: &Answer, style: Style) -> String {
    let mut text = String::new();
    if answer.is_void() {
        let heading = format!("{} → {}  {}", answer.from, answer.to, answer.transport);
        let label = format!("{}  ", style.bad("DENIED"));
        text.push_str(&style.labelled(label, 8, &heading));
        text.push_str("  they have no address family in common\n");
    }
    // The families mostly agree, and then one explanation is enough.
    let explained: Vec<(String, String, bool)> = answer
        .connections
        .iter()
        .map(|(connection, verdict)| {
            let heading = format!(
                "{} → {}  {}",
                described(&answer.from, &verdict.from),
                described(&answer.to, &verdict.to),
                answer.transport
            );
            let sides = sides(index, connection, verdict);
            let body = sides.iter().map(|side| explain(side, verdict, style));
            (heading, body.collect(), verdict.allowed())
        })
        .collect();
    let same = !answer.is_split()
        && explained
            .windows(2)
            .all(|two| matches!(two, [one, other] if one.1 == other.1));
    let shown = if same { 1 } else { explained.len() };
    for (n, (heading, body, allowed)) in explained.into_iter().take(shown).enumerate() {
        if n > 0 {
            text.push('\n');
        }
        let (label, column) = match allowed {
            true => (style.good("ALLOWED"), 9),
            false => (style.bad("DENIED"), 8),
        };
        text.push_str(&style.labelled(format_args!("{label}  "), column, &heading));
        text.push_str(&body);
    }
    text
}

/// An end as it was asked for, with its address where that is not what was asked for.
fn described(asked: &str, endpoint: &Endpoint) -> String {
    let address = endpoint.address.to_string();
    match &endpoint.owner {
        Owner::Pod {
            namespace, name, ..
        } if asked == address => format!("{address} ({namespace}/{name})"),
        Owner::Node { name } if asked == address => format!("{address} (node {name})"),
        Owner::Outside if asked == address => address,
        _ => format!("{asked} ({address})"),
    }
}

fn explain(side: &Side<'_>, verdict: &Verdict, style: Style) -> String {
    let (own, other) = match side.direction {
        Direction::Egress => (&verdict.from, &verdict.to),
        Direction::Ingress => (&verdict.to, &verdict.from),
    };
    let word = match side.decision.allowed() {
        true => style.good("allowed"),
        false => style.bad("DENIED "),
    };
    let label = format!("  {:<8} {word}  ", side.direction.name());
    let mut text = style.labelled(label, COLUMN, &reason(side, own, other));
    let mut more = |line: String| {
        text.push_str(&style.labelled(" ".repeat(COLUMN), COLUMN, &line));
    };
    match (side.decision, &side.nearest) {
        (Decision::Isolated { .. }, Some(nearest)) => more(format!("nearest: {nearest}")),
        (Decision::Isolated { .. }, None) => more(format!(
            "it allows no {}: there is no {} rule",
            side.direction, side.direction
        )),
        _ => {}
    }
    for problem in &side.problems {
        more(format!("can't be read: {problem}"));
    }
    text
}

fn name(endpoint: &Endpoint) -> String {
    match &endpoint.owner {
        Owner::Pod {
            namespace, name, ..
        } => format!("{namespace}/{name}"),
        Owner::Node { name } => format!("node {name}"),
        Owner::Outside => endpoint.address.to_string(),
    }
}

fn reason(side: &Side<'_>, own: &Endpoint, other: &Endpoint) -> String {
    let own_name = name(own);
    match side.decision {
        Decision::NotAPod => match own.owner {
            Owner::Node { .. } => format!("{own_name} is no pod: policies do not concern nodes"),
            _ => format!("{own_name} is no pod of the cluster: nothing is enforced there"),
        },
        Decision::OwnNode { node } => {
            format!("{own_name} runs on {node}: a pod and its own node always reach each other")
        }
        Decision::Itself => format!("{own_name} is the source and the destination"),
        Decision::Shared { node, isolating } => {
            let address = other.address;
            match isolating {
                true => format!(
                    "{address} is shared by all pods on {node}'s bridge, and some are isolated: closed"
                ),
                false => format!(
                    "{address} is shared by all pods on {node}'s bridge, and none is isolated"
                ),
            }
        }
        Decision::NotIsolated => {
            format!("no policy isolates {own_name} for {}", side.direction)
        }
        Decision::Accepted { by } => format!("by {}", rule(by)),
        Decision::Refused { by } => format!("by {}, which denies", rule(by)),
        Decision::Isolated { by } => {
            format!("{own_name} is isolated by {}; no rule matches", list(by))
        }
    }
}

/// Policies, each kind named once: `NetworkPolicy shop/db, shop/default-deny`.
fn list(policies: &[PolicyKey]) -> String {
    let mut text = String::new();
    let mut kind = "";
    for key in policies {
        if !text.is_empty() {
            text.push_str(", ");
        }
        if key.dialect.kind() != kind {
            kind = key.dialect.kind();
            text.push_str(kind);
            text.push(' ');
        }
        text.push_str(&format!("{}/{}", key.namespace, key.name));
    }
    text
}

fn rule(by: &RuleRef) -> String {
    let preposition = match by.direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let peer = match &by.peer {
        Some(peer) => format!("{preposition} {peer}"),
        None => format!("{preposition} anyone"),
    };
    let port = by.port.as_deref().unwrap_or("every protocol and port");
    format!("{by} ({peer}, {port})")
}
