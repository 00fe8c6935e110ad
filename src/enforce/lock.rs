//! One writer a network namespace.
//!
//! The lock is an abstract Unix socket's name: such names belong to a network namespace, just as nftables tables do,
//! and the kernel frees one when its process ends, however it ends. No file is left over, and none can be stale.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    socket, sockopt,
};

/// The socket's name, without the NUL that makes it abstract.
const NAME: &[u8] = b"selvedge";

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _socket: OwnedFd,
}

/// Why the lock was not got.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another Selvedge is at work in this network namespace ({holder}); stop it first")]
    Held {
        /// Who, as far as it can be told.
        holder: String,
    },
    /// It can't be asked for.
    #[error("the lock of this network namespace can't be taken: {source}")]
    Failed {
        /// The system's answer.
        source: io::Error,
    },
}

impl From<Errno> for LockError {
    fn from(errno: Errno) -> Self {
        Self::Failed {
            source: errno.into(),
        }
    }
}

impl Lock {
    /// Takes the lock of the network namespace that this thread is in.
    ///
    /// # Errors
    /// [`LockError::Held`] with the holder's process, where another process has it.
    pub fn acquire() -> Result<Self, LockError> {
        let address = UnixAddr::new_abstract(NAME)?;
        let socket = unix_socket()?;
        match bind(socket.as_raw_fd(), &address) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => {
                return Err(LockError::Held {
                    holder: holder(&address),
                });
            }
            Err(errno) => return Err(errno.into()),
        }
        // Listening is what lets others ask who holds it.
        listen(&socket, Backlog::new(16)?)?;
        Ok(Self { _socket: socket })
    }
}

impl Lock {
    /// Who holds the lock of the network namespace that this thread is in, if anyone does; it is not taken.
    ///
    /// # Errors
    /// [`LockError::Failed`] where that can't be asked.
    pub fn holder() -> Result<Option<String>, LockError> {
        let address = UnixAddr::new_abstract(NAME)?;
        let socket = unix_socket()?;
        match connect(socket.as_raw_fd(), &address) {
            Err(Errno::ECONNREFUSED) => Ok(None),
            // When many ask at once there is no room to wait, but there is a holder.
            Ok(()) | Err(Errno::EAGAIN) => Ok(Some(holder(&address))),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    // Nobody accepts: a connection must fail rather than wait when many have asked.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn holder(address: &UnixAddr) -> String {
    let credentials = unix_socket().and_then(|socket| {
        connect(socket.as_raw_fd(), address)?;
        getsockopt(&socket, sockopt::PeerCredentials)
    });
    match credentials {
        // A process of another PID namespace has no number here.
        Ok(holder) if holder.pid() > 0 => {
            format!("process {} of user {}", holder.pid(), holder.uid())
        }
        _ => "a process that can't be seen from here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs `test` in a network namespace of its own.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        in_namespace(|| {
            let first = Lock::acquire().unwrap();
            for _ in 0..64 {
                let error = Lock::acquire().unwrap_err();
                assert!(matches!(error, LockError::Held { .. }), "{error}");
            }
            drop(first);
            // A child that another test is just starting has a copy of the socket until its exec.
            let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while let Some(holder) = Lock::holder().unwrap() {
                assert!(std::time::Instant::now() < patience, "held by {holder}");
                std::thread::yield_now();
            }
            Lock::acquire().unwrap();
        });
    }

    #[test]
    fn the_holder_is_named() {
        in_namespace(|| {
            let _first = Lock::acquire().unwrap();
            let text = Lock::acquire().unwrap_err().to_string();
            let pid = format!("process {} ", std::process::id());
            assert!(text.contains(&pid), "{text}");
            let holder = Lock::holder().unwrap().unwrap();
            assert!(holder.starts_with(&pid), "{holder}");
        });
    }

    #[test]
    fn each_network_namespace_has_its_own() {
        in_namespace(|| {
            let _outer = Lock::acquire().unwrap();
            in_namespace(|| {
                Lock::acquire().unwrap();
            });
            assert!(Lock::acquire().is_err());
        });
    }
}
