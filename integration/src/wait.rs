//! Waiting for something that happens soon, such as a policy's enforcement.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Asks `done` every few milliseconds until it says yes.
///
/// # Errors
/// [`Error::Timeout`] with `what` when the time is over; `done`'s own errors at once.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut done: impl FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    while !done()? {
        if Instant::now() >= deadline {
            return Err(Error::Timeout {
                what: what.to_owned(),
                after: timeout,
            });
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
