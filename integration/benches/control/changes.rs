//! One change: from the event to the acknowledged commit, in clusters of different sizes in turns.

use std::error::Error;
use std::sync::Arc;

use selvedge::cluster::object::{Event, Object, Pod};
use selvedge::synthetic::Cluster;
use selvedge_lab::paired::Paired;

use crate::SIZES;
use crate::node::{Node, Step};
use crate::table::{holds, ms, quantile};

/// How often each change is made; those before are to warm up.
const ROUNDS: u32 = 300;
const WARM_UP: u32 = 10;

/// How much more than in the smallest cluster a pod's change may cost in the largest.
const FLAT: f64 = 1.5;

/// A change, the same in clusters of all sizes, and what design.md allows for it in milliseconds.
struct Kind {
    what: &'static str,
    allowed: Option<f64>,
    event: fn(&Cluster, u32) -> Event,
}

/// The changes of a round, in order: each is there for the next ones.
const KINDS: [Kind; 7] = [
    Kind {
        what: "a remote pod comes",
        allowed: Some(1.0),
        event: |cluster, round| pod(cluster.newcomer(false, 2 * round)),
    },
    Kind {
        what: "a remote pod goes",
        allowed: Some(1.0),
        event: |cluster, round| gone(Object::Pod(cluster.newcomer(false, 2 * round))),
    },
    Kind {
        what: "a local pod comes",
        allowed: Some(5.0),
        event: |cluster, round| pod(local(cluster, round)),
    },
    Kind {
        what: "a local pod gets another app's labels",
        allowed: Some(5.0),
        event: |cluster, round| {
            // The next app of the same namespace, which other policies select.
            let labels = local(cluster, round + 5).labels;
            pod(Pod {
                labels,
                ..local(cluster, round)
            })
        },
    },
    Kind {
        what: "a local pod goes",
        allowed: Some(5.0),
        event: |cluster, round| gone(Object::Pod(local(cluster, round))),
    },
    Kind {
        what: "a namespace gets another label",
        allowed: None,
        event: |cluster, round| {
            let shop = cluster.shop(((round + 1) % 3) as u8);
            Event::Apply(Object::Namespace(shop))
        },
    },
    Kind {
        what: "a policy gets another port",
        allowed: None,
        event: |cluster, round| {
            let policy = cluster.shop_policy(8081 + (round % 2) as u16);
            Event::Apply(Object::Policy(Arc::new(policy)))
        },
    },
];

fn local(cluster: &Cluster, round: u32) -> Pod {
    cluster.newcomer(true, 2 * round + 1)
}

fn pod(pod: Pod) -> Event {
    Event::Apply(Object::Pod(pod))
}

fn gone(object: Object) -> Event {
    let key = object.key();
    Event::Delete { key, uid: None }
}

/// Makes every change in every cluster, and prints a line a kind.
pub fn measure(nodes: &mut [(Cluster, Node)]) -> Result<(), Box<dyn Error>> {
    // By kind, then by size.
    let mut steps = vec![vec![Vec::<Step>::new(); nodes.len()]; KINDS.len()];
    for round in 0..WARM_UP + ROUNDS {
        for (kind, steps) in KINDS.iter().zip(&mut steps) {
            // Who comes first changes from round to round.
            for turn in 0..nodes.len() {
                let size = (turn + round as usize) % nodes.len();
                let (cluster, node) = &mut nodes[size];
                let step = node.event((kind.event)(cluster, round))?;
                if step.committed.messages == 0 {
                    return Err(format!("{}: it changed nothing", kind.what).into());
                }
                if round >= WARM_UP {
                    steps[size].push(step);
                }
            }
        }
    }
    println!(
        "event to acknowledged commit, median and p99 of {ROUNDS} in ms, the sizes in turns; the ratio is of neighbours,"
    );
    println!("its median and quartiles");
    print!("{:38}", "");
    for pods in SIZES {
        print!("{:>17}", format!("{pods} pods"));
    }
    println!("   100,000 to 1,000   messages  bytes");
    for (kind, steps) in KINDS.iter().zip(&steps) {
        print_kind(kind, steps);
    }
    println!();
    Ok(())
}

fn print_kind(kind: &Kind, steps: &[Vec<Step>]) {
    let times: Vec<Vec<f64>> = steps
        .iter()
        .map(|steps| steps.iter().map(|step| ms(step.whole())).collect())
        .collect();
    print!("{:38}", kind.what);
    for times in &times {
        print!(
            "{:>9.3} {:>7.3}",
            quantile(times, 0.5),
            quantile(times, 0.99)
        );
    }
    let (Some(small), Some(large)) = (times.first(), times.last()) else {
        return;
    };
    let pairs: Vec<(f64, f64)> = small.iter().copied().zip(large.iter().copied()).collect();
    let ratio = Paired::of(&pairs).ratio;
    let committed = |of: fn(&Step) -> usize| {
        let figures: Vec<f64> = steps.iter().flatten().map(|step| of(step) as f64).collect();
        quantile(&figures, 0.5)
    };
    print!(
        "   {:5.2} ({:.2} to {:.2})  {:>7}  {:>6}",
        ratio.median,
        ratio.lower,
        ratio.upper,
        committed(|step| step.committed.messages),
        committed(|step| step.committed.bytes),
    );
    if let Some(allowed) = kind.allowed {
        let flat = if ratio.median <= FLAT {
            "holds"
        } else {
            "MISSED"
        };
        let median = quantile(large, 0.5);
        print!("   {}; at most {FLAT}: {flat}", holds(median, allowed));
    }
    println!();
}
