//! An API server that fails: each fault by itself, then a hundred at random with restarts of the daemon among them.
//! Whatever happens, a flow that is allowed goes on, one that is denied stays so, and at the end the kernel has what a
//! fresh compile of the API's objects gives.

use std::thread::sleep;
use std::time::{Duration, Instant};

use selvedge_lab::api::{Chaos, Cut, Endpoint, Gone, Reply, Which};
use selvedge_lab::stage::live::{IN_FORCE, Live};
use selvedge_lab::{Connects, Daemon, Error, Pod, Protocol, TcpFlow, wait_until};

use serde_json::json;

use super::{PATIENCE, PORT, Shop, ask, db_accepts, from, reaches};

/// Faults during churn.
const FAULTS: u64 = 100;

/// A node whose db accepts web alone, traffic of both kinds, and a guest that comes and goes.
struct Witness {
    live: Live,
    namespace: String,
    endpoint: Endpoint,
    guest: Pod,
    db: Pod,
    flow: TcpFlow,
    allowed: Connects,
    denied: Connects,
}

impl Witness {
    fn new() -> Result<(Self, Daemon), Error> {
        let pods: [_; 4] = [
            ("shop/web", 1, &[("app", "web")][..]),
            ("shop/guest", 1, &[("app", "guest")]),
            ("shop/stranger", 1, &[("app", "stranger")]),
            ("shop/db", 1, &[("app", "db")]),
        ];
        let mut live = Live::new(1, &pods)?;
        let namespace = live.namespace("shop")?;
        let db = live.pod("shop/db")?;
        db.listen(Protocol::Tcp, PORT)?;
        live.policy("shop/allow", &db_accepts(&from("web")))?;
        let daemon = live.run_command(1)?.args(["--api-silence", "2"]).daemon()?;
        daemon.wait_for_output(IN_FORCE, PATIENCE)?;
        let (web, guest) = (live.pod("shop/web")?, live.pod("shop/guest")?);
        let stranger = live.pod("shop/stranger")?;
        reaches(&stranger, &db, false)?;
        reaches(&web, &db, true)?;
        let (to, pace) = (db.ipv4()?, Duration::from_millis(10));
        let witness = Self {
            flow: TcpFlow::start(&web, to, PORT, Duration::from_millis(2))?,
            allowed: Connects::start(&web, to, PORT, pace)?,
            denied: Connects::start(&stranger, to, PORT, pace)?,
            endpoint: live.node(1).endpoint.clone(),
            namespace,
            guest,
            db,
            live,
        };
        Ok((witness, daemon))
    }

    /// Asks the API to admit the guest, or to do so no more.
    fn admit(&mut self, admitted: bool) -> Result<(), Error> {
        match admitted {
            true => self.live.policy("shop/more", &db_accepts(&from("guest"))),
            false => self.live.cluster.delete_policy(&self.namespace, "more"),
        }
    }

    /// Waits until packets of the guest show that what was asked is enforced.
    fn admitted(&self, admitted: bool) -> Result<(), Error> {
        reaches(&self.guest, &self.db, admitted)
    }

    /// Asserts that no traffic was hurt, and that the kernel has what a fresh compile gives.
    fn finish(self, what: &str) -> Result<(), Error> {
        assert_eq!(ask(&self.live, 1, "/readyz")?.0, 200, "{what}");
        assert!(!self.flow.has_ended(), "{what}: an allowed flow was cut");
        let flow = self.flow.stop()?;
        assert_eq!(flow.error, None, "{what}");
        let allowed = self.allowed.stop()?;
        assert_eq!(allowed.connected, allowed.attempts(), "{what}: {allowed:?}");
        let denied = self.denied.stop()?;
        assert_eq!(denied.denied, denied.attempts(), "{what}: {denied:?}");
        assert!(allowed.attempts() > 0 && denied.attempts() > 0);
        println!(
            "{what}: {} messages, {} handshakes, 0 cut; {} attempts denied, 0 let through",
            flow.answered, allowed.connected, denied.denied
        );
        let (kernel, fresh) = self.live.enforced_and_fresh(1)?;
        assert_eq!(kernel, fresh, "{what}");
        Ok(())
    }
}

/// A fault, how it begins and how it ends.
struct Fault {
    name: &'static str,
    begin: fn(&Endpoint) -> Result<(), Error>,
    end: fn(&Endpoint) -> Result<(), Error>,
}

/// Answers the next requests so, and cuts all streams, so that there are some.
fn answer(endpoint: &Endpoint, which: Which, reply: Reply) -> Result<(), Error> {
    endpoint.answer_next(4, which, reply);
    endpoint.cut(Cut::Clean);
    Ok(())
}

fn cut(endpoint: &Endpoint, how: Cut) -> Result<(), Error> {
    endpoint.cut(how);
    Ok(())
}

/// What was planned must have happened, or the fault was none.
fn answered(endpoint: &Endpoint) -> Result<(), Error> {
    wait_until("the planned answers to be asked for", PATIENCE, || {
        Ok(endpoint.planned() == 0)
    })
}

const fn of_answers(name: &'static str, begin: fn(&Endpoint) -> Result<(), Error>) -> Fault {
    Fault {
        name,
        begin,
        end: answered,
    }
}

const fn at_once(name: &'static str, begin: fn(&Endpoint) -> Result<(), Error>) -> Fault {
    Fault {
        name,
        begin,
        end: |_| Ok(()),
    }
}

const EACH: &[Fault] = &[
    at_once("streams that end", |e| cut(e, Cut::Clean)),
    at_once("streams that break", |e| cut(e, Cut::Abrupt)),
    at_once("streams that break within a line", |e| cut(e, Cut::MidLine)),
    at_once("connections that drop", |e| {
        e.hang_up();
        Ok(())
    }),
    of_answers("a version that is gone, over HTTP", |e| {
        answer(e, Which::verb("watch"), Reply::gone(Gone::Http))
    }),
    of_answers("a version that is gone, in a stream", |e| {
        answer(e, Which::verb("watch"), Reply::gone(Gone::Event))
    }),
    of_answers("429 with Retry-After", |e| {
        answer(e, Which::any(), Reply::Status(429, Some(1)))
    }),
    of_answers("500", |e| answer(e, Which::any(), Reply::Status(500, None))),
    of_answers("503", |e| answer(e, Which::any(), Reply::Status(503, None))),
    of_answers("403", |e| answer(e, Which::any(), Reply::Status(403, None))),
    of_answers("half a line", |e| answer(e, Which::any(), Reply::HalfLine)),
    of_answers("nothing", |e| answer(e, Which::any(), Reply::Empty)),
    of_answers("a web page", |e| answer(e, Which::any(), Reply::Html(200))),
    of_answers("a line of 64 MiB", |e| {
        e.answer_next(1, Which::verb("watch"), Reply::EnormousLine(64 << 20));
        e.cut(Cut::Clean);
        Ok(())
    }),
    Fault {
        name: "a token that has expired",
        begin: |e| {
            e.require_token(Some("second"));
            e.cut(Cut::Clean);
            Ok(())
        },
        end: |e| e.write_token("second"),
    },
    Fault {
        name: "silence",
        begin: |e| {
            e.stall(true);
            Ok(())
        },
        end: |e| {
            e.stall(false);
            Ok(())
        },
    },
    Fault {
        name: "an API server that is away",
        begin: Endpoint::down,
        end: Endpoint::up,
    },
];

#[test]
fn after_each_fault_what_was_asked_meanwhile_is_enforced() -> Result<(), Error> {
    let (mut witness, daemon) = Witness::new()?;
    let mut admitted = false;
    for fault in EACH {
        (fault.begin)(&witness.endpoint)?;
        admitted = !admitted;
        witness.admit(admitted)?;
        (fault.end)(&witness.endpoint)?;
        let enforced = witness.admitted(admitted);
        assert!(enforced.is_ok(), "{}: {enforced:?}", fault.name);
        assert_eq!(daemon.exit(), None, "{}", fault.name);
    }
    witness.finish("each fault by itself")
}

#[test]
fn a_hundred_faults_and_restarts_during_churn_change_nothing() -> Result<(), Error> {
    let (mut witness, mut daemon) = Witness::new()?;
    let seed = 0x5e1d_ed6e;
    let mut chaos = Chaos::new(seed);
    let mut restarts = 0;
    for n in 0..FAULTS {
        // Churn beside the flows: pods and policies that come and go.
        let name = format!("extra-{}", n % 5);
        let octet = 100 + u8::try_from(n % 5).unwrap_or_default();
        match n % 10 {
            0..5 => {
                let app = ["web", "guest"][usize::from(octet % 2)];
                let address = [[10, 244, 1, octet].into()];
                let pod = format!("shop/{name}");
                witness
                    .live
                    .report_pod(&pod, 1, &[("app", app)], &address)?;
            }
            _ => witness.live.cluster.finish_pod(&witness.namespace, &name)?,
        }
        let admitted = n % 2 == 0;
        witness.admit(admitted)?;
        let fault = chaos.fault();
        fault.strike(&witness.endpoint)?;
        // Most faults meet a daemon that hasn't got over the one before; some, one that has.
        sleep(Duration::from_millis(chaos.below(150)));
        if chaos.below(5) == 0 {
            let enforced = witness.admitted(admitted);
            assert!(enforced.is_ok(), "seed {seed:#x}, {fault:?}: {enforced:?}");
        }
        // Killed at any moment, or ended properly.
        if chaos.below(10) == 0 {
            if chaos.below(2) == 0 {
                daemon.terminate(PATIENCE)?;
            }
            drop(daemon);
            daemon = witness
                .live
                .run_command(1)?
                .args(["--api-silence", "2"])
                .daemon()?;
            restarts += 1;
        }
    }
    witness.endpoint.calm()?;
    // Once this is enforced, so is all that came before it.
    witness.admit(true)?;
    witness.admitted(true)?;
    wait_until("the daemon to be ready", PATIENCE, || {
        Ok(ask(&witness.live, 1, "/readyz").is_ok_and(|(code, _)| code == 200))
    })?;
    wait_until(
        "the kernel to have what a fresh compile gives",
        PATIENCE,
        || {
            let (kernel, fresh) = witness.live.enforced_and_fresh(1)?;
            Ok(kernel == fresh)
        },
    )?;
    assert!(restarts > 0);
    witness.finish(&format!(
        "{FAULTS} faults, {restarts} restarts, seed {seed:#x}"
    ))?;
    Ok(())
}

/// One that has lost its power closes nothing and refuses nothing. The daemon's own patience with silence is two minutes.
#[test]
fn a_server_that_acknowledges_nothing_any_more_is_given_up_soon() -> Result<(), Error> {
    let (mut shop, _daemon) = Shop::enforced()?;
    let node = shop.live.node(1);
    let (netns, port) = (node.node.netns().clone(), node.endpoint.address().port());
    let restarts = |shop: &Shop| -> Result<Vec<u64>, Error> {
        let (_, metrics) = shop.ask("/metrics")?;
        let lines = metrics.lines();
        let counts = lines.filter(|line| line.starts_with("selvedge_watch_restarts_total{"));
        Ok(counts
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect())
    };
    let before = restarts(&shop)?;
    assert_eq!(before.len(), 4);
    netns.nft(&format!(
        "table inet power {{ chain out {{ type filter hook output priority 0; tcp sport {port} drop; }}; }}"
    ))?;
    let started = Instant::now();
    wait_until("all streams to be given up", PATIENCE, || {
        Ok(restarts(&shop)?
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before))
    })?;
    println!("all streams were given up after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(40));
    netns.nft("delete table inet power")?;
    shop.policy("closed", &json!([]))?;
    shop.reaches(false)
}
