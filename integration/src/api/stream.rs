//! A watch that runs: what was, then what comes, then its end.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time::{self, Instant, Interval};

use super::store::Shared;
use super::watch::Line;

/// A watch that runs.
pub(super) struct Running {
    pub(super) shared: Shared,
    pub(super) id: u64,
    pub(super) initial: VecDeque<Line>,
    pub(super) receiver: Receiver<Line>,
    pub(super) bookmarks: Option<Interval>,
    pub(super) end: Option<Instant>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.lock().unsubscribe(self.id);
    }
}

/// Its next event.
pub(super) async fn next(mut watch: Running) -> Option<(Result<Bytes, Infallible>, Running)> {
    loop {
        if let Some(line) = watch.initial.pop_front() {
            return Some((Ok(line.encode()), watch));
        }
        let end = watch.end;
        tokio::select! {
            biased;
            () = async { time::sleep_until(end.unwrap_or_else(Instant::now)).await }, if end.is_some() => {
                // The last bookmark saves the client much: the next watch starts from there. What was sent before it is
                // still in the channel, which ends behind it.
                let mut store = watch.shared.lock();
                if watch.bookmarks.is_some() {
                    store.bookmark(watch.id);
                }
                store.unsubscribe(watch.id);
                watch.end = None;
                watch.bookmarks = None;
            }
            line = watch.receiver.recv() => {
                let line = line?;
                return Some((Ok(line.encode()), watch));
            }
            () = tick(&mut watch.bookmarks) => watch.shared.lock().bookmark(watch.id),
        }
    }
}

/// The next time for a bookmark: never, if none are wanted.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
