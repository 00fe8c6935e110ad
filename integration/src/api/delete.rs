//! Deletion: at once, after a pod's grace period, behind finalizers, and of whole namespaces.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::status::Failure;
use super::store::{Key, Object, Store};
use super::write::now;

/// What a deletion answers.
pub(crate) enum Deleted {
    /// It is gone; this was its last state.
    Gone(Object),
    /// It is marked, and goes later.
    Marked(Object),
}

fn is_marked(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn has_finalizers(object: &Value) -> bool {
    let list = object["metadata"]["finalizers"].as_array();
    list.is_some_and(|list| !list.is_empty())
}

impl Store {
    /// Deletes an object with these DeleteOptions (null for none).
    pub(crate) fn delete(
        &mut self,
        kind: Kind,
        key: &Key,
        options: &Value,
    ) -> Result<Deleted, Failure> {
        let old = self.get(kind, key)?;
        let wanted = &options["preconditions"];
        for field in ["uid", "resourceVersion"] {
            if wanted[field].is_string() && wanted[field] != old["metadata"][field] {
                let why = format!(
                    "Precondition failed: {field} in precondition does not match {field} in object meta"
                );
                return Err(Failure::conflict(kind, &key.1, &why));
            }
        }
        match kind {
            Kind::Namespace => return self.delete_namespace(key, &old),
            Kind::Pod => {
                let grace = grace(&old, options);
                if grace > 0 {
                    return Ok(Deleted::Marked(self.mark(kind, key, &old, grace)));
                }
            }
            _ => {}
        }
        if has_finalizers(&old) {
            return Ok(Deleted::Marked(self.mark(kind, key, &old, 0)));
        }
        let last = self.remove(kind, key).unwrap_or(old);
        self.finish_namespaces();
        Ok(Deleted::Gone(last))
    }

    /// Sets when it is to be gone: never later than it was set already.
    fn mark(&mut self, kind: Kind, key: &Key, old: &Object, grace: u64) -> Object {
        let before = old["metadata"]["deletionGracePeriodSeconds"].as_u64();
        if is_marked(old) && before.is_some_and(|before| before <= grace) {
            return old.clone();
        }
        let mut object = Value::clone(old);
        let then = Timestamp::now().saturating_add(Duration::from_secs(grace));
        object["metadata"]["deletionTimestamp"] = then.map_or_else(
            |_| now(),
            |then| json!(then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        );
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        let marked = self.put(kind, key, object);
        if kind == Kind::Pod && self.settings.kubelet && !has_finalizers(&marked) {
            self.remove(kind, key);
            self.finish_namespaces();
        }
        marked
    }

    /// Whether a marked object that has just been written may go: its last finalizer went with that.
    pub(crate) fn may_go(&self, kind: Kind, object: &Value) -> bool {
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_u64();
        kind != Kind::Namespace
            && is_marked(object)
            && !has_finalizers(object)
            && grace.unwrap_or(0) == 0
    }

    fn delete_namespace(&mut self, key: &Key, old: &Object) -> Result<Deleted, Failure> {
        let name = key.1.as_str();
        if ["default", "kube-system", "kube-public"].contains(&name) {
            let why = "this namespace may not be deleted";
            return Err(Failure::forbidden(Kind::Namespace, name, why));
        }
        if is_marked(old) {
            let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this \
                namespace will automatically be purged by the system.";
            return Err(Failure::conflict(Kind::Namespace, name, why));
        }
        let mut object = Value::clone(old);
        object["metadata"]["deletionTimestamp"] = now();
        object["status"]["phase"] = json!("Terminating");
        let marked = self.put(Kind::Namespace, key, object);
        // Policies first: the order that is the hardest to get right, and one that real clusters show.
        for kind in [Kind::NetworkPolicy, Kind::Event, Kind::Pod] {
            let inside = self
                .objects(kind)
                .keys()
                .filter(|(namespace, _)| namespace == name);
            for key in inside.cloned().collect::<Vec<_>>() {
                // What has finalizers, or a kubelet to wait for, stays for a while.
                let _ = self.delete(kind, &key, &Value::Null);
            }
        }
        self.finish_namespaces();
        Ok(Deleted::Marked(marked))
    }

    /// Lets namespaces go that terminate and are empty.
    pub(crate) fn finish_namespaces(&mut self) {
        let namespaces = self.objects(Kind::Namespace).iter();
        let empty: Vec<Key> = namespaces
            .filter(|(_, object)| is_marked(object) && !has_finalizers(object))
            .map(|(key, _)| key.clone())
            .filter(|(_, name)| {
                Kind::ALL
                    .into_iter()
                    .filter(|kind| kind.is_namespaced())
                    .all(|kind| {
                        let first = self
                            .objects(kind)
                            .range((name.clone(), String::new())..)
                            .next();
                        first.is_none_or(|((namespace, _), _)| namespace != name)
                    })
            })
            .collect();
        for key in empty {
            self.remove(Kind::Namespace, &key);
        }
    }
}

/// How long a pod has: none if it never ran on a node, or has come to its end.
fn grace(pod: &Value, options: &Value) -> u64 {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty)
        || matches!(phase, "Succeeded" | "Failed")
    {
        return 0;
    }
    let asked = options["gracePeriodSeconds"].as_u64();
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_u64();
    asked.or(own).unwrap_or(30)
}
