//! `selvedge run` on each node, and what it says in its log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_lab::{Daemon, Node, wait_until};

use crate::Failure;
use crate::shop::Shop;

/// How long something may take that takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The daemons.
pub struct Daemons {
    all: Vec<One>,
}

struct One {
    daemon: Daemon,
    node: Node,
    /// How many commits of its log have been told.
    told: usize,
}

impl Daemons {
    /// Starts one on each node.
    pub fn start(shop: &Shop, program: &Path) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for node in shop.lab.nodes() {
            let daemon = node
                .netns()
                .command(program)
                .args(["run", "--node", node.name(), "--source"])
                .arg(shop.manifests())
                .env("SELVEDGE_LOG", "info")
                .daemon()?;
            all.push(One {
                daemon,
                node: node.clone(),
                told: 0,
            });
        }
        Ok(Self { all })
    }

    /// Waits until each has committed once more; the answer is its node's name and the commit.
    pub fn await_commits(&mut self) -> Result<Vec<(String, String)>, Failure> {
        let mut said = Vec::new();
        for one in &mut self.all {
            let what = format!("a commit of selvedge run on {}", one.node.name());
            wait_until(&what, PATIENCE, || {
                let stderr = one.daemon.stderr();
                if let Some(status) = one.daemon.exit() {
                    let last = stderr.lines().last().unwrap_or_default();
                    let text = format!("selvedge run ended ({status}): {last}");
                    return Err(selvedge_lab::Error::Invalid { what: text });
                }
                Ok(commits(&stderr).len() > one.told)
            })?;
            let commits = commits(&one.daemon.stderr());
            let new = commits.iter().skip(one.told);
            said.extend(new.map(|commit| (one.node.name().to_owned(), commit.clone())));
            one.told = commits.len();
        }
        Ok(said)
    }

    /// SIGTERM to all.
    pub fn end(self) -> Result<(), Failure> {
        for one in self.all {
            let status = one.daemon.terminate(PATIENCE)?;
            if !status.success() {
                let name = one.node.name();
                return Err(Failure::differs(format!(
                    "  selvedge run on {name} ended with {status}"
                )));
            }
        }
        Ok(())
    }
}

/// The commits in a log, each as `tables +2, rules +4: 12 messages in one batch, 0.8 ms`.
fn commits(log: &str) -> Vec<String> {
    let lines = log
        .lines()
        .filter(|line| line.ends_with(|c: char| c.is_ascii_digit()));
    let lines = lines.filter_map(|line| line.split_once(" INFO committed: "));
    lines.filter_map(|(_, commit)| retell(commit)).collect()
}

fn retell(commit: &str) -> Option<String> {
    let (what, numbers) = commit.split_once(" messages=")?;
    let (messages, numbers) = numbers.split_once(" batches=")?;
    let (batches, numbers) = numbers.split_once(' ')?;
    let batches = match batches {
        "1" => "one batch".to_owned(),
        more => format!("{more} batches"),
    };
    let (_, took) = numbers.split_once("took_us=")?;
    let took: f64 = took.parse().ok()?;
    Some(format!(
        "{what}: {messages} messages in {batches}, {:.1} ms",
        took / 1000.0
    ))
}

/// The daemon's program as an absolute path.
pub fn program(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(Failure::files(&format!("find {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::commits;

    #[test]
    fn a_log_is_retold() {
        let log = "2026-01-02T03:04:05.000000Z  INFO selvedge 0.1.0 starts node=\"a\"\n\
            2026-01-02T03:04:05.000000Z ERROR not committed, will be tried again: committed: messages=1\n\
            2026-01-02T03:04:05.000000Z  INFO committed: tables +2, rules +4 messages=12 batches=1 bytes=99 took_us=812\n\
            2026-01-02T03:04:05.000000Z  INFO committed: rules +4 messa";
        let said = "tables +2, rules +4: 12 messages in one batch, 0.8 ms";
        assert_eq!(commits(log), [said]);
    }
}
