//! One sweep: the connections of those concerned are read and judged, and those denied are ended.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use selvedge_nft::{Conntrack, ConntrackError, Detail, Entries, Entry, Ruleset};

use super::concern::Concern;
use super::judge::{Judge, Judgement, transport};
use crate::verdict::Transport;

/// So many of the connections that were ended are named.
const NAMED: usize = 5;

/// Connections that are tracked: the kernel's, or some in memory for tests.
pub trait Connections {
    /// Those that `keep` wants: from and to these addresses, or all.
    ///
    /// # Errors
    /// [`ConntrackError`] when they can't be read.
    fn read(
        &mut self,
        of: Option<&BTreeSet<IpAddr>>,
        keep: &dyn Fn(&Entry) -> bool,
    ) -> Result<Entries, ConntrackError>;

    /// Ends one; whether it was still there.
    ///
    /// # Errors
    /// [`ConntrackError`] when it can't be ended.
    fn end(&mut self, entry: &Entry) -> Result<bool, ConntrackError>;

    /// The addresses that the host has itself.
    ///
    /// # Errors
    /// [`ConntrackError`] when they can't be known.
    fn own_addresses(&mut self) -> Result<BTreeSet<IpAddr>, ConntrackError>;
}

impl Connections for Conntrack {
    fn read(
        &mut self,
        of: Option<&BTreeSet<IpAddr>>,
        keep: &dyn Fn(&Entry) -> bool,
    ) -> Result<Entries, ConntrackError> {
        match of {
            Some(addresses) => self.involving(addresses, keep),
            None => self.all(keep),
        }
    }

    fn end(&mut self, entry: &Entry) -> Result<bool, ConntrackError> {
        self.delete(entry)
    }

    fn own_addresses(&mut self) -> Result<BTreeSet<IpAddr>, ConntrackError> {
        let interfaces = getifaddrs().map_err(|errno| ConntrackError::Unreachable {
            doing: "listing the host's addresses",
            source: errno.into(),
        })?;
        let addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        });
        Ok(addresses.collect())
    }
}

/// What a sweep came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// How many connections were ended, without those that were over already.
    pub ended: usize,
    /// The first few of them.
    pub named: Vec<Entry>,
    /// How many could not be read, judged or ended.
    pub failures: usize,
    /// Why one could not be ended.
    pub reason: Option<String>,
}

/// Sweeps. `ruleset` gives the one in force, which may be another by the time that all connections are read: a connection
/// is ended when both deny it.
///
/// # Errors
/// [`ConntrackError`] when the connections can't be read; nothing was ended then.
pub fn sweep(
    connections: &mut dyn Connections,
    concern: &Concern,
    ruleset: &dyn Fn() -> Ruleset,
) -> Result<Revoked, ConntrackError> {
    let own = connections.own_addresses()?;
    let read = {
        let ruleset = ruleset();
        let judge = Judge::new(&ruleset, &own);
        let suspect =
            |entry: &Entry| matches!(judge.judge(entry), Judgement::Denied | Judgement::Unsure);
        let of = match concern {
            Concern::Nobody => return Ok(Revoked::default()),
            Concern::These(addresses) => Some(addresses),
            Concern::Everyone => None,
        };
        connections.read(of, &suspect)?
    };
    let ruleset = ruleset();
    let judge = Judge::new(&ruleset, &own);
    let mut revoked = Revoked {
        failures: read.unreadable,
        ..Revoked::default()
    };
    for entry in read.kept {
        match judge.judge(&entry) {
            Judgement::Allowed | Judgement::Spared => {}
            Judgement::Unsure => revoked.failures += 1,
            Judgement::Denied => match connections.end(&entry) {
                Ok(true) if !entry.closed => {
                    revoked.ended += 1;
                    if revoked.named.len() < NAMED {
                        revoked.named.push(entry);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    revoked.failures += 1;
                    revoked.reason = Some(error.to_string());
                }
            },
        }
    }
    Ok(revoked)
}

impl Revoked {
    /// The connections that are named, and how many more there are: `TCP 10.244.1.2:4000 (shop/web) to 10.244.1.3:80
    /// (shop/db)`. `pod` names the pod that has an address.
    pub fn names(&self, pod: impl Fn(IpAddr) -> Option<String>) -> String {
        let end = |address: IpAddr, port: Option<u16>| {
            let mut text = match port {
                Some(port) => SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            };
            if let Some(pod) = pod(address) {
                let _ = write!(text, " ({pod})");
            }
            text
        };
        let lines = self.named.iter().map(|entry| {
            let (to, source_port) = transport(entry);
            let protocol = match to {
                Transport::Tcp(_) => "TCP".to_owned(),
                Transport::Udp(_) => "UDP".to_owned(),
                Transport::Sctp(_) => "SCTP".to_owned(),
                Transport::Icmp => "ICMP".to_owned(),
                Transport::Other(number) => format!("protocol {number}"),
            };
            let (from_port, to_port) = match entry.original.detail {
                Detail::Ports { .. } => (Some(source_port), to.port().map(|(_, port)| port)),
                Detail::Icmp { .. } | Detail::None => (None, None),
            };
            format!(
                "{protocol} {} to {}",
                end(entry.original.source, from_port),
                end(entry.reply.source, to_port)
            )
        });
        let mut text = lines.collect::<Vec<_>>().join(", ");
        if self.ended > self.named.len() {
            let _ = write!(text, " and {} more", self.ended - self.named.len());
        }
        text
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
