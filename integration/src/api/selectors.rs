//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::kinds::Kind;
use super::status::Failure;

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    labels: Vec<(String, Test)>,
    fields: Vec<(&'static [&'static str], bool, String)>,
}

#[derive(Debug, Clone)]
enum Test {
    Is(String),
    IsNot(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selection {
    /// Reads the parameters `labelSelector` and `fieldSelector`; empty ones select everything.
    pub(crate) fn parse(kind: Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let terms = |text: &str| -> Vec<String> {
            let parts = split_outside_parentheses(text);
            parts.into_iter().filter(|part| !part.is_empty()).collect()
        };
        Ok(Self {
            labels: terms(labels)
                .iter()
                .map(|term| label_term(term))
                .collect::<Result<_, _>>()?,
            fields: terms(fields)
                .iter()
                .map(|term| field_term(kind, term))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|(key, test)| {
            let value = labels.get(key).and_then(Value::as_str);
            match test {
                Test::Is(wanted) => value == Some(wanted),
                Test::IsNot(unwanted) => value != Some(unwanted),
                Test::In(wanted) => value.is_some_and(|v| wanted.iter().any(|w| w == v)),
                Test::NotIn(unwanted) => !value.is_some_and(|v| unwanted.iter().any(|w| w == v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        }) && self.fields.iter().all(|(path, equal, wanted)| {
            let value = path.iter().fold(object, |value, key| &value[*key]);
            (value.as_str().unwrap_or_default() == wanted) == *equal
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_i32;
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .collect()
}

fn label_term(term: &str) -> Result<(String, Test), Failure> {
    let of = |key: &str, test| Ok((key.trim().to_owned(), test));
    if let Some((head, list)) = term.split_once('(') {
        let list = list.trim_end().trim_end_matches(')').split(',');
        let list = list.map(|value| value.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => of(key, Test::In(list)),
            [key, "notin"] => of(key, Test::NotIn(list)),
            _ => Err(unreadable(term)),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return of(key, Test::IsNot(value.trim().to_owned()));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return of(key, Test::Is(value.trim().to_owned()));
    }
    if term.contains(char::is_whitespace) {
        return Err(unreadable(term));
    }
    match term.strip_prefix('!') {
        Some(key) => of(key, Test::Absent),
        None => of(term, Test::Exists),
    }
}

fn unreadable(term: &str) -> Failure {
    Failure::bad_request(format!("unable to parse requirement: {term}"))
}

fn field_term(kind: Kind, term: &str) -> Result<(&'static [&'static str], bool, String), Failure> {
    let (key, equal, value) = match term.split_once("!=") {
        Some((key, value)) => (key, false, value),
        None => {
            let split = term.split_once("==").or_else(|| term.split_once('='));
            let (key, value) = split.ok_or_else(|| {
                Failure::bad_request(format!(
                    "invalid selector: '{term}'; can't understand '{term}'"
                ))
            })?;
            (key, true, value)
        }
    };
    let path: &'static [&'static str] = match (kind, key) {
        (_, "metadata.name") => &["metadata", "name"],
        (_, "metadata.namespace") if kind.is_namespaced() => &["metadata", "namespace"],
        (Kind::Pod, "spec.nodeName") => &["spec", "nodeName"],
        (Kind::Pod, "spec.restartPolicy") => &["spec", "restartPolicy"],
        (Kind::Pod, "status.podIP") => &["status", "podIP"],
        (Kind::Pod | Kind::Namespace, "status.phase") => &["status", "phase"],
        (Kind::Event, "involvedObject.kind") => &["involvedObject", "kind"],
        (Kind::Event, "involvedObject.namespace") => &["involvedObject", "namespace"],
        (Kind::Event, "involvedObject.name") => &["involvedObject", "name"],
        (Kind::Event, "involvedObject.uid") => &["involvedObject", "uid"],
        (Kind::Event, "reason") => &["reason"],
        (Kind::Event, "type") => &["type"],
        _ => {
            let why = format!("field label not supported: {key}");
            return Err(Failure::bad_request(why));
        }
    };
    Ok((path, equal, value.to_owned()))
}

#[cfg(test)]
#[path = "selectors_tests.rs"]
mod tests;
