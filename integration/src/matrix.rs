//! Who reaches whom: every pair of hosts, every port, both families, measured at the same time.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::error::Error;
use crate::probe::{Outcome, Probe, Protocol};
use crate::topology::host::{Host, probe_all};

/// One cell's question. Ordered by protocol and port, then source, destination and family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for ICMP.
    pub port: u16,
    /// The source host's name.
    pub from: String,
    /// The destination host's name.
    pub to: String,
    /// Over IPv6 instead of IPv4.
    pub ipv6: bool,
}

/// Hosts and ports to be measured: [`run`](Self::run) as often as wanted.
#[derive(Debug, Clone)]
pub struct Matrix {
    from: Vec<Host>,
    to: Vec<Host>,
    ports: Vec<(Protocol, u16)>,
}

impl Matrix {
    /// All pairs of these hosts, themselves included.
    pub fn new<'a, H: AsRef<Host> + 'a>(hosts: impl IntoIterator<Item = &'a H>) -> Self {
        let hosts: Vec<Host> = hosts.into_iter().map(|h| h.as_ref().clone()).collect();
        Self {
            from: hosts.clone(),
            to: hosts,
            ports: Vec::new(),
        }
    }

    /// Adds hosts that only ask (rows without a column), e.g. an outsider.
    pub fn also_from<'a, H: AsRef<Host> + 'a>(
        mut self,
        hosts: impl IntoIterator<Item = &'a H>,
    ) -> Self {
        self.from
            .extend(hosts.into_iter().map(|h| h.as_ref().clone()));
        self
    }

    /// Adds a protocol and port, and makes every destination serve it.
    pub fn port(mut self, protocol: Protocol, port: u16) -> Result<Self, Error> {
        for host in &self.to {
            host.listen(protocol, port)?;
        }
        let port = if protocol == Protocol::Icmp { 0 } else { port };
        self.ports.push((protocol, port));
        Ok(self)
    }

    /// Measures every cell, each at the destination's first address of each family that both ends have.
    pub fn run(&self) -> Result<Measured, Error> {
        let mut keys = Vec::new();
        let mut probes = Vec::new();
        for from in &self.from {
            for to in &self.to {
                for ipv6 in [false, true] {
                    let first = |host: &Host| {
                        let mut all = host.addresses().iter().copied();
                        all.find(|address| address.is_ipv6() == ipv6)
                    };
                    let (Some(_), Some(address)) = (first(from), first(to)) else {
                        continue;
                    };
                    for (protocol, port) in &self.ports {
                        keys.push(Key {
                            protocol: *protocol,
                            port: *port,
                            from: from.name().to_owned(),
                            to: to.name().to_owned(),
                            ipv6,
                        });
                        probes.push((from.clone(), Probe::new(*protocol, address, *port)));
                    }
                }
            }
        }
        let names = |hosts: &[Host]| hosts.iter().map(|h| h.name().to_owned()).collect();
        Ok(Measured {
            outcomes: keys.into_iter().zip(probe_all(&probes)?).collect(),
            rows: names(&self.from),
            columns: names(&self.to),
            ports: self.ports.clone(),
        })
    }
}

/// The outcomes of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Every cell.
    pub outcomes: BTreeMap<Key, Outcome>,
    rows: Vec<String>,
    columns: Vec<String>,
    ports: Vec<(Protocol, u16)>,
}

impl Measured {
    /// The outcomes of one pair and port: IPv4's, then IPv6's, as far as both hosts have the family.
    pub fn get(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> Vec<&Outcome> {
        let port = if protocol == Protocol::Icmp { 0 } else { port };
        [false, true]
            .into_iter()
            .filter_map(|ipv6| {
                self.outcomes.get(&Key {
                    protocol,
                    port,
                    from: from.to_owned(),
                    to: to.to_owned(),
                    ipv6,
                })
            })
            .collect()
    }

    /// Whether the pair is let through in every family that both hosts have (and they have one).
    pub fn is_allowed(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> bool {
        let outcomes = self.get(from, to, protocol, port);
        !outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.is_allowed())
    }

    /// The cells where `expected` says something else than was measured, one line each; empty when all agree.
    ///
    /// `expected` answers whether a packet is allowed.
    pub fn differences(&self, expected: impl Fn(&Key) -> bool) -> Vec<String> {
        self.outcomes
            .iter()
            .filter_map(|(key, outcome)| {
                let wanted = expected(key);
                let agrees = if wanted {
                    outcome.is_allowed()
                } else {
                    outcome.is_denied()
                };
                let wanted = if wanted { "allowed" } else { "denied" };
                (!agrees).then(|| format!("{key}: expected {wanted}, was {outcome}"))
            })
            .collect()
    }

    /// A table for each port: rows ask, columns answer. `✓` allowed, `✗` denied, `4` or `6` when only that family
    /// passes, `?` when a probe failed, blank where they share no family. In colour if `colour` (see [`use_colour`]).
    pub fn table(&self, colour: bool) -> String {
        let mut text = String::new();
        for (protocol, port) in &self.ports {
            if !text.is_empty() {
                text.push('\n');
            }
            self.table_of(&mut text, *protocol, *port, colour);
        }
        text
    }

    fn table_of(&self, text: &mut String, protocol: Protocol, port: u16, colour: bool) {
        let corner = if protocol == Protocol::Icmp {
            protocol.to_string()
        } else {
            format!("{protocol} {port}")
        };
        let width = self.rows.iter().chain([&corner]).map(|s| s.chars().count());
        let width = width.max().unwrap_or(0);
        let _ = write!(text, "{corner:width$}");
        for column in &self.columns {
            let _ = write!(text, "  {column}");
        }
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "{row:width$}");
            for column in &self.columns {
                let mark = self.mark(row, column, protocol, port);
                // Padded by hand: colours have no width.
                let rest = column.chars().count().saturating_sub(1);
                let (left, right) = (rest / 2, rest - rest / 2);
                let painted = if colour { paint(mark) } else { mark.to_owned() };
                let _ = write!(text, "  {:left$}{painted}{:right$}", "", "");
            }
            while text.ends_with(' ') {
                text.pop();
            }
            text.push('\n');
        }
    }

    fn mark(&self, from: &str, to: &str, protocol: Protocol, port: u16) -> &'static str {
        let outcomes = self.get(from, to, protocol, port);
        if outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Failed { .. }))
        {
            return "?";
        }
        match outcomes.as_slice() {
            [] => " ",
            all if all.iter().all(|outcome| outcome.is_allowed()) => "✓",
            [v4, _] if v4.is_allowed() => "4",
            [_, v6] if v6.is_allowed() => "6",
            _ => "✗",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        let (protocol, port) = (self.protocol, self.port);
        write!(f, "{} -> {} {protocol} {port} {family}", self.from, self.to)
    }
}

fn paint(mark: &str) -> String {
    let code = match mark {
        "✓" => "32",
        "✗" => "31",
        _ => "33",
    };
    format!("\x1b[{code}m{mark}\x1b[0m")
}

/// Whether to print in colour: standard output is a terminal and NO_COLOR (<https://no-color.org>) is unset or empty.
pub fn use_colour() -> bool {
    use std::io::IsTerminal;
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !forbidden && std::io::stdout().is_terminal()
}
