//! Kubernetes Events on objects that aren't enforced as they are written: policies that can't be understood, and what the
//! kernel refuses.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::access::{ApiError, Connection};
use super::answer::Entry;
use crate::cluster::Text;
use crate::cluster::object::ObjectKey;
use crate::observe::{ErrorKind, Observer};
use crate::source::decode::at;
use crate::source::{Notice, Standing};

/// Reports that may wait to be sent; more are left to the log.
const WAITING: usize = 256;

/// The API's limit for an Event's message, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// Sends Events from a task of its own.
pub struct Reporter {
    sender: mpsc::Sender<Report>,
}

/// What is to become an Event.
enum Report {
    /// On an object that has just been read.
    Of(Subject, Said),
    /// On one whose UID is to be asked for first.
    On(Notice),
}

/// The object that an Event is on.
struct Subject {
    key: ObjectKey,
    uid: String,
    version: String,
}

/// What an Event says.
struct Said {
    /// `Normal` or `Warning`.
    kind: &'static str,
    /// One word for programs.
    reason: &'static str,
    message: String,
}

impl Reporter {
    /// Starts the task.
    pub fn start(connection: Connection, observer: Arc<Observer>) -> Self {
        let (sender, mut reports) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut refused = String::new();
            while let Some(report) = reports.recv().await {
                let error = match send(&connection, report).await {
                    // Another node has been quicker: all name the same event the same. Or the object is gone.
                    Ok(())
                    | Err(ApiError::Refused {
                        code: 404 | 409, ..
                    }) => continue,
                    // Or it is going, with its namespace.
                    Err(ApiError::Refused {
                        code: 403, message, ..
                    }) if message.contains("because it is being terminated") => {
                        continue;
                    }
                    Err(error) => error,
                };
                observer.metrics.error(ErrorKind::Event);
                let said = error.to_string();
                match error {
                    ApiError::Refused { code: 403, .. } if refused != said => {
                        warn!("Kubernetes Events can't be sent: {said}");
                        refused = said;
                    }
                    _ => debug!("an Event was not sent: {error}"),
                }
            }
        });
        Self { sender }
    }

    /// Reports what of a policy can't be read. Of other kinds nothing is reported: nobody would look there.
    pub fn report(&self, entry: &Entry) {
        let Some(key @ ObjectKey::Policy(_)) = entry.key() else {
            return;
        };
        let subject = Subject {
            key,
            uid: entry.uid.clone(),
            version: entry.version.clone(),
        };
        let lines: Vec<String> = entry.problems().iter().map(ToString::to_string).collect();
        let said = Said {
            kind: "Warning",
            reason: "NotEnforcedAsWritten",
            message: shortened(&lines.join("\n")),
        };
        self.put(&entry.name(), Report::Of(subject, said));
    }

    /// Reports what the daemon has to say about an object.
    pub fn tell(&self, notice: Notice) {
        self.put(&notice.about.to_string(), Report::On(notice));
    }

    fn put(&self, name: &str, report: Report) {
        if self.sender.try_send(report).is_err() {
            debug!("an Event on {name} was left out: too many wait");
        }
    }
}

/// Sends one Event.
async fn send(connection: &Connection, report: Report) -> Result<(), ApiError> {
    let (subject, said) = match report {
        Report::Of(subject, said) => (subject, said),
        Report::On(notice) => {
            let subject = find(connection, notice.about).await?;
            let (kind, reason) = match notice.standing {
                Standing::Refused => ("Warning", "RefusedByKernel"),
                Standing::Taken => ("Normal", "TakenByKernel"),
            };
            let message = shortened(&notice.message);
            (
                subject,
                Said {
                    kind,
                    reason,
                    message,
                },
            )
        }
    };
    let Some((path, event)) = event(&subject, &said, Timestamp::now()) else {
        return Ok(());
    };
    connection.send_json(Method::POST, &path, &event).await
}

/// Asks for an object as the API has it now.
async fn find(connection: &Connection, key: ObjectKey) -> Result<Subject, ApiError> {
    let kind = key.kind();
    let version = kind.api_version();
    let root = if version.contains('/') { "apis" } else { "api" };
    let mut path = format!("/{root}/{version}");
    let (namespace, name) = names(&key);
    if let Some(namespace) = namespace {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{}/{name}", kind.resource());
    let bytes = connection.get_all(&path).await?;
    let object: Value = serde_json::from_slice(&bytes).map_err(|error| ApiError::Nonsense {
        reason: error.to_string(),
    })?;
    let text = |field| {
        let value = at(&object, "metadata", field).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    Ok(Subject {
        uid: text("uid"),
        version: text("resourceVersion"),
        key,
    })
}

/// An object's namespace, if it has one, and its name.
fn names(key: &ObjectKey) -> (Option<&Text>, &Text) {
    match key {
        ObjectKey::Pod(namespace, name) => (Some(namespace), name),
        ObjectKey::Policy(key) => (Some(&key.namespace), &key.name),
        ObjectKey::Namespace(name) | ObjectKey::Node(name) => (None, name),
    }
}

/// All nodes say the same within this time, in seconds; said again later it is another Event, which comes after what was
/// said in between.
const TOGETHER: i64 = 300;

/// The Event on an object of a namespace, and where to POST it. Its name follows from the object, what is said and when, so
/// that all nodes together make one.
fn event(subject: &Subject, said: &Said, now: Timestamp) -> Option<(String, Value)> {
    let (Some(namespace), name) = names(&subject.key) else {
        return None;
    };
    let Said {
        kind,
        reason,
        message,
    } = said;
    let when = now.as_second() / TOGETHER;
    let digest = Sha256::digest(format!("{}\n{when}\n{message}", subject.uid));
    let suffix: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let stem: String = name.chars().take(200).collect();
    let stem = stem.trim_end_matches(['-', '.']);
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let object = subject.key.kind();
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{stem}.{suffix}"), "namespace": &**namespace},
        "involvedObject": {
            "apiVersion": object.api_version(),
            "kind": object.name(),
            "namespace": &**namespace,
            "name": &**name,
            "uid": subject.uid,
            "resourceVersion": subject.version,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": "selvedge"},
        "reportingComponent": "selvedge",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    Some((format!("/api/v1/namespaces/{namespace}/events"), event))
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
    use crate::policy::{Dialect, PolicyKey};

    fn named(uid: &str, message: &str, at: &str) -> String {
        let key = PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: Text::from("shop"),
            name: Text::from("deny"),
        };
        let subject = Subject {
            key: ObjectKey::Policy(key),
            uid: uid.to_owned(),
            version: "7".to_owned(),
        };
        let said = Said {
            kind: "Warning",
            reason: "NotEnforcedAsWritten",
            message: message.to_owned(),
        };
        let (path, event) = event(&subject, &said, at.parse().unwrap()).unwrap();
        assert_eq!(path, "/api/v1/namespaces/shop/events");
        assert_eq!(event["message"], message);
        assert_eq!(event["involvedObject"]["kind"], "NetworkPolicy");
        event["metadata"]["name"].as_str().unwrap().to_owned()
    }

    #[test]
    fn all_nodes_name_an_event_the_same() {
        let first = named("u", "bad", "2026-01-01T00:00:00Z");
        assert_eq!(first, named("u", "bad", "2026-01-01T00:00:09Z"));
        // What is said again after something else came between is said anew.
        assert_ne!(first, named("u", "bad", "2026-01-01T00:10:00Z"));
        assert_ne!(first, named("v", "bad", "2026-01-01T00:00:00Z"));
        assert_ne!(first, named("u", "good", "2026-01-01T00:00:00Z"));
        assert!(first.starts_with("deny."));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = shortened(&"ä".repeat(2000));
        assert!(text.len() <= LONGEST_MESSAGE && text.ends_with('…'));
        assert_eq!(shortened("short"), "short");
    }
}
