//! The whole daemon, on a kernel that refuses the rules of one chain.
//!
//! Nothing is known that the compiler says and the kernel does not take; so what stands between adds a rule to that chain which
//! this kernel refuses. The refusal itself, the operation that it names and that nothing of the batch is carried out are the
//! kernel's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use selvedge::enforce::{self, Settings, Source};
use selvedge::observe::HttpAddress;
use selvedge::source::kube::{Access, SILENCE};
use selvedge_lab::Error;
use selvedge_lab::stage::live::LiveNode;
use selvedge_nft::{
    Committed, Dataplane, DataplaneError, Kernel, Name, Op, Rule, Ruleset, TableId, Transaction,
    Verdict,
};
use tokio::sync::oneshot;

/// What is refused, until it is healed.
#[derive(Debug, Clone)]
pub struct Refusal {
    chain: Name,
    healed: Arc<AtomicBool>,
}

impl Refusal {
    /// The rules of this chain.
    pub fn of(chain: &str) -> Self {
        Self {
            chain: Name::new(chain).unwrap(),
            healed: Arc::default(),
        }
    }
}

struct Refusing {
    kernel: Kernel,
    refusal: Refusal,
}

impl Dataplane for Refusing {
    fn read(&mut self, tables: &[TableId]) -> Result<Ruleset, DataplaneError> {
        self.kernel.read(tables)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, DataplaneError> {
        let mut transaction = transaction.clone();
        for op in &mut transaction.ops {
            if let Op::AddRule { chain, rule, .. } = op
                && *chain == self.refusal.chain
                && !self.refusal.healed.load(Ordering::Relaxed)
            {
                let nowhere = Name::new("nowhere").unwrap();
                *rule = Rule::new([Verdict::Jump(nowhere).into()]);
            }
        }
        self.kernel.commit(&transaction)
    }
}

/// A daemon in this process, in a node's namespace.
pub struct InProcess {
    refusal: Refusal,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Result<(), Error>, Error>>,
}

impl InProcess {
    /// Starts it, on the node's own way to the API server.
    pub fn start(node: &LiveNode, refusal: Refusal) -> Result<Self, Error> {
        let settings = Settings {
            source: Source::Kube {
                access: Access {
                    kubeconfig: Some(node.endpoint.kubeconfig()),
                    context: None,
                },
                silence: SILENCE,
            },
            node: node.name.clone(),
            bridge: None,
            http: HttpAddress::default(),
            revoke: true,
            own_table: true,
            block_new_pods: false,
            pod_cidrs: Vec::new(),
            anti_spoof: true,
            cni: None,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = node.node.netns().spawn({
            let refusal = refusal.clone();
            move || run(settings, refusal, stopped)
        })?;
        Ok(Self {
            refusal,
            stop,
            thread,
        })
    }

    /// From now on the kernel refuses nothing.
    pub fn heal(&self) {
        self.refusal.healed.store(true, Ordering::Relaxed);
    }

    /// Ends it; it must have been there until now.
    pub fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        self.thread.join().unwrap()?
    }
}

fn run(settings: Settings, refusal: Refusal, stopped: oneshot::Receiver<()>) -> Result<(), Error> {
    let invalid = |what: String| Error::Invalid { what };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    let kernel = Kernel::open().map_err(|error| invalid(error.to_string()))?;
    runtime.block_on(async {
        tokio::select! {
            ended = enforce::run_on(Refusing { kernel, refusal }, None, settings) => {
                Err(invalid(format!("the daemon has ended: {ended:?}")))
            }
            _ = stopped => Ok(()),
        }
    })
}
