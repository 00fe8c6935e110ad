//! What is printed.

use std::time::Duration;

use selvedge_lab::paired::{Paired, Spread};

use crate::kube_router::Place;
use crate::load::{Load, POLICIES};
use crate::measure::Figure;
use crate::{Compared, Kind};

/// What design.md asks of the largest load.
const TARGETS: [(Figure, f64); 3] = [
    (Figure::Tcp, 0.97),
    (Figure::Udp, 0.90),
    (Figure::Connections, 0.95),
];
/// How far new connections may fall from one pod to many and still be called flat.
const FLAT: f64 = 0.95;

/// Says what follows.
pub fn heading(rounds: usize, window: Duration) {
    println!(
        "What policy costs between two pods of a node, each selected by {POLICIES} policies, a new connection matching \
         in the last.\n\
         Each ratio is to the same node without a policy engine: the median of {rounds} turns of {window:?} each, and \
         in brackets\nthe middle half of them. Figures are those of one core, for a second of its time.\n\
         ¹ kube-router's rules with the measured pods in the middle of its list, the average · ² at the end, the worst"
    );
}

/// One load's figures.
pub fn load(load: &Load, results: &[Compared]) {
    let plural = if load.local_pods == 1 { "" } else { "s" };
    println!(
        "\n{} local pod{plural}, peer sets up to {} addresses",
        load.local_pods,
        grouped(load.peers.into())
    );
    print!("  {:<38}{:>10}", "", "no policy");
    for kind in Kind::ALL {
        print!("  {:>17}", name(kind));
    }
    println!();
    for figure in Figure::ALL {
        let own = || results.iter().filter(|result| result.figure == figure);
        let baseline: Vec<f64> = own().map(|result| result.paired.baseline).collect();
        let baseline = amount(figure, Spread::of(&baseline).median);
        print!("  {:<38}{baseline:>10}", unit(figure));
        for result in own() {
            print!("  {:>17}", ratio(&result.paired.ratio));
        }
        println!();
    }
}

/// The targets, and whether they are met.
pub fn targets(all: &[(Load, Vec<Compared>)]) {
    let (Some((first, few)), Some((last, many))) = (all.first(), all.last()) else {
        return;
    };
    println!(
        "\nTargets, Selvedge at {} local pods ± half the noise of a baseline against itself",
        last.local_pods
    );
    for (figure, target) in TARGETS {
        if let (Some(own), Some(again)) = (
            find(many, figure, Kind::Selvedge),
            find(many, figure, Kind::Again),
        ) {
            let noise = (again.ratio.upper - again.ratio.lower) / 2.0;
            line(unit(figure), own.ratio.median, noise, target);
        }
    }
    let figure = Figure::Connections;
    if let (Some(few), Some(many)) = (
        find(few, figure, Kind::Selvedge),
        find(many, figure, Kind::Selvedge),
    ) {
        let what = format!(
            "the same, {} pods against {}",
            last.local_pods, first.local_pods
        );
        let noise = (many.ratio.upper - many.ratio.lower) / 2.0;
        line(&what, many.ratio.median / few.ratio.median, noise, FLAT);
    }
}

fn line(what: &str, figure: f64, noise: f64, target: f64) {
    let verdict = if figure >= target {
        "holds"
    } else {
        "falls short"
    };
    println!("  {what:<38}at least {target:.2}   {figure:.3} ± {noise:.3}   {verdict}");
}

fn find(results: &[Compared], figure: Figure, kind: Kind) -> Option<&Paired> {
    let found = results
        .iter()
        .find(|result| result.figure == figure && result.kind == kind);
    found.map(|result| &result.paired)
}

/// A ratio and where the middle half of the turns lies.
pub fn ratio(spread: &Spread) -> String {
    format!(
        "{:.2} ({:.2}–{:.2})",
        spread.median, spread.lower, spread.upper
    )
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Again => "no policy, again",
        Kind::Selvedge => "Selvedge",
        Kind::KubeRouter(Place::Middle) => "kube-router¹",
        Kind::KubeRouter(Place::End) => "kube-router²",
    }
}

/// What a figure counts.
pub fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Tcp => "established TCP, Gbit a second",
        Figure::Udp => "UDP packets a second",
        Figure::Connections => "new connections a second",
        Figure::ServiceConnections => "new connections by a ClusterIP",
        Figure::Denied => "denied UDP packets a second",
    }
}

fn amount(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Tcp => format!("{:.1}", value * 8.0 / 1e9),
        _ => grouped(value.round() as u64),
    }
}

/// 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
