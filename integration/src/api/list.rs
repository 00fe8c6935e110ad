//! Lists: whole or in pages, all pages as of one version.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Value, json};

use super::path::Target;
use super::selectors::Selection;
use super::status::Failure;
use super::store::{Key, Store, View};

/// A parameter that is a number.
pub(crate) fn number(query: &BTreeMap<String, String>, key: &str) -> Result<Option<u64>, Failure> {
    let value = query.get(key).filter(|value| !value.is_empty());
    let parsed = value.map(|value| value.parse());
    parsed
        .transpose()
        .map_err(|_| Failure::bad_request(format!("Invalid value: {key} is no number")))
}

/// Answers a list.
pub(crate) fn list(
    store: &Store,
    target: &Target,
    query: &BTreeMap<String, String>,
) -> Result<Value, Failure> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let kind = target.kind;
    let selection = Selection::parse(kind, get("labelSelector"), get("fieldSelector"))?;
    if query.contains_key("sendInitialEvents") {
        let why = "sendInitialEvents is forbidden for list";
        return Err(Failure::options("sendInitialEvents", why));
    }
    let limit = number(query, "limit")?.unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (revision, after) = place(store, query, limit)?;
    let objects = match store.view(kind, revision) {
        Ok(objects) => objects,
        // Only a page can be continued: a new list begins anew.
        Err(failure) => match &after {
            Some(after) if failure.code() == 410 => {
                return Err(Failure::list_expired(token(NOW, after)));
            }
            _ => return Err(failure),
        },
    };
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(page(target, &objects, revision, start, limit, &selection))
}

fn page(
    target: &Target,
    objects: &View<'_>,
    revision: u64,
    start: Bound<Key>,
    limit: usize,
    selection: &Selection,
) -> Value {
    let kind = target.kind;
    let namespace = target.namespace.as_deref();
    let mut rest = objects
        .range(start)
        .filter(|((in_namespace, _), _)| namespace.is_none_or(|wanted| wanted == in_namespace))
        .filter(|(_, object)| selection.matches(object))
        .peekable();
    let mut items = Vec::new();
    let mut last = None;
    while let Some((key, object)) = rest.next_if(|_| limit == 0 || items.len() < limit) {
        let mut item = Value::clone(object);
        if let Value::Object(fields) = &mut item {
            // The server leaves these out: the list says what its items are.
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        items.push(item);
        last = Some(key.clone());
    }
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let (Some(last), Some(_)) = (last, rest.peek()) {
        metadata["continue"] = json!(token(revision, &last));
        if selection.is_everything() {
            metadata["remainingItemCount"] = json!(rest.count());
        }
    }
    json!({
        "kind": format!("{}List", kind.name()), "apiVersion": kind.api_version(),
        "metadata": metadata, "items": items,
    })
}

/// The version a list is of, and the object it goes on behind.
fn place(
    store: &Store,
    query: &BTreeMap<String, String>,
    limit: usize,
) -> Result<(u64, Option<Key>), Failure> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let version = number(query, "resourceVersion")?;
    let matching = get("resourceVersionMatch");
    let go_on = get("continue");
    if !go_on.is_empty() {
        if version.unwrap_or_default() != 0 {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(why));
        }
        if !matching.is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            return Err(Failure::options("resourceVersionMatch", why));
        }
        let unreadable = || Failure::bad_request("continue key is not valid: unreadable");
        let (revision, after) = read_token(go_on).ok_or_else(unreadable)?;
        let revision = if revision == NOW {
            store.revision()
        } else {
            revision
        };
        return Ok((revision, Some(after)));
    }
    match (matching, version) {
        ("", None | Some(0)) | ("NotOlderThan", Some(0)) => Ok((store.revision(), None)),
        // With a limit, it has always meant exactly that version.
        ("", Some(version)) if limit > 0 => Ok((version, None)),
        ("" | "NotOlderThan", Some(version)) if version > store.revision() => {
            Err(Failure::too_large(version, store.revision()))
        }
        ("" | "NotOlderThan", Some(_)) => Ok((store.revision(), None)),
        ("Exact", Some(version)) if version > 0 => Ok((version, None)),
        ("Exact", Some(_)) => {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            Err(Failure::options("resourceVersionMatch", why))
        }
        ("Exact" | "NotOlderThan", None) => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            Err(Failure::options("resourceVersionMatch", why))
        }
        _ => {
            let why = "supported values: \"Exact\", \"NotOlderThan\"";
            Err(Failure::options("resourceVersionMatch", why))
        }
    }
}

/// In a token, for: as of whenever it is used.
const NOW: u64 = u64::MAX;

/// Opaque to clients, but characters that a query must escape are among them: who doesn't is found out.
fn token(revision: u64, (namespace, name): &Key) -> String {
    format!("{revision}+{namespace}/{name}&=")
}

fn read_token(token: &str) -> Option<(u64, Key)> {
    let (revision, key) = token.strip_suffix("&=")?.split_once('+')?;
    let (namespace, name) = key.split_once('/')?;
    Some((
        revision.parse().ok()?,
        (namespace.to_owned(), name.to_owned()),
    ))
}
