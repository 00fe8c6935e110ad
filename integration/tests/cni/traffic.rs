//! What a pod sends from its first instant, and what of it arrives.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use selvedge_lab::etherparse::{NetSlice, SlicedPacket, TransportSlice};
use selvedge_lab::{Error, Pod, wait_until};
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

const UDP: u16 = 7777;
const TCP: u16 = 7778;

/// How long a packet may be under way.
const FLIGHT: Duration = Duration::from_millis(150);

/// Datagrams and SYNs, over every family, as fast as a thread can without starving the others.
pub struct Sender {
    stop: Arc<AtomicBool>,
    datagrams: Arc<AtomicUsize>,
    thread: JoinHandle<Result<(usize, usize), Error>>,
}

impl Sender {
    pub fn start(from: &Pod, to: &Pod) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let datagrams = Arc::new(AtomicUsize::new(0));
        let targets = to.addresses().to_vec();
        let (sent, first) = mpsc::channel();
        let thread = from.netns().spawn({
            let (stop, datagrams) = (stop.clone(), datagrams.clone());
            move || send(&targets, &stop, &datagrams, &sent)
        })?;
        // How long it takes until a thread runs is the machine's business.
        let _ = first.recv();
        Ok(Self {
            stop,
            datagrams,
            thread,
        })
    }

    /// How many datagrams it has sent so far.
    pub fn datagrams(&self) -> usize {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Stops; how many datagrams and SYNs were sent.
    pub fn stop(self) -> Result<(usize, usize), Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn send(
    targets: &[IpAddr],
    stop: &AtomicBool,
    datagrams: &AtomicUsize,
    sent: &mpsc::Sender<()>,
) -> (usize, usize) {
    let any = |target: &IpAddr| match target {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let sockets = targets
        .iter()
        .map(|target| UdpSocket::bind(any(target)).unwrap());
    let sockets: Vec<UdpSocket> = sockets.collect();
    let mut connecting = Vec::new();
    let mut syns = 0;
    while !stop.load(Ordering::Relaxed) {
        for (socket, target) in sockets.iter().zip(targets) {
            let taken = socket.send_to(b"from my first instant", (*target, UDP));
            datagrams.fetch_add(usize::from(taken.is_ok()), Ordering::Relaxed);
        }
        if connecting.len() < 64 {
            for target in targets {
                let to = SocketAddr::new(*target, TCP);
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                // In progress: its SYN is sent, or waits for the neighbour's address.
                syns += usize::from(socket.connect(&to.into()).is_err());
                connecting.push(socket);
            }
        }
        let _ = sent.send(());
        sleep(Duration::from_micros(500));
    }
    (datagrams.load(Ordering::Relaxed), syns)
}

/// Counts what arrives.
pub struct Receiver {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicUsize>,
    /// How many turns have found nothing.
    empty: Arc<AtomicUsize>,
    first: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start(at: &Pod) -> Result<Self, Error> {
        let capture = at.capture()?;
        // A port that nobody serves would answer, and that answer would be a packet of a connection.
        let silent = at
            .netns()
            .run(|| UdpSocket::bind((IpAddr::from([0_u16; 8]), UDP)))?;
        let silent = silent.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicUsize::new(0));
        let empty = Arc::new(AtomicUsize::new(0));
        let first = Arc::new(Mutex::new(None));
        let asked = Arc::new(AtomicUsize::new(0));
        let own = at.ipv4()?.octets();
        let thread = std::thread::spawn({
            let (stop, arrived, first) = (stop.clone(), arrived.clone(), first.clone());
            let (asked, empty) = (asked.clone(), empty.clone());
            move || {
                let _silent = silent;
                while !stop.load(Ordering::Relaxed) {
                    let frame = capture.wait_for(Duration::from_millis(20), |frame| {
                        asked.fetch_add(usize::from(asks_for(own, frame)), Ordering::Relaxed);
                        is_ours(frame)
                    });
                    let Some(frame) = frame.unwrap() else {
                        empty.fetch_add(1, Ordering::Release);
                        continue;
                    };
                    arrived.fetch_add(1, Ordering::Relaxed);
                    first
                        .lock()
                        .unwrap()
                        .get_or_insert_with(|| described(&frame));
                }
            }
        });
        Ok(Self {
            stop,
            arrived,
            empty,
            first,
            asked,
            thread: Some(thread),
        })
    }

    /// Starts a sender and waits until its packets get as far as the bridge: the receiver is asked for its link address,
    /// which no policy forbids. The kernel takes its time to bring a new link up.
    pub fn hears(&self, from: &Pod, to: &Pod) -> Result<Sender, Error> {
        self.asked.store(0, Ordering::Relaxed);
        let sender = Sender::start(from, to)?;
        let what = format!("packets of {} reach the bridge", from.name());
        wait_until(&what, Duration::from_secs(20), || {
            Ok(self.asked.load(Ordering::Relaxed) > 0)
        })?;
        Ok(sender)
    }

    /// How many packets have arrived since the last call, when all that were sent have had their time.
    pub fn arrived(&self) -> usize {
        sleep(FLIGHT);
        // The thread may be behind. Of the next two turns that find nothing, the second one begins after this.
        let (before, deadline) = (
            self.empty.load(Ordering::Acquire),
            Instant::now() + PATIENCE,
        );
        while self.empty.load(Ordering::Acquire) < before + 2 {
            assert!(Instant::now() < deadline, "packets don't cease to arrive");
            sleep(Duration::from_millis(1));
        }
        self.arrived.swap(0, Ordering::Relaxed)
    }

    /// The first that has ever arrived, for the test's log.
    pub fn first(&self) -> Option<String> {
        self.first.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a frame is an ARP request for this address.
fn asks_for(address: [u8; 4], frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(38..42) == Some(&address)
}

fn is_ours(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).ok();
    match packet.and_then(|packet| packet.transport) {
        Some(TransportSlice::Udp(udp)) => udp.destination_port() == UDP,
        Some(TransportSlice::Tcp(tcp)) => tcp.destination_port() == TCP,
        _ => false,
    }
}

fn described(frame: &[u8]) -> String {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let from = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => IpAddr::from(ip.header().source()).to_string(),
        Some(NetSlice::Ipv6(ip)) => IpAddr::from(ip.header().source()).to_string(),
        _ => "nowhere".to_owned(),
    };
    match packet.transport {
        Some(TransportSlice::Udp(_)) => format!("a datagram from {from}"),
        _ => format!("a SYN from {from}"),
    }
}
