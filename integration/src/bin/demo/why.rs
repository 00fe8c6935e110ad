//! What Selvedge says about a connection that is denied.

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::shop::Shop;
use crate::story::{Story, WIDTH};

/// Asks `selvedge why` the web may not reach the database.
pub fn show(story: &Story, shop: &Shop, program: &Path) -> Result<(), Failure> {
    let words = ["why", "shop/web-0", "shop/db-0", "--port", "tcp/5432", "-f"];
    let output = Command::new(program)
        .args(words)
        .arg(shop.manifests())
        .env("COLUMNS", (WIDTH - 2).to_string())
        .output()
        .map_err(Failure::files("run selvedge why"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(1) || !said.contains("NetworkPolicy shop/db spec.ingress[0]") {
        return Err(Failure::differs(format!(
            "  selvedge why does not explain it ({}): {said}{complaint}",
            output.status
        )));
    }
    let command = format!(
        "selvedge {} {}",
        words.join(" "),
        shop.manifests().display()
    );
    story.command(&command, &said);
    Ok(())
}
