//! What the daemon has to say about an object, to those who made it.

use crate::cluster::object::ObjectKey;

/// Something about one object. A source that has a place for it shows it there: the API as a Kubernetes Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub about: ObjectKey,
    /// How it stands.
    pub standing: Standing,
    /// What that means and why, in a sentence.
    pub message: String,
}

/// How an object stands with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The kernel refuses what it comes to, and it is closed.
    Refused,
    /// The kernel takes it, after it has been refused.
    Taken,
}
