//! The daemon is killed (SIGKILL) at any instant: while it waits, before, in and after a commit, while it starts. The kernel
//! holds the old rules or the new ones then, whole; what may pass passes unharmed, what may not never does, and a daemon
//! that comes back sends what differs: nothing, where nothing does.
//!
//! `SELVEDGE_SOAK=1` kills eight times as often.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

#[path = "churn/edits.rs"]
mod edits;
#[path = "crash/node.rs"]
mod node;
#[path = "churn/traffic.rs"]
mod traffic;
#[path = "crash/upgrade.rs"]
mod upgrade;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use edits::{edit, fixed};
use node::{Victim, decides_as};
use selvedge_lab::stage::{Manifests, policy};
use selvedge_lab::{Error, Lab, wait_until};
use selvedge_nft::Ruleset;
use traffic::Traffic;

const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as much is done in `make soak`.
fn times(n: usize) -> usize {
    match env::var_os("SELVEDGE_SOAK") {
        Some(_) => n * 8,
        None => n,
    }
}

/// A number from 0 up to 1 that nobody can foresee.
fn random() -> f64 {
    let number = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(number) / 4_294_967_296.0
}

/// Something between a part and a multiple of `span`.
fn within(span: Duration, from: f64, to: f64) -> Duration {
    span.mul_f64(from + (to - from) * random())
}

/// A policy that takes a batch of some thousand elements: a kill is more likely to meet its commit.
fn large(edit: usize) -> String {
    let hole = |n: usize| {
        let n = 2 * n + edit % 2;
        format!("100.64.{}.{}/32", n / 256, n % 256)
    };
    let holes: Vec<String> = (0..1500).map(hole).collect();
    policy(
        "shop/large",
        &format!(
            "{{podSelector: {{matchLabels: {{role: server}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 100.64.0.0/16, except: [{}]}}}}]}}]}}",
            holes.join(", ")
        ),
    )
}

/// The kinds of edits that [`change`] makes.
const KINDS: usize = 6;

/// The edit of this number.
fn change(manifests: &Manifests, number: usize) -> Result<(), Error> {
    match number % KINDS {
        5 => manifests.put("large.yaml", large(number / KINDS)),
        small => edit(manifests, number / KINDS * 5 + small),
    }
}

/// Two nodes under [`edits`], not enforced yet.
fn cluster() -> Result<(Manifests, Lab), Error> {
    let manifests = Manifests::new()?;
    manifests.put("fixed.yaml", fixed())?;
    (0..KINDS).try_for_each(|n| change(&manifests, n))?;
    let lab = manifests.lab()?.build()?;
    Ok((manifests, lab))
}

/// What the kills met.
#[derive(Debug, Default)]
struct Kills {
    all: usize,
    at_start: usize,
    /// The kernel held what it had held before, though other rules were due.
    old: usize,
    /// It held what was due.
    new: usize,
    /// Nothing was due.
    idle: usize,
    /// The kernel had carried a commit out of which the daemon did not know yet.
    in_commit: usize,
}

#[test]
fn killed_at_any_instant_it_opens_nothing_and_cuts_nothing() -> Result<(), Error> {
    let kills = times(25);
    let (manifests, lab) = cluster()?;
    let mut victims = [Victim::new(&lab, 1)?, Victim::new(&lab, 2)?];
    for victim in &mut victims {
        victim.start(&manifests)?;
        victim.in_force()?;
    }
    let traffic = Traffic::start(&lab)?;
    let (mut seen, mut quiet, mut number) = (Kills::default(), 0, KINDS);
    // From an edit to its commit, and from a start to the first commit, as it was last.
    let mut paces = [Duration::from_millis(30); KINDS];
    let mut starts = Duration::from_millis(300);
    let begun = Instant::now();
    for turn in 0.. {
        if turn > 1 && seen.all >= kills {
            break;
        }
        let mut both = victims.iter_mut();
        let (Some(first), Some(second)) = (both.next(), both.next()) else {
            unreachable!();
        };
        let (victim, other) = match random() < 0.5 {
            true => (first, second),
            false => (second, first),
        };
        for each in [&*victim, &*other] {
            let wanted = each.wanted(&manifests)?;
            wait_until("both nodes to be settled", PATIENCE, || {
                Ok(each.held()? == wanted)
            })?;
        }
        // Any time from an edit on, or about when it is committed.
        let before = victim.held()?;
        let kind = number % KINDS;
        // One for certain before it is committed, one for certain after; then it is chance.
        if turn == 0 {
            victim.hold()?;
        }
        let (marks, edited) = ([victim.said(), other.said()], Instant::now());
        change(&manifests, number)?;
        number += 1;
        let (pace, unlogged) = thread::scope(|scope| {
            let other = &*other;
            let pace = scope.spawn(move || {
                other.wait_for_commit(marks[1])?;
                Ok::<_, Error>(edited.elapsed())
            });
            let unlogged = match (turn, random()) {
                (0, _) => victim.kill()?,
                (1, _) => {
                    victim.wait_for_commit(marks[0])?;
                    victim.kill()?
                }
                (_, by_time) if by_time < 0.75 => {
                    let instant = match by_time < 0.25 {
                        true => within(paces[kind], 0.0, 2.0),
                        false => within(paces[kind], 0.85, 1.1),
                    };
                    sleep(instant.saturating_sub(edited.elapsed()));
                    victim.kill()?
                }
                _ => victim.kill_in_commit(paces[kind] * 4)?,
            };
            Ok::<_, Error>((pace.join().unwrap()?, unlogged))
        })?;
        paces[kind] = pace;
        seen.count(&before, &victim.held()?, &victim.wanted(&manifests)?);
        seen.in_commit += unlogged;
        // What changes while nobody is there to see it.
        if random() < 0.5 {
            change(&manifests, number)?;
            number += 1;
        }
        while random() < 0.4 && seen.all < kills {
            let before = victim.held()?;
            victim.start(&manifests)?;
            let unlogged = match random() < 0.75 {
                true => {
                    sleep(within(starts, 0.0, 1.2));
                    victim.kill()?
                }
                false => victim.kill_in_commit(starts)?,
            };
            seen.count(&before, &victim.held()?, &victim.wanted(&manifests)?);
            seen.in_commit += unlogged;
            seen.at_start += 1;
        }
        let wanted = victim.wanted(&manifests)?;
        let (nothing_to_do, generation) = (victim.held()? == wanted, victim.generation()?);
        let started = Instant::now();
        victim.start(&manifests)?;
        victim.in_force()?;
        starts = started.elapsed();
        assert!(victim.held()? == wanted, "it comes back with other rules");
        if nothing_to_do {
            quiet += 1;
            assert_eq!(victim.generation()?, generation, "a restart sent something");
        }
    }
    println!(
        "{} kills in {:?}: {} with other rules due (then the kernel held the old ones {} times, the new ones {} times), {} idle; \
         {} in a start; {} after the kernel had carried a commit out and before the daemon knew",
        seen.all,
        begun.elapsed(),
        seen.old + seen.new,
        seen.old,
        seen.new,
        seen.idle,
        seen.at_start,
        seen.in_commit
    );
    println!("{quiet} restarts had nothing to change: 0 messages");
    assert!(seen.old > 0 && seen.new > 0, "{seen:?}");
    traffic.stop()
}

impl Kills {
    /// Takes note of a kill: what the kernel held before, what it holds now, what was due.
    fn count(&mut self, before: &Ruleset, held: &Ruleset, due: &Ruleset) {
        self.all += 1;
        match (decides_as(before, held), decides_as(due, held)) {
            (true, true) => self.idle += 1,
            (true, false) => self.old += 1,
            (false, true) => self.new += 1,
            (false, false) => panic!("the kernel holds neither the old rules nor the new ones"),
        }
    }
}

#[test]
fn killed_in_the_first_commit_of_a_node_it_leaves_nothing_or_all() -> Result<(), Error> {
    let tries = times(16);
    let (manifests, lab) = cluster()?;
    let mut victim = Victim::new(&lab, 1)?;
    let wanted = victim.wanted(&manifests)?;
    let started = Instant::now();
    victim.start(&manifests)?;
    victim.in_force()?;
    // The commit is somewhere between these; each try halves the way, and what is left is chance.
    let (mut early, mut late) = (Duration::ZERO, started.elapsed() * 2);
    let (mut nothing, mut all, mut in_commit) = (0, 0, 0);
    for number in 0..tries {
        victim.kill()?;
        victim.clean_up()?;
        assert!(victim.held()?.tables.is_empty());
        // One for certain before it, one in it, one for certain after it.
        let instant = match number {
            0 => Some(Duration::ZERO),
            1 | 2 => None,
            _ => {
                let between = within(late.saturating_sub(early), 0.3, 0.7);
                (random() < 0.75).then(|| early + between)
            }
        };
        victim.start(&manifests)?;
        in_commit += match instant {
            Some(instant) => {
                sleep(instant);
                victim.kill()?
            }
            None if number == 2 => {
                victim.in_force()?;
                victim.kill()?
            }
            None => victim.kill_in_commit(PATIENCE)?,
        };
        let held = victim.held()?;
        if decides_as(&Ruleset::default(), &held) {
            nothing += 1;
            early = instant.unwrap_or(early);
        } else {
            assert!(held == wanted, "a part of the rules is in the kernel");
            all += 1;
            late = instant.unwrap_or(late);
        }
        // Chance, again: no start takes as long as the one before.
        if late.saturating_sub(early) < Duration::from_millis(4) {
            (early, late) = (early.mul_f64(0.9), late.mul_f64(1.1));
        }
        victim.start(&manifests)?;
        victim.in_force()?;
    }
    println!(
        "{tries} kills about a node's first commit: nothing {nothing} times, all {all} times; {in_commit} after the kernel had \
         carried it out and before the daemon knew"
    );
    assert!(nothing > 0 && all > 0);
    Ok(())
}

#[test]
fn a_restart_with_nothing_to_change_sends_nothing() -> Result<(), Error> {
    let (manifests, lab) = cluster()?;
    let mut victim = Victim::new(&lab, 1)?;
    victim.start(&manifests)?;
    victim.in_force()?;
    let monitor = victim.monitor()?;
    let generation = victim.generation()?;
    for killed in [true, false, true, false] {
        match killed {
            true => drop(victim.kill()?),
            false => victim.end()?,
        }
        victim.start(&manifests)?;
        victim.in_force()?;
    }
    // Whatever it might send once it is at rest.
    sleep(Duration::from_millis(500));
    let (told, moved) = (monitor.stdout(), victim.generation()? - generation);
    println!("4 restarts: the generation has moved by {moved}, the kernel told of {told:?}");
    assert_eq!((told.as_str(), moved), ("", 0));
    // It was listened well: one edit is one transaction, and is told.
    change(&manifests, KINDS)?;
    monitor.wait_for_output("selvedge", PATIENCE)?;
    assert_eq!(victim.generation()? - generation, 1);
    Ok(())
}
