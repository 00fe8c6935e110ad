//! What the API answers instead of an object: `Status`, with the codes, reasons and texts of the real server.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::kinds::Kind;

/// A failed request.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// `metadata.continue`: where an expired list may go on, inconsistently.
    go_on: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            go_on: None,
        }
    }

    fn about(mut self, kind: Kind, name: &str) -> Self {
        self.details = Some(json!({"name": name, "group": kind.group(), "kind": kind.plural()}));
        self
    }

    pub(crate) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self::new(404, "NotFound", message).about(kind, name)
    }

    /// A path that the server doesn't know.
    pub(crate) fn no_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message)
    }

    pub(crate) fn already_exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub(crate) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let kind_name = kind.qualified();
        let message = format!("Operation cannot be fulfilled on {kind_name} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(kind, name)
    }

    pub(crate) fn modified(kind: Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    pub(crate) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.qualified());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    pub(crate) fn terminating(kind: Kind, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut failure = Self::forbidden(kind, name, &why);
        if let Some(Value::Object(details)) = &mut failure.details {
            let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated")});
            details.insert("causes".to_owned(), json!([cause]));
        }
        failure
    }

    pub(crate) fn invalid(kind: Kind, name: &str, field: &str, why: &str) -> Self {
        let singular = match kind.group() {
            "" => kind.name().to_owned(),
            group => format!("{}.{group}", kind.name()),
        };
        let mut failure = Self::new(
            422,
            "Invalid",
            format!("{singular} \"{name}\" is invalid: {field}: {why}"),
        );
        failure.details = Some(json!({
            "name": name, "group": kind.group(), "kind": kind.name(),
            "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
        }));
        failure
    }

    /// Parameters of a list or watch that don't go together.
    pub(crate) fn options(field: &str, why: &str) -> Self {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}");
        let mut failure = Self::new(422, "Invalid", message);
        failure.details = Some(json!({
            "group": "meta.k8s.io", "kind": "ListOptions",
            "causes": [{"reason": "FieldValueForbidden", "message": format!("Forbidden: {why}"), "field": field}],
        }));
        failure
    }

    pub(crate) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", why)
    }

    /// A version whose history is gone.
    pub(crate) fn too_old(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::new(410, "Expired", message)
    }

    /// A version that this server has not seen yet.
    pub(crate) fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        failure.details = Some(json!({"retryAfterSeconds": 1, "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}));
        failure
    }

    /// A list whose snapshot is gone; `go_on` is a token that continues with the present.
    pub(crate) fn list_expired(go_on: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can \
            start a new list without the continue parameter, or use the continue token in this response to \
            retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
            list - objects that were created, modified, or deleted between the time the first chunk was returned \
            and now may show up in the list.";
        Self {
            go_on: Some(go_on),
            ..Self::new(410, "Expired", message)
        }
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Value::Object(fields) = &mut status {
            if let Some(details) = &self.details {
                fields.insert("details".to_owned(), details.clone());
            }
            if let Some(token) = &self.go_on {
                fields.insert("metadata".to_owned(), json!({"continue": token}));
            }
        }
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        answer(self.code, &self.status())
    }
}

/// An answer with a JSON body.
pub(crate) fn answer(code: u16, body: &Value) -> Response {
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
