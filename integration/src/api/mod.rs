//! API servers for tests: a stand-in in this process, a proxy that makes any API server fail, and a cluster that a test
//! can fill, be it the stand-in's or a real one.

mod admit;
mod background;
mod cluster;
mod delete;
mod discovery;
mod kinds;
mod list;
mod patch;
mod path;
mod proxy;
mod routes;
mod selectors;
mod server;
mod settings;
mod status;
mod store;
mod stream;
mod watch;
mod write;

pub use cluster::{Cluster, KUBECONFIG, NewPod};
pub use kinds::Kind;
pub use path::Target;
pub use proxy::{Chaos, Cut, Endpoint, Fault, Proxy, Reply, Seen, Which};
pub use server::ApiServer;
pub use settings::{Gone, Settings};
