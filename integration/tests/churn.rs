//! A thousand policy edits in a row, under traffic: no allowed flow loses a packet to them, and no denied connection
//! gets through.
//!
//! - [`edits`]: the cluster, and what changes in it · [`traffic`]: what passes meanwhile, and what doesn't

#[path = "churn/edits.rs"]
mod edits;
#[path = "churn/traffic.rs"]
mod traffic;

use std::time::Instant;

use edits::{edit, fixed};
use selvedge::cluster::Text;
use selvedge::compile::compile;
use selvedge_lab::stage::{self, Manifests, committed};
use selvedge_lab::{Error, Lab, Node};
use selvedge_nft::Ownership;
use traffic::Traffic;

const EDITS: usize = 1000;

/// Asserts that the kernel holds what the manifests make from nothing.
fn assert_settled(lab: &Lab, node: &Node, manifests: &Manifests) -> Result<(), Error> {
    let host = stage::host_of(lab, node)?;
    let wanted = compile(&manifests.index()?, &Text::from(node.name()), &host);
    // The daemon's tables are its own.
    let held = stage::held(node)?.with_ownership(Ownership::Anyone);
    assert!(held == wanted, "{} holds another ruleset", node.name());
    Ok(())
}

#[test]
fn a_thousand_edits_cost_no_allowed_packet_and_let_no_other_through() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    manifests.put("fixed.yaml", fixed())?;
    (0..5).try_for_each(|n| edit(&manifests, n))?;
    let lab = manifests.lab()?.build()?;
    let (first, second) = (lab.node("node-1")?, lab.node("node-2")?);
    let daemons = [
        stage::daemon(&first, manifests.path())?,
        stage::daemon(&second, manifests.path())?,
    ];
    let both = [&daemons[0], &daemons[1]];
    let traffic = Traffic::start(&lab)?;
    let commits = |n: usize| both[n].stderr().matches("committed: ").count();
    let started = Instant::now();
    let mut edits = 0;
    while edits < EDITS || (0..2).any(|n| commits(n) < EDITS) {
        committed(&both, || edit(&manifests, edits + 5))?;
        edits += 1;
    }
    println!("{edits} edits in {:?}", started.elapsed());
    println!("commits: {} and {}", commits(0), commits(1));
    traffic.stop()?;
    for daemon in both {
        let said = daemon.stderr();
        let troubles: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        assert!(troubles.is_empty(), "{troubles:#?}");
    }
    assert_settled(&lab, &first, &manifests)?;
    assert_settled(&lab, &second, &manifests)
}
