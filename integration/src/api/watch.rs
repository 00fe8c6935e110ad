//! Watches: what has been, then what comes, each change once and in order, until the time is over.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{self, Instant};

use super::kinds::Kind;
use super::list::number;
use super::path::Target;
use super::selectors::Selection;
use super::settings::Gone;
use super::status::Failure;
use super::store::{Change, Object, Shared, Store, stamped};
use super::stream::{Running, next};

/// Someone who watches, as the store knows him.
pub(crate) struct Watcher {
    id: u64,
    scope: Scope,
    sender: Sender<Line>,
}

/// What a watch is about.
#[derive(Debug, Clone)]
struct Scope {
    kind: Kind,
    /// Changes up to this version are none of its business: one from the future waits.
    after: u64,
    namespace: Option<String>,
    selection: Selection,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub(super) struct Line {
    kind: &'static str,
    object: Object,
}

impl Line {
    fn new(kind: &'static str, object: Object) -> Self {
        Self { kind, object }
    }

    pub(super) fn encode(&self) -> Bytes {
        format!(
            "{{\"type\":\"{}\",\"object\":{}}}\n",
            self.kind, self.object
        )
        .into()
    }
}

impl Scope {
    fn has(&self, namespace: &str, object: &Value) -> bool {
        let here = self
            .namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace);
        here && self.selection.matches(object)
    }

    /// A change, as it looks through the selectors: what starts to match is added, what ceases to is deleted.
    fn line(&self, change: &Change) -> Option<Line> {
        if change.kind != self.kind || change.revision <= self.after {
            return None;
        }
        let inside = |object: &Object| self.has(&change.key.0, object);
        let old = change.old.as_ref().filter(|old| inside(old));
        let new = change.new.as_ref().filter(|new| inside(new));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Line::new("ADDED", new.clone())),
            (Some(_), Some(new)) => Some(Line::new("MODIFIED", new.clone())),
            (Some(old), None) => {
                let last = stamped(self.kind, old, change.revision);
                Some(Line::new("DELETED", last))
            }
        }
    }
}

impl Watcher {
    /// Passes a change on; false when nobody listens any more, or is too far behind.
    pub(crate) fn tell(&self, change: &Change) -> bool {
        let line = self.scope.line(change);
        line.map_or(!self.sender.is_closed(), |line| {
            self.sender.try_send(line).is_ok()
        })
    }
}

impl Store {
    pub(super) fn bookmark(&mut self, id: u64) {
        let revision = self.revision();
        let mut watchers = self.watchers.iter();
        if let Some(watcher) = watchers.find(|one| one.id == id && one.scope.after <= revision) {
            let line = bookmark(watcher.scope.kind, revision, false);
            // One that is too far behind needs no bookmark.
            let _ = watcher.sender.try_send(line);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u64) {
        self.watchers.retain(|watcher| watcher.id != id);
    }

    /// How many watches run.
    pub(crate) fn watches(&self) -> usize {
        self.watchers
            .iter()
            .filter(|watcher| !watcher.sender.is_closed())
            .count()
    }
}

/// An empty object of the kind with a version, as the server encodes it.
fn bookmark(kind: Kind, revision: u64, initial_events_end: bool) -> Line {
    let mut object = json!({
        "kind": kind.name(), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
    });
    match kind {
        Kind::Pod => {
            object["spec"] = json!({"containers": null});
            object["status"] = json!({});
        }
        Kind::Namespace | Kind::Node => {
            object["spec"] = json!({});
            object["status"] = json!({});
        }
        Kind::NetworkPolicy => object["spec"] = json!({"podSelector": {}}),
        Kind::Event => {}
    }
    if initial_events_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    Line::new("BOOKMARK", object.into())
}

/// Answers a watch.
pub(crate) fn watch(
    shared: &Shared,
    target: &Target,
    query: &BTreeMap<String, String>,
) -> Result<Response, Failure> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let mut fields = get("fieldSelector").to_owned();
    if let Some(name) = &target.name {
        fields = format!("metadata.name={name},{fields}");
    }
    let scope = Scope {
        kind: target.kind,
        after: number(query, "resourceVersion")?.unwrap_or_default(),
        namespace: target.namespace.clone(),
        selection: Selection::parse(target.kind, get("labelSelector"), &fields)?,
    };
    let bookmarks = matches!(get("allowWatchBookmarks"), "true" | "1");
    let mut store = shared.lock();
    let initial = match initial(&store, &scope, query, bookmarks) {
        Ok(initial) => initial,
        Err(failure) if failure.code() == 410 && store.settings.gone == Gone::Event => {
            let error = Line::new("ERROR", failure.status().into());
            return Ok(response(Body::from(error.encode())));
        }
        Err(failure) => return Err(failure),
    };
    let timeout = match number(query, "timeoutSeconds")? {
        None | Some(0) => store.settings.watch_timeout,
        Some(seconds) => Duration::from_secs(seconds),
    };
    let (sender, receiver) = mpsc::channel(store.settings.watch_buffer.max(1));
    store.next_watcher += 1;
    let id = store.next_watcher;
    store.watchers.push(Watcher { id, scope, sender });
    let period = store.settings.bookmarks.max(Duration::from_millis(1));
    let running = Running {
        shared: shared.clone(),
        id,
        initial: initial.into(),
        receiver,
        bookmarks: bookmarks.then(|| time::interval_at(Instant::now() + period, period)),
        // Too long for a clock is for ever.
        end: Instant::now().checked_add(timeout),
    };
    Ok(response(Body::from_stream(stream::unfold(running, next))))
}

/// What a watch starts with.
fn initial(
    store: &Store,
    scope: &Scope,
    query: &BTreeMap<String, String>,
    bookmarks: bool,
) -> Result<Vec<Line>, Failure> {
    let present = || -> Vec<Line> {
        let objects = store.objects(scope.kind).iter();
        let inside = objects.filter(|(key, object)| scope.has(&key.0, object));
        inside
            .map(|(_, object)| Line::new("ADDED", object.clone()))
            .collect()
    };
    let matching = query
        .get("resourceVersionMatch")
        .map(String::as_str)
        .unwrap_or_default();
    let from = number(query, "resourceVersion")?.unwrap_or_default();
    let Some(send) = query.get("sendInitialEvents") else {
        if !matching.is_empty() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(Failure::options("resourceVersionMatch", why));
        }
        return match from {
            0 => Ok(present()),
            from => Ok(store
                .changes_after(from)?
                .filter_map(|change| scope.line(change))
                .collect()),
        };
    };
    if !store.settings.watch_list {
        let why =
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Failure::options("sendInitialEvents", why));
    }
    if matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Failure::options("resourceVersionMatch", why));
    }
    if send != "true" {
        return Ok(store
            .changes_after(if from == 0 { store.revision() } else { from })?
            .filter_map(|change| scope.line(change))
            .collect());
    }
    if from > store.revision() {
        return Err(Failure::too_large(from, store.revision()));
    }
    let mut lines = present();
    if bookmarks {
        lines.push(bookmark(scope.kind, store.revision(), true));
    }
    Ok(lines)
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
