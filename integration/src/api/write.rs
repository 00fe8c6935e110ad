//! Create, update, patch: what the client says, and what only the server does.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::admit::admit;
use super::kinds::Kind;
use super::patch;
use super::status::Failure;
use super::store::{Key, Object, Store};
use crate::random::random;

/// The present in the API's form: whole seconds.
pub(crate) fn now() -> Value {
    json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn uid() -> String {
    let (a, b) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | ((b >> 48) & 0x3fff),
        b & 0xffff_ffff_ffff
    )
}

/// The fields of `metadata` that clients can't change.
const OWNED: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
    "name",
];

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object["metadata"][field]
        .as_str()
        .filter(|text| !text.is_empty())
}

impl Store {
    /// Stores a new object.
    pub(crate) fn create(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        mut object: Value,
    ) -> Result<Object, Failure> {
        check_body(kind, namespace, &object)?;
        let name = match (text(&object, "name"), text(&object, "generateName")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(prefix)) => format!("{prefix}{:05x}", random() & 0xf_ffff),
            (None, None) => {
                let why = "Required value: name or generateName is required";
                return Err(Failure::invalid(kind, "", "metadata.name", why));
            }
        };
        if text(&object, "resourceVersion").is_some() {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Failure::bad_request(why));
        }
        let key: Key = (namespace.unwrap_or_default().to_owned(), name.clone());
        if let Some(namespace) = namespace {
            let home = self.get(Kind::Namespace, &(String::new(), namespace.to_owned()))?;
            if text(&home, "deletionTimestamp").is_some() {
                return Err(Failure::terminating(kind, &name, namespace));
            }
        }
        if self.objects(kind).contains_key(&key) {
            return Err(Failure::already_exists(kind, &name));
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|field, _| !OWNED.contains(&field.as_str()) && field != "selfLink");
            metadata.insert("name".to_owned(), json!(name));
            metadata.insert("uid".to_owned(), json!(uid()));
            metadata.insert("creationTimestamp".to_owned(), now());
            metadata.extend(namespace.map(|name| ("namespace".to_owned(), json!(name))));
            metadata.extend(
                kind.has_generation()
                    .then(|| ("generation".to_owned(), json!(1))),
            );
        }
        match kind {
            Kind::Pod => object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
            Kind::Namespace => {
                object["spec"] = json!({"finalizers": ["kubernetes"]});
                object["status"] = json!({"phase": "Active"});
            }
            // A kubelet brings the status when it registers.
            Kind::Node | Kind::Event => {}
            Kind::NetworkPolicy => {
                drop(object.as_object_mut().and_then(|all| all.remove("status")))
            }
        }
        admit(kind, &name, &mut object)?;
        Ok(self.put(kind, &key, object))
    }

    /// Replaces an object, or its status.
    pub(crate) fn update(
        &mut self,
        kind: Kind,
        key: &Key,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Object, Failure> {
        let name = key.1.as_str();
        let namespace = Some(key.0.as_str()).filter(|namespace| !namespace.is_empty());
        check_body(kind, namespace, &body)?;
        let old = self.get(kind, key)?;
        if text(&body, "name").is_some_and(|named| named != name) {
            let why = "the name of the object does not match the name on the URL";
            return Err(Failure::bad_request(why));
        }
        let stale =
            |field| text(&body, field).is_some_and(|given| Some(given) != text(&old, field));
        if stale("uid") {
            let why = "Precondition failed: UID in precondition does not match UID in object meta";
            return Err(Failure::conflict(kind, name, why));
        }
        if stale("resourceVersion") {
            return Err(Failure::modified(kind, name));
        }
        let mut new = combine(kind, &old, body, subresource);
        admit(kind, name, &mut new)?;
        if kind == Kind::Pod {
            check_pod_update(name, &old, &new)?;
        }
        if kind.has_generation() && new["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or_default();
            new["metadata"]["generation"] = json!(generation + 1);
        }
        // Who changes nothing makes no version.
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == *old {
            return Ok(old);
        }
        let stored = self.put(kind, key, new);
        if self.may_go(kind, &stored) {
            let last = self.remove(kind, key);
            self.finish_namespaces();
            return Ok(last.unwrap_or(stored));
        }
        Ok(stored)
    }

    /// Patches an object, or its status.
    pub(crate) fn patch(
        &mut self,
        kind: Kind,
        key: &Key,
        subresource: Option<&str>,
        content_type: &str,
        patch: &Value,
    ) -> Result<Object, Failure> {
        let mut body = Value::clone(&*self.get(kind, key)?);
        patch::apply(content_type, &mut body, patch)?;
        self.update(kind, key, subresource, body)
    }
}

fn check_body(kind: Kind, namespace: Option<&str>, body: &Value) -> Result<(), Failure> {
    if !body["metadata"].is_object() {
        return Err(Failure::bad_request("the body has no metadata"));
    }
    let differs = |field: &str, wanted: &str| {
        let given = body[field].as_str();
        given.is_some_and(|given| !given.is_empty() && given != wanted)
    };
    if differs("kind", kind.name()) || differs("apiVersion", kind.api_version()) {
        let why = format!("the body is no {} of {}", kind.name(), kind.api_version());
        return Err(Failure::bad_request(why));
    }
    if text(body, "namespace").is_some_and(|given| Some(given) != namespace) {
        let why =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(why));
    }
    Ok(())
}

/// What is stored: of the body, the part that this path may change.
fn combine(kind: Kind, old: &Value, mut body: Value, subresource: Option<&str>) -> Value {
    let mut new = if subresource.is_some() {
        let mut new = old.clone();
        new["status"] = body["status"].take();
        for field in ["labels", "annotations"] {
            new["metadata"][field] = body["metadata"][field].take();
        }
        return new;
    } else {
        body
    };
    if kind.has_status() {
        new["status"] = old["status"].clone();
    }
    if kind == Kind::Namespace {
        new["spec"] = old["spec"].clone();
    }
    if let Some(metadata) = new["metadata"].as_object_mut() {
        for field in OWNED {
            metadata.remove(field);
        }
        let none = Map::new();
        let owned = old["metadata"].as_object().unwrap_or(&none);
        let owned = owned
            .iter()
            .filter(|(field, _)| OWNED.contains(&field.as_str()));
        metadata.extend(owned.map(|(field, value)| (field.clone(), value.clone())));
    }
    new["kind"] = json!(kind.name());
    new["apiVersion"] = json!(kind.api_version());
    new
}

/// Of a pod's spec next to nothing may change: not its node, not its ports.
fn check_pod_update(name: &str, old: &Value, new: &Value) -> Result<(), Failure> {
    let rest = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            for field in [
                "tolerations",
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
            ] {
                fields.remove(field);
            }
            for list in ["containers", "initContainers"] {
                let containers = fields.get_mut(list).and_then(Value::as_array_mut);
                for container in containers
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                {
                    container.remove("image");
                }
            }
        }
        spec
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let why = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, \
        `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to \
        existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    Err(Failure::invalid(Kind::Pod, name, "spec", why))
}
