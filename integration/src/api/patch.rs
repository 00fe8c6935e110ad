//! Patches: JSON merge patch, JSON patch, and as much of strategic merge as the served kinds need.

use serde_json::{Map, Value};

use super::status::Failure;

/// Applies a patch of this content type.
pub(crate) fn apply(content_type: &str, object: &mut Value, patch: &Value) -> Result<(), Failure> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/merge-patch+json" => merge(object, patch, false),
        "application/strategic-merge-patch+json" => merge(object, patch, true),
        "application/json-patch+json" => {
            let operations = patch
                .as_array()
                .ok_or_else(|| unreadable("a list is expected"))?;
            for operation in operations {
                operate(object, operation).ok_or_else(|| {
                    Failure::new(
                        422,
                        "Invalid",
                        format!("the patch can't be applied: {operation}"),
                    )
                })?;
            }
        }
        other => {
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json (this was {other:?})"
            );
            return Err(Failure::new(415, "UnsupportedMediaType", message));
        }
    }
    Ok(())
}

fn unreadable(why: &str) -> Failure {
    Failure::bad_request(format!("error decoding patch: {why}"))
}

/// RFC 7396; strategically, lists that have a merge key are merged by it.
fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if strategic && key.starts_with('$') {
            continue;
        }
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let slot = target.entry(key.clone()).or_insert(Value::Null);
        match (slot, value, merge_key(key)) {
            (Value::Array(old), Value::Array(new), Some(by)) if strategic => {
                merge_list(old, new, by)
            }
            (slot, value, _) => merge(slot, value, strategic),
        }
    }
}

/// The merge keys of the lists in pods, nodes and namespaces; networkpolicies have none.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" => Some("name"),
        "conditions" | "addresses" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn merge_list(old: &mut Vec<Value>, new: &[Value], by: &str) {
    for item in new {
        let same = |other: &Value| item.get(by).is_some() && other.get(by) == item.get(by);
        if item.get("$patch").is_some_and(|patch| patch == "delete") {
            old.retain(|other| !same(other));
        } else if let Some(found) = old.iter_mut().find(|other| same(other)) {
            merge(found, item, true);
        } else {
            old.push(item.clone());
        }
    }
}

/// One operation of RFC 6902: add, replace, remove or test.
fn operate(object: &mut Value, operation: &Value) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let (parent, last) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let value = operation.get("value");
    let parent = object.pointer_mut(parent)?;
    match (operation.get("op")?.as_str()?, parent) {
        ("test", parent) => {
            let found = match parent {
                Value::Array(list) => list.get(last.parse::<usize>().ok()?),
                other => other.get(&last),
            };
            (found == value).then_some(())
        }
        ("add", Value::Object(map)) => {
            map.insert(last, value?.clone());
            Some(())
        }
        ("replace", Value::Object(map)) => {
            *map.get_mut(&last)? = value?.clone();
            Some(())
        }
        ("remove", Value::Object(map)) => map.remove(&last).map(drop),
        ("add", Value::Array(list)) if last == "-" => {
            list.push(value?.clone());
            Some(())
        }
        ("add", Value::Array(list)) => {
            let at = last.parse::<usize>().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value?.clone());
            Some(())
        }
        ("replace", Value::Array(list)) => {
            *list.get_mut(last.parse::<usize>().ok()?)? = value?.clone();
            Some(())
        }
        ("remove", Value::Array(list)) => {
            let at = last.parse::<usize>().ok().filter(|at| *at < list.len())?;
            list.remove(at);
            Some(())
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
