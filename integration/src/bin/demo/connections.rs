//! The connections that the demo tries: a row for everyone who asks, a column for everything that is asked for.

use std::fmt::{self, Write};
use std::net::IpAddr;

use selvedge_lab::{Host, Outcome, Probe, Protocol, probe_all};

use crate::Failure;
use crate::shop::{OUTSIDE, Shop};
use crate::story::Story;

/// The rows: who asks.
const ROWS: [&str; 9] = [
    OUTSIDE,
    "shop/web-0",
    "shop/web-1",
    "shop/api-0",
    "shop/api-1",
    "shop/db-0",
    "monitoring/prometheus-0",
    "kube-system/coredns-0",
    "dev/sandbox-0",
];

/// The Service among the columns.
const API: &str = "service/api";

/// The columns: the host's name or a Service's, what stands above it, protocol and port.
const COLUMNS: [(&str, &str, Protocol, u16); 11] = [
    ("shop/web-0", "web-0", Protocol::Tcp, 80),
    ("shop/web-1", "web-1", Protocol::Tcp, 80),
    ("shop/api-0", "api-0", Protocol::Tcp, 8080),
    ("shop/api-1", "api-1", Protocol::Tcp, 8080),
    (API, "svc/api", Protocol::Tcp, 80),
    ("shop/db-0", "db-0", Protocol::Tcp, 5432),
    ("kube-system/coredns-0", "dns", Protocol::Udp, 53),
    ("shop/web-0", "web-0", Protocol::Tcp, 9090),
    ("shop/api-1", "api-1", Protocol::Tcp, 9090),
    ("shop/db-0", "db-0", Protocol::Tcp, 9090),
    (OUTSIDE, "outside", Protocol::Tcp, 443),
];

/// One connection: what a packet of it looks like after DNAT, where the policies apply.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asks.
    pub from: Host,
    /// Who may answer: one, or a Service's backends.
    pub to: Vec<Host>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that the answerers serve.
    pub port: u16,
    /// The address that is asked for.
    pub address: IpAddr,
    /// The port that is asked for.
    pub address_port: u16,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.name();
        let to: Vec<&str> = self.to.iter().map(Host::name).collect();
        let (to, protocol, port) = (to.join(" or "), self.protocol, self.port);
        write!(f, "{from} to {to} {protocol} {port} (at {})", self.address)
    }
}

struct Cell {
    row: usize,
    column: usize,
    question: Question,
}

/// All of them.
pub struct Connections {
    cells: Vec<Cell>,
}

impl Connections {
    /// The shop's connections of interest; everything asked for is served from now on.
    pub fn of(shop: &Shop) -> Result<Self, Failure> {
        let rows = ROWS.map(|name| shop.host(name));
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut cells = Vec::new();
        for (column, (to, _, protocol, port)) in COLUMNS.into_iter().enumerate() {
            let is_service = to == API;
            let (to, behind, addresses) = match is_service {
                true => (
                    shop.api.backends.clone(),
                    shop.api.target,
                    shop.api.addresses.to_vec(),
                ),
                false => {
                    let host = shop.host(to)?;
                    let addresses = host.addresses().to_vec();
                    (vec![host], port, addresses)
                }
            };
            for host in &to {
                host.listen(protocol, behind)?;
            }
            for (row, from) in rows.iter().enumerate() {
                // A backend that asks its own Service may get to itself; ClusterIPs are known within the cluster only.
                let itself = to.iter().any(|host| host.name() == from.name());
                if itself || (is_service && from.name() == OUTSIDE) {
                    continue;
                }
                cells.extend(addresses.iter().map(|address| Cell {
                    row,
                    column,
                    question: Question {
                        from: from.clone(),
                        to: to.clone(),
                        protocol,
                        port: behind,
                        address: *address,
                        address_port: port,
                    },
                }));
            }
        }
        Ok(Self { cells })
    }

    /// Tries them all, at the same time.
    pub fn measure(&self) -> Result<Measured<'_>, Failure> {
        let questions = self.cells.iter().map(|cell| &cell.question);
        let probes: Vec<(Host, Probe)> = questions
            .map(|q| {
                let probe = Probe::new(q.protocol, q.address, q.address_port);
                (q.from.clone(), probe)
            })
            .collect();
        Ok(Measured {
            connections: self,
            outcomes: probe_all(&probes)?,
        })
    }
}

/// What came of them.
pub struct Measured<'a> {
    connections: &'a Connections,
    outcomes: Vec<Outcome>,
}

impl Measured<'_> {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.outcomes.len()
    }

    /// Fails with each connection that came out otherwise than `allowed` says.
    pub fn expect(&self, allowed: impl Fn(&Question) -> bool) -> Result<(), Failure> {
        let mut differences = String::new();
        for (cell, outcome) in self.connections.cells.iter().zip(&self.outcomes) {
            let question = &cell.question;
            let allowed = allowed(question);
            let agrees = match allowed {
                true => answered(question, outcome),
                false => outcome.is_denied(),
            };
            if !agrees {
                let expected = if allowed { "allowed" } else { "denied" };
                let _ = writeln!(
                    differences,
                    "  {question}: expected {expected}, was {outcome}"
                );
            }
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(Failure::differs(differences.trim_end())),
        }
    }

    /// A row for everyone who asks. `✓` answered over IPv4 and IPv6, `✗` neither, `?` anything else, `·` not asked.
    pub fn table(&self, story: &Story) -> String {
        let ports = COLUMNS.map(|(_, _, protocol, port)| match protocol {
            Protocol::Tcp => format!(":{port}"),
            other => format!(":{port}/{}", other.to_string().to_lowercase()),
        });
        let heads = COLUMNS.into_iter().zip(&ports);
        let widths: Vec<usize> = heads
            .map(|((_, head, ..), port)| head.len().max(port.len()).max(5))
            .collect();
        let first = ROWS.map(str::len).into_iter().max().unwrap_or_default();
        let mut text = format!("{:first$}", "");
        for ((_, head, ..), width) in COLUMNS.into_iter().zip(&widths) {
            let _ = write!(text, " {head:^width$}");
        }
        let _ = write!(text, "\n{:first$}", "from");
        for (port, width) in ports.iter().zip(&widths) {
            let _ = write!(text, " {port:^width$}");
        }
        for (number, row) in ROWS.into_iter().enumerate() {
            let _ = write!(text, "\n{row:first$}");
            for (column, width) in widths.iter().enumerate() {
                let (mark, colour) = self.mark(number, column);
                // Padded by hand: colours have no width.
                let (left, right) = ((width - 1) / 2, width / 2);
                let mark = story.paint(colour, mark);
                let _ = write!(text, " {:left$}{mark}{:right$}", "", "");
            }
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    /// The mark of a cell, and its ANSI colour.
    fn mark(&self, row: usize, column: usize) -> (&'static str, &'static str) {
        let cells = self.connections.cells.iter().zip(&self.outcomes);
        let own: Vec<(bool, bool)> = cells
            .filter(|(cell, _)| (cell.row, cell.column) == (row, column))
            .map(|(cell, out)| (answered(&cell.question, out), out.is_denied()))
            .collect();
        match own.as_slice() {
            [] => ("·", "2"),
            all if all.iter().all(|(answered, _)| *answered) => ("✓", "32"),
            all if all.iter().all(|(_, denied)| *denied) => ("✗", "31"),
            _ => ("?", "33"),
        }
    }
}

/// Whether one of those answered who should.
fn answered(question: &Question, outcome: &Outcome) -> bool {
    let by = outcome.answered_by();
    by.is_some_and(|name| question.to.iter().any(|host| host.name() == name))
}
