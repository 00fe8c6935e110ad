//! What others do to the tables is put right: how soon, at which size, and that nothing else is touched by it.
//!
//! The time is taken from the kernel's own generation, which each commit advances: the foreign change's, then the repair's.
//! Nobody listens to notifications for it, which would make a large commit many times slower.
//! `SELVEDGE_SOAK=1` does each change a hundred times, and also on a node with a million elements.

#![allow(clippy::unwrap_used)] // in the helpers of tests, as in the tests themselves

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use selvedge::compile::tables;
use selvedge_lab::stage::{self, Manifests, node};
use selvedge_lab::{Daemon, Error, Lab, Netns, Node};
use selvedge_nft::{Dataplane, DataplaneError, Elements, Kernel, Name, Ruleset, Table, diff};

const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the generation.
const GLANCE: Duration = Duration::from_micros(200);

/// A table of somebody else's.
const FIREWALL: &str = "table inet firewall {
    set bad { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 }; }
    chain forward { type filter hook forward priority 10; ip saddr @bad counter drop; }
}";

/// A node, and the bounds for it.
struct Scale {
    name: &'static str,
    local_pods: usize,
    policies_a_pod: usize,
    /// Selectors that the policies share: each is a set.
    selectors: usize,
    remote_pods: usize,
    /// Apps among the remote pods; a selector selects one.
    apps: usize,
    /// How often the whole ruleset is read and compared.
    compare: usize,
    /// How many transactions bring a wiped table back: what closes the pods comes before the rules, and where these take
    /// long the elements of large sets after them, here one set at a time.
    transactions: u32,
}

const TEN_THOUSAND: Scale = Scale {
    name: "50 pods x 5 policies, 10,000 elements",
    local_pods: 50,
    policies_a_pod: 5,
    selectors: 10,
    remote_pods: 1_000,
    apps: 1,
    compare: 1,
    transactions: 2,
};

const MILLION: Scale = Scale {
    name: "250 pods x 10 policies, 1,000,000 elements",
    local_pods: 250,
    policies_a_pod: 10,
    selectors: 100,
    remote_pods: 100_000,
    apps: 10,
    compare: 10,
    transactions: 102,
};

impl Scale {
    fn elements(&self) -> usize {
        self.selectors * self.remote_pods / self.apps
    }

    fn manifests(&self) -> Result<Manifests, Error> {
        let manifests = Manifests::new()?;
        manifests.put("node.yaml", node(1))?;
        let mut text = String::new();
        for n in 0..self.local_pods {
            let labels = format!("group: '{n}'");
            pod(
                &mut text,
                &format!("local-{n}"),
                "node-1",
                &labels,
                0x0af4_0102 + n,
            );
            for p in 0..self.policies_a_pod {
                let selector = (n * self.policies_a_pod + p) % self.selectors;
                let app = selector % self.apps;
                let spec = format!(
                    "{{podSelector: {{matchLabels: {{group: '{n}'}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [app-{app}, canary-{selector}]}}]}}}}], ports: [{{port: {}}}]}}]}}",
                    1000 + p
                );
                text += &stage::policy(&format!("shop/allow-{n}-{p}"), &spec);
            }
        }
        manifests.put("local.yaml", &text)?;
        for (part, first) in (0..self.remote_pods).step_by(5_000).enumerate() {
            text.clear();
            for n in first..(first + 5_000).min(self.remote_pods) {
                let labels = format!("app: app-{}", n % self.apps);
                pod(
                    &mut text,
                    &format!("remote-{n}"),
                    "node-2",
                    &labels,
                    0x6440_0000 + n,
                );
            }
            manifests.put(&format!("remote-{part}.yaml"), &text)?;
        }
        Ok(manifests)
    }
}

fn pod(text: &mut String, name: &str, node: &str, labels: &str, address: usize) {
    let address = Ipv4Addr::from(u32::try_from(address).unwrap());
    writeln!(
        text,
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}, \
         spec: {{nodeName: {node}, containers: [{{name: main, image: x}}]}}, \
         status: {{phase: Running, podIPs: [{{ip: {address}}}]}}}}"
    )
    .unwrap();
}

/// What somebody else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Flush,
    DeleteElement,
    InsertAccept,
    DeleteTable,
}

const DEEDS: [Deed; 4] = [
    Deed::Flush,
    Deed::DeleteElement,
    Deed::InsertAccept,
    Deed::DeleteTable,
];

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Flush => "nft flush ruleset",
            Self::DeleteElement => "an element deleted",
            Self::InsertAccept => "an accept inserted",
            Self::DeleteTable => "the table deleted",
        }
    }

    /// Whether all of the table goes.
    fn wipes(self) -> bool {
        matches!(self, Self::Flush | Self::DeleteTable)
    }

    /// It, as a script: what of the table is drawn.
    fn script(self, table: &Table, dice: &mut Dice) -> String {
        match self {
            Self::Flush => "flush ruleset".to_owned(),
            Self::DeleteTable => "delete table inet selvedge".to_owned(),
            Self::InsertAccept => {
                let chains: Vec<&Name> = table.chains.keys().collect();
                let chain = chains[dice.below(chains.len())];
                format!("insert rule inet selvedge {chain} accept")
            }
            Self::DeleteElement => {
                let sets = table.sets.iter();
                // Those of IPv6 have nothing in them here.
                let sets = sets.filter(|(name, set)| {
                    name.as_str().starts_with("pods-") && !set.elements.is_empty()
                });
                let sets: Vec<_> = sets.collect();
                let (name, set) = sets[dice.below(sets.len())];
                let Elements::Keys(keys) = &set.elements else {
                    panic!("{name} is no set of addresses");
                };
                let key = keys.iter().nth(dice.below(keys.len())).unwrap();
                let address = Ipv4Addr::from(<[u8; 4]>::try_from(key.as_bytes()).unwrap());
                format!("delete element inet selvedge {name} {{ {address} }}")
            }
        }
    }
}

/// Numbers at random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// Each deed so many times, shuffled.
fn deeds(times: usize, dice: &mut Dice) -> Vec<Deed> {
    let mut all: Vec<Deed> = DEEDS.iter().copied().cycle().take(4 * times).collect();
    for n in (1..all.len()).rev() {
        all.swap(n, dice.below(n + 1));
    }
    all
}

/// A node whose daemon runs, and what its tables hold.
struct Stage {
    ruleset: Ruleset,
    /// Another socket in the node's namespace.
    kernel: Kernel,
    daemon: Daemon,
    node: Node,
    _lab: Lab,
    _manifests: Manifests,
}

impl Stage {
    fn new(scale: &Scale, own_table: &str) -> Result<Self, Error> {
        let manifests = scale.manifests()?;
        let lab = Lab::builder().node("node-1").build()?;
        let node = lab.node("node-1")?;
        let command = stage::run_command(&node, manifests.path())?;
        let daemon = command
            .args(["--http", "off", "--own-table", own_table])
            .daemon()?;
        daemon.wait_for_output("the policies are in force", PATIENCE)?;
        let opened = || {
            let mut kernel = Kernel::open()?;
            let ruleset = kernel.read(&tables())?;
            Ok((kernel, ruleset))
        };
        let (kernel, ruleset) = node.netns().run(opened)?.map_err(invalid)?;
        let mut stage = Self {
            ruleset,
            kernel,
            daemon,
            node,
            _lab: lab,
            _manifests: manifests,
        };
        stage.node.netns().nft(FIREWALL)?;
        assert!(stage.elements() >= scale.elements());
        stage.settled()?;
        Ok(stage)
    }

    fn table(&self) -> &Table {
        self.ruleset.tables.get(&tables()[0]).unwrap()
    }

    fn elements(&self) -> usize {
        let sets = self.table().sets.values();
        sets.map(|set| set.elements.len()).sum()
    }

    /// The generation, once nobody has changed anything for a moment.
    fn settled(&mut self) -> Result<u32, Error> {
        let mut last = self.kernel.generation().map_err(invalid)?;
        loop {
            thread::sleep(Duration::from_millis(20));
            let now = self.kernel.generation().map_err(invalid)?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    /// The table of somebody else's, with handles.
    fn firewall(&self) -> Result<String, Error> {
        let words = ["-a", "list", "table", "inet", "firewall"];
        self.node.netns().command("nft").args(words).run()
    }

    /// Does it, and waits until it is put right.
    fn repaired(&mut self, scale: &Scale, deed: Deed, script: &str) -> Result<Repair, Error> {
        let all = match deed.wipes() {
            true => scale.transactions,
            false => 1,
        };
        let before = self.kernel.generation().map_err(invalid)?;
        let netns = self.node.netns();
        let (kernel, ruleset) = (&mut self.kernel, &self.ruleset);
        thread::scope(|scope| {
            let foreigner = scope.spawn(|| netns.nft(script).map(|()| Instant::now()));
            let mut reached = |expected: u32| {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let generation = kernel.generation().map_err(invalid)?;
                    if generation >= expected {
                        return Ok::<_, Error>(Instant::now());
                    }
                    if Instant::now() >= deadline {
                        // It may be right all the same, by fewer transactions.
                        let is = match kernel.read(&tables()).map_err(invalid)? == *ruleset {
                            true => "is",
                            false => "is not",
                        };
                        panic!(
                            "{script} {is} put right at generation {generation}; expected was {expected}"
                        );
                    }
                    thread::sleep(GLANCE);
                }
            };
            let done = reached(before + 1)?;
            let closed = reached(before + 1 + 1)?;
            let repaired = reached(before + 1 + all)?;
            let returned = foreigner.join().unwrap()?;
            Ok(Repair {
                deed,
                closed: closed - done,
                after_deed: repaired - done,
                after_return: repaired.saturating_duration_since(returned),
                bare: Duration::ZERO,
            })
        })
    }

    /// Asserts that the tables hold what they held at first.
    fn compare(&mut self, what: &str) -> Result<(), Error> {
        let held = self.kernel.read(&tables()).map_err(invalid)?;
        assert!(held == self.ruleset, "{what}: another ruleset is in force");
        Ok(())
    }
}

fn invalid(error: DataplaneError) -> Error {
    Error::Invalid {
        what: error.to_string(),
    }
}

/// A repair: of what, how long after the kernel had carried the deed out nothing was open any more, how long after it and
/// after nft had ended all was as before; and how long nft took in the same turn to list a small table.
struct Repair {
    deed: Deed,
    closed: Duration,
    after_deed: Duration,
    after_return: Duration,
    bare: Duration,
}

/// Sorts times and prints them as a line of the table; the answer is the median and the 99th percentile.
fn print(name: &str, times: impl Iterator<Item = Duration>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let share = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    let ms = [50, 99, 100].map(|percent| format!("{:.1} ms", share(percent).as_secs_f64() * 1e3));
    println!("{name:44} {:>10} {:>10} {:>10}", ms[0], ms[1], ms[2]);
    (share(50), share(99))
}

/// Does each deed so many times, in any order.
fn repairs(stage: &mut Stage, scale: &Scale, times: usize) -> Result<Vec<Repair>, Error> {
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut dice = Dice(seed);
    let mut firewall = stage.firewall()?;
    let mut repairs = Vec::new();
    for (n, deed) in deeds(times, &mut dice).into_iter().enumerate() {
        let script = deed.script(stage.table(), &mut dice);
        let mut repair = stage.repaired(scale, deed, &script)?;
        if n % scale.compare == 0 {
            stage.compare(&script)?;
        }
        if deed == Deed::Flush {
            let left = stage
                .node
                .netns()
                .command("nft")
                .args(["list", "tables"])
                .run()?;
            let mut left: Vec<&str> = left.lines().collect();
            left.sort_unstable();
            assert_eq!(left, ["table bridge selvedge", "table inet selvedge"]);
            stage.node.netns().nft(FIREWALL)?;
            firewall = stage.firewall()?;
        }
        let asked = Instant::now();
        assert_eq!(stage.firewall()?, firewall, "{script}");
        repair.bare = asked.elapsed();
        repairs.push(repair);
        // Neither the repair nor what others do to their own tables makes work.
        let quiet = stage.kernel.generation().map_err(invalid)?;
        assert_eq!(stage.settled()?, quiet, "{script}");
    }
    stage.compare("the end")?;
    let said = stage.daemon.stderr();
    let named = said.matches("nft (process ").count();
    // Each wipe was closed before it was put right.
    let closed = said.matches("until the rules are back").count();
    assert_eq!(closed, repairs.iter().filter(|r| r.deed.wipes()).count());
    println!(
        "\n{}; {named} of {} name the process (seed {seed})",
        scale.name,
        repairs.len()
    );
    println!(
        "{:44} {:>10} {:>10} {:>10}",
        "put right after", "median", "p99", "longest"
    );
    for deed in DEEDS {
        let of = repairs.iter().filter(|repair| repair.deed == deed);
        print(deed.name(), of.map(|repair| repair.after_deed));
    }
    print(
        "all, from the kernel's commit of the change",
        repairs.iter().map(|repair| repair.after_deed),
    );
    Ok(repairs)
}

/// How long the kernel takes for the ruleset where nothing is, in a namespace where nobody listens.
fn load(ruleset: &Ruleset) -> Result<Duration, Error> {
    let load = || {
        let mut kernel = Kernel::open()?;
        let transaction = diff(&Ruleset::default(), ruleset);
        let started = Instant::now();
        kernel.commit(&transaction)?;
        Ok(started.elapsed())
    };
    Netns::new("load")?.run(load)?.map_err(invalid)
}

fn soak() -> bool {
    std::env::var_os("SELVEDGE_SOAK").is_some()
}

#[test]
fn what_others_change_is_put_right_at_once() -> Result<(), Error> {
    let times = if soak() { 100 } else { 5 };
    let mut stage = Stage::new(&TEN_THOUSAND, "off")?;
    let repairs = repairs(&mut stage, &TEN_THOUSAND, times)?;
    let times = repairs.iter().map(|repair| repair.after_return);
    let (median, p99) = print("all, from nft's return", times);
    let wiped = repairs.iter().filter(|repair| repair.deed.wipes());
    let (closed, _) = print("nothing open, from the wipe", wiped.map(|r| r.closed));
    // What the machine is busy with otherwise.
    let (bare, _) = print(
        "nft alone, in the same turns",
        repairs.iter().map(|r| r.bare),
    );
    // A daemon that is not optimised, beside other tests, takes longer, and now and then much longer.
    let (most, longest) = match soak() {
        true => (Duration::from_millis(50), Duration::from_millis(250)),
        false => (Duration::from_millis(200) + 3 * bare, PATIENCE / 10),
    };
    assert!(median <= most, "{median:?}, {most:?}");
    assert!(p99 <= longest, "{p99:?}");
    assert!(closed <= most, "{closed:?}, {most:?}");
    Ok(())
}

/// All of a million elements can't be back sooner than the kernel takes them, but nothing is open until then.
#[test]
fn so_it_is_on_a_node_with_a_million_elements() -> Result<(), Error> {
    if !soak() {
        return Ok(());
    }
    let mut stage = Stage::new(&MILLION, "off")?;
    let repairs = repairs(&mut stage, &MILLION, 100)?;
    // A listener in any namespace makes large transactions slow in all of them.
    let Stage {
        ruleset, daemon, ..
    } = stage;
    drop(daemon);
    let loads = (0..5).map(|_| load(&ruleset));
    let loads = loads.collect::<Result<Vec<_>, _>>()?;
    let closed = |wiped: bool| {
        let repairs = repairs.iter();
        let repairs = repairs.filter(move |repair| repair.deed.wipes() == wiped);
        repairs.map(|repair| repair.closed)
    };
    let of = |wiped: bool| {
        let repairs = repairs.iter();
        let repairs = repairs.filter(move |repair| repair.deed.wipes() == wiped);
        repairs.map(|repair| repair.after_return)
    };
    let (_, parts) = print("parts of it, from the change", closed(false));
    // Where the daemon comes too late, the wiping transaction's own end in the kernel, during which nobody else can commit,
    // is in it.
    let (_, closed) = print("nothing open, from the wipe", closed(true));
    let (wiped, _) = print("all of it, from nft's return", of(true));
    let (load, _) = print("the kernel alone, for all of it", loads.into_iter());
    let most = Duration::from_millis(500);
    assert!(parts <= most, "{parts:?}");
    assert!(closed <= most, "{closed:?}");
    assert!(wiped <= load + most, "{wiped:?}");
    Ok(())
}

#[test]
fn nothing_is_to_be_put_right_where_the_tables_are_the_daemon_s() -> Result<(), Error> {
    let mut dice = Dice(u64::from(std::process::id()) << 20 | 1);
    let mut stage = Stage::new(&TEN_THOUSAND, "on")?;
    let firewall = stage.firewall()?;
    let times = if soak() { 100 } else { 5 };
    for deed in deeds(times, &mut dice) {
        let script = deed.script(stage.table(), &mut dice);
        let before = stage.settled()?;
        let command = stage.node.netns().command("nft").args(["-f", "-"]);
        let output = command.input(script.as_str()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if deed == Deed::Flush {
            assert_eq!(output.status.code(), Some(0), "{said}");
            let left = stage
                .node
                .netns()
                .command("nft")
                .args(["list", "tables"])
                .run()?;
            assert_eq!(left.lines().count(), 2, "{left}");
            stage.node.netns().nft(FIREWALL)?;
        } else {
            assert_eq!(output.status.code(), Some(1), "{script}");
            assert!(said.contains("Operation not permitted"), "{script}: {said}");
            assert_eq!(stage.settled()?, before, "{script}");
            assert_eq!(stage.firewall()?.lines().count(), firewall.lines().count());
        }
        stage.compare(&script)?;
    }
    let said = stage.daemon.stderr();
    assert!(!said.contains("has changed the ruleset"), "{said}");
    println!(
        "{} changes of each kind: flush leaves the tables out, the others are refused",
        times
    );
    Ok(())
}
