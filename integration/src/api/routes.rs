//! From HTTP to the store and back.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, header};
use serde_json::{Value, json};

use super::delete::Deleted;
use super::discovery::discover;
use super::kinds::Kind;
use super::list::list;
use super::path::{Target, is_watch, query, verb};
use super::selectors::Selection;
use super::status::{Failure, answer};
use super::store::{Key, Shared, Store};
use super::watch::watch;

/// etcd takes no larger objects by default.
const LARGEST_BODY: usize = 3 << 19;

/// The whole API as a service.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    serve(&shared, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn serve(shared: &Shared, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let Some(target) = Target::parse(path) else {
        return outside(shared, path);
    };
    let known = target.kind.has_status() || target.subresource.is_none();
    let known = known
        && target
            .subresource
            .as_deref()
            .is_none_or(|name| name == "status");
    if !known {
        return Err(Failure::no_resource());
    }
    let query = query(&parts.uri);
    let verb = verb(&parts.method, &target, is_watch(&query));
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match verb {
        "watch" => return watch(shared, &target, &query),
        "list" => return Ok(answer(200, &list(&shared.lock(), &target, &query)?)),
        _ => {}
    }
    let body = read(&parts.method, body, content_type).await?;
    let namespace = target.namespace.as_deref();
    let key: Key = (
        namespace.unwrap_or_default().to_owned(),
        target.name.clone().unwrap_or_default(),
    );
    let subresource = target.subresource.as_deref();
    let mut store = shared.lock();
    let (code, object) = match verb {
        "get" => (200, store.get(target.kind, &key)?),
        "create" if target.name.is_none() && namespace.is_some() == target.kind.is_namespaced() => {
            (201, store.create(target.kind, namespace, body)?)
        }
        "update" if target.name.is_some() => {
            (200, store.update(target.kind, &key, subresource, body)?)
        }
        "patch" if target.name.is_some() => (
            200,
            store.patch(target.kind, &key, subresource, content_type, &body)?,
        ),
        "delete" if subresource.is_none() => {
            let options = delete_options(body, query.get("gracePeriodSeconds"));
            return Ok(deleted(
                target.kind,
                store.delete(target.kind, &key, &options)?,
            ));
        }
        "deletecollection" if namespace.is_some() == target.kind.is_namespaced() => {
            let all = delete_all(&mut store, &target, &query, &body)?;
            return Ok(answer(200, &all));
        }
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return Err(Failure::new(405, "MethodNotAllowed", message));
        }
    };
    Ok(answer(code, &object))
}

fn outside(shared: &Shared, path: &str) -> Result<Response, Failure> {
    if let "/livez" | "/readyz" | "/healthz" = path {
        return Ok("ok".into_response());
    }
    let found = discover(path, &shared.lock().settings);
    found
        .map(|found| answer(200, &found))
        .ok_or_else(Failure::no_resource)
}

async fn read(method: &Method, body: Body, content_type: &str) -> Result<Value, Failure> {
    let body = to_bytes(body, LARGEST_BODY).await.map_err(|_| {
        let message = "Request entity too large: limit is 3145728";
        Failure::new(413, "RequestEntityTooLarge", message)
    })?;
    if body.is_empty() && (method == Method::DELETE || method == Method::GET) {
        return Ok(Value::Null);
    }
    if !content_type.is_empty() && !content_type.contains("json") {
        let message = format!("the body of the request was in an unknown format - {content_type}");
        return Err(Failure::new(415, "UnsupportedMediaType", message));
    }
    serde_json::from_slice(&body)
        .map_err(|why| Failure::bad_request(format!("the object provided is unrecognized: {why}")))
}

/// The grace period may stand in the query, too.
fn delete_options(body: Value, grace: Option<&String>) -> Value {
    let mut options = match body {
        Value::Object(options) => options,
        _ => serde_json::Map::new(),
    };
    if let Some(seconds) = grace.and_then(|text| text.parse::<u64>().ok()) {
        options.insert("gracePeriodSeconds".to_owned(), json!(seconds));
    }
    options.into()
}

fn deleted(kind: Kind, deleted: Deleted) -> Response {
    match deleted {
        Deleted::Marked(object) => answer(200, &object),
        // Of a pod the server always shows the last state.
        Deleted::Gone(object) if kind == Kind::Pod => answer(200, &object),
        Deleted::Gone(object) => answer(
            200,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": object["metadata"]["name"], "group": kind.group(),
                    "kind": kind.plural(), "uid": object["metadata"]["uid"]},
            }),
        ),
    }
}

fn delete_all(
    store: &mut Store,
    target: &Target,
    query: &std::collections::BTreeMap<String, String>,
    body: &Value,
) -> Result<Value, Failure> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let selection = Selection::parse(target.kind, get("labelSelector"), get("fieldSelector"))?;
    let answer = list(store, target, query)?;
    let options = delete_options(body.clone(), query.get("gracePeriodSeconds"));
    let objects = store.objects(target.kind).iter();
    let keys: Vec<Key> = objects
        .filter(|(key, _)| {
            target
                .namespace
                .as_deref()
                .is_none_or(|wanted| wanted == key.0)
        })
        .filter(|(_, object)| selection.matches(object))
        .map(|(key, _)| key.clone())
        .collect();
    for key in keys {
        store.delete(target.kind, &key, &options)?;
    }
    Ok(answer)
}
