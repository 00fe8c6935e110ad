//! What a kernel says over netlink: dumps of rulesets, notifications, tracked connections.

use selvedge::compile::tables;
use selvedge_nft::{Fake, Recording, diff};

/// The first byte says as what the rest, a [`Recording`], is read.
///
/// Nothing panics, and what reads as a ruleset can be compared with another and replaced.
pub fn netlink(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let recording = Recording::from_bytes(bytes);
    match choice % 4 {
        0 => {
            if let Ok(ruleset) = recording.ruleset(&tables()) {
                let empty = Fake::new().ruleset();
                let (away, back) = (diff(&ruleset, &empty), diff(&empty, &ruleset));
                assert!(diff(&ruleset, &ruleset).is_empty());
                let _ = (away, back);
            }
        }
        1 => drop(recording.survey()),
        2 => drop(recording.interference(&tables())),
        _ => drop(recording.connections()),
    }
}
