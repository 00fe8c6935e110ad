//! One node: policies, labels and pods that change, and an API server that is away while the daemon restarts.

use std::time::{Duration, Instant};

use selvedge::compile::Closing;
use selvedge_lab::{Protocol, TcpFlow, stage, wait_until};
use selvedge_nft::{Dataplane, DataplaneError, Kernel, diff};
use serde_json::json;

use super::{Error, PATIENCE, PORT, Shop, from, reaches};

#[test]
fn what_the_api_says_is_what_packets_meet() -> Result<(), Error> {
    let (mut shop, _daemon) = Shop::enforced()?;
    let namespace = shop.namespace()?;
    shop.reaches(true)?;
    assert_eq!(shop.ask("/livez")?.0, 200);
    let (code, answer) = shop.ask("/readyz")?;
    assert_eq!(code, 200, "{answer}");

    shop.policy("allow", &json!([]))?;
    shop.reaches(false)?;
    shop.live.cluster.delete_policy(&namespace, "allow")?;
    shop.reaches(true)?;
    shop.policy("allow", &from("web"))?;
    shop.reaches(true)?;
    shop.label_web("other")?;
    shop.reaches(false)?;
    shop.label_web("web")?;
    shop.reaches(true)?;
    shop.live.cluster.finish_pod(&namespace, "web")?;
    shop.reaches(false)?;

    let (_, metrics) = shop.ask("/metrics")?;
    assert!(metrics.contains("selvedge_policies 1"), "{metrics}");
    Ok(())
}

#[test]
fn without_an_api_server_a_restarted_daemon_changes_nothing() -> Result<(), Error> {
    let (mut shop, daemon) = Shop::enforced()?;
    shop.policy("closed", &json!([]))?;
    shop.reaches(false)?;
    daemon.terminate(PATIENCE)?;
    let before = shop.live.ruleset(1)?;
    let endpoint = shop.live.node(1).endpoint.clone();
    endpoint.down()?;
    let anew = shop.live.run_command(1)?.daemon()?;
    anew.wait_for_output("the API server can't be read", PATIENCE)?;
    assert_eq!(shop.ask("/livez")?.0, 200);
    let (code, answer) = shop.ask("/readyz")?;
    assert_eq!(code, 503);
    assert!(answer.contains("the API server can't be read"), "{answer}");
    shop.reaches(false)?;
    assert_eq!(shop.live.ruleset(1)?, before);
    endpoint.up()?;
    anew.wait_for_output("there was nothing to change", PATIENCE)?;
    assert_eq!(shop.ask("/readyz")?.0, 200);
    Ok(())
}

#[test]
fn drift_is_put_right_at_once() -> Result<(), Error> {
    let (mut shop, daemon) = Shop::in_anyone_s_tables()?;
    shop.policy("closed", &json!([]))?;
    shop.reaches(false)?;
    // What is made anew may be listed in another order.
    let held = || stage::held(&shop.live.node(1).node);
    let before = held()?;
    for script in [
        "delete table inet selvedge",
        "delete table bridge selvedge",
        "insert rule inet selvedge ingress accept",
        "flush ruleset",
    ] {
        let (mark, started) = (daemon.said(), Instant::now());
        shop.live.node(1).node.netns().nft(script)?;
        daemon.wait_for_output_after(mark, "nft (process", PATIENCE)?;
        wait_until(script, PATIENCE, || Ok(held()? == before))?;
        println!("{script}: put right after {:?}", started.elapsed());
    }
    // A repair is counted when the kernel has it already.
    wait_until("the last repair to be counted", PATIENCE, || {
        Ok(shop
            .ask("/metrics")?
            .1
            .contains("selvedge_drift_repairs_total 4"))
    })?;
    let (_, metrics) = shop.ask("/metrics")?;
    for counted in ["drift_repairs_total 4", "closings_total 3"] {
        assert!(
            metrics.contains(&format!("selvedge_{counted}")),
            "{metrics}"
        );
    }
    Ok(())
}

/// It is there until the repair is done. Here nobody repairs.
#[test]
fn what_stands_in_for_wiped_rules_closes_the_isolated_pods() -> Result<(), Error> {
    let (mut shop, daemon) = Shop::in_anyone_s_tables()?;
    shop.web.listen(Protocol::Tcp, PORT)?;
    shop.policy("allow", &from("web"))?;
    // Once another one is denied, the policy is in force.
    shop.label_web("other")?;
    shop.reaches(false)?;
    shop.label_web("web")?;
    shop.reaches(true)?;
    let flow = TcpFlow::start(&shop.web, shop.db.ipv4()?, PORT, Duration::from_millis(5))?;
    daemon.terminate(PATIENCE)?;

    let node = &shop.live.node(1).node;
    let held = stage::held(node)?;
    let mut closing = Closing::default();
    let closing = closing.follow(&held).unwrap();
    let close = || Kernel::open()?.commit(&diff(&held, closing));
    let closed = node.netns().run(close)?;
    closed.map_err(|error: DataplaneError| Error::Invalid {
        what: error.to_string(),
    })?;
    // What was allowed to begin is not now, but goes on; what no policy is about is as ever.
    shop.reaches(false)?;
    reaches(&shop.db, &shop.web, true)?;
    let answered = flow.answered();
    wait_until("the flow to go on", PATIENCE, || {
        Ok(flow.answered() > answered + 20)
    })?;
    let counts = flow.stop()?;
    assert_eq!((counts.error, counts.answered), (None, counts.sent));
    Ok(())
}
