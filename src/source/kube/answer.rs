//! What the API server answers: pages of a list, and the lines of a watch.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::access::ApiError;
use super::trim::{self, INITIAL_EVENTS_END, STATUS, Wanted};
use crate::cluster::object::{Object, ObjectKey, ObjectKind};
use crate::policy::Problem;
use crate::source::decode::{Decoded, Undecodable, at, decode};

/// One object of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object, cut down.
    pub result: Result<Decoded, Undecodable>,
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
}

impl Entry {
    fn new(kind: ObjectKind, value: &Value) -> Self {
        let result = decode(kind, value);
        let uid = match &result {
            // As the index knows it.
            Ok(Decoded {
                object: Object::Pod(pod),
                ..
            }) => &*pod.uid,
            _ => text(value, "uid"),
        };
        Self {
            uid: uid.to_owned(),
            result,
            version: text(value, "resourceVersion").to_owned(),
        }
    }

    /// The object's key, if it can be read.
    pub fn key(&self) -> Option<ObjectKey> {
        let decoded = self.result.as_ref().ok()?;
        Some(decoded.object.key())
    }

    /// What the object is called in messages: its kind, namespace and name.
    pub fn name(&self) -> String {
        match &self.result {
            Ok(decoded) => decoded.object.key().to_string(),
            Err(error) => format!("{} {}", error.kind, error.name),
        }
    }

    /// What of it can't be read.
    pub fn problems(&self) -> Vec<&Problem> {
        match &self.result {
            Ok(decoded) => {
                let own = match &decoded.object {
                    Object::Policy(policy) => policy.problems.as_slice(),
                    _ => &[],
                };
                decoded.problems.iter().chain(own).collect()
            }
            Err(error) => vec![&error.problem],
        }
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    let value = at(object, "metadata", field);
    value.and_then(Value::as_str).unwrap_or_default()
}

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its objects.
    pub entries: Vec<Entry>,
    /// The resourceVersion that the whole list is of.
    pub version: String,
    /// What leads to the next page.
    pub next: Option<String>,
}

/// Reads a page.
///
/// # Errors
/// [`ApiError::Nonsense`] when it is no list, or has no resourceVersion.
pub fn page(kind: ObjectKind, bytes: &[u8]) -> Result<Page, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = List { kind };
    let (metadata, entries) = seed.deserialize(&mut deserializer).map_err(nonsense)?;
    deserializer.end().map_err(nonsense)?;
    let field = |name| metadata.get(name).and_then(Value::as_str);
    let filled = |name| field(name).filter(|text| !text.is_empty());
    let entries = entries.ok_or_else(|| ApiError::Nonsense {
        reason: format!("a list of {} has no items", kind.resource()),
    })?;
    let version = filled("resourceVersion").ok_or_else(|| ApiError::Nonsense {
        reason: format!("a list of {} has no resourceVersion", kind.resource()),
    })?;
    Ok(Page {
        entries,
        version: version.to_owned(),
        next: filled("continue").map(str::to_owned),
    })
}

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// An object is new or has changed.
    Applied(Entry),
    /// An object is gone; this is its last state.
    Deleted(Entry),
    /// Nothing has changed up to a version.
    Bookmark {
        /// The version.
        version: String,
        /// Whether with it everything has been told that there was at the beginning.
        listed: bool,
    },
    /// The watch is at its end.
    Error(ApiError),
}

/// Reads a line.
///
/// # Errors
/// [`ApiError::Nonsense`] when it is no watch event.
pub fn line(kind: ObjectKind, bytes: &[u8]) -> Result<Line, ApiError> {
    let fields = [("type", Wanted::All), ("object", trim::of_kind(kind))];
    let event = trim::read(bytes, Wanted::Fields(&fields)).map_err(nonsense)?;
    let object = event.get("object").unwrap_or(&Value::Null);
    match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => Ok(Line::Applied(Entry::new(kind, object))),
        Some("DELETED") => Ok(Line::Deleted(Entry::new(kind, object))),
        Some("BOOKMARK") => {
            let end = at(object, "metadata", "annotations")
                .and_then(|annotations| annotations.get(INITIAL_EVENTS_END));
            Ok(Line::Bookmark {
                version: text(object, "resourceVersion").to_owned(),
                listed: end.and_then(Value::as_str) == Some("true"),
            })
        }
        Some("ERROR") => {
            let fields = [("object", STATUS)];
            let event = trim::read(bytes, Wanted::Fields(&fields)).map_err(nonsense)?;
            let status = event.get("object").unwrap_or(&Value::Null);
            Ok(Line::Error(ApiError::of_status(status, 500)))
        }
        _ => Err(ApiError::Nonsense {
            reason: "a line of a watch has no type that is known".to_owned(),
        }),
    }
}

fn nonsense(error: serde_json::Error) -> ApiError {
    ApiError::Nonsense {
        reason: error.to_string(),
    }
}

/// A list, of which one object at a time is held as JSON.
struct List {
    kind: ObjectKind,
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = (Value, Option<Vec<Entry>>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = (Value, Option<Vec<Entry>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.kind.resource())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut metadata = Value::Null;
        let mut entries = None;
        while let Some(key) = fields.next_key::<String>()? {
            match key.as_str() {
                "metadata" => metadata = fields.next_value_seed(Wanted::All)?,
                "items" => entries = Some(fields.next_value_seed(Items { kind: self.kind })?),
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok((metadata, entries))
    }
}

struct Items {
    kind: ObjectKind,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list's items")
    }

    /// Go writes an empty list so, at times.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(value) = items.next_element_seed(trim::of_kind(self.kind))? {
            entries.push(Entry::new(self.kind, &value));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let text =
            br#"{"kind":"PodList","metadata":{"resourceVersion":"12","continue":"x"},"items":[
            {"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"3"}},
            {"metadata":{"name":"NO NAME"}}]}"#;
        let page = page(ObjectKind::Pod, text).unwrap();
        assert_eq!(
            (page.version.as_str(), page.next.as_deref()),
            ("12", Some("x"))
        );
        assert_eq!(page.entries[0].name(), "Pod shop/a");
        assert_eq!(
            (
                page.entries[0].uid.as_str(),
                page.entries[0].version.as_str()
            ),
            ("u", "3")
        );
        assert!(page.entries[1].result.is_err());
        assert_eq!(page.entries[1].problems().len(), 1);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for text in [
            "",
            "<html>",
            "null",
            "[]",
            "{}",
            r#"{"items":[]}"#,
            r#"{"metadata":{"resourceVersion":"1"}}"#,
            r#"{"metadata":{"resourceVersion":"1"},"items":[]} trailing"#,
        ] {
            assert!(page(ObjectKind::Node, text.as_bytes()).is_err(), "{text}");
        }
        let empty = r#"{"metadata":{"resourceVersion":"1"},"items":null}"#;
        assert!(
            page(ObjectKind::Node, empty.as_bytes())
                .unwrap()
                .entries
                .is_empty()
        );
    }

    #[test]
    fn lines_are_read() {
        let applied = line(
            ObjectKind::Namespace,
            br#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#,
        );
        assert!(matches!(applied, Ok(Line::Applied(entry)) if entry.name() == "Namespace a"));
        let deleted = line(
            ObjectKind::Namespace,
            br#"{"object":{"metadata":{"name":"a"}},"type":"DELETED"}"#,
        );
        assert!(matches!(deleted, Ok(Line::Deleted(_))));
        let bookmark = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let expected = Line::Bookmark {
            version: "9".to_owned(),
            listed: true,
        };
        assert_eq!(line(ObjectKind::Pod, bookmark), Ok(expected));
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"too old"}}"#;
        assert!(matches!(line(ObjectKind::Pod, gone), Ok(Line::Error(error)) if error.is_gone()));
        for text in ["", "{}", r#"{"type":"#, r#"{"type":"OTHER","object":{}}"#] {
            assert!(line(ObjectKind::Pod, text.as_bytes()).is_err(), "{text}");
        }
    }
}
