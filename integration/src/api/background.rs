//! A runtime on a thread of its own, for callers that are not asynchronous.

use std::future::Future;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{During, Error};

/// Runs tasks until it is dropped; then they end, wherever they are.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(name: &str) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.during("start a runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || drop(runtime.block_on(stopped)))
            .during("start a thread")?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for a future, which runs over there. Not to be called from this runtime's own tasks.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = mpsc::channel();
        self.handle.spawn(async move {
            // Nobody waits any more if this fails.
            let _ = sender.send(future.await);
        });
        let gone = |_| Error::invalid("a task of the API server stand-in panicked");
        receiver.recv().map_err(gone)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        // Dropped by one of its own tasks, it ends after that.
        if let Some(thread) = self
            .thread
            .take()
            .filter(|_| own != Some(thread::current().id()))
        {
            let _ = thread.join();
        }
    }
}
