//! What others do to the tables, as the loop waits for it.

use std::error::Error;
use std::os::fd::OwnedFd;

use selvedge_nft::Kernel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::compile::tables;

/// Begins to listen for what others do to our tables; what becomes readable when there is something.
pub(super) fn listen(dataplane: &mut Kernel) -> Option<AsyncFd<OwnedFd>> {
    listening(dataplane)
        .inspect_err(|reason| warn!("what others do to the ruleset goes unheard: {reason}"))
        .ok()
}

#[expect(
    deprecated,
    reason = "it is about types whose descriptor may change; an OwnedFd's does not, and the new way is unsafe to call"
)]
fn listening(dataplane: &mut Kernel) -> Result<AsyncFd<OwnedFd>, Box<dyn Error>> {
    dataplane.listen(tables())?;
    let news = dataplane.news().ok_or("there is nothing to listen to")?;
    let news = news.try_clone_to_owned()?;
    Ok(AsyncFd::with_interest(news, NEWS)?)
}

/// News, or that some was lost: where none is left to be read by then, that is an error alone (`netlink_overrun`), and until it
/// is taken the kernel tells no more.
const NEWS: Interest = Interest::READABLE.add(Interest::ERROR);

/// Waits until there is something to be heard.
pub(super) async fn heard(interference: Option<&AsyncFd<OwnedFd>>) {
    let Some(interference) = interference else {
        return std::future::pending().await;
    };
    match interference.ready(NEWS).await {
        // Everything is taken after this, so the next readiness is news.
        Ok(mut ready) => ready.clear_ready(),
        Err(_) => std::future::pending().await,
    }
}
