//! A policy edited while traffic flows: when it counts, what it changes, and what it leaves alone.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use selvedge_lab::{Connects, Protocol, TcpFlow};

use crate::Failure;
use crate::daemons::{Daemons, PATIENCE};
use crate::shop::Shop;
use crate::story::Story;

/// The line of the policy `web` after which the edit stands, and the edit: the namespace dev may, too.
const ANCHOR: &str = r#"        - ipBlock: {cidr: "::/0", except: ["fd00:10:244::/48"]}"#;
const EDIT: &str = "        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: dev}}";

/// A new connection each.
const PACE: Duration = Duration::from_millis(5);

/// How long each state is watched.
const WATCHED: Duration = Duration::from_millis(500);

/// Silence for so long is a denial, and no connection for so long is the end of them.
const WINDOW: Duration = Duration::from_millis(800);

/// How exactly times are taken.
const TICK: Duration = Duration::from_micros(200);

/// Shows it.
pub fn show(shop: &Shop, daemons: &mut Daemons, story: &Story) -> Result<(), Failure> {
    let file = shop.manifests().join("policies.yaml");
    let read = fs::read_to_string(&file);
    let original = read.map_err(Failure::files("read policies.yaml"))?;
    let edited = original.replacen(ANCHOR, &format!("{ANCHOR}\n{EDIT}"), 1);
    expect(
        edited != original,
        "policies.yaml no longer has the line after which the demo adds one",
    )?;
    let save = |text: &str| fs::write(&file, text).map_err(Failure::files("write policies.yaml"));

    let traffic = Traffic::start(shop)?;
    let knocks = &traffic.knocks;
    sleep(WATCHED);
    expect(
        knocks.connected() == 0,
        "dev/sandbox-0 got through before the edit",
    )?;
    story.say(
        "dev/sandbox-0 tries shop/web-0 every 5 ms, in vain. The policy web gets one more peer:",
    );
    story.text(&story.paint("32", &format!("  + {}", EDIT.trim())));

    save(&edited)?;
    let opened = first(knocks, Instant::now())?;
    let commits = daemons.await_commits()?;
    // What was denied before the edit is counted late, and later still where the machine is busy.
    decided(knocks)?;
    let (denied, connected) = (knocks.denied(), knocks.connected());
    sleep(WATCHED);
    expect(
        knocks.denied() == denied,
        "dev/sandbox-0 was denied after the edit",
    )?;
    expect(
        knocks.connected() > connected,
        "dev/sandbox-0 no longer got through after the edit",
    )?;
    story.say(&format!(
        "{} after the file was saved the first connection got through:",
        ms(opened)
    ));
    for (node, commit) in &commits {
        story.say(&format!("  {node}: {commit}"));
    }

    save(&original)?;
    let closed = last(knocks, Instant::now())?;
    daemons.await_commits()?;
    decided(knocks)?;
    let after = knocks.connected();
    sleep(WATCHED);
    expect(
        knocks.connected() == after,
        "dev/sandbox-0 got through after the edit was undone",
    )?;
    story.say(&format!(
        "The line is taken out again, and {} after that the last one did.",
        ms(closed)
    ));
    story.say(&traffic.stop()?);
    Ok(())
}

/// What flows meanwhile.
struct Traffic {
    knocks: Connects,
    orders: Connects,
    stream: TcpFlow,
}

impl Traffic {
    fn start(shop: &Shop) -> Result<Self, Failure> {
        let sandbox = shop.host("dev/sandbox-0")?;
        let (web, other) = (shop.host("shop/web-0")?, shop.host("shop/web-1")?);
        let api = shop.host("shop/api-0")?;
        web.listen(Protocol::Tcp, 80)?;
        api.listen(Protocol::Tcp, 8080)?;
        Ok(Self {
            knocks: Connects::start_with_window(&sandbox, web.ipv4()?, 80, PACE, WINDOW)?,
            orders: Connects::start_with_window(&other, api.ipv4()?, 8080, PACE, WINDOW)?,
            stream: TcpFlow::start(&other, api.ipv4()?, 8080, PACE)?,
        })
    }

    /// Ends it. The answer is what became of the traffic that both edits left alone; it fails if they did not.
    fn stop(self) -> Result<String, Failure> {
        let knocks = self.knocks.stop()?;
        let (orders, stream) = (self.orders.stop()?, self.stream.stop()?);
        let clear = knocks.refused + knocks.failed == 0;
        expect(clear, &format!("dev/sandbox-0 met errors: {knocks:?}"))?;
        let whole = orders.connected == orders.attempts();
        expect(
            whole,
            &format!("shop/web-1 to shop/api-0 suffered: {orders:?}"),
        )?;
        let whole = stream.error.is_none() && stream.answered == stream.sent;
        expect(
            whole,
            &format!("shop/web-1 to shop/api-0 suffered: {stream:?}"),
        )?;
        Ok(format!(
            "The rest noticed nothing: shop/web-1 made {} of {} new connections to shop/api-0, and one kept open had \
             {} of {} messages answered.",
            orders.connected,
            orders.attempts(),
            stream.answered,
            stream.sent
        ))
    }
}

/// The time from `since` to the first connection.
fn first(knocks: &Connects, since: Instant) -> Result<Duration, Failure> {
    while knocks.connected() == 0 {
        expect(
            since.elapsed() < PATIENCE,
            "dev/sandbox-0 is denied in spite of the edit",
        )?;
        sleep(TICK);
    }
    Ok(since.elapsed())
}

/// Waits until there has been no connection for as long as an attempt may take; the time from `since` to the last one.
fn last(knocks: &Connects, since: Instant) -> Result<Duration, Failure> {
    let (mut before, mut at) = (knocks.connected(), since);
    while at.elapsed() < WINDOW {
        sleep(TICK);
        let now = knocks.connected();
        if now != before {
            (before, at) = (now, Instant::now());
        }
        expect(
            since.elapsed() < PATIENCE,
            "dev/sandbox-0 still gets through after the edit was undone",
        )?;
    }
    Ok(at.duration_since(since))
}

/// Waits until it is known of all that was tried so far whether it got through.
fn decided(knocks: &Connects) -> Result<(), Failure> {
    let now = Instant::now();
    while !knocks.knows_all_before(now) {
        sleep(TICK);
        expect(
            now.elapsed() < PATIENCE,
            "the attempts of dev/sandbox-0 come to no end",
        )?;
    }
    Ok(())
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn expect(good: bool, what: &str) -> Result<(), Failure> {
    match good {
        true => Ok(()),
        false => Err(Failure::differs(format!("  {what}"))),
    }
}
