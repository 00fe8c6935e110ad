//! All ports that one pod reaches another on, in one go.

use super::endpoint::End;
use super::policy::{Decision, Stage, Subject, exempt};
use super::ports::PortSet;
use crate::index::Index;
use crate::policy::{Action, Direction, Ports, Rule};

/// The ports that one end allows.
pub(super) fn allowed(
    index: &Index,
    direction: Direction,
    own: &End<'_>,
    other: &End<'_>,
    subject: Option<&Subject<'_>>,
) -> PortSet {
    let Some(subject) = subject else {
        return PortSet::all();
    };
    let exempt = exempt(index, direction, own, other);
    if let Some(decision) = exempt.as_ref().map(Decision::allowed) {
        return if decision {
            PortSet::all()
        } else {
            PortSet::none()
        };
    }
    let ports_of = |rule: &Rule| {
        if subject.matching_peer(index, rule, other).is_none() {
            return PortSet::none();
        }
        match &rule.ports {
            Ports::Any => PortSet::all(),
            Ports::Of(ports) => PortSet::of(ports.iter().flat_map(|port| {
                let numbers = subject.numbers(port, other);
                numbers.map(|(first, last)| (port.protocol, first, last))
            })),
        }
    };
    // The first rule that matches decides; what it decides on is taken out of what is left.
    let first_match = |stage, mut left: PortSet| {
        let mut allowed = PortSet::none();
        let mut passed = PortSet::none();
        for (_, _, rule) in subject.rules(stage) {
            let hit = ports_of(rule).intersection(&left);
            left = left.difference(&hit);
            match rule.action {
                Action::Accept => allowed = allowed.union(&hit),
                Action::Deny => {}
                Action::Pass => passed = passed.union(&hit),
            }
        }
        (allowed, left.union(&passed))
    };
    let (admin, left) = first_match(Stage::Admin, PortSet::all());
    let rest = if subject.isolated() {
        let rules = subject.rules(Stage::NetworkPolicy);
        let union = rules.fold(PortSet::none(), |all, (_, _, rule)| {
            all.union(&ports_of(rule))
        });
        union.intersection(&left)
    } else {
        let (baseline, undecided) = first_match(Stage::Baseline, left);
        baseline.union(&undecided)
    };
    admin.union(&rest)
}
