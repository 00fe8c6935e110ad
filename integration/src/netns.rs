//! A network namespace without a name in the file system.
//!
//! A thread makes it with `unshare`, and the only thing that keeps it alive is a file descriptor (and whatever sockets,
//! threads and children stand in it). So it vanishes with this process, however the process ends; nothing is left in
//! `/run/netns` and nothing has to be cleaned up.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, fs};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::daemon::Daemon;
use crate::error::{During, Error};

/// A handle to an anonymous network namespace; clones are the same namespace.
#[derive(Clone)]
pub struct Netns {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    fd: OwnedFd,
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netns({})", self.inner.name)
    }
}

impl Netns {
    /// Makes a new, empty namespace (only `lo`, down). `name` serves error texts alone.
    ///
    /// # Errors
    /// [`Error::NotRoot`] without CAP_SYS_ADMIN.
    pub fn new(name: &str) -> Result<Self, Error> {
        let fd = on_thread(name, || -> Result<OwnedFd, Error> {
            match unshare(CloneFlags::CLONE_NEWNET) {
                Err(Errno::EPERM) => return Err(Error::NotRoot),
                other => other.during("unshare a network namespace")?,
            }
            Ok(File::open("/proc/thread-self/ns/net")
                .during("open /proc/thread-self/ns/net")?
                .into())
        })??;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                fd,
            }),
        })
    }

    /// The name given at its making.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A path by which another process (`ip … netns PATH`) can open this namespace while this handle lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.inner.fd.as_raw_fd()
        ))
    }

    /// Runs `f` on a fresh thread inside the namespace and returns its value. A panic in `f` continues here.
    ///
    /// Sockets opened by `f` stay in the namespace wherever they are used later.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_thread(self.name(), || self.enter().map(|()| f()))?
    }

    /// Like [`run`](Self::run), without waiting: for servers and traffic.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, Error>>, Error> {
        let ns = self.clone();
        thread::Builder::new()
            .name(thread_name(self.name()))
            .spawn(move || ns.enter().map(|()| f()))
            .during("start a thread")
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) -> Result<(), Error> {
        setns(self.inner.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .during(&format!("enter network namespace {}", self.name()))
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> NsCommand {
        NsCommand {
            netns: self.clone(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            input: None,
        }
    }

    /// Runs `ip -batch -` with `script`, one command a line.
    pub fn ip_batch(&self, script: &str) -> Result<(), Error> {
        self.command("ip")
            .args(["-batch", "-"])
            .input(script)
            .run()
            .map(drop)
    }

    /// Loads an nft script (`nft -f -`).
    pub fn nft(&self, script: &str) -> Result<(), Error> {
        self.command("nft")
            .args(["-f", "-"])
            .input(script)
            .run()
            .map(drop)
    }

    /// Reads a sysctl of the namespace, e.g. `net/ipv4/ip_forward`, without the newline.
    pub fn sysctl(&self, key: &str) -> Result<String, Error> {
        let path = format!("/proc/sys/{key}");
        let text = self
            .run(|| fs::read_to_string(&path))?
            .during(&format!("read {path}"))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes sysctls of the namespace: (`net/ipv4/ip_forward`, `1`).
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                let path = format!("/proc/sys/{key}");
                fs::write(&path, value).during(&format!("write {value} to {path}"))
            })
        })?
    }
}

/// A program to run inside a [`Netns`].
#[derive(Debug, Clone)]
pub struct NsCommand {
    netns: Netns,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
}

impl NsCommand {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What the program reads on its standard input (default: nothing).
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Runs to the end, whatever the exit status.
    pub fn output(self) -> Result<Output, Error> {
        let what = self.describe();
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .netns
            .run(|| command.spawn())?
            .during(&format!("start {what}"))?;
        let stdin = child.stdin.take();
        let input = self.input.unwrap_or_default();
        thread::scope(|scope| {
            // A program that exits without reading its input is judged by its status, not by our broken pipe.
            scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
            child.wait_with_output()
        })
        .during(&format!("wait for {what}"))
    }

    /// Runs to the end and returns its standard output; a failure is [`Error::Program`].
    pub fn run(self) -> Result<String, Error> {
        let program = self.describe();
        let namespace = self.netns.name().to_owned();
        let output = self.output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(Error::Program {
            program,
            namespace,
            status: output.status.to_string(),
            stderr: stderr.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    /// Runs to the end on this process's own standard input and output; it dies with this process.
    pub fn interactive(self) -> Result<ExitStatus, Error> {
        let what = self.describe();
        let mut command = Command::new("setpriv");
        self.prepare(&mut command);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(self.words());
        // The thread that spawns waits: the death signal is bound to it.
        let status = self.netns.run(|| command.status())?;
        status.during(&format!("run {what}"))
    }

    /// Starts it in the background: killed when the handle drops and when this process dies.
    pub fn daemon(self) -> Result<Daemon, Error> {
        Daemon::start(self)
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &OsString> {
        std::iter::once(&self.program).chain(&self.args)
    }

    pub(crate) fn prepare(&self, command: &mut Command) {
        // root by `su` has no sbin in its PATH, where ip and nft are
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = format!("{}:/usr/sbin:/sbin", path.to_string_lossy());
        command.env("PATH", path.trim_start_matches(':'));
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
    }
}

/// Runs `f` on a thread of its own: what `unshare` and `setns` do to a thread ends with it.
fn on_thread<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name(thread_name(name))
            .spawn_scoped(scope, f)
            .during("start a thread")?;
        handle.join().or_else(|panic| resume_unwind(panic))
    })
}

/// Thread names are cut at 15 bytes by the kernel; a name with a NUL byte would be refused.
fn thread_name(name: &str) -> String {
    name.replace('\0', "")
}
