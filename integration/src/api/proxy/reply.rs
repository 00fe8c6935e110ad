//! What an endpoint answers instead of the API server.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};

use crate::api::kinds::Kind;
use crate::api::settings::Gone;
use crate::api::status::Failure;

use super::seen::Seen;

/// Which requests an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Which {
    verb: Option<&'static str>,
    kind: Option<Kind>,
}

impl Which {
    /// All.
    pub fn any() -> Self {
        Self::default()
    }

    /// Those with this verb: `list`, `watch`, `get` …
    pub fn verb(verb: &'static str) -> Self {
        Self {
            verb: Some(verb),
            kind: None,
        }
    }

    /// Of these, the ones for one kind.
    pub fn of(self, kind: Kind) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }

    pub(crate) fn matches(&self, seen: &Seen) -> bool {
        let kind = seen.target.as_ref().map(|target| target.kind);
        self.verb.is_none_or(|verb| verb == seen.verb)
            && self.kind.is_none_or(|wanted| Some(wanted) == kind)
    }
}

/// An answer that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// An HTTP status with a fitting `Status` object; with `Retry-After` in seconds, if there are any.
    Status(u16, Option<u32>),
    /// To a watch: HTTP 200, and an ERROR event whose object is a `Status` of this code.
    ErrorEvent(u16),
    /// HTTP 200, and half a JSON line before the stream ends properly.
    HalfLine,
    /// HTTP 200, and one line of so many bytes that says nothing; it ends properly.
    EnormousLine(usize),
    /// An HTML page under this HTTP status, as load balancers and captive portals send.
    Html(u16),
    /// HTTP 200 and nothing else.
    Empty,
    /// None at all, until the connection is dropped.
    Silence,
}

impl Reply {
    /// The version asked for is gone.
    pub fn gone(form: Gone) -> Self {
        match form {
            Gone::Http => Reply::Status(410, None),
            Gone::Event => Reply::ErrorEvent(410),
        }
    }

    /// As a response; none for silence.
    pub(crate) fn response(self) -> Option<Response> {
        let json = |body: Body| {
            let mut response = Response::new(body);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        };
        Some(match self {
            Reply::Status(code, retry_after) => {
                let mut response = failure(code).into_response();
                if let Some(seconds) = retry_after {
                    response
                        .headers_mut()
                        .insert(header::RETRY_AFTER, seconds.into());
                }
                response
            }
            Reply::ErrorEvent(code) => {
                let status = failure(code).status();
                let line = format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n");
                json(line.into())
            }
            Reply::HalfLine => json(HALF_LINE.into()),
            Reply::EnormousLine(length) => json(enormous(length)),
            Reply::Html(code) => {
                let page = "<!DOCTYPE html>\n<html><head><title>Sorry</title></head><body>\n<h1>Come back later</h1>\n</body></html>\n";
                let mut response = axum::response::Html(page).into_response();
                *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
                response
            }
            Reply::Empty => json(Body::empty()),
            Reply::Silence => return None,
        })
    }
}

pub(crate) const HALF_LINE: &str = "{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"half";

fn failure(code: u16) -> Failure {
    let (reason, message) = match code {
        400 => ("BadRequest", "the request is bad, says the proxy"),
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            "forbidden: User \"test\" cannot do this at the cluster scope",
        ),
        404 => (
            "NotFound",
            "the server could not find the requested resource",
        ),
        410 => ("Expired", "too old resource version: 1 (1000)"),
        429 => (
            "TooManyRequests",
            "Too many requests, please try again later.",
        ),
        500 => (
            "InternalError",
            "Internal error occurred: etcdserver: leader changed",
        ),
        503 => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        504 => (
            "Timeout",
            "Timeout: request did not complete within the allotted timeout",
        ),
        _ => ("Unknown", "an answer of the proxy's own"),
    };
    Failure::new(code, reason, message)
}

/// A line of `x` as one JSON string, made piece by piece.
fn enormous(length: usize) -> Body {
    const PIECE: usize = 1 << 16;
    let head = std::iter::once(Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":\""));
    let fill = vec![Bytes::from(vec![b'x'; PIECE]); length / PIECE + 1];
    let tail = std::iter::once(Bytes::from_static(b"\"}\n"));
    let pieces = head.chain(fill).chain(tail).map(Ok::<_, Infallible>);
    Body::from_stream(stream::iter(pieces))
}
