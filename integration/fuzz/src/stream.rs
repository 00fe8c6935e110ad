//! What an API server answers: pages of lists, and the lines of watches.

use selvedge::cluster::object::ObjectKind;
use selvedge::source::decode;
use selvedge::source::kube::answer::{Entry, Line, line, page};
use serde_json::{Value, json};

/// The first byte says of which kind the objects are; the rest is read as a page, and line by line as a watch.
///
/// Nothing panics, and an object is the same whether only what is wanted of it was kept while it was read, or all.
pub fn stream(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let kind = ObjectKind::ALL[usize::from(kind % 4)];
    if let Ok(page) = page(kind, body)
        && let Ok(whole) = serde_json::from_slice::<Value>(body)
        && let Some(items) = whole["items"].as_array()
    {
        assert_eq!(page.entries.len(), items.len());
        for (entry, item) in page.entries.iter().zip(items) {
            assert_whole(kind, entry, item);
        }
    }
    for bytes in body.split(|byte| *byte == b'\n') {
        if let Ok(Line::Applied(entry) | Line::Deleted(entry)) = line(kind, bytes)
            && let Ok(whole) = serde_json::from_slice::<Value>(bytes)
        {
            assert_whole(kind, &entry, &whole["object"]);
        }
    }
}

fn assert_whole(kind: ObjectKind, entry: &Entry, object: &Value) {
    // An object is what `decode` knows by its own kind.
    let Value::Object(mut fields) = object.clone() else {
        assert!(entry.result.is_err());
        return;
    };
    fields.insert("kind".to_owned(), json!(kind.name()));
    fields.insert("apiVersion".to_owned(), json!(kind.api_version()));
    let items = decode::objects(&Value::Object(fields));
    assert_eq!(items.len(), 1);
    assert_eq!(entry.result, items[0].result);
    let _ = (entry.name(), entry.problems());
}
