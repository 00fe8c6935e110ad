//! The plugin's way onto a node: its binary to where container runtimes look for plugins, and its entry into Flannel's
//! configuration.
//!
//! Files are replaced as a whole, so a runtime reads the old one or the new one. The configuration as it was before is kept
//! beside it, under a name that runtimes pass by: they read `.conf`, `.conflist` and `.json`.
//!
//! Flannel writes its configuration anew whenever it starts, after a reboot too, and pods start before anyone has put the
//! plugin in again. So a copy with the plugin in it stands before Flannel's, where Flannel does not write.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::conflist::{self, ConflistError, Entry, PLUGIN};

/// What the name of a backup ends with.
pub const BACKUP: &str = ".before-selvedge";

/// The copy of Flannel's configuration, with the plugin in it, that runtimes read first.
pub const OWN: &str = "05-selvedge.conflist";

/// The largest configuration and the largest binary that are read.
const LARGEST_CONFIGURATION: u64 = 1 << 20;
const LARGEST_BINARY: u64 = 64 << 20;

/// How often a configuration is looked at again that changes while it is being changed.
const ATTEMPTS: usize = 5;

/// Where container runtimes look.
#[derive(Debug, Clone)]
pub struct Places {
    /// For plugins.
    pub binaries: PathBuf,
    /// For configurations.
    pub configurations: PathBuf,
}

/// Why the plugin can't be installed or taken away.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file can't be read or written.
    #[error("{} can't be {doing}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// What should be the plugin would not run on every node.
    #[error("{} is not the plugin: {reason}", .path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// There is no configuration to put it in.
    #[error("there is no configuration of Flannel in {}{}", .directory.display(), .beside)]
    NoFlannel {
        /// The directory.
        directory: PathBuf,
        /// What is there instead.
        beside: String,
        /// Whether all of it is known to be no list of Flannel's: none is just being written.
        certain: bool,
    },
    /// A configuration can't be changed.
    #[error("{}: {source}", .path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConflistError,
    },
}

impl InstallError {
    /// Whether a file is there and can't be read or written: no permission, no room.
    pub fn is_lasting(&self) -> bool {
        let passes =
            |source: &io::Error| is_missing(source) || source.kind() == io::ErrorKind::ResourceBusy;
        matches!(self, Self::File { source, .. } if !passes(source)) && !self.is_of_no_list()
    }

    /// Whether a file can't be read because it can't be anyone's configuration: it is no text, far too long, a directory,
    /// or leads nowhere.
    fn is_of_no_list(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, InvalidData, IsADirectory, NotFound};
        let kinds = [FileTooLarge, InvalidData, IsADirectory, NotFound];
        matches!(self, Self::File { source, .. } if kinds.contains(&source.kind()))
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File {
        path,
        doing,
        source,
    }
}

impl Places {
    /// Copies the plugin, then puts its entry into every configuration of Flannel's, and a copy of the first of them before
    /// them all. What was done is said, a line each; nothing where all was there already.
    ///
    /// # Errors
    /// [`InstallError`]; a configuration is not touched unless the plugin is there.
    pub fn install(&self, binary: &Path, entry: &Entry) -> Result<Vec<String>, InstallError> {
        // Nothing is copied to a node without Flannel. Copying takes a while, in which Flannel may write its file anew.
        if let Err(error) = self.flannels() {
            let another = matches!(error, InstallError::NoFlannel { certain: true, .. });
            if another && self.first_of_others()?.is_some() {
                // It would keep the network that is there now from being used.
                remove(&self.own())?;
            }
            return Err(error);
        }
        let mut said: Vec<String> = self.copy(binary)?.into_iter().collect();
        for _ in 0..ATTEMPTS {
            if self.put_in(entry, &mut said)? {
                self.put_before(entry, &mut said)?;
                return Ok(said);
            }
        }
        let busy = io::Error::from(io::ErrorKind::ResourceBusy);
        Err(failed(&self.configurations, "changed")(busy))
    }

    /// Puts the entry in where it isn't. Whether all have it: not where somebody has written one meanwhile, which is not
    /// overwritten.
    fn put_in(&self, entry: &Entry, said: &mut Vec<String>) -> Result<bool, InstallError> {
        for (path, text) in self.flannels()? {
            let wrong = |source| InstallError::Configuration {
                path: path.clone(),
                source,
            };
            let Some(with) = conflist::insert(&text, entry).map_err(wrong)? else {
                continue;
            };
            let like = fs::metadata(&path).map_err(failed(&path, "read"))?;
            let backup = backup_of(&path);
            if !conflist::has_plugin(&text).map_err(wrong)? {
                replace(&backup, text.as_bytes(), Some(&like), 0o600)?;
            }
            // Of a link, what it leads to is changed, and the link stays.
            let place = fs::canonicalize(&path).map_err(failed(&path, "read"))?;
            if read_text(&place)? != text {
                return Ok(false);
            }
            replace(&place, with.as_bytes(), Some(&like), 0o600)?;
            let (path, backup) = (path.display(), backup.display());
            said.push(format!(
                "put {PLUGIN} into {path}; what it was is in {backup}"
            ));
        }
        Ok(true)
    }

    /// Writes the copy that is read first, where it isn't as it should be. Where runtimes would use another network there is
    /// none.
    fn put_before(&self, entry: &Entry, said: &mut Vec<String>) -> Result<(), InstallError> {
        let first = self.first_of_others()?;
        let flannels = self.flannels()?;
        let Some((path, text)) = flannels
            .iter()
            .find(|(path, _)| Some(path) == first.as_ref())
        else {
            if remove(&self.own())? {
                said.push(format!("removed {}", self.own().display()));
            }
            return Ok(());
        };
        let with = conflist::insert(text, entry).map_err(|source| InstallError::Configuration {
            path: path.clone(),
            source,
        })?;
        let with = with.as_ref().unwrap_or(text);
        let own = self.own();
        if read_text(&own).is_ok_and(|there| there == *with) {
            return Ok(());
        }
        let like = fs::metadata(path).map_err(failed(path, "read"))?;
        replace(&own, with.as_bytes(), Some(&like), 0o600)?;
        said.push(format!(
            "copied {} to {}, which is read before it: whenever Flannel writes its own anew, {PLUGIN} stays",
            path.display(),
            own.display()
        ));
        Ok(())
    }

    /// What runtimes would read first without the copy; Multus's hands pods on to the next one, or to one that it names.
    fn first_of_others(&self) -> Result<Option<PathBuf>, InstallError> {
        let own = self.own();
        let multus = |path: &Path| read_text(path).is_ok_and(|text| conflist::is_multus(&text));
        let files = entries(&self.configurations)?.into_iter();
        let mut read = files.filter(|path| is_read(path) && *path != own);
        Ok(read.find(|path| !multus(path)))
    }

    /// Takes the plugin out of every configuration, then the copy, its binary and the backups away. What was done is said, a
    /// line each; nothing where nothing was there.
    ///
    /// # Errors
    /// [`InstallError`]; the binary stays while a configuration asks for it.
    pub fn uninstall(&self) -> Result<Vec<String>, InstallError> {
        let mut said = Vec::new();
        // A node without the directories has nothing that could be taken away.
        let there = self.configurations.exists();
        let conflists = there.then(|| self.conflists()).transpose()?;
        for path in conflists.into_iter().flatten() {
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(error) if error.is_of_no_list() => continue,
                Err(error) => return Err(error),
            };
            // What can't be read can't ask for it either.
            if let Ok(Some(without)) = conflist::remove(&text) {
                let like = fs::metadata(&path).map_err(failed(&path, "read"))?;
                let place = fs::canonicalize(&path).map_err(failed(&path, "read"))?;
                replace(&place, without.as_bytes(), Some(&like), 0o600)?;
                said.push(format!("took {PLUGIN} out of {}", path.display()));
            }
        }
        let files = there.then(|| entries(&self.configurations)).transpose()?;
        let files = files.into_iter().flatten();
        let backups = files.filter(|path| path.to_string_lossy().ends_with(BACKUP));
        for path in iter::once(self.own()).chain(backups).chain([self.binary()]) {
            if remove(&path)? {
                said.push(format!("removed {}", path.display()));
            }
        }
        Ok(said)
    }

    /// Whether pods start by the plugin: the configuration with it that runtimes read first.
    ///
    /// # Errors
    /// Why not, in a line.
    pub fn in_use(&self) -> Result<PathBuf, String> {
        let readable = |error: InstallError| error.to_string();
        let own = Some(self.own()).filter(|own| own.exists());
        let first = [own, self.first_of_others().map_err(readable)?];
        let first = first.into_iter().flatten().min().ok_or_else(|| {
            format!(
                "there is no configuration in {}",
                self.configurations.display()
            )
        })?;
        let text = read_text(&first).map_err(readable)?;
        let there = conflist::has_plugin(&text);
        if !there.map_err(|error| format!("{}: {error}", first.display()))? {
            return Err(format!(
                "{} is read first, and {PLUGIN} is not in it",
                first.display()
            ));
        }
        match self.binary().is_file() {
            true => Ok(first),
            false => Err(format!("there is no {}", self.binary().display())),
        }
    }

    /// What a runtime reads before any configuration of Flannel's, so that the plugin is never run.
    pub fn in_its_way(&self) -> Option<String> {
        let first = self.first_of_others().ok()??;
        let flannels = self.flannels().ok()?;
        let ours = flannels.iter().any(|(path, _)| *path == first);
        (!ours).then(|| {
            format!(
                "{} comes before Flannel's configuration: container runtimes use that one",
                first.display()
            )
        })
    }

    fn binary(&self) -> PathBuf {
        self.binaries.join(PLUGIN)
    }

    fn own(&self) -> PathBuf {
        self.configurations.join(OWN)
    }

    /// The configuration lists of others that there are, in order.
    fn conflists(&self) -> Result<Vec<PathBuf>, InstallError> {
        let own = self.own();
        let list =
            |path: &PathBuf| path.extension().is_some_and(|e| e == "conflist") && *path != own;
        let all = entries(&self.configurations)?;
        Ok(all.into_iter().filter(list).collect())
    }

    /// Flannel's configurations, with their texts.
    fn flannels(&self) -> Result<Vec<(PathBuf, String)>, InstallError> {
        let (mut found, mut beside) = (Vec::new(), Vec::new());
        let mut certain = true;
        for path in self.conflists()? {
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(error) if error.is_of_no_list() => {
                    certain = false;
                    beside.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            match conflist::is_flannel(&text) {
                Ok(true) => found.push((path, text)),
                Ok(false) => beside.push(format!("{} is another network's", path.display())),
                Err(error) => {
                    certain = false;
                    beside.push(format!("{}: {error}", path.display()));
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let beside = match beside.is_empty() {
            true => String::new(),
            false => format!(" ({})", beside.join("; ")),
        };
        Err(InstallError::NoFlannel {
            directory: self.configurations.clone(),
            beside,
            certain,
        })
    }

    /// Copies the plugin; what was done, where there was anything to do.
    fn copy(&self, binary: &Path) -> Result<Option<String>, InstallError> {
        let bytes = read_up_to(binary, LARGEST_BINARY).map_err(failed(binary, "read"))?;
        if let Some(reason) = unfit(&bytes) {
            return Err(InstallError::Binary {
                path: binary.to_owned(),
                reason,
            });
        }
        let target = self.binary();
        let executable = fs::metadata(&target).is_ok_and(|there| there.mode() & 0o777 == 0o755);
        if executable && read_up_to(&target, LARGEST_BINARY).is_ok_and(|there| there == bytes) {
            return Ok(None);
        }
        replace(&target, &bytes, None, 0o755)?;
        Ok(Some(format!("copied {PLUGIN} to {}", target.display())))
    }
}

/// Why a binary would not run on every node of this architecture; `None` where it does: it is linked statically.
fn unfit(bytes: &[u8]) -> Option<&'static str> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| {
        let part = bytes.get(at..at.checked_add(length)?)?;
        // Little-endian, as both architectures that there are images for.
        let bits = part.iter().rev();
        Some(bits.fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Some("it is no 64-bit ELF file");
    }
    let headers = || -> Option<Vec<u64>> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let place = |n: u64| usize::try_from(start.checked_add(n.checked_mul(size)?)?).ok();
        (0..count).map(|n| number(place(n)?, 4)).collect()
    };
    match headers() {
        None => Some("it is cut off"),
        Some(headers) if headers.contains(&u64::from(INTERPRETER)) => {
            Some("it is linked dynamically, and a node may have other libraries")
        }
        Some(_) => None,
    }
}

fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

/// The files of a directory, by name.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let entries = fs::read_dir(directory).map_err(failed(directory, "read"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    let mut paths = paths.map_err(failed(directory, "read"))?;
    paths.sort_unstable();
    Ok(paths)
}

fn read_text(path: &Path) -> Result<String, InstallError> {
    let bytes = read_up_to(path, LARGEST_CONFIGURATION).map_err(failed(path, "read"))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    text.map_err(failed(path, "read"))
}

fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Nobody waits for the other end of a pipe.
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Puts a file in the place of another at once; it belongs to whom the other belonged to.
fn replace(
    path: &Path,
    bytes: &[u8],
    like: Option<&Metadata>,
    mode: u32,
) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.selvedge"));
    let mode = like.map_or(mode, |like| like.mode() & 0o7777);
    let write = || {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&temporary)?;
        // The mode asked for is cut by the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(like) = like {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(path, "written")(error)
    })
}

/// Whether runtimes take the file for a configuration.
fn is_read(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("conf" | "conflist" | "json"))
}

/// Whether the file was there.
fn remove(path: &Path) -> Result<bool, InstallError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(failed(path, "removed")(error)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
