//! The API server stand-in, the proxy that makes API servers fail, and the cluster that tests fill.
//!
//! What a real API server can show, too, is tried on the one that `SELVEDGE_TEST_KUBECONFIG` names, if it does.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop

#[path = "api/faults.rs"]
mod faults;
#[path = "api/http.rs"]
mod http_client;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/semantics.rs"]
mod semantics;
#[path = "api/versions.rs"]
mod versions;
#[path = "api/watches.rs"]
mod watches;
