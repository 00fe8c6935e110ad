//! What other forms of Selvedge's own rules would cost: the compiled ruleset as text, changed by hand, against itself as
//! it is. `cargo bench -p selvedge-lab --bench data_path -- --choices`.

use std::cell::RefCell;

use selvedge_lab::Error;
use selvedge_lab::paired::in_turns;
use selvedge_nft::text;

use crate::load::LOADS;
use crate::measure::{Figure, Flows};
use crate::stand::Stand;
use crate::{WINDOW, table};

/// Selvedge's tables: both are replaced together.
const TABLES: [&str; 2] = ["inet selvedge", "bridge selvedge"];
/// Where base chain egress is hooked.
const EGRESS_HOOK: &str = "priority filter - 6;";

/// A form of the rules, and the figure that it could change.
struct Choice {
    what: &'static str,
    figure: Figure,
    form: fn(&str) -> String,
}

const CHOICES: [Choice; 5] = [
    Choice {
        what: "as they are",
        figure: Figure::Udp,
        form: str::to_owned,
    },
    Choice {
        what: "base chain egress not called: what one instead of two could save",
        figure: Figure::Udp,
        form: |rules| without(rules, |line| line.contains(EGRESS_HOOK)),
    },
    Choice {
        what: "without the short way of established IPv4 flows",
        figure: Figure::Udp,
        form: |rules| without(rules, is_short_way),
    },
    Choice {
        what: "without the port guard of the bridge",
        figure: Figure::Udp,
        form: |rules| {
            let guard = rules.find("table bridge").unwrap_or(rules.len());
            rules.get(..guard).unwrap_or_default().to_owned()
        },
    },
    Choice {
        what: "without counters",
        figure: Figure::Denied,
        form: |rules| {
            rules
                .replace(" counter drop", " drop")
                .replace("\tcounter drop", "\tdrop")
        },
    },
];

/// Compares each with the rules as they are, under the largest load.
pub fn run(rounds: usize) -> Result<(), Error> {
    let Some(load) = LOADS.last() else {
        return Ok(());
    };
    let (own, other) = (Stand::new()?, Stand::new()?);
    let ruleset = own.enforce(load)?;
    own.check(true)?;
    let rules = text::script(&ruleset);
    println!(
        "Other forms of Selvedge's rules, {} local pods: ratios to the rules as they are, {rounds} turns of {WINDOW:?}\n",
        load.local_pods
    );
    other.enforce_attached(load)?;
    other.check(true)?;
    for figure in [Figure::Tcp, Figure::Udp, Figure::Connections] {
        compare(
            [&own, &other],
            figure,
            "with anti-spoof on every port",
            rounds,
        )?;
    }
    for choice in CHOICES {
        let form = (choice.form)(&rules);
        if form == rules && choice.what != "as they are" {
            return Err(Error::Invalid {
                what: format!("{}: the rules have no such place any more", choice.what),
            });
        }
        other.load(&TABLES, &form)?;
        other.check(true)?;
        compare([&own, &other], choice.figure, choice.what, rounds)?;
    }
    Ok(())
}

fn compare(stands: [&Stand; 2], figure: Figure, what: &str, rounds: usize) -> Result<(), Error> {
    let [own, other] = stands.map(|stand| Flows::open(stand).map(RefCell::new));
    let (own, other) = (own?, other?);
    let turn = |flows: &RefCell<Flows>| flows.borrow_mut().measure(figure, WINDOW);
    in_turns(rounds / 20, || turn(&own), || turn(&other))?;
    let paired = in_turns(rounds, || turn(&own), || turn(&other))?;
    println!(
        "  {:<34}{:.3} ({:.2}–{:.2})  {what}",
        table::unit(figure),
        paired.ratio.median,
        paired.ratio.lower,
        paired.ratio.upper,
    );
    Ok(())
}

fn without(rules: &str, gone: impl Fn(&str) -> bool) -> String {
    each_line(rules, |line| (!gone(line)).then(|| line.to_owned()))
}

fn each_line(rules: &str, f: impl Fn(&str) -> Option<String>) -> String {
    let lines = rules.lines().filter_map(f);
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn is_short_way(line: &str) -> bool {
    line.contains("ct state established,related ip daddr")
}
