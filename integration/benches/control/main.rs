//! What a change costs from the event to the kernel's acknowledgement, in clusters of different sizes with the same pods
//! on the node; what a start costs; and what it all takes in CPU.
//!
//! Everything runs on this kernel, in network namespaces that go with the process. An error ends it: what is not
//! measured is not printed. `cargo bench -p selvedge-lab --bench control`; root is needed.
#![forbid(unsafe_code)]

mod changes;
mod cold;
mod load;
mod node;
mod shape;
mod table;

use std::error::Error;
use std::process::ExitCode;

use node::Node;
use selvedge::synthetic::Cluster;
use shape::{LOCAL_PODS, POLICIES, SIZES, shape};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), Box<dyn Error>> {
    println!("{LOCAL_PODS} local pods, {POLICIES} policies; every commit is on a real kernel\n");
    cold::wide()?;
    let mut nodes = Vec::new();
    for pods in SIZES {
        let cluster = Cluster::new(shape(pods));
        let (node, cold) = Node::start(&cluster)?;
        cold::print(&format!("{pods} pods: a start"), &cold);
        nodes.push((cluster, node));
    }
    for (_, node) in &nodes {
        node.listen()?;
    }
    println!();
    changes::measure(&mut nodes)?;
    load::measure(&mut nodes)?;
    for (pods, (_, node)) in SIZES.iter().zip(&mut nodes) {
        let elements = node.verify()?;
        println!("{pods} pods: the kernel reads back what is compiled afresh, {elements} elements");
    }
    Ok(())
}
