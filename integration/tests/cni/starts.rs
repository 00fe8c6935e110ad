//! Many pods, one after the other, each sending from the moment that the plugin has answered.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

use selvedge_lab::Error;

use super::Stage;
use super::traffic::Receiver;

/// How long each sends before its kubelet has reported it, and after.
const SENDS: Duration = Duration::from_millis(15);

/// How many live at a time, and for how many turns the API keeps one that has ended.
const ALIVE: usize = 8;
const LINGERS: usize = 4;

fn soak() -> bool {
    std::env::var_os("SELVEDGE_SOAK").is_some()
}

fn pods() -> usize {
    match soak() {
        true => 500,
        false => 100,
    }
}

#[test]
fn no_packet_leaves_a_pod_before_its_policies_are_in_force() -> Result<(), Error> {
    let mut stage = Stage::new()?;
    let _daemon = stage.daemon()?;
    let runtime = stage.runtime()?;
    let receiver = Receiver::start(&stage.receiver)?;

    // The test can fail: without the plugin packets get out, until the daemon hears of the address.
    let bare = stage.sandbox("shop/bare", None)?;
    let sender = receiver.hears(&bare.pod, &stage.receiver)?;
    sleep(SENDS);
    stage.report(&bare)?;
    sleep(SENDS);
    let (datagrams, syns) = sender.stop()?;
    let without = receiver.arrived();
    println!(
        "without the plugin: {without} packets through of {datagrams} datagrams and {syns} SYNs"
    );
    assert!(without > 0);
    // And what is allowed passes with it.
    let free = stage.sandbox("free/pod", None)?;
    runtime.add(&free)?;
    let sender = receiver.hears(&free.pod, &stage.receiver)?;
    // Those sent before its port forwards are lost.
    let lost = sender.datagrams();
    sleep(SENDS);
    let (datagrams, syns) = sender.stop()?;
    let allowed = receiver.arrived();
    println!(
        "of a pod that nothing isolates: {allowed} through of {datagrams} datagrams and {syns} SYNs"
    );
    assert!(
        allowed * 10 > datagrams - lost,
        "{allowed} of {datagrams}, {lost} of them too early"
    );
    stage.forget(&bare)?;
    stage.live.lab.remove_pod(bare.pod.name())?;
    sleep(SENDS);

    let (mut took, mut bare): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    let (mut alive, mut ended) = (VecDeque::new(), VecDeque::new());
    let (mut datagrams, mut syns) = (0, 0);
    let started = Instant::now();
    for n in 0..pods() {
        if alive.len() == ALIVE
            && let Some(oldest) = alive.pop_front()
        {
            // Its addresses are the next pod's at once, while the API still has it.
            stage.end(&runtime, &oldest)?;
            ended.push_back(oldest);
        }
        if ended.len() > LINGERS
            && let Some(oldest) = ended.pop_front()
        {
            stage.forget(&oldest)?;
        }
        let sandbox = stage.sandbox(&format!("shop/pod-{n}"), None)?;
        took.push(runtime.add(&sandbox)?);
        // The same in the same moment, without a daemon: what the machine is busy with otherwise.
        bare.push(runtime.version()?);
        let sender = receiver.hears(&sandbox.pod, &stage.receiver)?;
        sleep(SENDS);
        stage.report(&sandbox)?;
        sleep(SENDS);
        let sent = sender.stop()?;
        datagrams += sent.0;
        syns += sent.1;
        alive.push_back(sandbox);
    }
    let through = receiver.arrived();
    took.sort_unstable();
    bare.sort_unstable();
    let at = |took: &[Duration], part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let (median, started_alone) = (at(&took, 0.5), at(&bare, 0.5));
    println!(
        "{} pods in {:?}: {through} packets through of {datagrams} datagrams and {syns} SYNs; a start took longer by \
         {median:?} (median), {:?} (p99), {:?} at most; of these {started_alone:?} to run a plugin at all",
        took.len(),
        started.elapsed(),
        at(&took, 0.99),
        at(&took, 1.0),
    );
    assert_eq!(through, 0, "{:?}", receiver.first());
    assert!(datagrams > 10 * pods() && syns > 10 * pods());
    // Its bound is 20 ms on a machine that does nothing else, as it is in the soak.
    let bound = match soak() {
        true => Duration::from_millis(20),
        false => Duration::from_millis(100),
    };
    let bound = bound + 3 * started_alone;
    assert!(median <= bound, "{median:?}, {bound:?}");
    Ok(())
}
