//! Throwaway network namespaces: a thread makes them, and what keeps them alive are its own file descriptors and
//! sockets. They end with the thread, however that ends; nothing has a name, and nothing is left over.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

/// Why there is no such namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel refuses to make one.
    #[error("{}", refusal(*errno))]
    Refused {
        /// Its answer.
        errno: Errno,
    },
    /// It can't be used.
    #[error("{doing}: {source}")]
    Unusable {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn refusal(errno: Errno) -> String {
    match errno {
        Errno::EPERM => "a network namespace of its own needs the capability SYS_ADMIN".to_owned(),
        errno => format!("no network namespace can be made: {}", errno.desc()),
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Makes one and moves the calling thread into it, for good: only to be used within [`apart`].
    ///
    /// # Errors
    /// [`NamespaceError::Refused`] without CAP_SYS_ADMIN.
    pub fn create() -> Result<Self, NamespaceError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Refused { errno })?;
        let file =
            File::open("/proc/thread-self/ns/net").map_err(|source| NamespaceError::Unusable {
                doing: "opening /proc/thread-self/ns/net",
                source,
            })?;
        Ok(Self(file.into()))
    }

    /// Moves the calling thread into it: only to be used within [`apart`].
    ///
    /// # Errors
    /// [`NamespaceError::Unusable`] when the kernel refuses.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Unusable {
            doing: "entering a network namespace",
            source: errno.into(),
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Does the work on a thread of its own: whatever namespace that moves into, this one stays where it is.
///
/// # Errors
/// When there is no such thread, or it panics.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        let panicked = |_| io::Error::other("a thread panicked");
        thread.join().map_err(panicked)
    })
}
