//! The server of `/livez`, `/readyz` and `/metrics`, on a thread of its own: it answers while the daemon's loop is busy.
//!
//! It reads only, one request a connection, and no client can hold it up.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::Observer;
use super::connections::{Bounded, Limits};
use super::exposition;
use super::health::LONGEST_STANDSTILL;

const PATHS: &str = "\
selvedge
/livez            whether the daemon moves: 200 or 503
/readyz           whether the policies are in force on this node: 200, or 503 and why not
/readyz?verbose   all that belongs to it
/metrics          for Prometheus
";

/// Why health and metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can't be had.
    #[error(
        "health and metrics can't be served on {address}: {source}; --http names another address, --http off does without"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no thread to serve with.
    #[error(
        "health and metrics can't be served on {address}, as the server can't be started: {source}"
    )]
    Start {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Its end stops the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on `address` in the network namespace that this thread is in. When this returns, requests are answered.
    ///
    /// # Errors
    /// [`HttpError`] when the address can't be had, or no thread.
    pub fn start(address: SocketAddr, observer: Arc<Observer>) -> Result<Self, HttpError> {
        Self::start_with(address, observer, Limits::default())
    }

    fn start_with(
        address: SocketAddr,
        observer: Arc<Observer>,
        limits: Limits,
    ) -> Result<Self, HttpError> {
        let refused = |source| HttpError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let failed = |source| HttpError::Start { address, source };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let listener = Bounded::new(listener, limits);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || serve(&runtime, listener, observer, stopped))
            .map_err(failed)?;
        Ok(Self {
            address: bound,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address, with the port that was found where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Of a panic in there the log knows; there is nothing to be done about it here.
            let _ = thread.join();
        }
    }
}

fn serve(
    runtime: &Runtime,
    listener: Bounded,
    observer: Arc<Observer>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let serving = axum::serve(listener, router(observer));
        tokio::select! {
            _ = stopped => {}
            _ = serving => {}
        }
    });
}

fn router(observer: Arc<Observer>) -> Router {
    Router::new()
        .route("/", get(|| async { PATHS }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; / lists what there is\n") })
        .layer(map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }))
        .with_state(observer)
}

async fn livez(State(observer): State<Arc<Observer>>) -> Response {
    let standstill = observer.health.standstill(Instant::now());
    if standstill < LONGEST_STANDSTILL {
        return "ok\n".into_response();
    }
    let text = format!("the daemon has not moved for {} s\n", standstill.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(observer): State<Arc<Observer>>, RawQuery(query): RawQuery) -> Response {
    let report = observer.health.report();
    let query = query.unwrap_or_default();
    let verbose = query
        .split('&')
        .any(|part| part.split('=').next() == Some("verbose"));
    let status = match report.ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = match (verbose, report.ready()) {
        (true, _) => report.to_string(),
        (false, true) => "ok\n".to_owned(),
        (false, false) => report.reasons().join("\n") + "\n",
    };
    (status, text).into_response()
}

async fn metrics(State(observer): State<Arc<Observer>>, headers: HeaderMap) -> Response {
    let Ok(text) = observer.open_metrics() else {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics can't be written\n",
        )
            .into_response();
    };
    let open = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(exposition::accepts_open_metrics);
    match open {
        true => ([(header::CONTENT_TYPE, exposition::OPEN_METRICS)], text).into_response(),
        false => {
            let text = exposition::classic(&text);
            ([(header::CONTENT_TYPE, exposition::CLASSIC)], text).into_response()
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
