//! What a large cluster takes in memory, in a process that does nothing else: everything in it is counted.
//!
//! `cargo bench -p selvedge-lab --bench memory`; root is needed.
#![forbid(unsafe_code)]

#[path = "control/node.rs"]
#[allow(
    dead_code,
    reason = "all of it is what the control path's benchmark needs"
)]
mod node;
#[path = "control/shape.rs"]
#[allow(
    dead_code,
    reason = "all of it is what the control path's benchmark needs"
)]
mod shape;

use std::error::Error;

use node::Node;
use peak_alloc::PeakAlloc;
use selvedge::synthetic::Cluster;
use shape::{SIZES, shape};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MIB: f64 = (1 << 20) as f64;
/// What design.md allows the daemon's heap.
const ALLOWED_MIB: f64 = 100.0;

/// Starts in the largest cluster, and prints what that takes.
fn main() -> Result<(), Box<dyn Error>> {
    let pods = SIZES[SIZES.len() - 1];
    let cluster = Cluster::new(shape(pods));
    let before = HEAP.current_usage();
    let (_, resident_before) = resident_kib()?;
    HEAP.reset_peak_usage();
    let (mut node, step) = Node::start(&cluster)?;
    let held = HEAP.current_usage().saturating_sub(before);
    let peak = HEAP.peak_usage().saturating_sub(before) as f64 / MIB;
    let (highest, resident) = resident_kib()?;
    let word = if peak <= ALLOWED_MIB {
        "holds"
    } else {
        "MISSED"
    };
    println!(
        "{pods} pods in memory: heap {:.1} MiB ({} bytes a pod), at the peak {peak:.1} MiB; at most {ALLOWED_MIB} MiB: {word}",
        held as f64 / MIB,
        held / pods,
    );
    println!(
        "resident {} MiB, at the peak {} MiB; {} MiB of it are the benchmark's own cluster",
        resident >> 10,
        highest >> 10,
        resident_before >> 10,
    );
    println!(
        "kernel, apart: {} elements of 72 to 105 bytes, {:.1} to {:.1} MiB",
        step.elements,
        72.0 * step.elements as f64 / MIB,
        105.0 * step.elements as f64 / MIB
    );
    node.verify()?;
    Ok(())
}

/// The highest resident memory so far, and the present one.
fn resident_kib() -> Result<(usize, usize), Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<usize, Box<dyn Error>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let figure = line.and_then(|line| line.split_whitespace().next());
        Ok(figure
            .ok_or("/proc/self/status says nothing of memory")?
            .parse()?)
    };
    Ok((field("VmHWM:")?, field("VmRSS:")?))
}
