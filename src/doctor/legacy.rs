//! What nftables' dumps don't show: iptables' own older tables, ipsets, and who listens to netfilter's queues.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use selvedge_nft::{SurveyedBase, SurveyedChain, SurveyedTable};

use super::Finding;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// The tables, in the form of nftables'.
    pub tables: Vec<SurveyedTable>,
    /// The ipsets' names.
    pub ipsets: Vec<String>,
    /// What is kept in bpffs, by names; it is the whole machine's.
    pub pins: Vec<String>,
    /// What is there and could not be read.
    pub unread: Vec<&'static str>,
    /// Whether a program takes packets from a queue.
    pub queues: bool,
}

impl Legacy {
    /// Reads this namespace's, with the programs that are there for it.
    pub fn read() -> Self {
        let mut legacy = Self::default();
        for (names, program, family, what) in [
            (
                "ip_tables_names",
                "iptables-legacy-save",
                "ip",
                "iptables-legacy",
            ),
            (
                "ip6_tables_names",
                "ip6tables-legacy-save",
                "ip6",
                "ip6tables-legacy",
            ),
        ] {
            // Asked otherwise, the program itself would make the kernel load its modules.
            if lines(&Path::new("/proc/net").join(names)) == 0 {
                continue;
            }
            match output(program, &[]) {
                Some(text) => legacy.tables.extend(parse(family, &text)),
                None => legacy.unread.push(what),
            }
        }
        if Path::new("/sys/module/ip_set").exists() {
            match output("ipset", &["list", "-n"]) {
                Some(text) => legacy.ipsets = text.lines().map(str::to_owned).collect(),
                None => legacy.unread.push("ipsets"),
            }
        }
        for directory in ["/sys/fs/bpf", "/sys/fs/bpf/tc/globals"] {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            legacy.pins.extend(names);
        }
        legacy.pins.sort();
        legacy.queues = lines(Path::new("/proc/net/netfilter/nfnetlink_queue")) > 0;
        legacy
    }

    /// Whether there are tables of iptables-legacy that could not be read.
    pub fn tables_unread(&self) -> bool {
        self.unread.iter().any(|what| what.ends_with("-legacy"))
    }

    /// A finding where something was not seen.
    pub fn judge(&self) -> Option<Finding> {
        let finding = match self.tables_unread() {
            true => Finding::warn(
                "iptables-legacy",
                "it has tables here that can't be read: `iptables-legacy-save` is missing",
                "run selvedge doctor on the node itself, or look there for others' chains",
            ),
            // Sets alone drop nothing: their rules are what counts.
            false => return None,
        };
        Some(finding)
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// What a program prints, if it is there and ends well.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads what `iptables-save` prints.
fn parse(family: &str, text: &str) -> Vec<SurveyedTable> {
    let mut tables: Vec<(String, BTreeMap<String, SurveyedChain>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push((name.trim().to_owned(), BTreeMap::new()));
            continue;
        }
        let Some((table, chains)) = tables.last_mut() else {
            continue;
        };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), policy) = (words.next(), words.next()) else {
                continue;
            };
            let chain = chains.entry(name.to_owned()).or_default();
            name.clone_into(&mut chain.name);
            chain.base = policy
                .filter(|policy| *policy != "-")
                .map(|policy| SurveyedBase {
                    kind: if table == "nat" { "nat" } else { "filter" }.to_owned(),
                    hook: hook(name),
                    priority: 0,
                    drops: policy == "DROP",
                });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let mut words = rule.split_whitespace();
            let Some(chain) = words.next().and_then(|name| chains.get_mut(name)) else {
                continue;
            };
            chain.rules += 1;
            // The target comes last but for its own options; a comment may hold anything.
            let words: Vec<&str> = words.collect();
            let at = words.iter().rposition(|word| ["-j", "-g"].contains(word));
            match at.and_then(|at| words.get(at + 1)) {
                Some(&("DROP" | "REJECT" | "NFQUEUE")) => chain.drops += 1,
                Some(target) => drop(chain.jumps.insert((*target).to_owned())),
                None => {}
            }
        }
    }
    tables
        .into_iter()
        .map(|(name, chains)| SurveyedTable {
            family: family.to_owned(),
            name,
            owner: None,
            chains: chains.into_values().collect(),
            sets: Vec::new(),
        })
        .collect()
}

fn hook(chain: &str) -> &'static str {
    match chain {
        "PREROUTING" => "prerouting",
        "INPUT" => "input",
        "FORWARD" => "forward",
        "OUTPUT" => "output",
        "POSTROUTING" => "postrouting",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::super::engines::{Place, judge};
    use super::super::{Status, forward};
    use super::*;

    const SAVED: &str = "# Generated by iptables-save v1.8.9\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:KUBE-POD-FW-A - [0:0]\n:KUBE-ROUTER-FORWARD - [0:0]\n-A FORWARD -m comment --comment \"kube-router netpol - TEMCG2JMHZYE7H7T\" -j KUBE-ROUTER-FORWARD\n-A KUBE-ROUTER-FORWARD -d 10.42.0.8/32 -m comment --comment \"rule to jump -j nowhere\" -j KUBE-POD-FW-A\n-A KUBE-POD-FW-A -m comment --comment \"rule to REJECT traffic\" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";

    #[test]
    fn saved_tables_read_like_nftables() {
        let survey = selvedge_nft::Survey {
            tables: parse("ip", SAVED),
        };
        let names: Vec<&str> = survey
            .tables
            .iter()
            .map(|table| table.name.as_str())
            .collect();
        assert_eq!(names, ["filter", "nat"]);
        let findings = judge(Place {
            survey: &survey,
            ipsets: &[],
            links: &[],
            pins: &[],
            queues: false,
        });
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Fail);
        assert!(findings[0].found.contains("KUBE-POD-FW-A"), "{findings:?}");
        assert_eq!(forward::judge(&survey)[0].status, Status::Warn);
        for cut in 0..SAVED.len() {
            parse("ip", &SAVED[..cut]);
        }
    }

    #[test]
    fn tables_that_can_t_be_read_are_said() {
        let mut legacy = Legacy::default();
        assert_eq!(legacy.judge(), None);
        legacy.unread.push("ipsets");
        assert_eq!(legacy.judge(), None);
        legacy.unread.push("ip6tables-legacy");
        assert_eq!(legacy.judge().unwrap().status, Status::Warn);
    }
}
