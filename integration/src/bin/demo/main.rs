//! The demo: a shop on a two-node network, its policies, and what real packets say about them.
//!
//! `demo SELVEDGE EXAMPLES`: the daemon's binary and the directory of examples. Exit codes: 0 as the policies say,
//! 1 something measured differs from them, 2 bad usage, 3 the lab can't be made.
//!
//! - [`shop`]: the lab and its Service
//! - [`connections`]: who asks whom, measured, as a table
//! - [`policies`]: what the policies say about them
//! - [`why`]: what Selvedge says about a denied one
//! - [`daemons`]: `selvedge run` on each node
//! - [`chains`]: a pod's chains as nft lists them
//! - [`edit`]: a policy edited under traffic
//! - [`ending`]: the daemons' end, and cleanup
//! - [`story`]: what is printed, and how
//! - [`machine`]: that nothing is left of it
#![forbid(unsafe_code)]

mod chains;
mod connections;
mod daemons;
mod edit;
mod ending;
mod machine;
mod policies;
mod shop;
mod story;
mod why;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use connections::Connections;
use daemons::Daemons;
use machine::Machine;
use shop::Shop;
use story::Story;

/// Why the demo ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was measured is not what the policies say.
    #[error("{what}")]
    Differs {
        /// What differs, a line each.
        what: String,
    },
    /// The lab itself failed.
    #[error(transparent)]
    Lab(#[from] selvedge_lab::Error),
    /// The copy of the manifests can't be written.
    #[error("{what}: {source}")]
    Files {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Failure {
    fn differs(what: impl Into<String>) -> Self {
        Self::Differs { what: what.into() }
    }

    fn files(what: &str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let what = what.to_owned();
        |source| Self::Files { what, source }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, examples] = words.as_slice() else {
        eprintln!("usage: demo SELVEDGE EXAMPLES (`make demo` does it)");
        return ExitCode::from(2);
    };
    match tell(Path::new(program), Path::new(examples)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::Differs { .. }) => {
            eprintln!("demo: this is not what the policies say:\n{failure}");
            ExitCode::from(1)
        }
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::from(3)
        }
    }
}

fn tell(program: &Path, examples: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let story = Story::new();
    let program = daemons::program(program)?;
    let machine = Machine::look()?;
    let shop = Shop::open(&examples.join("shop"))?;
    let connections = Connections::of(&shop)?;
    let kube_proxy = shop.kube_proxy()?;

    story.chapter("1. Two nodes, a shop, no policy");
    shop.introduce(&story);
    let before = connections.measure()?;
    story.text(&before.table(&story));
    before.expect(|_| true)?;
    let count = before.count();
    story.say(&format!(
        "{count} connections tried over IPv4 and IPv6, all answered: Flannel carries packets and judges none."
    ));

    story.chapter("2. The policies in examples/shop/policies.yaml, enforced");
    let mut daemons = Daemons::start(&shop, &program)?;
    let source = shop.manifests().display();
    for (node, commit) in &daemons.await_commits()? {
        let command = format!("selvedge run --source {source} --node {node}");
        story.command(&command, commit);
    }
    let after = connections.measure()?;
    story.text(&after.table(&story));
    after.expect(|question| policies::allow(&shop.index, question))?;
    story.say(&format!("All {count} answers are what the policies say."));

    story.chapter("3. Why may shop/web-0 not reach the database?");
    why::show(&story, &shop, &program)?;

    story.chapter("4. What the kernel was told about shop/db-0");
    chains::show(&story, &shop.lab.pod("shop/db-0")?)?;

    story.chapter("5. A policy edited under traffic");
    edit::show(&shop, &mut daemons, &story)?;

    story.chapter("6. The end");
    ending::show(&shop, daemons, &program, &kube_proxy, &story)?;
    drop(shop);
    machine.compare()?;
    story.say(&format!(
        "The namespaces are gone, and this machine is as it was before. {:.0} seconds.",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}
