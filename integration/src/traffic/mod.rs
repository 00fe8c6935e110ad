//! Traffic in the background of a test, counted exactly, so that a policy edit can be shown to have cost nothing.
//!
//! - [`tcp`]: one established connection that never rests
//! - [`udp`]: a steady stream of questions and answers
//! - [`connects`]: new connections, one after another
//!
//! Each needs a server of the lab at the other end ([`Host::listen`]); a ClusterIP before it is fine. Dropping a
//! traffic stops it; `stop` returns its counts too.

pub(crate) mod connects;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::error::Error;
use crate::topology::host::Host;

/// A thread inside a host's namespace that works until it is told to stop.
#[derive(Debug)]
struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Result<T, Error>, Error>>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(
        from: &Host,
        work: impl FnOnce(&AtomicBool) -> Result<T, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = from.netns().spawn({
            let stop = stop.clone();
            move || work(&stop)
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn stop(mut self) -> Result<T, Error> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic))?,
            None => Err(Error::invalid("traffic that is stopped once")),
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
