//! A day in the life of a daemon: a cluster's churn squeezed into minutes. At the end it holds what it would hold had it
//! just started, and every so often its ruleset is held against one compiled afresh.
//!
//! Memory is compared between processes, and so this test runs itself for each of them: one lives the day; one goes
//! along and compiles what there is afresh; one starts with the objects that the day leaves. The generator's events are
//! the same in all of them. It is a test target of its own, since everything in a process counts.
//!
//! `SELVEDGE_SOAK=1` makes it a whole day: 1,000,000 events.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a test may stop

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use peak_alloc::PeakAlloc;
use selvedge::cluster::Text;
use selvedge::cluster::object::Event;
use selvedge::compile::{Host, compile};
use selvedge::enforce::{Change, Outcome, Reconciler};
use selvedge::index::Index;
use selvedge::synthetic::{Cluster, NODE, Shape};
use selvedge_nft::{Fake, IfName, Ruleset};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Says to a process of this test which one it is.
const ROLE: &str = "SELVEDGE_DAY";

const CHECKPOINTS: usize = 10;

/// From one event to the next: a million of them are a day.
const EVENT: Duration = Duration::from_micros(86_400);

const SHAPE: Shape = Shape {
    pods: 10_000,
    local_pods: 50,
    policies: 1_000,
    namespaces: 100,
    seed: 24,
};

fn host() -> Host {
    Host::new(
        IfName::new("cni0").unwrap(),
        [IfName::new("veth0").unwrap()],
    )
}

fn events() -> usize {
    match std::env::var_os("SELVEDGE_SOAK") {
        Some(_) => 1_000_000,
        None => 50_000,
    }
}

/// What the daemon does between its sources and the kernel, with a kernel in memory.
struct Daemon {
    reconciler: Reconciler<Fake>,
    kernel: Fake,
    commits: usize,
    /// The day's time, which goes by faster than the test's.
    now: Instant,
}

impl Daemon {
    fn start(cluster: &Cluster) -> Self {
        let kernel = Fake::new();
        let mut daemon = Self {
            reconciler: Reconciler::new(kernel.clone(), Text::from(NODE), host()),
            kernel,
            commits: 0,
            now: Instant::now(),
        };
        let objects = cluster.objects();
        let objects = objects.map(|object| Change::Cluster(Event::Apply(object)));
        daemon.reconciler.take(objects, daemon.now);
        daemon.step(Vec::new());
        daemon
    }

    fn step(&mut self, events: Vec<Event>) {
        self.now += EVENT * u32::try_from(events.len()).unwrap();
        let changes = events.into_iter().map(Change::Cluster);
        match self.reconciler.step(changes, self.now) {
            Outcome::Committed(_) => self.commits += 1,
            Outcome::Unchanged => {}
            Outcome::Retry(_) => panic!("the kernel in memory refuses a transaction"),
        }
        self.kernel.take_log();
    }
}

/// The day's events up to one checkpoint after the other, in bursts: one event comes alone as often as not. At a
/// checkpoint what has begun is over, and the cluster's objects are what its events have made of it.
fn day(
    cluster: &mut Cluster,
    mut happen: impl FnMut(Vec<Event>),
    mut checkpoint: impl FnMut(&Cluster, usize),
) {
    let mut rng = Rng::with_seed(SHAPE.seed);
    let mut done = 0;
    for part in 1..=CHECKPOINTS {
        let until = events() * part / CHECKPOINTS;
        while done < until {
            let burst = [1, 1, 1, 2, 4, 50][rng.usize(..6)].min(until - done);
            done += burst;
            happen((0..burst).map(|_| cluster.next_event()).collect());
        }
        happen(cluster.settle());
        checkpoint(cluster, done);
    }
}

/// The three processes.
const PROCESSES: [&str; 3] = ["the day", "compiled afresh", "a fresh start"];

/// What a process of this test does.
fn play(role: &str) {
    let mut cluster = Cluster::new(SHAPE);
    let say = |done, ruleset: &Ruleset| println!("{RULESET} {done} {:016x}", digest(ruleset));
    let daemon = match role {
        "the day" => {
            let daemon = RefCell::new(Daemon::start(&cluster));
            let mut started = Instant::now();
            let happen = |events| daemon.borrow_mut().step(events);
            day(&mut cluster, happen, |cluster, done| {
                let daemon = daemon.borrow();
                say(done, &daemon.kernel.ruleset());
                let (pods, commits, heap) =
                    (cluster.pods(), daemon.commits, HEAP.current_usage() >> 10);
                let took = started.elapsed();
                println!("{done} events: {pods} pods, {commits} commits, {heap} KiB, {took:.1?}");
                started = Instant::now();
            });
            let mut daemon = daemon.into_inner();
            // What is remembered for a while is forgotten with the next event, which need be no news.
            daemon.now += Duration::from_secs(60);
            let known = cluster.objects().next().map(Event::Apply);
            daemon.step(known.into_iter().collect());
            daemon
        }
        "compiled afresh" => {
            return day(&mut cluster, drop, |cluster, done| {
                let mut index = Index::new();
                for object in cluster.objects() {
                    index.apply(Event::Apply(object));
                }
                say(done, &compile(&index, &Text::from(NODE), &host()));
            });
        }
        _ => {
            day(&mut cluster, drop, |_, _| {});
            Daemon::start(&cluster)
        }
    };
    drop(cluster);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB");
    let (heap, texts) = (HEAP.current_usage(), Text::num_objects_interned());
    println!("{FIGURES} {heap} {resident} {texts}");
    drop(daemon);
    assert_eq!(Text::num_objects_interned(), 0, "texts outlive their users");
}

/// Everything in a ruleset, as a number that tells it from others.
fn digest(ruleset: &Ruleset) -> u64 {
    struct Digest(DefaultHasher);
    impl Write for Digest {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut digest = Digest(DefaultHasher::new());
    write!(digest, "{ruleset:?}").unwrap();
    digest.0.finish()
}

/// What a process says at its end: heap in bytes, resident memory in KiB, interned texts.
const FIGURES: &str = "figures:";
/// And at each checkpoint: how many events there were, and the ruleset's digest.
const RULESET: &str = "ruleset";

/// Runs a process, and gives what it says.
fn process(role: &str) -> String {
    let started = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_day_leaves_nothing_behind", "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    print!("{role}, {:.1?}:{said}{errors}", started.elapsed());
    assert!(output.status.success(), "{role}: {}", output.status);
    said
}

fn figures(said: &str) -> [usize; 3] {
    let figures = said.lines().find_map(|line| line.split_once(FIGURES));
    let figures = figures.unwrap().1.split_whitespace();
    let figures: Vec<usize> = figures.map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().unwrap()
}

fn rulesets(said: &str) -> Vec<&str> {
    let lines = said.lines();
    lines.filter(|line| line.starts_with(RULESET)).collect()
}

#[test]
fn a_day_leaves_nothing_behind() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let [day, afresh, start] = PROCESSES.map(process);
    let checkpoints = rulesets(&day);
    assert_eq!(checkpoints.len(), CHECKPOINTS);
    assert_eq!(checkpoints, rulesets(&afresh), "the ruleset of the day");

    let [heap, resident, texts] = figures(&day);
    let [fresh_heap, fresh_resident, fresh_texts] = figures(&start);
    let more = |day: usize, fresh: usize| 100.0 * (day as f64 / fresh as f64 - 1.0);
    let (more_heap, more_resident) = (more(heap, fresh_heap), more(resident, fresh_resident));
    println!(
        "after {} events, against a fresh start with the same objects: heap {} KiB ({more_heap:+.1} %), resident {resident} KiB ({more_resident:+.1} %)",
        events(),
        heap >> 10,
    );
    assert_eq!(texts, fresh_texts, "interned texts");
    assert!(more_heap <= 5.0, "{heap} bytes, and {fresh_heap}");
    assert!(
        more_resident <= 25.0,
        "{resident} KiB, and {fresh_resident}"
    );
}
