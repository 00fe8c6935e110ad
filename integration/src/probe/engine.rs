//! All probes of one host at the same time, on one thread inside its namespace.
//!
//! Silence is believed only when the window is over *and* every server of the lab has since worked through all that had
//! arrived at its sockets: on a loaded machine a slow server must not look like a firewall. TCP's handshake is the
//! kernel's own; the other protocols ask three times.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollTimeout, poll};

use super::flight::{Flight, outcome_of};
use super::neighbours::Overflows;
use super::{Outcome, Probe};
use crate::error::{During, Error};
use crate::topology::host::Host;

/// When a request goes out again, counted from the start.
const RETRIES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(600)];
/// After the servers have caught up: for their answers' way back.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) fn run(host: &Host, probes: &[Probe]) -> Result<Vec<Outcome>, Error> {
    let overflows = Overflows::now();
    let outcomes = host.netns().run(|| run_inside(host, probes))??;
    if !outcomes.iter().all(Outcome::is_allowed) {
        overflows.check()?;
    }
    Ok(outcomes)
}

fn run_inside(host: &Host, probes: &[Probe]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; probes.len()];
    let mut flights = Vec::new();
    let window = probes.iter().map(|probe| probe.window).max();
    for (index, probe) in probes.iter().enumerate() {
        match Flight::start(index, probe, host.interface()) {
            Ok(flight) => flights.push(flight),
            Err(error) => set(&mut outcomes, index, outcome_of(&error)),
        }
    }
    let start = Instant::now();
    let deadline = start + window.unwrap_or_default();
    for at in RETRIES.map(|retry| start + retry) {
        wait_until(at.min(deadline), &mut flights, &mut outcomes)?;
        if at < deadline {
            resend(&mut flights, &mut outcomes);
        }
    }
    wait_until(deadline, &mut flights, &mut outcomes)?;
    if !flights.is_empty() {
        host.registry().catch_up();
        wait_until(Instant::now() + GRACE, &mut flights, &mut outcomes)?;
    }
    for flight in flights {
        set(&mut outcomes, flight.index, flight.when_silent());
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(Outcome::Denied))
        .collect())
}

fn set(outcomes: &mut [Option<Outcome>], index: usize, outcome: Outcome) {
    if let Some(slot) = outcomes.get_mut(index) {
        *slot = Some(outcome);
    }
}

/// Serves the flights until the time is over or none is left.
fn wait_until(
    deadline: Instant,
    flights: &mut Vec<Flight>,
    outcomes: &mut [Option<Outcome>],
) -> Result<(), Error> {
    while !flights.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds: Vec<PollFd> = flights
            .iter()
            .map(|flight| PollFd::new(flight.socket.as_fd(), flight.events()))
            .collect();
        // Rounded up, so that the last turn does not spin.
        let timeout =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).during("poll probes"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ready = ready.into_iter();
        flights.retain_mut(|flight| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match flight.advance() {
                Some(outcome) => {
                    set(outcomes, flight.index, outcome);
                    false
                }
                None => true,
            }
        });
        if left.is_zero() {
            break;
        }
    }
    Ok(())
}

fn resend(flights: &mut Vec<Flight>, outcomes: &mut [Option<Outcome>]) {
    flights.retain_mut(|flight| match flight.send() {
        Ok(()) => true,
        Err(error) => {
            set(outcomes, flight.index, outcome_of(&error));
            false
        }
    });
}
