//! How the stand-in behaves where real API servers differ.

use std::time::Duration;

/// In which of its two forms the answer comes that a version's history is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// HTTP 410 instead of a stream.
    Http,
    /// HTTP 200, and an `ERROR` event whose object is a `Status` of code 410. The usual one today.
    Event,
}

/// What an [`ApiServer`](super::ApiServer) can be told; all of it may change while it runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often a watch that allows bookmarks gets one. A real server: about a minute.
    pub bookmarks: Duration,
    /// How long a watch without `timeoutSeconds` lasts. A real server: 30 to 60 minutes.
    pub watch_timeout: Duration,
    /// Whether `sendInitialEvents` is understood: the feature gate WatchList.
    pub watch_list: bool,
    /// What a watch from a version that is gone is answered.
    pub gone: Gone,
    /// Kubernetes 1.MINOR, in `/version`.
    pub minor: u32,
    /// How many changes are remembered; older versions are gone.
    pub history: usize,
    /// How many events a watch may be behind before it is ended.
    pub watch_buffer: usize,
    /// Whether pods that terminate go at once, as if a kubelet stopped them in no time. Off, they stay until someone
    /// deletes them with `gracePeriodSeconds=0`, as on a real cluster for nodes that are no machines.
    pub kubelet: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmarks: Duration::from_secs(1),
            watch_timeout: Duration::from_secs(1800),
            watch_list: true,
            gone: Gone::Event,
            minor: 34,
            history: 100_000,
            watch_buffer: 20_000,
            kubelet: false,
        }
    }
}
