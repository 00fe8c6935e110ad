//! JSON, of which only what is wanted is kept, while it is read.
//!
//! A Pod is 5 to 50 KiB of JSON and Selvedge keeps a few hundred bytes of it. What a [`Wanted`] does not name is
//! skipped by the parser and never becomes a value.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::cluster::object::ObjectKind;
use crate::source::decode::CONFIG_MIRROR;

/// What of a JSON value is wanted. What has another shape than expected is kept as it is if it is a scalar, so that
/// it can be complained about.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// All of it.
    All,
    /// Of an object, these fields.
    Fields(&'a [(&'a str, Wanted<'a>)]),
    /// Of an array, this of each of its items.
    Each(&'a Wanted<'a>),
}

const METADATA: Wanted<'static> = Wanted::Fields(&[
    ("name", Wanted::All),
    ("namespace", Wanted::All),
    ("uid", Wanted::All),
    ("resourceVersion", Wanted::All),
    ("creationTimestamp", Wanted::All),
    ("deletionTimestamp", Wanted::All),
    ("labels", Wanted::All),
    (
        "annotations",
        Wanted::Fields(&[
            (INITIAL_EVENTS_END, Wanted::All),
            (CONFIG_MIRROR, Wanted::All),
        ]),
    ),
]);

/// The annotation of the bookmark that ends a streaming list.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

const CONTAINERS: Wanted<'static> = Wanted::Each(&Wanted::Fields(&[
    ("name", Wanted::All),
    ("restartPolicy", Wanted::All),
    ("ports", Wanted::All),
]));

const POD: Wanted<'static> = Wanted::Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Wanted::Fields(&[
            ("nodeName", Wanted::All),
            ("hostNetwork", Wanted::All),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
        ]),
    ),
    (
        "status",
        Wanted::Fields(&[
            ("phase", Wanted::All),
            ("podIP", Wanted::All),
            ("podIPs", Wanted::All),
        ]),
    ),
]);

const NAMESPACE: Wanted<'static> = Wanted::Fields(&[("metadata", METADATA)]);

const NODE: Wanted<'static> = Wanted::Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Wanted::Fields(&[("podCIDR", Wanted::All), ("podCIDRs", Wanted::All)]),
    ),
    ("status", Wanted::Fields(&[("addresses", Wanted::All)])),
]);

const NETWORK_POLICY: Wanted<'static> =
    Wanted::Fields(&[("metadata", METADATA), ("spec", Wanted::All)]);

/// What a Status says.
pub const STATUS: Wanted<'static> = Wanted::Fields(&[
    ("kind", Wanted::All),
    ("code", Wanted::All),
    ("message", Wanted::All),
    ("reason", Wanted::All),
    (
        "details",
        Wanted::Fields(&[("retryAfterSeconds", Wanted::All)]),
    ),
]);

/// What is wanted of an object of this kind.
pub const fn of_kind(kind: ObjectKind) -> Wanted<'static> {
    match kind {
        ObjectKind::Pod => POD,
        ObjectKind::Namespace => NAMESPACE,
        ObjectKind::Node => NODE,
        ObjectKind::NetworkPolicy => NETWORK_POLICY,
    }
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let each = match self {
            Self::Each(each) => *each,
            Self::All | Self::Fields(_) => Self::All,
        };
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(each)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let wanted = match self {
                Self::All | Self::Each(_) => Some(Self::All),
                Self::Fields(fields) => fields
                    .iter()
                    .find(|(name, _)| *name == key)
                    .map(|(_, wanted)| *wanted),
            };
            match wanted {
                Some(wanted) => {
                    let value = entries.next_value_seed(wanted)?;
                    map.insert(key, value);
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(map))
    }
}

/// Reads one JSON text.
///
/// # Errors
/// When it is none, or more than one.
pub fn read(bytes: &[u8], wanted: Wanted<'_>) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = wanted.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::decode::decode;

    #[test]
    fn what_decoding_looks_at_is_kept_and_nothing_else() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"fieldsV1": {"f:a": {}}}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "kubernetes.io/config.mirror": "m"},
            },
            "spec": {
                "nodeName": "n", "hostNetwork": false, "volumes": [{"name": "v"}],
                "containers": [{"name": "c", "image": "i", "env": [{"name": "E"}],
                    "ports": [{"name": "http", "containerPort": 8080}]}],
                "initContainers": [{"name": "i", "restartPolicy": "Always",
                    "ports": [{"name": "side", "containerPort": 9090}]}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"name": "c"}]},
        });
        let text = serde_json::to_vec(&pod).unwrap();
        let trimmed = read(&text, of_kind(ObjectKind::Pod)).unwrap();
        assert_eq!(
            decode(ObjectKind::Pod, &trimmed),
            decode(ObjectKind::Pod, &pod)
        );
        let kept = serde_json::to_string(&trimmed).unwrap();
        for skipped in [
            "managedFields",
            "volumes",
            "env",
            "image",
            "last-applied",
            "containerStatuses",
        ] {
            assert!(!kept.contains(skipped), "{skipped} is in {kept}");
        }
    }

    #[test]
    fn other_shapes_are_kept_to_be_complained_about() {
        for value in [
            json!({"metadata": "a"}),
            json!({"spec": {"containers": 7}}),
            json!([1, {"a": 2}]),
            json!(null),
        ] {
            let text = serde_json::to_vec(&value).unwrap();
            assert_eq!(read(&text, of_kind(ObjectKind::Pod)).unwrap(), value);
        }
        assert!(read(b"{} {}", Wanted::All).is_err());
        assert!(read(b"{\"a\":", Wanted::All).is_err());
    }
}
