//! Traffic between the pods of [`super::edits`] while something goes on: what may pass must pass unharmed, and nothing of what
//! may not.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use selvedge_lab::{Connects, Error, Lab, Pod, Probe, Protocol, TcpFlow, UdpStream};

/// Shorter than TCP's first retransmission (1 s): a handshake that lost a segment counts as denied.
const WINDOW: Duration = Duration::from_millis(900);
const PACE: Duration = Duration::from_millis(10);
/// From one handshake to the next: so many that some fall into the microseconds of a commit. The source ports come round
/// after more than two minutes, when connection tracking has long forgotten them.
const HANDSHAKES: Duration = Duration::from_millis(5);

/// From web to the servers, and from those who may not reach them: on one node and across, over both families.
pub struct Traffic {
    allowed: Vec<Allowed>,
    denied: Vec<Denied>,
    datagrams: Datagrams,
}

impl Traffic {
    /// Starts it all. The policies must be in force.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        let [web, api, db] = lab.pods_named(["shop/web", "shop/api", "shop/db"])?;
        let [stranger, sink, other] = lab.pods_named(["dev/stranger", "dev/sink", "dev/other"])?;
        for server in [&api, &db, &sink] {
            server.listen(Protocol::Tcp, 80)?;
            server.listen(Protocol::Udp, 80)?;
        }
        let mut allowed = Vec::new();
        for to in [&api, &db] {
            for address in to.addresses() {
                allowed.push(Allowed::start(&web, to, *address)?);
            }
        }
        let mut denied = Vec::new();
        // On one node and across, by ingress and (web to sink) by egress.
        for (from, to) in [
            (&stranger, &api),
            (&stranger, &db),
            (&other, &db),
            (&other, &api),
            (&web, &sink),
        ] {
            for address in to.addresses() {
                denied.push(Denied::start(from, to, *address)?);
            }
        }
        Ok(Self {
            allowed,
            denied,
            datagrams: Datagrams::start(web, vec![api, db])?,
        })
    }

    /// Ends it, prints what became of it, and asserts that nothing was harmed and nothing got through.
    pub fn stop(self) -> Result<(), Error> {
        self.datagrams.stop()?;
        self.allowed.into_iter().try_for_each(Allowed::stop)?;
        // Each waits a while for late answers.
        thread::scope(|scope| {
            let denied = self.denied.into_iter();
            let stops: Vec<_> = denied.map(|one| scope.spawn(|| one.stop())).collect();
            let mut results = stops.into_iter().map(|stop| stop.join());
            results.try_for_each(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }
}

/// Traffic that must pass unharmed from one pod to another.
struct Allowed {
    what: String,
    tcp: TcpFlow,
    udp: UdpStream,
    connects: Connects,
}

impl Allowed {
    fn start(from: &Pod, to: &Pod, address: IpAddr) -> Result<Self, Error> {
        Ok(Self {
            what: format!("{} to {} at {address}", from.name(), to.name()),
            tcp: TcpFlow::start(from, address, 80, PACE)?,
            udp: UdpStream::start(from, address, 80, 100)?,
            connects: Connects::start_with_window(from, address, 80, HANDSHAKES, WINDOW)?,
        })
    }

    fn stop(self) -> Result<(), Error> {
        let (tcp, udp) = (self.tcp.stop()?, self.udp.stop()?);
        let connects = self.connects.stop()?;
        println!(
            "allowed: {}: TCP messages {} answered {} (retransmitted {:?}, longest stall {:?}); datagrams {} lost {}; \
             handshakes {} completed {} (slowest {:?})",
            self.what,
            tcp.sent,
            tcp.answered,
            tcp.retransmits,
            tcp.longest_stall,
            udp.sent,
            udp.lost(),
            connects.attempts(),
            connects.connected,
            connects.slowest,
        );
        let what = &self.what;
        assert_eq!((tcp.answered, tcp.error), (tcp.sent, None), "{what}");
        assert_eq!(
            (udp.lost(), udp.errors),
            (0, 0),
            "{what}: {:?}",
            udp.missing
        );
        assert_eq!(
            connects.connected,
            connects.attempts(),
            "{what}: {connects:?}"
        );
        assert!(
            tcp.sent > 0 && udp.sent > 0 && connects.attempts() > 0,
            "{what}"
        );
        Ok(())
    }
}

/// Traffic that must not pass at all.
struct Denied {
    what: String,
    udp: UdpStream,
    connects: Connects,
}

impl Denied {
    fn start(from: &Pod, to: &Pod, address: IpAddr) -> Result<Self, Error> {
        Ok(Self {
            what: format!("{} to {} at {address}", from.name(), to.name()),
            udp: UdpStream::start(from, address, 80, 100)?,
            connects: Connects::start_with_window(from, address, 80, HANDSHAKES, PACE * 30)?,
        })
    }

    fn stop(self) -> Result<(), Error> {
        let (udp, connects) = (self.udp.stop()?, self.connects.stop()?);
        println!(
            "denied: {}: datagrams {} answered {}; handshakes {} completed {}",
            self.what,
            udp.sent,
            udp.answered,
            connects.attempts(),
            connects.connected,
        );
        let what = &self.what;
        assert_eq!((udp.answered, udp.errors), (0, 0), "{what}");
        assert_eq!(connects.denied, connects.attempts(), "{what}: {connects:?}");
        assert!(udp.sent > 0 && connects.attempts() > 0, "{what}");
        Ok(())
    }
}

/// Datagrams from ever new ports to each server.
struct Datagrams {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<(usize, Vec<String>), Error>>,
}

impl Datagrams {
    fn start(from: Pod, servers: Vec<Pod>) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = servers.iter().flat_map(|pod| pod.addresses());
        let probes: Vec<Probe> = addresses.map(|to| Probe::udp(*to, 80)).collect();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut asked, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                for (probe, outcome) in probes.iter().zip(from.probe_all(&probes)?) {
                    asked += 1;
                    if outcome.answered_by().is_none() {
                        failed.push(format!("{probe:?}: {outcome}"));
                    }
                }
                thread::sleep(PACE);
            }
            Ok((asked, failed))
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, failed) = self
            .thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))?;
        println!(
            "allowed: datagrams from new ports {asked}, lost {}",
            failed.len()
        );
        assert!(asked > 0 && failed.is_empty(), "{failed:?}");
        Ok(())
    }
}
