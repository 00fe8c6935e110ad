//! Attachments in files, so that a daemon that is started again knows them: one file each, in a directory that is root's.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Id, Record};

/// The most attachments that are kept, those that have ended with them: far more than a node has pods.
pub const MOST: usize = 8192;

/// The largest file that is read.
const LARGEST: u64 = 64 * 1024;

const SUFFIX: &str = ".json";

/// A directory of attachments.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the directory, or makes it. With it come the attachments that it holds, and what is wrong with files that
    /// hold none, a line each: those are left where they are.
    ///
    /// # Errors
    /// When the directory can't be made or listed.
    pub fn open(directory: PathBuf) -> io::Result<(Self, Vec<Record>, Vec<String>)> {
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory)? {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let path = directory.join(&name);
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                // Half written when a daemon ended: it was not acknowledged.
                let _ = fs::remove_file(&path);
            }
            if name.starts_with('.') || !name.ends_with(SUFFIX) {
                continue;
            }
            if records.len() >= MOST {
                problems.push(format!(
                    "{}: there are more than {MOST}",
                    directory.display()
                ));
                break;
            }
            match read(&path) {
                Ok(record) if file_name(&record.attachment.id) == *name => records.push(record),
                Ok(_) => problems.push(format!(
                    "{}: it holds another attachment; it is left out",
                    path.display()
                )),
                Err(reason) => {
                    problems.push(format!("{}: {reason}; it is left out", path.display()));
                }
            }
        }
        Ok((Self { directory }, records, problems))
    }

    /// Keeps an attachment, in place of what was kept of it.
    ///
    /// # Errors
    /// When it can't be written; what was kept is kept then.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        let name = file_name(&record.attachment.id);
        let temporary = self.directory.join(format!(".{name}"));
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&temporary).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(record)?)?;
            // After a crash of the node there are no pods; a file without its contents would be no harm either.
            fs::rename(&temporary, self.directory.join(&name))
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Keeps an attachment no longer. One that was not kept is no error.
    ///
    /// # Errors
    /// When its file can't be removed.
    pub fn remove(&self, id: &Id) -> io::Result<()> {
        match fs::remove_file(self.directory.join(file_name(id))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A name that no two attachments share, whatever they are called.
fn file_name(id: &Id) -> String {
    let text = format!("{:?}", (&id.network, &id.container, &id.ifname));
    let digest = Sha256::digest(text);
    let hex = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
    hex.collect::<String>() + SUFFIX
}

fn read(path: &Path) -> Result<Record, String> {
    let mut text = Vec::new();
    let mut options = File::options();
    // A pipe in its place must not hold us up.
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| error.to_string())?;
    let read = file.take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    let record: Record = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    record.attachment.check()?;
    Ok(record)
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(super) mod tests;
