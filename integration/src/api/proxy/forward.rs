//! One request's way through an endpoint.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{Request as HttpRequest, Uri, header};
use http_body_util::BodyExt;
use kube::client::Body as KubeBody;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::path::{Target, is_watch, query, verb};
use crate::api::status::Failure;

use super::endpoint::State;
use super::reply::{HALF_LINE, Reply};
use super::seen::Seen;
use super::weather::{Cut, Weather, wait};

pub(crate) async fn forward(Extract(state): Extract<Arc<State>>, request: Request) -> Response {
    let mut weather = state.weather.subscribe();
    let target = Target::parse(request.uri().path());
    let query = query(request.uri());
    let watch = is_watch(&query);
    let planned = state.note(Seen {
        verb: target
            .as_ref()
            .map_or("other", |target| verb(request.method(), target, watch)),
        target,
        path: request.uri().path().to_owned(),
        query,
        at: Instant::now(),
    });
    let delay = weather.borrow().delay;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    wait(&mut weather, |weather| !weather.stalled).await;
    let authorization = request.headers().get(header::AUTHORIZATION);
    if !state.admits(authorization.and_then(|value| value.to_str().ok())) {
        return Reply::Status(401, None).response().unwrap_or_default();
    }
    if let Some(reply) = planned {
        match reply.response() {
            Some(response) => return response,
            None => std::future::pending::<()>().await,
        }
    }
    let answer = pass(&state, request, weather).await;
    answer.unwrap_or_else(|why| Failure::new(502, "BadGateway", why).into_response())
}

/// Passes a request on, and its answer back.
async fn pass(
    state: &State,
    request: Request,
    weather: watch::Receiver<Weather>,
) -> Result<Response, String> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|e| e.to_string())?;
    let uri = parts
        .uri
        .path_and_query()
        .cloned()
        .map_or_else(Uri::default, Uri::from);
    let mut outward = HttpRequest::new(KubeBody::from(body));
    *outward.method_mut() = parts.method;
    *outward.uri_mut() = uri;
    for name in [header::CONTENT_TYPE, header::ACCEPT, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            outward.headers_mut().insert(name, value.clone());
        }
    }
    let cuts = weather.borrow().cuts.0;
    let answer = state
        .upstream
        .send(outward)
        .await
        .map_err(|e| e.to_string())?;
    let (parts, body) = answer.into_parts();
    let flow = Flow {
        body: body
            .into_data_stream()
            .map(|piece| piece.map_err(io::Error::other))
            .boxed(),
        rest: Bytes::new(),
        cuts,
        weather,
        broken: false,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(flow, next)));
    *response.status_mut() = parts.status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER, header::WARNING] {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// A body on its way back.
struct Flow<S> {
    body: S,
    /// What has come and is not passed on yet.
    rest: Bytes,
    /// How many cuts were before it.
    cuts: u64,
    weather: watch::Receiver<Weather>,
    broken: bool,
}

/// How many bytes a dribbling body passes at once.
const DROP: usize = 7;

async fn next<S>(mut flow: Flow<S>) -> Option<(io::Result<Bytes>, Flow<S>)>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    if flow.broken {
        // What was written before must be on its way, or the client would not see it.
        sleep(Duration::from_millis(20)).await;
        return Some((Err(io::ErrorKind::ConnectionReset.into()), flow));
    }
    loop {
        let weather = flow.weather.borrow_and_update().clone();
        if weather.cuts.0 > flow.cuts {
            flow.cuts = weather.cuts.0;
            return match weather.cuts.1 {
                None | Some(Cut::Clean) => None,
                Some(Cut::Abrupt) => Some((Err(io::ErrorKind::ConnectionReset.into()), flow)),
                Some(Cut::MidLine) => {
                    flow.broken = true;
                    Some((Ok(HALF_LINE.into()), flow))
                }
            };
        }
        if weather.stalled {
            // An endpoint that is gone stalls for ever, which ends with its connections.
            wait(&mut flow.weather, |now| {
                !now.stalled || now.cuts.0 > weather.cuts.0
            })
            .await;
            continue;
        }
        if !flow.rest.is_empty() {
            let length = if weather.dribble {
                DROP.min(flow.rest.len())
            } else {
                flow.rest.len()
            };
            let piece = flow.rest.split_to(length);
            return Some((Ok(piece), flow));
        }
        tokio::select! {
            biased;
            changed = flow.weather.changed() => {
                if changed.is_err() {
                    return None;
                }
            }
            piece = flow.body.next() => match piece? {
                Ok(piece) => flow.rest = piece,
                Err(error) => return Some((Err(error), flow)),
            },
        }
    }
}
