//! The thread that sweeps, so that the daemon's loop never waits for a sweep.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use selvedge_nft::{ConntrackError, Ruleset};
use tracing::{info, warn};

use super::concern::Concern;
use super::schedule::Schedule;
use super::sweep::{Connections, Revoked, sweep};
use crate::observe::{ErrorKind, Observer};

/// How long to wait after connections could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// Takes orders for sweeps, which a thread of its own carries out. It ends with this.
#[derive(Debug)]
pub struct Revoker {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    schedule: Schedule,
    /// What the kernel acknowledged last.
    ruleset: Ruleset,
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Values are replaced whole, so a panic elsewhere leaves good ones.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a sweep is due; `None` when it is time to end.
    fn next(&self) -> Option<Concern> {
        let mut orders = self.lock();
        loop {
            if orders.stopped {
                return None;
            }
            let now = Instant::now();
            orders = match orders.schedule.due(now) {
                Some(due) if due <= now => return Some(orders.schedule.take(now)),
                Some(due) => {
                    let waited = self.news.wait_timeout(orders, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.news.wait(orders);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

impl Revoker {
    /// Starts the thread, in the calling thread's network namespace. `open` opens the connections there, when the first
    /// sweep is due and after a failure. `tell` is told of each sweep that ended any.
    ///
    /// # Errors
    /// The system's, when there is no thread to be had.
    pub fn start<C: Connections>(
        open: impl Fn() -> Result<C, ConntrackError> + Send + 'static,
        observer: Arc<Observer>,
        tell: impl Fn(Revoked) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        thread::Builder::new()
            .name("revocation".to_owned())
            .spawn(move || work(&of_thread, open, &observer, tell))?;
        Ok(Self { shared })
    }

    /// Has the connections of those concerned judged by the ruleset that the kernel has just acknowledged. Waiting sweeps
    /// judge by it, too. It does not wait.
    pub fn order(&self, concern: Concern, ruleset: &Ruleset) {
        let mut orders = self.shared.lock();
        orders.ruleset = ruleset.clone();
        if !concern.is_nobody() {
            orders.schedule.add(concern);
            self.shared.news.notify_one();
        }
    }
}

impl Drop for Revoker {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.news.notify_one();
    }
}

fn work<C: Connections>(
    shared: &Shared,
    open: impl Fn() -> Result<C, ConntrackError>,
    observer: &Observer,
    tell: impl Fn(Revoked),
) {
    let mut connections: Option<C> = None;
    let mut trouble: Option<String> = None;
    while let Some(concern) = shared.next() {
        let started = Instant::now();
        let swept = match connections.take().map_or_else(&open, Ok) {
            Ok(mut opened) => {
                let ruleset = || shared.lock().ruleset.clone();
                sweep(&mut opened, &concern, &ruleset).inspect(|_| connections = Some(opened))
            }
            Err(error) => Err(error),
        };
        let now = Instant::now();
        let took = now - started;
        let said = match swept {
            Ok(revoked) => {
                observer.metrics.swept(revoked.ended, took);
                for _ in 0..revoked.failures {
                    observer.metrics.error(ErrorKind::Revocation);
                }
                let said = revoked.reason.clone();
                match said {
                    // What could not be ended is looked at again, for as long as it is there.
                    Some(_) => shared.lock().schedule.failed(now, concern, RETRY),
                    None => shared.lock().schedule.ended(now, took),
                }
                if revoked.ended > 0 {
                    tell(revoked);
                }
                said
            }
            Err(error) => {
                observer.metrics.error(ErrorKind::Revocation);
                shared.lock().schedule.failed(now, concern, RETRY);
                Some(error.to_string())
            }
        };
        if trouble != said {
            match &said {
                Some(reason) => {
                    warn!("connections that are denied now may go on: {reason}; it is tried again");
                }
                None => info!("connections that are denied can be ended again"),
            }
            trouble = said;
        }
    }
}

#[cfg(test)]
#[path = "revoker_tests.rs"]
mod tests;
