//! A start: everything is compiled, and committed for the first time.

use std::error::Error;

use selvedge::synthetic::wide::{NODE, Wide};

use crate::node::{Node, Step};
use crate::table::{holds, ms};

/// How often the wide node starts.
const STARTS: usize = 3;
/// What design.md allows for a million elements, after the objects are known.
const ALLOWED_MS: f64 = 2_000.0;

pub fn print(what: &str, step: &Step) {
    println!(
        "{what}: index {:.0} ms, compile {:.0} ms, first commit {:.0} ms; {} elements, {} messages, {} KiB",
        ms(step.index),
        ms(step.compile),
        ms(step.commit),
        step.elements,
        step.committed.messages,
        step.committed.bytes >> 10,
    );
}

/// A node whose ruleset has a million elements.
pub fn wide() -> Result<(), Box<dyn Error>> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (mut node, step) = Node::start_with(NODE, |index| *index = Wide::MILLION.index())?;
        node.verify()?;
        starts.push(step);
    }
    let known = |step: &Step| ms(step.compile + step.commit);
    starts.sort_by(|a, b| known(a).total_cmp(&known(b)));
    let median = &starts[STARTS / 2];
    print("a million elements: the median start", median);
    println!(
        "a million elements, after the objects are known: {:.0} ms, {:.0} to {:.0} in {STARTS} starts; {}\n",
        known(median),
        known(&starts[0]),
        known(&starts[STARTS - 1]),
        holds(known(median), ALLOWED_MS),
    );
    Ok(())
}
