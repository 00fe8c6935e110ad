//! `selvedge cni`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::signals::Signals;
use super::{Done, Failure, complain, print};
use crate::cni::SOCKET;
use crate::cni::conflist::{Entry, OnUnreachable, PLUGIN};
use crate::cni::install::{InstallError, Places};

const EXAMPLES: &str = "\
Examples:
  selvedge cni install                                beside Flannel as its own manifest installs it
  selvedge cni install --watch                        and again whenever Flannel writes its configuration anew
  selvedge cni install --bin-dir /var/lib/rancher/k3s/data/cni --conf-dir /var/lib/rancher/k3s/agent/etc/cni/net.d
  selvedge cni status                                 whether the node's pods start by it
  selvedge cni uninstall

The daemon hears the plugin with `selvedge run --cni-socket /run/selvedge/cni.sock`.";

/// Put the CNI plugin into Flannel's configuration, or take it out: with it, a pod starts when its policies are in force.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cni {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(Install),
    Status(Status),
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
struct Directories {
    /// Where the container runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where it looks for configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
}

impl Directories {
    fn places(self) -> Places {
        Places {
            binaries: self.bin_dir,
            configurations: self.conf_dir,
        }
    }
}

/// Copy the plugin and put it into Flannel's configuration, after Flannel's own; what is there already stays.
///
/// The configuration as it was is kept beside it.
#[derive(Debug, Args)]
struct Install {
    #[command(flatten)]
    directories: Directories,
    /// The plugin [default: selvedge-cni beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the daemon hears the plugin (selvedge run --cni-socket)
    #[arg(long, value_name = "PATH", default_value = SOCKET, value_parser = absolute)]
    socket: PathBuf,
    /// How long a pod's start waits for the daemon
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=110))]
    timeout: u64,
    /// What comes of a pod's start when the daemon has not done its part by then: it fails, and is tried again; or it
    /// passes, and the pod's policies follow
    #[arg(
        long,
        value_name = "FAIL|PASS",
        default_value = "fail",
        hide_possible_values = true
    )]
    on_unreachable: Otherwise,
    /// Then stay, and do the same again whenever Flannel writes its configuration anew; what is not there yet is waited for
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Otherwise {
    Fail,
    Pass,
}

/// Say whether the node's pods start by the plugin: whether it is in the configuration that container runtimes read first.
///
/// Exit codes: 0 they do, 1 they don't.
#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    directories: Directories,
}

/// Take the plugin out of Flannel's configuration, then its binary away. An `install --watch` must be stopped first.
#[derive(Debug, Args)]
struct Uninstall {
    #[command(flatten)]
    directories: Directories,
}

impl Cni {
    pub(super) fn execute(self) -> Result<Done, Failure> {
        match self.command {
            Command::Install(install) => install.execute(),
            Command::Status(status) => match status.directories.places().in_use() {
                Ok(path) => print(&format!(
                    "pods start by {PLUGIN}: {} has it\n",
                    path.display()
                )),
                Err(reason) => {
                    print(&format!("pods don't start by {PLUGIN}: {reason}\n"))?;
                    Ok(Done::Findings)
                }
            },
            Command::Uninstall(uninstall) => {
                let places = uninstall.directories.places();
                let said = places.uninstall().map_err(Failure::input)?;
                match said.is_empty() {
                    true => print("nothing to remove: the CNI plugin is not installed\n"),
                    false => print(&lines(&said)),
                }
            }
        }
    }
}

impl Install {
    fn execute(self) -> Result<Done, Failure> {
        let binary = match self.binary {
            Some(binary) => binary,
            None => beside_this_program()?,
        };
        let otherwise = match self.on_unreachable {
            Otherwise::Fail => OnUnreachable::Fail,
            Otherwise::Pass => OnUnreachable::Pass,
        };
        let installer = Installer {
            places: self.directories.places(),
            binary,
            entry: Entry::new(self.socket, self.timeout, otherwise),
        };
        if self.watch {
            // Caught from here on: as a container's first process it would not feel them otherwise.
            let signals = Signals::catch()?;
            let inotify = Inotify::init().map_err(Failure::unreachable)?;
            let watcher = thread::Builder::new().name("cni".to_owned());
            let started = watcher.spawn(move || {
                complain(installer.watch(inotify));
                // Whoever started it sees that it can't go on, and may start it again.
                std::process::exit(2);
            });
            started.map_err(Failure::unreachable)?;
            signals.wait();
            return Ok(Done::Clean);
        }
        let said = installer.install().map_err(Failure::input)?;
        if let Some(note) = installer.places.in_its_way() {
            complain(note);
        }
        match said.is_empty() {
            true => print("nothing to do: the CNI plugin is installed\n"),
            false => print(&lines(&said)),
        }
    }
}

struct Installer {
    places: Places,
    binary: PathBuf,
    entry: Entry,
}

/// How long files must rest before they are looked at: Flannel's may be written in parts.
const QUIET: Duration = Duration::from_millis(20);

/// How often they are looked at without news.
const BLIND: Duration = Duration::from_secs(30);

impl Installer {
    fn install(&self) -> Result<Vec<String>, InstallError> {
        self.places.install(&self.binary, &self.entry)
    }

    /// Installs now and whenever one of the directories changes, for ever. What is in the way is said when that changes. It
    /// comes back with what waiting does not mend: files that can't be written.
    fn watch(&self, mut inotify: Inotify) -> InstallError {
        let mut complaint = None;
        loop {
            for directory in [&self.places.binaries, &self.places.configurations] {
                let mask = WatchMask::CREATE
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::DELETE
                    | WatchMask::MOVE
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
                    | WatchMask::ONLYDIR;
                // Again and again: a directory may be new, or another. One that is not there is complained about below.
                let _ = inotify.watches().add(directory, mask);
            }
            let problem = match self.install() {
                Ok(said) => {
                    // Who reads it has gone, or has not: the work goes on.
                    let _ = print(&lines(&said));
                    self.places.in_its_way()
                }
                Err(error) if error.is_lasting() => return error,
                Err(error) => Some(error.to_string()),
            };
            if let Some(text) = problem
                .as_ref()
                .filter(|text| complaint.as_ref() != Some(*text))
            {
                complain(text);
            }
            complaint = problem;
            wait(&mut inotify);
        }
    }
}

/// Waits for news, and until they rest.
fn wait(inotify: &mut Inotify) {
    let mut patience = BLIND;
    let mut buffer = [0; 4096];
    loop {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => return thread::sleep(Duration::from_secs(1)),
        }
        while inotify
            .read_events(&mut buffer)
            .is_ok_and(|mut events| events.next().is_some())
        {}
        patience = QUIET;
    }
}

fn lines(said: &[String]) -> String {
    said.iter().map(|line| format!("{line}\n")).collect()
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err("it must be an absolute path".to_owned()),
    }
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::input)?;
    Ok(own.with_file_name(PLUGIN))
}
