//! What all connections and streams of an endpoint feel at once.

use std::time::Duration;

use tokio::sync::watch;

/// How a running stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As after `timeoutSeconds`: properly.
    Clean,
    /// The connection breaks between two lines.
    Abrupt,
    /// The connection breaks in the middle of a line.
    MidLine,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Nothing passes, and nothing is said.
    pub(crate) stalled: bool,
    /// How often streams have been cut, and how the last time.
    pub(crate) cuts: (u64, Option<Cut>),
    /// How often all connections have been dropped.
    pub(crate) hangups: u64,
    /// Bodies come in small pieces.
    pub(crate) dribble: bool,
    /// How long each request waits.
    pub(crate) delay: Duration,
}

/// Waits until `until` holds; for ever, once the endpoint is gone.
pub(crate) async fn wait(
    weather: &mut watch::Receiver<Weather>,
    until: impl FnMut(&Weather) -> bool,
) {
    if weather.wait_for(until).await.is_err() {
        std::future::pending::<()>().await;
    }
}
