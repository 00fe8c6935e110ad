//! The way to the API server: configuration, credentials, and requests as bytes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::Mutex;
use tower::{BoxError, ServiceBuilder};

use super::trim::{self, STATUS};
use crate::limits;

/// How long a request may wait for its answer to begin, and a page to be complete.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that answers nothing for so long is asked whether it is there, so often more, this long apart: one that has lost its
/// power ends no connection.
const KEEPALIVE: (Duration, u32, Duration) = (Duration::from_secs(10), 3, Duration::from_secs(5));

/// How long credentials are used at least before they are read again.
const RENEWAL: Duration = Duration::from_secs(5);

/// How the API server is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file; without one, the pod's service account or, outside a cluster, what kubectl would take.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context, where it is not the current one.
    pub context: Option<String>,
}

/// Why there is no way to the API server, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct AccessError {
    /// Where the configuration was looked for.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No answer, or one that broke off.
    #[error("{reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// An answer that is none.
    #[error("its answer makes no sense: {reason}")]
    Nonsense {
        /// What is wrong with it.
        reason: String,
    },
    /// An answer of which only a part would be more than is read.
    #[error("its answer has more than {} MiB", limits::PAGE >> 20)]
    TooLarge,
    /// The server says no.
    #[error("{message}")]
    Refused {
        /// The HTTP status code.
        code: u16,
        /// The server's reason in one word.
        reason: String,
        /// Its reason in a sentence.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl ApiError {
    /// Whether the version asked for is one that the server no longer has, or does not have yet (after etcd was
    /// restored from a backup): a new list is the cure.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                *code == StatusCode::GONE.as_u16()
                    || (*code == StatusCode::GATEWAY_TIMEOUT.as_u16()
                        && message.contains("Too large resource version"))
            }
            _ => false,
        }
    }

    /// Whether the server can't be understood, or doesn't understand what it was asked. One that is not there, too busy,
    /// broken or that lets nobody in will make sense again.
    pub fn is_senseless(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Nonsense { .. } | Self::TooLarge => true,
            Self::Refused { code, .. } => {
                !(matches!(code, 401 | 403 | 408 | 429) || (500..600).contains(code))
            }
        }
    }

    /// Whether the credentials were not accepted.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { code: 401, .. })
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a Status object says, be it an answer's body or an event of a watch.
    pub fn of_status(status: &Value, code: u16) -> Self {
        let text = |key| status.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |value: Option<&Value>| value.and_then(Value::as_u64);
        let details = status.get("details");
        let seconds = number(details.and_then(|details| details.get("retryAfterSeconds")));
        let code = number(status.get("code"))
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(code);
        let message = match text("message") {
            "" => format!("it answers {code} {}", text("reason")),
            message => one_line(message),
        };
        Self::Refused {
            code,
            reason: text("reason").to_owned(),
            message,
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

/// A connection to the API server, whose credentials are read again when they are no longer accepted.
#[derive(Clone)]
pub struct Connection {
    access: Access,
    place: Arc<str>,
    client: Arc<Mutex<(Client, Instant)>>,
}

impl Connection {
    /// Reads the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// [`AccessError`] when there is none, or none that makes sense.
    pub async fn new(access: Access) -> Result<Self, AccessError> {
        let (client, place) = access.client().await?;
        Ok(Self {
            access,
            place: place.into(),
            client: Arc::new(Mutex::new((client, Instant::now()))),
        })
    }

    /// A connection to a server on this machine, without credentials.
    #[cfg(test)]
    pub fn to(url: &str) -> Self {
        let mut config = Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = kept_alive(config).unwrap();
        Self {
            access: Access::default(),
            place: url.into(),
            client: Arc::new(Mutex::new((client, Instant::now()))),
        }
    }

    /// The API server's URL.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Reads the configuration and its credentials again, unless that has just been done. What can't be read leaves
    /// all as it was.
    pub async fn renew(&self) {
        let mut current = self.client.lock().await;
        if current.1.elapsed() < RENEWAL {
            return;
        }
        match self.access.client().await {
            Ok((client, _)) => *current = (client, Instant::now()),
            Err(error) => tracing::debug!("credentials can't be read again: {error}"),
        }
    }

    /// The body of the answer to a GET, as it comes.
    ///
    /// # Errors
    /// [`ApiError`] when there is no answer, or another than 200.
    pub async fn get(&self, path: &str) -> Result<Body, ApiError> {
        self.send(Method::GET, path, Vec::new()).await
    }

    /// The whole answer to a GET.
    ///
    /// # Errors
    /// [`ApiError`] when there is no answer, or another than 200, or one that does not end.
    pub async fn get_all(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        let body = self.get(path).await?;
        collect(body, limits::PAGE).await
    }

    /// Sends a JSON object.
    ///
    /// # Errors
    /// [`ApiError`] when there is no answer, or none of success.
    pub async fn send_json(
        &self,
        method: Method,
        path: &str,
        object: &Value,
    ) -> Result<(), ApiError> {
        let body = serde_json::to_vec(object).map_err(|error| ApiError::Nonsense {
            reason: error.to_string(),
        })?;
        self.send(method, path, body).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Body, ApiError> {
        let client = self.client.lock().await.0.clone();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| unreachable(&error))?;
        let response = match tokio::time::timeout(PATIENCE, client.send(request)).await {
            Ok(response) => response.map_err(|error| unreachable(&error))?,
            Err(_) => return Err(silent()),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let seconds = response.headers().get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = collect(response.into_body(), limits::REFUSAL)
            .await
            .unwrap_or_default();
        let mut error = match trim::read(&body, STATUS) {
            Ok(value) if value.is_object() => ApiError::of_status(&value, status.as_u16()),
            // Proxies and overloaded servers answer with plain text.
            _ => ApiError::Refused {
                code: status.as_u16(),
                reason: String::new(),
                message: format!("it answers {status}"),
                retry_after: None,
            },
        };
        if let (ApiError::Refused { retry_after, .. }, Some(seconds)) = (&mut error, seconds) {
            *retry_after = Some(Duration::from_secs(seconds));
        }
        Err(error)
    }
}

async fn collect(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(PATIENCE, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Ok(Err(error)) => Err(unreachable(&*error)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> ApiError {
    ApiError::Unreachable {
        reason: format!("it has not answered for {} s", PATIENCE.as_secs()),
    }
}

impl Access {
    /// A client, and the server's URL.
    async fn client(&self) -> Result<(Client, String), AccessError> {
        let mut config = self.config().await?;
        // Waiting is done where it can be said what for.
        config.default_retry = false;
        let place = config.cluster_url.to_string();
        let client = match config.proxy_url {
            // Whether there is one is the proxy's to say.
            Some(_) => Client::try_from(config),
            None => kept_alive(config),
        };
        let client = client.map_err(|error| AccessError {
            place: self.place(),
            reason: chain(&error),
        })?;
        Ok((client, place))
    }

    async fn config(&self) -> Result<Config, AccessError> {
        let failed = |error: &dyn std::error::Error| AccessError {
            place: self.place(),
            reason: chain(error),
        };
        if self.in_cluster() {
            return Config::incluster().map_err(|error| failed(&error));
        }
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let kubeconfig = kubeconfig.map_err(|error| failed(&error))?;
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| failed(&error))
    }

    /// Whether anything says where the API server is: an option, the pod's environment, or a kubeconfig.
    pub fn is_configured(&self) -> bool {
        let found = || Kubeconfig::read().is_ok_and(|all| !all.clusters.is_empty());
        self.is_named() || self.in_cluster() || found()
    }

    fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    fn in_cluster(&self) -> bool {
        !self.is_named() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// Where the configuration is looked for.
    fn place(&self) -> String {
        match &self.kubeconfig {
            Some(path) => path.display().to_string(),
            None if self.in_cluster() => "the pod's service account".to_owned(),
            None => "kubeconfig ($KUBECONFIG or ~/.kube/config)".to_owned(),
        }
    }
}

/// A client as kube makes it, whose connections notice that the server is gone.
fn kept_alive(config: Config) -> kube::Result<Client> {
    let (idle, retries, interval) = KEEPALIVE;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_retries(Some(retries));
    connector.set_keepalive_interval(Some(interval));
    // What was sent and is not acknowledged counts in the same way.
    connector.set_tcp_user_timeout(Some(idle + interval * retries));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// An error and its causes in one line, without what a cause repeats.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one_line(&error.to_string());
        if !text.contains(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

/// The text's beginning, in one line.
fn one_line(text: &str) -> String {
    let head: String = text.chars().take(limits::MESSAGE).collect();
    let words: Vec<&str> = head.split_whitespace().collect();
    words.join(" ")
}

pub(super) fn unreachable(error: &dyn std::error::Error) -> ApiError {
    ApiError::Unreachable {
        reason: chain(error),
    }
}
