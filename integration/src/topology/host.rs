//! What pods, nodes and outsiders have in common: a namespace, addresses, servers and probes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::underlay::on_underlay;
use crate::error::Error;
use crate::frame::{Capture, FrameSocket, link_local_of};
use crate::netns::Netns;
use crate::probe::responder::{Registry, Responder};
use crate::probe::{Outcome, Probe, Protocol, engine};
use crate::wait::wait_until;

/// How long the kernel may take to give an interface its link-local address.
const LINK_LOCAL: Duration = Duration::from_secs(20);

/// A machine of the lab, seen from its network. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
    interface: String,
    responder: Mutex<Option<Responder>>,
    registry: Arc<Registry>,
}

impl AsRef<Host> for Host {
    fn as_ref(&self) -> &Host {
        self
    }
}

impl Host {
    /// Makes the namespace; links and addresses are put by the caller.
    pub(crate) fn create(
        name: &str,
        addresses: Vec<IpAddr>,
        interface: &str,
        registry: Arc<Registry>,
    ) -> Result<Self, Error> {
        let netns = Netns::new(name)?;
        netns.set_sysctls(&[
            // A new namespace inherits the machine's IPv4 settings, whatever they are.
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            // Who inherits an address makes itself known.
            ("net/ipv4/conf/default/arp_notify", "1"),
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            // Addresses, link-local ones too, work at once.
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ])?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                netns,
                addresses,
                interface: interface.to_owned(),
                responder: Mutex::default(),
                registry,
            }),
        })
    }

    /// The name: of a pod `namespace/name`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.inner.netns
    }

    /// Its addresses, as status.podIPs or a node's InternalIPs would name them.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.inner.addresses
    }

    /// Its first IPv4 address.
    pub fn ipv4(&self) -> Result<Ipv4Addr, Error> {
        let found = self.addresses().iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        found.ok_or_else(|| Error::invalid(format!("{} has no IPv4 address", self.name())))
    }

    /// Its first IPv6 address.
    pub fn ipv6(&self) -> Result<Ipv6Addr, Error> {
        let found = self.addresses().iter().find_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        });
        found.ok_or_else(|| Error::invalid(format!("{} has no IPv6 address", self.name())))
    }

    /// The interface that faces the pods: `eth0` of pods and outsiders, `cni0` of nodes.
    pub fn interface(&self) -> &str {
        &self.inner.interface
    }

    /// The link-local IPv6 address of [`interface`](Self::interface), which the kernel gives it in its own time after the
    /// link has come up.
    ///
    /// # Errors
    /// [`Error::Timeout`] when there is none after twenty seconds.
    pub fn link_local(&self) -> Result<Ipv6Addr, Error> {
        let (netns, interface) = (self.netns(), self.interface());
        let what = format!("a link-local address of {interface} of {}", self.name());
        let mut found = None;
        wait_until(&what, LINK_LOCAL, || {
            found = netns.run(|| link_local_of(interface))??;
            Ok(found.is_some())
        })?;
        found.ok_or_else(|| Error::invalid(what))
    }

    pub(super) fn extra_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.addresses().iter().copied();
        all.filter(|address| !on_underlay(*address))
    }

    /// Serves a port on all its addresses, link-local ones included; asking twice is the same as once.
    ///
    /// TCP and UDP answer with the host's name and then echo; SCTP answers an INIT with an INIT ACK. ICMP needs no
    /// server: the kernel answers.
    pub fn listen(&self, protocol: Protocol, port: u16) -> Result<(), Error> {
        self.with_responder(|responder| responder.listen(&self.inner.netns, protocol, port))
    }

    /// Stops serving a port, which nobody listens on afterwards; established connections stay.
    pub fn close(&self, protocol: Protocol, port: u16) -> Result<(), Error> {
        self.with_responder(|responder| responder.close(&self.inner.netns, protocol, port))
    }

    /// Makes one probe and waits for its outcome.
    pub fn probe(&self, probe: Probe) -> Result<Outcome, Error> {
        let mut outcomes = self.probe_all(std::slice::from_ref(&probe))?;
        outcomes
            .pop()
            .ok_or_else(|| Error::invalid("one outcome a probe"))
    }

    /// Makes many probes at the same time; outcomes in the probes' order.
    pub fn probe_all(&self, probes: &[Probe]) -> Result<Vec<Outcome>, Error> {
        if probes.iter().any(|probe| probe.is_sctp()) {
            // A raw socket of the probes hides from the kernel that nobody serves SCTP here.
            self.with_responder(|responder| responder.serve_sctp(&self.inner.netns))?;
        }
        engine::run(self, probes)
    }

    /// Whether this host's packets get to another, over every IP family that both have.
    ///
    /// # Errors
    /// When the families disagree, share none, or a probe fails; use [`probe`](Self::probe) where that may be.
    pub fn reaches(
        &self,
        to: impl AsRef<Host>,
        protocol: Protocol,
        port: u16,
    ) -> Result<bool, Error> {
        let to = to.as_ref();
        let probes: Vec<Probe> = to
            .addresses()
            .iter()
            .filter(|theirs| {
                self.addresses()
                    .iter()
                    .any(|own| own.is_ipv4() == theirs.is_ipv4())
            })
            .map(|address| Probe::new(protocol, *address, port))
            .collect();
        let outcomes = self.probe_all(&probes)?;
        let all = |f: fn(&Outcome) -> bool| !outcomes.is_empty() && outcomes.iter().all(f);
        match (all(Outcome::is_allowed), all(Outcome::is_denied)) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => {
                let each = probes.iter().zip(&outcomes);
                let each: Vec<_> = each
                    .map(|(probe, out)| format!("{} {out}", probe.to))
                    .collect();
                Err(Error::invalid(format!(
                    "{} to {} {protocol} {port} has no single answer: {}",
                    self.name(),
                    to.name(),
                    each.join(", ")
                )))
            }
        }
    }

    /// A socket that sends whole Ethernet frames from [`interface`](Self::interface).
    pub fn frame_socket(&self) -> Result<FrameSocket, Error> {
        FrameSocket::open(&self.inner.netns, &self.inner.interface)
    }

    /// Starts to record the frames that arrive at [`interface`](Self::interface).
    pub fn capture(&self) -> Result<Capture, Error> {
        Capture::open(&self.inner.netns, &self.inner.interface)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    pub(super) fn stop_servers(&self) {
        let mut slot = self
            .inner
            .responder
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = None;
    }

    fn with_responder<T>(
        &self,
        f: impl FnOnce(&mut Responder) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut slot = self
            .inner
            .responder
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(Responder::start(&self.inner.name, &self.inner.registry)?);
        }
        match slot.as_mut() {
            Some(responder) => f(responder),
            None => Err(Error::invalid("a responder that was just started")),
        }
    }
}

/// Makes probes from several hosts, all at the same time; outcomes in the probes' order.
///
/// # Errors
/// Only when the lab itself fails; a probe that cannot be made is [`Outcome::Failed`].
pub fn probe_all(probes: &[(Host, Probe)]) -> Result<Vec<Outcome>, Error> {
    let mut by_host: Vec<(&Host, Vec<usize>)> = Vec::new();
    for (index, (host, _)) in probes.iter().enumerate() {
        match by_host
            .iter_mut()
            .find(|(other, _)| Arc::ptr_eq(&other.inner, &host.inner))
        {
            Some((_, indices)) => indices.push(index),
            None => by_host.push((host, vec![index])),
        }
    }
    let answers = std::thread::scope(|scope| {
        let threads: Vec<_> = by_host
            .into_iter()
            .map(|(host, indices)| {
                scope.spawn(move || {
                    let own: Vec<Probe> = indices
                        .iter()
                        .filter_map(|index| probes.get(*index))
                        .map(|(_, probe)| probe.clone())
                        .collect();
                    host.probe_all(&own)
                        .map(|outcomes| indices.into_iter().zip(outcomes).collect::<Vec<_>>())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<Vec<_>, Error>>()
    })?;
    let mut outcomes: Vec<(usize, Outcome)> = answers.into_iter().flatten().collect();
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
