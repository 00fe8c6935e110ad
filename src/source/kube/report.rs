//! Kubernetes Events on policies that can't be enforced as they are written.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::access::{ApiError, Connection};
use super::answer::Entry;
use crate::cluster::object::ObjectKey;
use crate::observe::{ErrorKind, Observer};

/// Reports that may wait to be sent; more are left to the log.
const WAITING: usize = 256;

/// The API's limit for an Event's message, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// Sends Events from a task of its own.
pub struct Reporter {
    sender: mpsc::Sender<(String, Value)>,
}

impl Reporter {
    /// Starts the task.
    pub fn start(connection: Connection, observer: Arc<Observer>) -> Self {
        let (sender, mut events) = mpsc::channel::<(String, Value)>(WAITING);
        tokio::spawn(async move {
            let mut refused = false;
            while let Some((path, event)) = events.recv().await {
                let error = match connection.send_json(Method::POST, &path, &event).await {
                    // Another node has been quicker: all name the same event the same.
                    Ok(()) | Err(ApiError::Refused { code: 409, .. }) => continue,
                    Err(error) => error,
                };
                observer.metrics.error(ErrorKind::Event);
                match error {
                    ApiError::Refused { code: 403, .. } if !refused => {
                        refused = true;
                        warn!("Kubernetes Events can't be sent: {error}");
                    }
                    _ => debug!("an Event was not sent: {error}"),
                }
            }
        });
        Self { sender }
    }

    /// Reports what of a policy can't be read. Of other kinds nothing is reported: nobody would look there.
    pub fn report(&self, entry: &Entry) {
        if let Some((path, event)) = event(entry, Timestamp::now())
            && self.sender.try_send((path, event)).is_err()
        {
            debug!("an Event on {} was left out: too many wait", entry.name());
        }
    }
}

/// The Event on an object, and where to POST it. Its name follows from the object and what is wrong with it, so that
/// all nodes together make one.
fn event(entry: &Entry, now: Timestamp) -> Option<(String, Value)> {
    let Some(ObjectKey::Policy(key)) = entry.key() else {
        return None;
    };
    let lines: Vec<String> = entry.problems().iter().map(ToString::to_string).collect();
    let message = shortened(&lines.join("\n"));
    let digest = Sha256::digest(format!("{}\n{message}", entry.uid));
    let suffix: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let stem: String = key.name.chars().take(200).collect();
    let stem = stem.trim_end_matches(['-', '.']);
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let kind = key.dialect.kind();
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{stem}.{suffix}"), "namespace": &*key.namespace},
        "involvedObject": {
            "apiVersion": entry.result.as_ref().ok().map(|decoded| decoded.object.key().kind().api_version()),
            "kind": kind,
            "namespace": &*key.namespace,
            "name": &*key.name,
            "uid": entry.uid,
            "resourceVersion": entry.version,
        },
        "type": "Warning",
        "reason": "NotEnforcedAsWritten",
        "message": message,
        "source": {"component": "selvedge"},
        "reportingComponent": "selvedge",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    Some((
        format!("/api/v1/namespaces/{}/events", key.namespace),
        event,
    ))
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text.to_owned();
    }
    let mut end = LONGEST_MESSAGE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::object::ObjectKind;
    use crate::source::decode::decode;

    fn entry(uid: &str, spec: Value) -> Entry {
        let policy = json!({"metadata": {"namespace": "shop", "name": "deny"}, "spec": spec});
        Entry {
            result: decode(ObjectKind::NetworkPolicy, &policy),
            uid: uid.to_owned(),
            version: "7".to_owned(),
        }
    }

    #[test]
    fn all_nodes_name_an_event_the_same() {
        let bad = json!({"podSelector": {}, "ingress": [{"from": [{}]}]});
        let name = |entry: &Entry, at: &str| {
            let (path, event) = event(entry, at.parse().unwrap()).unwrap();
            assert_eq!(path, "/api/v1/namespaces/shop/events");
            assert!(
                event["message"]
                    .as_str()
                    .unwrap()
                    .contains("spec.ingress[0].from[0]")
            );
            event["metadata"]["name"].as_str().unwrap().to_owned()
        };
        let first = name(&entry("u", bad.clone()), "2026-01-01T00:00:00Z");
        assert_eq!(
            first,
            name(&entry("u", bad.clone()), "2026-01-01T00:00:09Z")
        );
        assert_ne!(first, name(&entry("v", bad), "2026-01-01T00:00:00Z"));
        assert!(first.starts_with("deny."));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = shortened(&"ä".repeat(2000));
        assert!(text.len() <= LONGEST_MESSAGE && text.ends_with('…'));
        assert_eq!(shortened("short"), "short");
    }
}
