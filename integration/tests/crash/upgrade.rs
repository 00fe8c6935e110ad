//! An upgrade whose rules have another shape: one transaction leads from the one to the other, under traffic.

use std::time::Duration;

use selvedge_lab::stage::{Manifests, PodManifest, namespace, node, policy};
use selvedge_lab::{Connects, Error, Probe, Protocol, TcpFlow, UdpStream};

use super::PATIENCE;
use super::node::Victim;

const PACE: Duration = Duration::from_millis(5);
/// For handshakes that must succeed: longer than TCP's first retransmission, as a probe's, and shorter than the second (3 s).
const WINDOW: Duration = Duration::from_millis(2900);

/// What a Selvedge that never was might have left: chains of today's names with other hooks, priorities and rules, sets of
/// today's names with other types, objects that today's has no word for, a chain that drops and logs, and a table that is
/// not there any more tomorrow. It allows what today's policies allow.
const OLDER: &str = r#"
table inet selvedge {
  comment "Selvedge, of another shape"
  counter denied { comment "packets denied" }
  set isolated4 { type ipv4_addr . inet_service; flags interval; elements = { 10.244.1.3 . 1-1000 }; }
  set discovery { type ether_addr; }
  set web4 { type ipv4_addr; flags timeout; elements = { 10.244.1.2 }; }
  set web6 { type ipv6_addr; elements = { fd00:10:244:1::2 }; }
  map ingress4 { type ipv4_addr : verdict; flags interval; elements = { 10.244.1.3 : jump server }; }
  map ingress6 { type ipv6_addr : verdict; elements = { fd00:10:244:1::3 : goto server }; }
  map egress4 { type inet_service : verdict; }
  chain server {
    ip saddr @web4 accept
    ip6 saddr @web6 accept
    limit rate 1/second burst 5 packets log prefix "selvedge denied: " level debug
    counter name denied drop
  }
  chain egress { type filter hook postrouting priority mangle; policy accept; meta mark 0x7 counter; }
  chain ingress {
    type filter hook forward priority filter + 7; policy accept;
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    ip daddr vmap @ingress4
    ip6 daddr vmap @ingress6
  }
  chain midstream { type filter hook input priority filter; policy accept; }
  chain policy/shop/db/ingress { jump server; }
}
table bridge selvedge {
  chain guard { type filter hook forward priority filter; policy accept; ether type 8021q drop; }
}
"#;

#[test]
fn an_upgrade_swaps_all_rules_in_one_transaction() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    let fixed = node(1)
        + &namespace("shop", "team: shop")
        + &PodManifest::new("shop/web", 1, 2, "app: web").to_string()
        + &PodManifest::new("shop/db", 1, 3, "app: db").to_string()
        + &PodManifest::new("shop/stranger", 1, 4, "app: stranger").to_string()
        + &policy(
            "shop/db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}",
        );
    manifests.put("all.yaml", fixed)?;
    let lab = manifests.lab()?.build()?;
    let [web, db, stranger] = lab.pods_named(["shop/web", "shop/db", "shop/stranger"])?;
    db.listen(Protocol::Tcp, 80)?;
    db.listen(Protocol::Udp, 80)?;
    let mut victim = Victim::new(&lab, 1)?;
    lab.node("node-1")?.netns().nft(OLDER)?;
    for address in db.addresses() {
        assert!(web.probe(Probe::tcp(*address, 80))?.is_allowed());
        assert!(stranger.probe(Probe::tcp(*address, 80))?.is_denied());
    }

    let mut allowed = Vec::new();
    let mut denied = Vec::new();
    for address in db.addresses() {
        let flow = TcpFlow::start(&web, *address, 80, PACE)?;
        let datagrams = UdpStream::start(&web, *address, 80, 200)?;
        let connects = Connects::start_with_window(&web, *address, 80, PACE, WINDOW)?;
        allowed.push((flow, datagrams, connects));
        let datagrams = UdpStream::start(&stranger, *address, 80, 200)?;
        denied.push((datagrams, Connects::start(&stranger, *address, 80, PACE)?));
    }
    let monitor = victim.monitor()?;
    let generation = victim.generation()?;
    victim.start(&manifests)?;
    victim.in_force()?;
    monitor.wait_for_output("new generation", PATIENCE)?;
    let moved = victim.generation()? - generation;
    assert!(victim.held()? == victim.wanted(&manifests)?);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(monitor.stdout().matches("new generation").count(), 1);

    let (mut messages, mut handshakes, mut tried) = (0, 0, 0);
    for (flow, datagrams, connects) in allowed {
        let (flow, datagrams) = (flow.stop()?, datagrams.stop()?);
        let connects = connects.stop()?;
        assert_eq!((flow.answered, flow.error), (flow.sent, None));
        assert_eq!((datagrams.lost(), datagrams.errors), (0, 0));
        assert_eq!(connects.connected, connects.attempts(), "{connects:?}");
        messages += flow.answered + datagrams.answered;
        handshakes += connects.connected;
    }
    for (datagrams, connects) in denied {
        let (datagrams, connects) = (datagrams.stop()?, connects.stop()?);
        assert_eq!((datagrams.answered, connects.connected), (0, 0));
        tried += datagrams.sent + connects.attempts();
    }
    println!(
        "an upgrade of another shape: the generation has moved by {moved}; {messages} messages and {handshakes} handshakes \
         passed, 0 lost; {tried} packets denied, 0 through"
    );
    assert_eq!(moved, 1);
    assert!(messages > 0 && handshakes > 0 && tried > 0);
    Ok(())
}
