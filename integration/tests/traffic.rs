//! Background traffic counts exactly what passed and what did not.

use std::time::Duration;

use selvedge_lab::{Connects, Error, Lab, Pod, Protocol, TcpFlow, UdpStream, wait_until};

const PACE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn lab() -> Result<(Lab, Pod, Pod), Error> {
    let lab = Lab::builder()
        .node("node-1")
        .node("node-2")
        .pod("shop/web", "node-1")
        .pod("shop/db", "node-2")
        .build()?;
    let [web, db] = lab.pods_named(["shop/web", "shop/db"])?;
    db.listen(Protocol::Tcp, 80)?;
    db.listen(Protocol::Udp, 80)?;
    Ok((lab, web, db))
}

fn drop_everything(lab: &Lab, on: bool) -> Result<(), Error> {
    lab.node("node-2")?.netns().nft(if on {
        "table inet test { chain forward { type filter hook forward priority 0; drop; }; }"
    } else {
        "delete table inet test"
    })
}

#[test]
fn undisturbed_traffic_loses_nothing() -> Result<(), Error> {
    let (_lab, web, db) = lab()?;
    for address in db.addresses().to_vec() {
        let tcp = TcpFlow::start(&web, address, 80, PACE)?;
        let udp = UdpStream::start(&web, address, 80, 1000)?;
        let connects = Connects::start(&web, address, 80, PACE)?;
        wait_until("traffic", PATIENCE, || {
            Ok(tcp.answered() > 100 && udp.answered() > 100 && connects.connected() > 100)
        })?;
        let (tcp, udp, connects) = (tcp.stop()?, udp.stop()?, connects.stop()?);
        assert_eq!((tcp.answered, &tcp.error), (tcp.sent, &None), "{tcp:?}");
        assert!(tcp.retransmits.is_some(), "{tcp:?}");
        assert_eq!((udp.lost(), udp.errors), (0, 0), "{udp:?}");
        assert_eq!(connects.connected, connects.attempts(), "{connects:?}");
    }
    Ok(())
}

#[test]
fn a_cut_is_counted() -> Result<(), Error> {
    let (lab, web, db) = lab()?;
    let tcp = TcpFlow::start(&web, db.ipv4()?, 80, PACE)?;
    let udp = UdpStream::start(&web, db.ipv4()?, 80, 1000)?;
    let connects = Connects::start(&web, db.ipv4()?, 80, PACE)?;
    wait_until("traffic", PATIENCE, || {
        Ok(tcp.answered() > 10 && udp.answered() > 10 && connects.connected() > 10)
    })?;
    drop_everything(&lab, true)?;
    wait_until(
        "denied connections",
        PATIENCE,
        || Ok(connects.denied() > 10),
    )?;
    drop_everything(&lab, false)?;
    let (before_tcp, before_udp) = (tcp.answered(), udp.answered());
    wait_until("traffic again", PATIENCE, || {
        Ok(tcp.answered() > before_tcp && udp.answered() > before_udp)
    })?;
    let (tcp, udp, connects) = (tcp.stop()?, udp.stop()?, connects.stop()?);
    // TCP makes up for it, with a stall and retransmissions to show.
    assert_eq!((tcp.answered, &tcp.error), (tcp.sent, &None), "{tcp:?}");
    assert!(tcp.retransmits > Some(0), "{tcp:?}");
    assert!(tcp.longest_stall > Duration::from_millis(200), "{tcp:?}");
    // UDP doesn't.
    assert!(udp.lost() > 0, "{udp:?}");
    assert_eq!(
        u64::try_from(udp.missing.len()),
        Ok(udp.lost().min(100)),
        "{udp:?}"
    );
    assert!(
        connects.denied > 10 && connects.connected > 10,
        "{connects:?}"
    );
    assert_eq!((connects.refused, connects.failed), (0, 0), "{connects:?}");
    Ok(())
}

#[test]
fn a_reset_ends_a_flow_and_a_closed_port_is_counted_as_refused() -> Result<(), Error> {
    let (lab, web, db) = lab()?;
    let flow = TcpFlow::start(&web, db.ipv4()?, 80, PACE)?;
    let connects = Connects::start(&web, db.ipv4()?, 81, PACE)?;
    wait_until("traffic", PATIENCE, || Ok(flow.answered() > 10))?;
    lab.node("node-2")?.netns().nft(
        "table inet test { chain forward { type filter hook forward priority 0;\n\
         tcp dport 80 reject with tcp reset; }; }",
    )?;
    wait_until("the flow's end", PATIENCE, || Ok(flow.has_ended()))?;
    let (flow, connects) = (flow.stop()?, connects.stop()?);
    assert!(flow.error.is_some(), "{flow:?}");
    assert!(connects.refused > 0, "{connects:?}");
    assert_eq!(connects.refused, connects.attempts(), "{connects:?}");
    Ok(())
}

#[test]
fn a_flow_to_nobody_is_an_error() -> Result<(), Error> {
    let (_lab, web, db) = lab()?;
    let refused = TcpFlow::start(&web, db.ipv4()?, 82, PACE);
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    Ok(())
}
