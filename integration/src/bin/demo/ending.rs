//! The daemons end, the rules stay; cleanup takes them away, and nothing else.

use std::path::Path;

use selvedge_lab::{Outcome, Probe};

use crate::Failure;
use crate::daemons::Daemons;
use crate::shop::Shop;
use crate::story::Story;

/// Shows it. `kube_proxy` is what kube-proxy's stand-in had before Selvedge came.
pub fn show(
    shop: &Shop,
    daemons: Daemons,
    program: &Path,
    kube_proxy: &str,
    story: &Story,
) -> Result<(), Failure> {
    daemons.end()?;
    let (sandbox, db) = (shop.host("dev/sandbox-0")?, shop.host("shop/db-0")?);
    let ask = || sandbox.probe(Probe::tcp(db.ipv4()?, 5432));
    let outcome = ask()?;
    story.say(&format!(
        "The daemons are stopped, their rules stay in force: dev/sandbox-0 to shop/db-0 is {outcome}."
    ));
    if outcome != Outcome::Denied {
        return Err(Failure::differs(
            "  dev/sandbox-0 gets through to shop/db-0",
        ));
    }
    let untouched = || -> Result<(), Failure> {
        match shop.kube_proxy()? == kube_proxy {
            true => Ok(()),
            false => Err(Failure::differs("  kube-proxy's tables have changed")),
        }
    };
    untouched()?;
    for (number, node) in shop.lab.nodes().iter().enumerate() {
        let said = node.netns().command(program).arg("cleanup").run()?;
        let tables = node.netns().command("nft").args(["list", "tables"]).run()?;
        if tables.contains("selvedge") {
            return Err(Failure::differs("  cleanup has left a table of Selvedge's"));
        }
        // Every node says the same.
        if number == 0 {
            story.command("selvedge cleanup", &said);
            story.command("nft list tables", &tables);
        }
    }
    untouched()?;
    let outcome = ask()?;
    story.say(&format!(
        "kube-proxy's tables are byte for byte what they were before and with Selvedge; dev/sandbox-0 is {outcome}."
    ));
    match outcome.is_allowed() {
        true => Ok(()),
        false => Err(Failure::differs(
            "  dev/sandbox-0 is denied shop/db-0 after cleanup",
        )),
    }
}
