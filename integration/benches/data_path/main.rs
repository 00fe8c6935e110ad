//! What policy costs a packet: Selvedge, and the same policies in the shape that kube-router gives them, against a node
//! without a policy engine. `cargo bench -p selvedge-lab --bench data_path`, as root, some three minutes.
//!
//! - [`stand`]: the things compared · [`load`]: the policies · [`kube_router`]: the other shape
//! - [`measure`]: what is measured, and how · [`table`]: what is printed
//! - [`choices`]: with `-- --choices`, what other forms of Selvedge's own rules would cost
//!
//! All stands are there at the same time. Each is measured against the baseline in turns of some milliseconds, so that
//! whatever else the machine does falls on both; a second baseline against the first shows what noise is left. Time is
//! the measuring thread's own. `SELVEDGE_BENCH_ROUNDS` sets the number of turns.
//!
//! Where a packet, a byte or a connection does not arrive, or policy is not in force where it should be, the benchmark
//! fails. A target that is missed is printed.
#![forbid(unsafe_code)]

mod choices;
mod kube_router;
mod load;
mod measure;
mod stand;
mod table;

use std::cell::RefCell;
use std::env;
use std::process::ExitCode;
use std::time::Duration;

use kube_router::Place;
use load::{LOADS, Load};
use measure::{Figure, Flows};
use selvedge_lab::Error;
use selvedge_lab::paired::{Paired, in_turns};
use stand::Stand;

/// How long one turn takes: too short for much to change, long enough for hundreds of packets and dozens of connections.
const WINDOW: Duration = Duration::from_millis(5);
const ROUNDS: usize = 250;

/// What stands beside the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A second baseline: it differs by noise alone.
    Again,
    /// Selvedge.
    Selvedge,
    /// kube-router's shape.
    KubeRouter(Place),
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Again,
        Self::Selvedge,
        Self::KubeRouter(Place::Middle),
        Self::KubeRouter(Place::End),
    ];
}

fn main() -> ExitCode {
    let choices = env::args().any(|arg| arg == "--choices");
    let outcome = rounds().and_then(|rounds| {
        if choices {
            choices::run(rounds)
        } else {
            run(rounds)
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("data path: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rounds() -> Result<usize, Error> {
    let Some(text) = env::var_os("SELVEDGE_BENCH_ROUNDS") else {
        return Ok(ROUNDS);
    };
    let rounds = text.to_str().and_then(|text| text.parse().ok());
    rounds
        .filter(|rounds| *rounds > 0)
        .ok_or_else(|| Error::Invalid {
            what: format!("SELVEDGE_BENCH_ROUNDS is {text:?}, which is no number of rounds"),
        })
}

fn run(rounds: usize) -> Result<(), Error> {
    let baseline = Stand::new()?;
    let others = Kind::ALL.map(|kind| Ok((kind, Stand::new()?)));
    let others = others.into_iter().collect::<Result<Vec<_>, Error>>()?;
    table::heading(rounds, WINDOW);
    let mut all = Vec::new();
    for load in LOADS {
        baseline.check(false)?;
        for (kind, stand) in &others {
            enforce(*kind, stand, &load)?;
        }
        let results = measure(&baseline, &others, rounds)?;
        table::load(&load, &results);
        all.push((load, results));
    }
    table::targets(&all);
    Ok(())
}

/// Brings a load's policies onto a stand, and makes sure that they are in force.
fn enforce(kind: Kind, stand: &Stand, load: &Load) -> Result<(), Error> {
    match kind {
        Kind::Again => return stand.check(false),
        Kind::Selvedge => drop(stand.enforce(load)?),
        Kind::KubeRouter(place) => {
            stand.load(&["ip kube-router"], &kube_router::script(load, place))?;
        }
    }
    stand.check(true)
}

/// One figure of one kind, against the baseline.
#[derive(Debug)]
struct Compared {
    figure: Figure,
    kind: Kind,
    paired: Paired,
}

fn measure(
    baseline: &Stand,
    others: &[(Kind, Stand)],
    rounds: usize,
) -> Result<Vec<Compared>, Error> {
    let baseline = RefCell::new(Flows::open(baseline)?);
    let mut results = Vec::new();
    for (kind, stand) in others {
        let other = RefCell::new(Flows::open(stand)?);
        for figure in Figure::ALL {
            let turn = |flows: &RefCell<Flows>| flows.borrow_mut().measure(figure, WINDOW);
            // The first turns fill caches and open windows.
            in_turns(rounds / 20, || turn(&baseline), || turn(&other))?;
            let paired = in_turns(rounds, || turn(&baseline), || turn(&other))?;
            results.push(Compared {
                figure,
                kind: *kind,
                paired,
            });
        }
    }
    Ok(results)
}
