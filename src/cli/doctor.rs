//! `selvedge doctor`.

use std::path::PathBuf;

use clap::Args;
use selvedge_nft::IfName;
use serde::Serialize;

use super::question::{Output, print_json};
use super::terminal::Style;
use super::{Done, Failure, cluster, interface, print};
use crate::doctor::{self, Finding, Report, Status, links, probe};

const EXAMPLES: &str = "\
Examples:
  selvedge doctor                     on a node, in the host's network namespace
  selvedge doctor --probe             and prove with packets that this kernel enforces policies
  selvedge doctor --only-probe        only the proof, as before the daemon's start
  selvedge doctor -o json | jq '.findings[] | select(.status != \"ok\")'

It changes nothing. What it tries, it tries in network namespaces of its own, which needs root.

Exit codes: 0 nothing fails, 1 something does, 2 bad usage, 3 nftables can't be reached.";

/// Say what enforcement needs of this node, what is missing, and what to do about it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// Prove with packets between two pods of a throwaway bridge that policies are enforced
    #[arg(long)]
    probe: bool,
    /// Only that proof. It fails where a packet does what rules forbid, and nowhere else: not being able to try is a warning
    #[arg(long, conflicts_with = "probe")]
    only_probe: bool,
    /// The pods' bridge [default: the bridge with the node's pod CIDR, else cni0]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    bridge: Option<IfName>,
    #[command(flatten)]
    cluster: cluster::Options,
    /// This node's name, as in the pods' spec.nodeName
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: Option<String>,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Where Flannel writes what it gave this node
    #[arg(long, hide = true, value_name = "FILE", default_value = links::SUBNET_ENV)]
    subnet_env: PathBuf,
    /// Leave br_netfilter off in the probe's namespace: the probe must fail then
    #[arg(long, hide = true)]
    probe_unbridged: bool,
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    status: Status,
    findings: &'a [Finding],
}

impl Doctor {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        let proof = probe::Options {
            bridged: !self.probe_unbridged,
        };
        let report = match self.only_probe {
            true => Report {
                findings: probe::run_or_warn(&proof),
                unreachable: false,
            },
            false => doctor::examine(&doctor::Options {
                bridge: self.bridge,
                access: self.cluster.access(),
                node: self.node,
                subnet_env: self.subnet_env,
                probe: self.probe.then_some(proof),
            }),
        };
        match self.output {
            Output::Json => {
                let answer = Answer {
                    status: report.worst(),
                    findings: &report.findings,
                };
                print_json(&answer)?;
            }
            Output::Text => {
                print(&as_text(&report, Style::of_stdout()))?;
            }
        }
        if report.unreachable {
            return Err(Failure::Unreachable(
                "nftables can't be reached: most could not be looked at".to_owned(),
            ));
        }
        Ok(match report.worst() {
            Status::Fail => Done::Findings,
            Status::Ok | Status::Warn => Done::Clean,
        })
    }
}

/// One line a finding, and one about them all.
fn as_text(report: &Report, style: Style) -> String {
    let widths = report.findings.iter().map(|finding| finding.check.len());
    let width = widths.max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.findings {
        let word = format!("{:<4}", finding.status);
        let word = match finding.status {
            Status::Ok => style.good(&word),
            Status::Warn => style.careful(&word),
            Status::Fail => style.bad(&word),
        };
        let label = format!("{word}  {:<width$}  ", finding.check);
        let said = match &finding.advice {
            Some(advice) => format!("{} → {advice}", finding.found),
            None => finding.found.clone(),
        };
        text.push_str(&style.labelled(label, width + 8, &said));
    }
    let (failed, warned) = (report.count(Status::Fail), report.count(Status::Warn));
    let sum = match report.worst() {
        Status::Ok => style.good("all is well"),
        _ => format!("{failed} failed, {warned} to look at"),
    };
    format!("{text}{sum}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_what_to_do() {
        let report = Report {
            findings: vec![
                Finding::ok("kernel", "Linux 6.18"),
                Finding::fail("kube-proxy", "IPVS mode", "use another"),
                Finding::warn("bridge", "no cni0", "wait"),
            ],
            unreachable: false,
        };
        let text = as_text(&report, Style::plain(None));
        let expected = "\
ok    kernel      Linux 6.18
fail  kube-proxy  IPVS mode → use another
warn  bridge      no cni0 → wait
1 failed, 1 to look at
";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_findings_stay_within_80_columns() {
        let advice = "do this and that and the other thing and then some more of it";
        let finding = Finding::fail("other engines", "kube-router's chain still drops", advice);
        let report = Report {
            findings: vec![finding; 3],
            unreachable: false,
        };
        let text = as_text(&report, Style::plain(Some(80)));
        assert!(text.lines().count() > 4, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
