//! Numbers that nobody can foresee, for names and ports.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number.
pub(crate) fn random() -> u64 {
    // Each of these has keys of its own.
    RandomState::new().build_hasher().finish()
}
