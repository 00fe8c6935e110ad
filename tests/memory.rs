//! What a cluster takes in memory: about 1 KiB a pod.
//!
//! A test target of its own, since everything in the process counts.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a test may stop

use peak_alloc::PeakAlloc;
use selvedge::cluster::Text;
use selvedge::cluster::object::Event;
use selvedge::compile::{Compiler, Host};
use selvedge::index::Index;
use selvedge::synthetic::{Cluster, NODE, Shape};
use selvedge_nft::IfName;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// The pods of a large cluster, on a node with 50 of them, and what design.md allows for that.
const PODS: usize = 100_000;
const ALLOWED: usize = 100 * MIB;

#[test]
fn a_hundred_thousand_pods_and_five_thousand_policies() {
    let cluster = Cluster::new(Shape {
        pods: PODS,
        local_pods: 50,
        policies: 5_000,
        namespaces: 500,
        seed: 1,
    });
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut index = Index::new();
    for object in cluster.objects() {
        index.apply(Event::Apply(object));
    }
    let indexed = HEAP.current_usage() - before;
    let host = Host::new(
        IfName::new("cni0").unwrap(),
        [IfName::new("veth0").unwrap()],
    );
    let mut compiler = Compiler::new(Text::from(NODE), host);
    let ruleset = compiler.update(&mut index);
    let held = HEAP.current_usage() - before;
    let peak = HEAP.peak_usage() - before;
    let sets = ruleset
        .tables
        .values()
        .flat_map(|table| table.sets.values());
    let elements: usize = sets.map(|set| set.elements.len()).sum();
    println!(
        "{PODS} pods: index {} MiB, with a ruleset of {elements} elements {} MiB, peak {} MiB: {} bytes a pod",
        indexed / MIB,
        held / MIB,
        peak / MIB,
        held / PODS
    );
    assert!(peak <= ALLOWED, "{} MiB", peak / MIB);
    drop((ruleset, compiler, index));
    let left = HEAP.current_usage().saturating_sub(before);
    // Tables of interned texts keep their places.
    assert!(left < held / 8, "{} KiB are never freed", left >> 10);
    assert_eq!(Text::num_objects_interned(), 0);
}
