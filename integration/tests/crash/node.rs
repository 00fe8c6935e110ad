//! A node whose daemon is killed, and what its kernel holds then.

use std::time::{Duration, Instant};

use selvedge::cluster::Text;
use selvedge::compile::{Host, compile};
use selvedge_lab::stage::{self, Manifests};
use selvedge_lab::{Daemon, Error, Lab, Node, Signal, wait_until};
use selvedge_nft::{DataplaneError, Kernel, Ownership, Ruleset, diff};

use super::PATIENCE;

/// A node and its daemon.
pub struct Victim {
    node: Node,
    host: Host,
    daemon: Option<Daemon>,
    /// The generation of its nftables when the daemon was started.
    generation: u32,
}

impl Victim {
    /// The node `node-N`, without a daemon yet.
    pub fn new(lab: &Lab, number: usize) -> Result<Self, Error> {
        let node = lab.node(&format!("node-{number}"))?;
        let mut victim = Self {
            host: stage::host_of(lab, &node)?,
            node,
            daemon: None,
            generation: 0,
        };
        victim.generation = victim.generation()?;
        Ok(victim)
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Starts its daemon.
    pub fn start(&mut self, manifests: &Manifests) -> Result<(), Error> {
        self.generation = self.generation()?;
        let command = stage::run_command(&self.node, manifests.path())?;
        // What belongs to nobody needs no claim: each transaction is one that changes rules.
        let args = ["--http", "off", "--own-table", "off"];
        self.daemon = Some(command.args(args).daemon()?);
        Ok(())
    }

    /// Waits until the rules are in force.
    pub fn in_force(&self) -> Result<(), Error> {
        let daemon = self.daemon();
        daemon.wait_for_output("the policies are in force", PATIENCE)
    }

    /// How much the daemon has said so far.
    pub fn said(&self) -> usize {
        self.daemon().said()
    }

    /// Waits until it says that it has committed something, after it had said so much.
    pub fn wait_for_commit(&self, mark: usize) -> Result<(), Error> {
        let waited = self
            .daemon()
            .wait_for_output_after(mark, "committed: ", PATIENCE);
        waited.map(drop)
    }

    /// Holds the daemon where it is: nothing but its death is to come.
    pub fn hold(&self) -> Result<(), Error> {
        self.daemon().signal(Signal::SIGSTOP)
    }

    /// Kills the daemon; the answer is how many transactions the kernel has carried out for it that it didn't come to log.
    pub fn kill(&mut self) -> Result<usize, Error> {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(PATIENCE)?;
        let carried_out = self.generation()? - self.generation;
        let said = daemon.stderr();
        let logged = said.lines().filter(|line| line.contains("committed: "));
        let batches = |line: &str| {
            let number = line.split_once(" batches=")?.1.split(' ').next()?;
            number.parse::<usize>().ok()
        };
        let logged: usize = logged.filter_map(batches).sum();
        let unlogged = usize::try_from(carried_out).unwrap() - logged;
        // Of one commit: its rules, and the interval sets that they need.
        assert!(unlogged <= 2, "{said}");
        Ok(unlogged)
    }

    /// Kills the daemon in the instant in which the kernel has carried a transaction out, or after `patience` where it sends
    /// none.
    pub fn kill_in_commit(&mut self, patience: Duration) -> Result<usize, Error> {
        let daemon = self.daemon();
        let waited = self.node.netns().run(|| {
            let (mut kernel, deadline) = (Kernel::open()?, Instant::now() + patience);
            let before = kernel.generation()?;
            while kernel.generation()? == before && Instant::now() < deadline {}
            Ok(daemon.signal(Signal::SIGKILL))
        })?;
        waited.map_err(invalid)??;
        self.kill()
    }

    /// Ends the daemon as an update does.
    pub fn end(&mut self) -> Result<(), Error> {
        let daemon = self.daemon.take().unwrap();
        let status = daemon.terminate(PATIENCE)?;
        assert!(status.success(), "{}", daemon.stderr());
        Ok(())
    }

    /// Takes the rules away.
    pub fn clean_up(&self) -> Result<(), Error> {
        stage::selvedge(&self.node)?.arg("cleanup").run().map(drop)
    }

    /// The ruleset that its kernel holds, whoever owns it.
    pub fn held(&self) -> Result<Ruleset, Error> {
        Ok(stage::held(&self.node)?.with_ownership(Ownership::Anyone))
    }

    /// The generation of its nftables: each transaction moves it by one, whoever sends it.
    pub fn generation(&self) -> Result<u32, Error> {
        let generation = self.node.netns().run(|| Kernel::open()?.generation())?;
        generation.map_err(invalid)
    }

    /// The ruleset that the manifests make from nothing.
    pub fn wanted(&self, manifests: &Manifests) -> Result<Ruleset, Error> {
        let node = Text::from(self.node.name());
        Ok(compile(&manifests.index()?, &node, &self.host))
    }

    /// What the kernel tells of changes from now on, of anyone's: `nft monitor`.
    pub fn monitor(&self) -> Result<Daemon, Error> {
        let monitor = self.node.netns().command("nft").arg("monitor").daemon()?;
        // It listens once it has its socket: the namespace's netlink sockets are named there.
        let groups = |text: &str| {
            let mut sockets = text.lines().map(|line| line.split_whitespace());
            sockets.any(|mut fields| {
                let (protocol, pid) = (fields.nth(1), fields.next());
                let groups = fields.next();
                protocol == Some("12")
                    && pid == Some(monitor.pid().to_string().as_str())
                    && groups.is_some_and(|groups| !groups.trim_matches('0').is_empty())
            })
        };
        wait_until("nft to listen", PATIENCE, || {
            let read = || std::fs::read_to_string("/proc/thread-self/net/netlink");
            let text = self.node.netns().run(read)?.map_err(|source| Error::Io {
                what: "read the netlink sockets".to_owned(),
                source,
            })?;
            Ok(groups(&text))
        })?;
        Ok(monitor)
    }
}

fn invalid(error: DataplaneError) -> Error {
    Error::Invalid {
        what: error.to_string(),
    }
}

/// Whether a kernel that holds `held` decides as one that holds `rules`: interval sets that nothing names yet, with which a
/// commit begins, decide nothing.
pub fn decides_as(rules: &Ruleset, held: &Ruleset) -> bool {
    diff(rules, held).stages().1.is_empty()
}
