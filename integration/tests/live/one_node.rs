//! One node: policies, labels and pods that change, and an API server that is away while the daemon restarts.

use std::time::Instant;

use selvedge_lab::stage::live::IN_FORCE;
use serde_json::json;

use super::{Error, PATIENCE, Shop, from};

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
    let mut shop = Shop::new()?;
    let daemon = shop.live.run_command(1)?.args(["--own-table", "off"]);
    let daemon = daemon.daemon()?;
    daemon.wait_for_output(IN_FORCE, PATIENCE)?;
    shop.policy("closed", &json!([]))?;
    shop.reaches(false)?;
    // What is made anew may come in another order.
    let held = || -> Result<Vec<String>, Error> {
        let ruleset = shop.live.ruleset(1)?;
        let mut lines: Vec<String> = ruleset.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Ok(lines)
    };
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
        daemon.wait_for_output_after(mark, "committed: ", PATIENCE)?;
        println!("{script}: put right after {:?}", started.elapsed());
        assert_eq!(held()?, before, "{script}");
    }
    Ok(())
}
