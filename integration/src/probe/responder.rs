//! The servers of a host, all on one thread: they say the host's name and echo.
//!
//! - TCP: `name\n` after accepting, then every byte comes back
//! - UDP: `name\n` and the datagram
//! - SCTP: INIT ACK whose cookie is `name\n`; ABORT on ports that nobody listens on

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::answer::{Connection, accept, answer, answer_sctp};
use super::{Protocol, icmp};
use crate::error::{During, Error};
use crate::netns::Netns;
use crate::wait::wait_until;

/// Bursts of datagrams wait here for a busy server instead of being lost.
const DATAGRAM_BUFFER: usize = 8 * 1024 * 1024;
/// How long a closed port may take until nobody listens on it.
const CLOSING: Duration = Duration::from_secs(10);

/// All servers of a lab.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    all: Mutex<Vec<Weak<Shared>>>,
}

impl Registry {
    /// Returns when every server has worked through what had reached its sockets before this call.
    pub(crate) fn catch_up(&self) {
        let all: Vec<Arc<Shared>> = {
            let mut all = lock(&self.all);
            all.retain(|one| one.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        let rounds: Vec<u64> = all.iter().map(|one| one.request_round()).collect();
        for (one, round) in all.iter().zip(rounds) {
            one.await_round(round);
        }
    }
}

/// Stops when it drops.
#[derive(Debug)]
pub(crate) struct Responder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    sctp: bool,
}

struct Shared {
    name: String,
    wake: EventFd,
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "servers of {}", self.name)
    }
}

#[derive(Default)]
struct State {
    /// Sockets that the thread shall take over.
    new: Vec<(Service, Socket)>,
    /// Ports served now.
    listening: BTreeSet<(Protocol, u16)>,
    requested: u64,
    done: u64,
    stop: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Tcp(u16),
    Udp(u16),
    Sctp4,
    Sctp6,
}

impl Shared {
    fn request_round(&self) -> u64 {
        let mut state = lock(&self.state);
        state.requested += 1;
        let round = state.requested;
        drop(state);
        self.wake();
        round
    }

    fn await_round(&self, round: u64) {
        // A server that has died must not hang the test.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut state = lock(&self.state);
        while state.done < round && !state.stop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wake(&self) {
        // Full means that it will wake anyway.
        let _ = self.wake.write(1);
    }
}

impl Responder {
    pub(crate) fn start(name: &str, registry: &Registry) -> Result<Self, Error> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = EventFd::from_flags(flags).during("make an eventfd")?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            wake,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        lock(&registry.all).push(Arc::downgrade(&shared));
        let thread = std::thread::Builder::new()
            .name(name.replace('\0', ""))
            .spawn({
                let shared = shared.clone();
                move || serve(&shared)
            })
            .during("start a thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
            sctp: false,
        })
    }

    pub(crate) fn listen(
        &mut self,
        netns: &Netns,
        protocol: Protocol,
        port: u16,
    ) -> Result<(), Error> {
        if lock(&self.shared.state)
            .listening
            .contains(&(protocol, port))
        {
            return Ok(());
        }
        let what = format!("listen on {protocol} port {port} of {}", self.shared.name);
        let socket = match protocol {
            Protocol::Tcp => Some((Service::Tcp(port), netns.run(|| tcp(port))?.during(&what)?)),
            Protocol::Udp => Some((Service::Udp(port), netns.run(|| udp(port))?.during(&what)?)),
            Protocol::Sctp => {
                self.serve_sctp(netns)?;
                None
            }
            Protocol::Icmp => return Ok(()),
        };
        let mut state = lock(&self.shared.state);
        state.new.extend(socket);
        state.listening.insert((protocol, port));
        drop(state);
        self.shared.wake();
        Ok(())
    }

    pub(crate) fn close(
        &mut self,
        netns: &Netns,
        protocol: Protocol,
        port: u16,
    ) -> Result<(), Error> {
        let served = lock(&self.shared.state).listening.remove(&(protocol, port));
        // After the round the socket is closed.
        let round = self.shared.request_round();
        self.shared.await_round(round);
        if !served || protocol != Protocol::Tcp {
            return Ok(());
        }
        // A child that another thread has just forked holds a copy until it has become its own program. As long as
        // anybody listens, nobody else can bind the port.
        let what = format!("TCP port {port} of {} to be closed", self.shared.name);
        wait_until(&what, CLOSING, || match netns.run(|| bound(port))? {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
            free => free.during(&what).map(|_| true),
        })
    }

    /// Answers INITs from now on, with ABORT until a port is served.
    pub(crate) fn serve_sctp(&mut self, netns: &Netns) -> Result<(), Error> {
        if self.sctp {
            return Ok(());
        }
        let (v4, v6) = netns
            .run(|| -> io::Result<_> { Ok((sctp(Domain::IPV4)?, sctp(Domain::IPV6)?)) })?
            .during("open raw SCTP sockets")?;
        let mut state = lock(&self.shared.state);
        state.new.push((Service::Sctp4, v4));
        state.new.push((Service::Sctp6, v6));
        drop(state);
        self.sctp = true;
        self.shared.wake();
        Ok(())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.wake();
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tcp(port: u16) -> io::Result<Socket> {
    let socket = bound(port)?;
    socket.listen(4096)?;
    Ok(socket)
}

/// A TCP socket that has the port, and doesn't listen yet.
fn bound(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

fn udp(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_nonblocking(true)?;
    // As a server on 0.0.0.0 has it: groups that the host has joined (224.0.0.1), not only the socket itself.
    socket.set_multicast_all_v4(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &DATAGRAM_BUFFER)?;
    // The answer must come from the address that was asked.
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

fn sctp(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(libc::IPPROTO_SCTP.into()))?;
    socket.set_nonblocking(true)?;
    if domain == Domain::IPV4 {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(socket)
}

fn serve(shared: &Shared) {
    let mut services: BTreeMap<Service, Socket> = BTreeMap::new();
    let mut connections: Vec<Connection> = Vec::new();
    let mut ready = Ready::default();
    let greeting = format!("{}\n", shared.name);
    loop {
        let _ = shared.wake.read();
        let (round, every, listening) = {
            let mut state = lock(&shared.state);
            if state.stop {
                return;
            }
            services.extend(state.new.drain(..));
            // A round is a look at every socket, whatever poll said before it was asked for.
            let every = state.requested > state.done;
            (state.requested, every, state.listening.clone())
        };
        services.retain(|service, _| match service {
            Service::Tcp(port) => listening.contains(&(Protocol::Tcp, *port)),
            Service::Udp(port) => listening.contains(&(Protocol::Udp, *port)),
            Service::Sctp4 | Service::Sctp6 => true,
        });
        for (service, socket) in &services {
            if !every && !ready.services.contains(service) {
                continue;
            }
            match service {
                Service::Tcp(_) => accept(socket, &greeting, &mut connections),
                Service::Udp(_) => answer(socket, |datagram| {
                    Some([greeting.as_bytes(), datagram].concat())
                }),
                Service::Sctp4 => answer(socket, |packet| {
                    answer_sctp(icmp::after_ipv4_header(packet)?, &shared.name, &listening)
                }),
                Service::Sctp6 => answer(socket, |packet| {
                    answer_sctp(packet, &shared.name, &listening)
                }),
            }
        }
        let mut polled = ready.connections.into_iter();
        connections.retain_mut(|connection| {
            // Those that have just come were not polled yet; each is to be greeted.
            let has_news = polled.next().unwrap_or(true);
            !(every || has_news) || connection.echo().is_ok()
        });
        finish_round(shared, round);
        ready = wait(shared, &services, &connections);
    }
}

/// What there is to be done: a look at each of many sockets that rest would take longer than all of it.
#[derive(Default)]
struct Ready {
    services: Vec<Service>,
    /// Of each connection, in their order.
    connections: Vec<bool>,
}

fn finish_round(shared: &Shared, round: u64) {
    let mut state = lock(&shared.state);
    if state.done < round {
        state.done = round;
        shared.changed.notify_all();
    }
}

fn wait(
    shared: &Shared,
    services: &BTreeMap<Service, Socket>,
    connections: &[Connection],
) -> Ready {
    let wake = std::iter::once(PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN));
    let listeners = services
        .values()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    let established = connections
        .iter()
        .map(|one| PollFd::new(one.socket.as_fd(), one.events()));
    let mut fds: Vec<PollFd> = wake.chain(listeners).chain(established).collect();
    // Where poll does not say it, the next turn finds out.
    let unknown = poll(&mut fds, PollTimeout::NONE).is_err();
    let mut has_news = fds
        .iter()
        .skip(1)
        .map(|fd| unknown || fd.any().unwrap_or(true));
    // In the order in which they were handed over.
    let services = services.keys().copied();
    let services = services.filter(|_| has_news.next() == Some(true)).collect();
    Ready {
        services,
        connections: has_news.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{Lab, Probe};

    #[test]
    fn a_slow_server_is_not_a_firewall() -> Result<(), Error> {
        let lab = Lab::builder()
            .node("node-1")
            .pod("shop/web", "node-1")
            .pod("shop/db", "node-1")
            .build()?;
        let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            db.listen(protocol, 53)?;
            let servers: Vec<_> = lock(&db.registry().all)
                .iter()
                .filter_map(Weak::upgrade)
                .filter(|one| one.name == "shop/db")
                .collect();
            let (held, holding) = mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // No server gets past the beginning of its next turn.
                    let guards: Vec<_> = servers.iter().map(|one| lock(&one.state)).collect();
                    assert_eq!(guards.len(), 1);
                    let _ = held.send(());
                    std::thread::sleep(Duration::from_secs(1));
                });
                holding.recv().unwrap();
                let probe = Probe::new(protocol, db.ipv4()?, 53).window(Duration::from_millis(10));
                let outcome = web.probe(probe)?;
                assert_eq!(outcome.answered_by(), Some("shop/db"), "{protocol}");
                Ok::<(), Error>(())
            })?;
        }
        Ok(())
    }
}
