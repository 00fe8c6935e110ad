//! A file, or a directory of files, as a snapshot.
//!
//! Directories are read recursively, in the order of names; `.yaml`, `.yml` and `.json` count. Names that start with
//! a dot are skipped, and nothing is read twice: a mounted ConfigMap (`web.yaml → ..data/web.yaml`, `..data →
//! ..2024_01_01`) gives each of its objects once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::decode;
use super::document::{self, Malformed};
use super::snapshot::{Origin, Snapshot, SourceProblem};
use super::workloads::{self, Workload};
use crate::cluster::object::{Object, ObjectKey};
use crate::limits;

/// Why nothing can be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file or directory, or no way to it.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// The path that was given.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// A file or directory of manifests, and what its files gave when they were last read.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// Whether workloads stand for their pods.
    templates: bool,
    /// Whether they are read again and again: nothing may then hold up whoever reads them, nor take all memory.
    watched: bool,
    states: BTreeMap<PathBuf, FileState>,
}

/// One look at the files.
#[derive(Debug)]
pub struct Reading {
    /// What they say, or what the last readable ones said.
    pub snapshot: Snapshot,
    /// The directories whose changes matter.
    pub directories: BTreeSet<PathBuf>,
    /// Whether a file was left as it was because it may still be being written.
    pub unsettled: bool,
}

/// What a file gave.
#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    digest: Option<[u8; 32]>,
    objects: Vec<(Object, Origin)>,
    /// Objects of an earlier time, while parts of the file can't be read.
    held: Vec<(Object, Origin)>,
    workloads: Vec<(Workload, Origin)>,
    problems: Vec<SourceProblem>,
    /// Whether there is anything in it that can't be read at all.
    incomplete: bool,
    /// Why the file can't be read as a whole, at present.
    unreadable: Option<SourceProblem>,
}

/// What changes when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// How old a file's last change must be for its stamp to vouch for its content: coarse clocks give two changes in
/// quick succession one time.
const STAMP_AGE: Duration = Duration::from_millis(100);

/// How long a file that gave something may be empty before it is said: those who write a file empty it first.
const EMPTY_AGE: Duration = Duration::from_secs(1);

impl Files {
    /// The files at `root`; nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            templates: false,
            watched: false,
            states: BTreeMap::new(),
        }
    }

    /// The same, to be read for as long as the daemon runs: of each file at most [`limits::FILE`] bytes.
    pub fn watched(root: impl Into<PathBuf>) -> Self {
        Self {
            watched: true,
            ..Self::new(root)
        }
    }

    /// The same, for questions about manifests: workloads stand for the pods of their templates, and pods that have no
    /// address get one that is made up. See [`super::workloads`].
    pub fn with_workloads(root: impl Into<PathBuf>) -> Self {
        Self {
            templates: true,
            ..Self::new(root)
        }
    }

    /// The path that was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at the files. Those that changed within the last `settle` are left as they were, as somebody may be
    /// about to write the rest of them; so are, for a second, those that have been emptied.
    ///
    /// # Errors
    /// [`SourceError`] when there is nothing at the root or it can't be listed; what was read before is kept then.
    pub fn read(&mut self, settle: Duration) -> Result<Reading, SourceError> {
        let mut walk = Walk::default();
        let at_root = |source| SourceError::Unreadable {
            path: self.root.display().to_string(),
            source,
        };
        if fs::metadata(&self.root).map_err(at_root)?.is_dir() {
            walk.directory(&self.root).map_err(at_root)?;
        } else {
            walk.file(&self.root);
        }
        let mut unsettled = false;
        let mut states = BTreeMap::new();
        for path in walk.files {
            let mut state = self.states.remove(&path).unwrap_or_default();
            let most = match self.watched {
                true => limits::FILE,
                false => limits::QUESTION,
            };
            // Who asks about a pipe (`-f <(kubectl get …)`) waits for it knowingly. Nobody else does.
            let any = !self.watched && path == self.root;
            let content = |metadata: &Metadata| content(&path, metadata, any, most);
            match state.refresh(&path, settle, self.templates, content) {
                Ok(settled) => unsettled |= !settled,
                // Deleted since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(&path) => {
                    continue;
                }
                Err(error) => state.fail(&path, &error),
            }
            states.insert(path, state);
        }
        for (path, error) in walk.failed {
            // What was in a directory that can't be listed stays in force.
            let text = format!("can't be read: {error}; what it gave before stays in force");
            walk.problems.push(SourceProblem::new(path.display(), text));
            let gone = std::mem::take(&mut self.states);
            let (within, gone) = gone
                .into_iter()
                .partition(|(file, _)| file.starts_with(&path));
            self.states = gone;
            states.extend::<BTreeMap<_, _>>(within);
        }
        self.states = states;
        Ok(Reading {
            snapshot: self.snapshot(walk.problems),
            directories: walk.directories,
            unsettled,
        })
    }

    fn snapshot(&self, problems: Vec<SourceProblem>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.unread = !problems.is_empty();
        snapshot.problems.extend(problems);
        for state in self.states.values() {
            snapshot.unread |= state.incomplete || state.unreadable.is_some();
            snapshot.problems.extend(state.unreadable.iter().cloned());
            snapshot.problems.extend(state.problems.iter().cloned());
            for (object, origin) in &state.objects {
                snapshot.insert(object.clone(), origin.clone());
            }
        }
        for state in self.states.values() {
            for (object, origin) in &state.held {
                snapshot.insert_held(object.clone(), origin.clone());
            }
        }
        if self.templates {
            let workloads = self.states.values().flat_map(|state| &state.workloads);
            workloads::stand_in(&mut snapshot, workloads);
        }
        snapshot.add_namespaces();
        snapshot
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

impl FileState {
    /// Reads the file if it has changed; the answer is whether it was, or could be, read.
    fn refresh(
        &mut self,
        path: &Path,
        settle: Duration,
        templates: bool,
        content: impl FnOnce(&Metadata) -> io::Result<Vec<u8>>,
    ) -> io::Result<bool> {
        let metadata = fs::metadata(path)?;
        // A time in the future says nothing; the file is read.
        let age = |since| SystemTime::now().duration_since(since).ok();
        let written = metadata.modified().ok().and_then(age);
        let emptied = metadata.len() == 0 && !(self.objects.is_empty() && self.held.is_empty());
        let settle = if emptied { EMPTY_AGE } else { settle };
        if written.is_some_and(|age| age < settle) {
            return Ok(false);
        }
        let stamp = Stamp::of(&metadata);
        if self.stamp == Some(stamp) && self.unreadable.is_none() {
            return Ok(true);
        }
        let bytes = content(&metadata)?;
        self.unreadable = None;
        let reliable = stamp.time().and_then(age) >= Some(STAMP_AGE);
        self.stamp = reliable.then_some(stamp);
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if self.digest != Some(digest) {
            self.take(path, &bytes, templates);
            self.digest = Some(digest);
        }
        Ok(true)
    }

    fn fail(&mut self, path: &Path, error: &io::Error) {
        let held = match self.objects.len() + self.held.len() {
            0 => "",
            _ => "; what it gave before stays in force",
        };
        let text = format!("can't be read: {error}{held}");
        self.unreadable = Some(SourceProblem::new(path.display(), text));
    }

    /// Takes new content in.
    fn take(&mut self, path: &Path, bytes: &[u8], templates: bool) {
        let shared: Arc<Path> = path.into();
        let mut before = std::mem::take(&mut self.objects);
        before.append(&mut self.held);
        self.problems.clear();
        self.workloads.clear();
        let origin = |line, item| Origin {
            path: shared.clone(),
            line,
            item,
        };
        let mut complete = true;
        for document in documents(path, bytes) {
            let document = match document {
                Ok(document) => document,
                Err(Malformed { line, reason }) => {
                    complete = false;
                    self.problems
                        .push(SourceProblem::new(origin(line, None), reason));
                    continue;
                }
            };
            if templates {
                for found in workloads::find(&document.value) {
                    let origin = origin(document.line, found.index);
                    for problem in &found.problems {
                        self.problems.push(SourceProblem::new(&origin, problem));
                    }
                    self.workloads
                        .extend(found.workload.map(|workload| (workload, origin)));
                }
            }
            for item in decode::objects(&document.value) {
                let origin = origin(document.line, item.index);
                match item.result {
                    Ok(decoded) => {
                        complete &= !decoded.partial;
                        let key = decoded.object.key();
                        let known = |(object, _): &(Object, _)| object.key() == key;
                        let keep = !(decoded.partial && before.iter().any(known));
                        self.accept(decoded, origin, keep);
                    }
                    Err(undecodable) => {
                        complete = false;
                        self.problems.push(SourceProblem::new(origin, undecodable));
                    }
                }
            }
        }
        if bytes.iter().all(u8::is_ascii_whitespace) && !before.is_empty() {
            // Half of a write, more likely than a way to say that there is nothing any more.
            complete = false;
            self.problems.push(SourceProblem::new(
                path.display(),
                "the file is empty; delete it if that is meant",
            ));
        }
        self.incomplete = !complete;
        if !complete {
            self.hold(path, before);
        }
    }

    /// Takes in what could be read of an object; of one that is known from before, and is read in part, its problems alone.
    fn accept(&mut self, decoded: decode::Decoded, origin: Origin, keep: bool) {
        let key = decoded.object.key();
        let own: &[crate::policy::Problem] = match &decoded.object {
            Object::Policy(policy) => &policy.problems,
            _ => &[],
        };
        for problem in decoded.problems.iter().chain(own) {
            self.problems
                .push(SourceProblem::new(&origin, format!("{key}: {problem}")));
        }
        if keep {
            self.objects.push((decoded.object, origin));
        }
    }

    /// Keeps of the earlier objects those that the file does not give now.
    fn hold(&mut self, path: &Path, before: Vec<(Object, Origin)>) {
        let given: BTreeSet<ObjectKey> = self.objects.iter().map(|(o, _)| o.key()).collect();
        self.held = before
            .into_iter()
            .filter(|(object, _)| !given.contains(&object.key()))
            .collect();
        let Some((first, _)) = self.held.first() else {
            return;
        };
        let others = match self.held.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let text = format!(
            "{}{others} of before stay in force until the file can be read or is deleted",
            first.key()
        );
        self.problems.push(SourceProblem::new(path.display(), text));
    }
}

/// What a file holds, if that is at most `most` bytes, and it is a regular file or may be `any`: a pipe may never end, nor
/// even begin.
fn content(path: &Path, metadata: &Metadata, any: bool, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let text = format!("it has more than {} MiB, the most that is read", most >> 20);
        Err(io::Error::other(text))
    };
    if metadata.len() > most {
        return too_large();
    }
    let file = match any {
        true => File::open(path)?,
        false => {
            // It may be another one by now, and to open a pipe waits for who writes to it.
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
            let file = options.open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            file
        }
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => too_large(),
        false => Ok(bytes),
    }
}

fn documents(path: &Path, bytes: &[u8]) -> Vec<Result<document::Document, Malformed>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = bytes.iter().take(error.valid_up_to());
            return vec![Err(Malformed {
                line: 1 + good.filter(|b| **b == b'\n').count(),
                reason: "the file is not UTF-8".to_owned(),
            })];
        }
    };
    match path.extension().is_some_and(|e| e == "json") {
        true => document::json(text),
        false => document::yaml(text),
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When the file was changed in any way.
    fn time(&self) -> Option<SystemTime> {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(
            u64::try_from(seconds).ok()?,
            u32::try_from(nanoseconds).ok()?,
        );
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

/// What a walk through the directories finds.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    directories: BTreeSet<PathBuf>,
    failed: Vec<(PathBuf, io::Error)>,
    problems: Vec<SourceProblem>,
    /// The real paths of what was seen.
    seen: BTreeSet<PathBuf>,
}

impl Walk {
    /// Goes through a directory; an error is about itself, not about what is in it.
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let entries: Vec<fs::DirEntry> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        self.directories.insert(path.to_owned());
        self.seen.insert(fs::canonicalize(path)?);
        let mut paths: Vec<PathBuf> = entries
            .iter()
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(fs::DirEntry::path)
            .collect();
        paths.sort_unstable();
        for path in paths {
            if let Err(error) = self.entry(&path) {
                self.failed.push((path, error));
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> io::Result<()> {
        let directory = match fs::metadata(path) {
            Ok(metadata) => metadata.is_dir(),
            // Gone again, or a dangling symlink, which is a file that can't be read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if directory {
            match self.seen.contains(&fs::canonicalize(path)?) {
                true => Ok(()),
                false => self.directory(path),
            }
        } else {
            let named = |e: &OsStr| e == "yaml" || e == "yml" || e == "json";
            if path.extension().is_some_and(named) {
                self.file(path);
            }
            Ok(())
        }
    }

    fn file(&mut self, path: &Path) {
        if let Ok(real) = fs::canonicalize(path) {
            if !self.seen.insert(real.clone()) {
                return;
            }
            // Edits of the file behind a symlink show in the directory that it is in.
            self.directories.extend(real.parent().map(Path::to_owned));
        }
        self.files.push(path.to_owned());
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
