//! The CPU that a steady stream of pod events takes.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use selvedge::cluster::object::{Event, Object, ObjectKey};
use selvedge::synthetic::Cluster;

use crate::SIZES;
use crate::node::Node;

const A_SECOND: u32 = 100;
const SECONDS: u32 = 5;

/// What happens in each cluster at this pace, each event on its own.
pub fn measure(nodes: &mut [(Cluster, Node)]) -> Result<(), Box<dyn Error>> {
    for (pods, (cluster, node)) in SIZES.iter().zip(nodes) {
        let (events, others) = pod_events(cluster);
        // The end is the same in any order: what else happens comes before and is not measured.
        for event in others {
            node.event(event)?;
        }
        let (cpu, started) = (cpu_time()?, Instant::now());
        let mut commits = 0;
        for (n, event) in (0..).zip(events) {
            let due = Duration::from_secs(1) * n / A_SECOND;
            thread::sleep(due.saturating_sub(started.elapsed()));
            commits += usize::from(node.event(event)?.committed.messages > 0);
        }
        let (cpu, took) = (cpu_time()?.saturating_sub(cpu), started.elapsed());
        let share = 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
        println!(
            "{pods} pods: {A_SECOND} pod events a second take {share:.2} % of a CPU ({commits} commits in {:.1} s)",
            took.as_secs_f64(),
        );
        for event in cluster.settle() {
            node.event(event)?;
        }
    }
    println!();
    Ok(())
}

/// The pod events of some seconds, and what else happens meanwhile.
fn pod_events(cluster: &mut Cluster) -> (Vec<Event>, Vec<Event>) {
    let (mut pods, mut others) = (Vec::new(), Vec::new());
    while pods.len() < (A_SECOND * SECONDS) as usize {
        let event = cluster.next_event();
        match &event {
            Event::Apply(Object::Pod(_))
            | Event::Delete {
                key: ObjectKey::Pod(..),
                ..
            } => pods.push(event),
            _ => others.push(event),
        }
    }
    (pods, others)
}

/// What this process has used, in user mode and in the kernel.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
