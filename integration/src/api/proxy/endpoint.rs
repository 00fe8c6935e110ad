//! One address that a proxy listens on, and its handle for tests.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use kube::Client;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::background::Background;
use crate::api::kinds::Kind;
use crate::error::{During, Error};
use crate::netns::Netns;
use crate::wait::wait_until;

use super::forward::forward;
use super::reply::{Reply, Which};
use super::seen::Seen;
use super::weather::{Cut, Weather};
use super::wire::Port;

/// How long a child of this process may take to its exec: until then it has a copy of each listener, closed here or not.
const EXEC: Duration = Duration::from_secs(10);

/// Where clients of a [`Proxy`](super::Proxy) connect to. Clones are the same endpoint; it closes with the last one.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    netns: Option<Netns>,
    address: SocketAddr,
    files: TempDir,
    background: Arc<Background>,
    serving: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

/// What requests and tests share.
pub(crate) struct State {
    pub(crate) upstream: Client,
    pub(crate) weather: watch::Sender<Weather>,
    planned: Mutex<VecDeque<(Which, Reply)>>,
    seen: Mutex<Vec<Seen>>,
    token: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Notes a request, and finds the answer that is planned for it.
    pub(crate) fn note(&self, seen: Seen) -> Option<Reply> {
        let mut planned = lock(&self.planned);
        let at = planned.iter().position(|(which, _)| which.matches(&seen));
        lock(&self.seen).push(seen);
        at.and_then(|at| planned.remove(at)).map(|(_, reply)| reply)
    }

    /// Whether this `Authorization` header is good enough.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> bool {
        lock(&self.token).as_ref().is_none_or(|token| {
            authorization.and_then(|header| header.strip_prefix("Bearer ")) == Some(token)
        })
    }
}

impl Endpoint {
    pub(crate) fn open(
        background: Arc<Background>,
        upstream: Client,
        netns: Option<Netns>,
    ) -> Result<Self, Error> {
        let listener = bind(netns.as_ref(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener
            .local_addr()
            .during("read the listener's address")?;
        let files = TempDir::new().during("make a directory for a kubeconfig")?;
        let token = files.path().join("token");
        let text = kubeconfig(&format!("http://{address}"), &token);
        fs::write(files.path().join("kubeconfig"), text).during("write a kubeconfig")?;
        fs::write(token, "first").during("write a token")?;
        let endpoint = Self {
            inner: Arc::new(Inner {
                netns,
                address,
                files,
                background,
                serving: Mutex::new(None),
                state: Arc::new(State {
                    upstream,
                    weather: watch::Sender::new(Weather::default()),
                    planned: Mutex::default(),
                    seen: Mutex::default(),
                    token: Mutex::default(),
                }),
            }),
        };
        endpoint.serve(listener);
        Ok(endpoint)
    }

    fn serve(&self, listener: TcpListener) {
        let state = self.inner.state.clone();
        let router = Router::new().fallback(forward).with_state(state.clone());
        let task = self.inner.background.handle().spawn(async move {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let weather = state.weather.subscribe();
                let _ = axum::serve(Port { listener, weather }, router).await;
            }
        });
        *lock(&self.inner.serving) = Some(task);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// A kubeconfig file that names this endpoint; it goes with the last handle. Its token stands in a `tokenFile`.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.inner.files.path().join("kubeconfig")
    }

    /// From now on only requests with this bearer token pass, the others get 401 (none: all pass).
    pub fn require_token(&self, token: Option<&str>) {
        *lock(&self.inner.state.token) = token.map(str::to_owned);
    }

    /// Writes the token file that the kubeconfig names, as kubelet renews a service account's token. At first it holds
    /// `first`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_token(&self, token: &str) -> Result<(), Error> {
        let path = self.inner.files.path();
        fs::write(path.join("token.new"), token).during("write a token")?;
        fs::rename(path.join("token.new"), path.join("token")).during("replace a token")
    }

    fn set(&self, edit: impl FnOnce(&mut Weather)) {
        self.inner.state.weather.send_modify(edit);
    }

    /// Ends all streams that run now.
    pub fn cut(&self, how: Cut) {
        self.set(|weather| weather.cuts = (weather.cuts.0 + 1, Some(how)));
    }

    /// Drops all connections that exist now. New ones are accepted.
    pub fn hang_up(&self) {
        self.set(|weather| weather.hangups += 1);
    }

    /// Answers the next so many requests of this sort itself. Several plans wait in order.
    pub fn answer_next(&self, times: usize, which: Which, reply: Reply) {
        lock(&self.inner.state.planned).extend(std::iter::repeat_n((which, reply), times));
    }

    /// How many planned answers have not been asked for yet.
    pub fn planned(&self) -> usize {
        lock(&self.inner.state.planned).len()
    }

    /// While stalled, connections are accepted and streams stay open, but nothing is said and nothing passes. What
    /// was held back passes afterwards.
    pub fn stall(&self, stalled: bool) {
        self.set(|weather| weather.stalled = stalled);
    }

    /// Lets each request wait before it is passed on.
    pub fn delay(&self, delay: Duration) {
        self.set(|weather| weather.delay = delay);
    }

    /// Whether bodies come in pieces of a few bytes.
    pub fn dribble(&self, dribble: bool) {
        self.set(|weather| weather.dribble = dribble);
    }

    /// Drops all connections and refuses new ones. Nothing passes after this has returned.
    ///
    /// # Errors
    /// When the thread that serves is gone, or somebody else serves there.
    pub fn down(&self) -> Result<(), Error> {
        let serving = lock(&self.inner.serving).take();
        if let Some(serving) = serving {
            serving.abort();
            // Only when it has ended, the listener is closed.
            let _ = self.inner.background.wait(serving)?;
        }
        self.hang_up();
        let address = self.inner.address;
        let refused = move || TcpStream::connect(address).is_err();
        let what = format!("{address} to refuse connections");
        wait_until(&what, EXEC, || match &self.inner.netns {
            Some(netns) => netns.run(refused),
            None => Ok(refused()),
        })
    }

    /// Listens again, on the same address; nothing happens when it does already.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn up(&self) -> Result<(), Error> {
        if lock(&self.inner.serving).is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + EXEC;
        let listener = loop {
            match bind(self.inner.netns.as_ref(), self.inner.address) {
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(5));
                }
                bound => break bound?,
            }
        };
        self.serve(listener);
        Ok(())
    }

    /// Ends every fault: nothing planned, no stall, no delay, up.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn calm(&self) -> Result<(), Error> {
        lock(&self.inner.state.planned).clear();
        self.require_token(None);
        self.set(|weather| {
            weather.stalled = false;
            weather.dribble = false;
            weather.delay = Duration::ZERO;
        });
        self.up()
    }

    /// What it has been asked, in order, answered or not.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.inner.state.seen).clone()
    }

    /// How many requests there were with this verb for this kind; pages that continue a list are not counted again.
    pub fn count(&self, verb: &str, kind: Kind) -> usize {
        let of = |seen: &&Seen| {
            seen.target
                .as_ref()
                .is_some_and(|target| target.kind == kind)
        };
        let seen = lock(&self.inner.state.seen);
        let seen = seen.iter().filter(of).filter(|seen| seen.verb == verb);
        seen.filter(|seen| !seen.is_next_page()).count()
    }

    /// Starts counting anew.
    pub fn forget(&self) {
        lock(&self.inner.state.seen).clear();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(serving) = lock(&self.serving).take() {
            serving.abort();
        }
        self.state
            .weather
            .send_modify(|weather| weather.hangups += 1);
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.inner.address)
    }
}

/// A listener belongs to the namespace that it was made in, whichever thread serves it.
fn bind(netns: Option<&Netns>, address: SocketAddr) -> Result<TcpListener, Error> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let opened: std::io::Result<TcpListener> = match netns {
        Some(netns) => netns.run(open)?,
        None => open(),
    };
    opened.during(&format!("listen on {address}"))
}

fn kubeconfig(url: &str, token: &Path) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: test, cluster: {{server: \"{url}\"}}}}]\n\
         users: [{{name: test, user: {{tokenFile: \"{}\"}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         current-context: test\n",
        token.display()
    )
}
