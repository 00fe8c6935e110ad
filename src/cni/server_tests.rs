use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Stream;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::observe::checker::{Format, check};

/// A server within narrow limits on a thread of its own; `act` is the loop.
struct Running {
    directory: tempfile::TempDir,
    observer: Arc<Observer>,
    _stop: oneshot::Sender<()>,
}

fn running(act: impl Fn(Ask) + Send + 'static) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let observer = Observer::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::spawn({
        let path = directory.path().join("run/cni.sock");
        let observer = observer.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut server, ..) = Server::bind(&path).unwrap();
                server.limits = Limits {
                    unheard: 8,
                    waiting: 4,
                    line: Duration::from_secs(5),
                };
                ready.send(()).unwrap();
                let send = move |ask| {
                    act(ask);
                    true
                };
                tokio::select! {
                    () = server.serve(observer, send) => {}
                    _ = stopped => {}
                }
            });
        }
    });
    started.recv().unwrap();
    Running {
        directory,
        observer,
        _stop: stop,
    }
}

impl Running {
    fn connect(&self) -> Stream {
        let stream = Stream::connect(self.directory.path().join("run/cni.sock")).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream
    }

    /// The reply to these bytes.
    fn say(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut stream = self.connect();
        // A server that has heard enough does not take the rest.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        protocol::reply(&reply).unwrap()
    }

    fn requests(&self, command: &str, outcome: &str) -> f64 {
        let text = self.observer.open_metrics().unwrap();
        let exposed = check(&text, Format::OpenMetrics).unwrap();
        let label = format!("command={command},outcome={outcome}");
        exposed.value("selvedge_cni_requests_total", &label)
    }
}

const STATUS: &[u8] = b"{\"version\":1,\"command\":\"status\"}\n";

fn add(patience: u64) -> Vec<u8> {
    let record = crate::cni::store::tests::record("a");
    let request = protocol::Request {
        version: protocol::VERSION,
        command: Command::Add {
            attachment: record.attachment,
            patience,
        },
    };
    protocol::line(&request).unwrap()
}

fn done(ask: Ask) {
    ask.progress.send_replace(Progress::Done(Ok(())));
}

#[test]
fn a_request_is_answered_when_it_is_done() {
    let server = running(done);
    assert_eq!(server.say(STATUS), Ok(()));
    assert_eq!(server.say(&add(1000)), Ok(()));
    assert_eq!(server.requests("add", "done"), 1.0);
    assert_eq!(server.requests("status", "done"), 1.0);
    let text = server.observer.open_metrics().unwrap();
    assert!(text.contains("selvedge_cni_add_seconds_count 1"), "{text}");
}

#[test]
fn what_is_late_is_refused_with_what_it_waits_for() {
    let kept = std::sync::Mutex::new(Vec::new());
    let server = running(move |ask| {
        let text = "the pod is not known yet".to_owned();
        ask.progress.send_replace(Progress::Waiting(text));
        kept.lock().unwrap().push(ask);
    });
    let refusal = server.say(&add(50)).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotReady);
    assert!(refusal.message.contains("is not known yet"), "{refusal}");
    assert_eq!(server.requests("add", "late"), 1.0);
}

#[test]
fn a_request_that_is_forgotten_is_refused() {
    let server = running(drop);
    let refusal = server.say(STATUS).unwrap_err();
    assert!(refusal.message.contains("stopping"), "{refusal}");
}

#[test]
fn garbage_is_refused_and_the_next_is_heard() {
    let server = running(done);
    let megabytes = vec![b'a'; 64 << 20];
    for garbage in [
        &b""[..],
        b"\n",
        b"{}\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 4096],
        &[0xff, b'\n'],
        &STATUS[..10],
        &megabytes,
    ] {
        let refusal = server.say(garbage).unwrap_err();
        assert_eq!(refusal.reason, Reason::Malformed);
        assert_eq!(server.say(STATUS), Ok(()));
    }
    assert_eq!(server.requests("unknown", "malformed"), 8.0);
}

#[test]
fn slow_and_silent_clients_keep_nobody_out() {
    let server = running(done);
    let mut silent: Vec<Stream> = (0..100).map(|_| server.connect()).collect();
    for stream in &mut silent {
        let _ = stream.write_all(b"{\"ver");
    }
    assert_eq!(server.say(STATUS), Ok(()));
    // Byte by byte, for ever: its time is over before that.
    let mut slow = server.connect();
    let started = Instant::now();
    while slow.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(server.say(STATUS), Ok(()));
}

#[test]
fn no_more_wait_than_may() {
    let (waiting, kept) = (Arc::new(AtomicUsize::new(0)), std::sync::Mutex::new(vec![]));
    let server = running({
        let waiting = waiting.clone();
        move |ask| {
            waiting.fetch_add(1, Ordering::Relaxed);
            kept.lock().unwrap().push(ask);
        }
    });
    let mut streams = Vec::new();
    for n in 1..=4 {
        let mut stream = server.connect();
        stream.write_all(&add(60_000)).unwrap();
        streams.push(stream);
        while waiting.load(Ordering::Relaxed) < n {
            std::thread::yield_now();
        }
    }
    let refusal = server.say(&add(60_000)).unwrap_err();
    assert!(refusal.message.contains("too many"), "{refusal}");
}
