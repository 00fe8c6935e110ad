//! The socket's place: a directory that is root's alone, and in it a socket that is.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

/// The directory beside the socket that attachments are kept in.
const STORE: &str = "attachments";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its directory can't be had.
    #[error("the CNI socket's directory {} can't be used: {reason}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It can't be listened on.
    #[error("the CNI socket {} can't be listened on: {source}", .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Attachments can't be kept beside it.
    #[error("attachments can't be kept in {}: {source}", .path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Where attachments are kept, for a socket.
pub(super) fn store_of(socket: &Path) -> PathBuf {
    socket.with_file_name(STORE)
}

/// Listens on `path`, in place of whoever listened there before: one daemon a network namespace holds the lock.
pub(super) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Listen {
        path: path.to_owned(),
        source,
    };
    prepare(path)?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    bind(path).map_err(failed)
}

/// A socket that is its owner's alone from its first moment: on Linux the file takes the mode that the socket has when
/// it is bound. A umask would do as much, and would cut what other threads make meanwhile.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// Makes the socket's directory, or looks whether the one that is there will do.
fn prepare(socket: &Path) -> Result<(), SocketError> {
    let path = socket.parent().unwrap_or(Path::new("/"));
    let unusable = |reason: String| SocketError::Directory {
        path: path.to_owned(),
        reason,
    };
    let failed = |error: io::Error| unusable(error.to_string());
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let there = fs::metadata(path).map_err(failed)?;
    if there.mode() & 0o022 != 0 {
        return Err(unusable(
            "others may write there; give the socket a directory of its own".to_owned(),
        ));
    }
    // A directory that holds nothing but ours is ours: kubelet makes it open to readers. No other is changed.
    let ours = [socket.file_name(), Some(STORE.as_ref())];
    let mut entries = fs::read_dir(path).map_err(failed)?;
    let only_ours = entries
        .all(|entry| entry.is_ok_and(|entry| ours.contains(&Some(entry.file_name().as_os_str()))));
    if only_ours && there.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn the_socket_and_its_directory_are_the_owner_s_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run").join("cni.sock");
        let first = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        // A daemon that was killed leaves its socket; kubelet makes the directory otherwise.
        drop(first);
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        let _second = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn what_is_others_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let open = |path: &Path, mode| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        // As /run is: used, and not changed.
        let shared = directory.path().join("shared");
        open(&shared, 0o755);
        fs::write(shared.join("other.pid"), b"1").unwrap();
        listen(&shared.join("cni.sock")).unwrap();
        assert_eq!(mode(&shared), 0o755);
        // As /tmp is: anyone could put a socket of their own there.
        let public = directory.path().join("public");
        open(&public, 0o1777);
        let error = listen(&public.join("cni.sock")).unwrap_err().to_string();
        assert!(error.contains("a directory of its own"), "{error}");
        // No file is taken for a socket.
        let file = shared.join("file");
        fs::write(&file, b"precious").unwrap();
        assert!(matches!(listen(&file), Err(SocketError::Listen { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
