//! The API's verbs, each waiting for its answer.

use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api::path::Target;
use crate::error::Error;

use super::Cluster;

impl Cluster {
    /// Sends any request; `content_type` is for its body.
    ///
    /// # Errors
    /// [`Error::Api`] for everything but success.
    pub fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let what = format!("{method} {path}");
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let mut builder = Request::builder().method(method).uri(path);
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        let request = builder.body(Body::from(bytes));
        let request = request.map_err(|e| Error::invalid(format!("{what}: {e}")))?;
        let client = self.client.clone();
        let answer = self.background.wait(async move {
            let answer = client.send(request).await.map_err(|e| e.to_string())?;
            let code = answer.status().as_u16();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|e| e.to_string())?;
            Ok::<_, String>((code, body.to_bytes()))
        })?;
        let (code, bytes) = answer.map_err(|e| Error::invalid(format!("{what}: {e}")))?;
        let value: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| json!({"reason": "", "message": String::from_utf8_lossy(&bytes)}));
        if code < 400 {
            return Ok(value);
        }
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Err(Error::Api {
            what,
            code,
            reason: text("reason"),
            message: text("message"),
        })
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The API's.
    pub fn get(&self, target: &Target) -> Result<Value, Error> {
        self.call(Method::GET, &target.path(), "", None)
    }

    /// Reads an object that may not exist.
    ///
    /// # Errors
    /// The API's, but not 404.
    pub fn find(&self, target: &Target) -> Result<Option<Value>, Error> {
        match self.get(target) {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api { code: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of a collection.
    ///
    /// # Errors
    /// The API's.
    pub fn list(&self, target: &Target) -> Result<Vec<Value>, Error> {
        let mut list = self.call(Method::GET, &target.path(), "", None)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Creates an object in a collection.
    ///
    /// # Errors
    /// The API's.
    pub fn create(&self, collection: &Target, object: &Value) -> Result<Value, Error> {
        let json = "application/json";
        self.call(Method::POST, &collection.path(), json, Some(object))
    }

    /// Replaces an object, or its status.
    ///
    /// # Errors
    /// The API's.
    pub fn replace(&self, target: &Target, object: &Value) -> Result<Value, Error> {
        self.call(
            Method::PUT,
            &target.path(),
            "application/json",
            Some(object),
        )
    }

    /// Changes an object, or its status, by a JSON merge patch.
    ///
    /// # Errors
    /// The API's.
    pub fn patch(&self, target: &Target, patch: &Value) -> Result<Value, Error> {
        let merge = "application/merge-patch+json";
        self.call(Method::PATCH, &target.path(), merge, Some(patch))
    }

    /// Deletes an object: a pod with its own grace period.
    ///
    /// # Errors
    /// The API's.
    pub fn delete(&self, target: &Target) -> Result<Value, Error> {
        self.call(Method::DELETE, &target.path(), "", None)
    }
}
