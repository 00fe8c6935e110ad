//! Files as documents: YAML with any number of them, JSON likewise.
//!
//! YAML is cut at its document markers first, so that a document that can't be read costs itself alone.

use serde_json::Value;

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The line of the file that its content starts in, from 1.
    pub line: usize,
    /// What it says.
    pub value: Value,
}

/// A document that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Malformed {
    /// The line of the file, from 1.
    pub line: usize,
    /// What is wrong there, in one line.
    pub reason: String,
}

/// The documents of a YAML text, in order. Empty ones are not among them.
///
/// Plain `yes`, `no`, `on` and `off` are strings (YAML 1.2), a key that stands twice in one map is an error, merge
/// keys are merged, and what aliases can blow a document up to is bounded.
pub fn yaml(text: &str) -> Vec<Result<Document, Malformed>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut line_start = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if n > 0 && is_marker(line) {
            one(&text[start..line_start], start_line, &mut documents);
            start = line_start;
            start_line = n + 1;
        }
        line_start += line.len();
    }
    one(&text[start..], start_line, &mut documents);
    documents
}

/// Whether a line is a document marker. Nothing else may start so in column 0, not within a scalar either.
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn one(text: &str, start_line: usize, documents: &mut Vec<Result<Document, Malformed>>) {
    let content = text.lines().position(|line| {
        let line = if is_marker(line) { &line[3..] } else { line };
        let line = line.trim();
        !(line.is_empty() || line.starts_with(['#', '%']) || line == "...")
    });
    let Some(offset) = content else {
        return;
    };
    let line = start_line + offset;
    match serde_saphyr::from_multiple_with_options::<Value>(text, options(text.len())) {
        Ok(values) => {
            let values = values.into_iter().filter(|value| !value.is_null());
            documents.extend(values.map(|value| Ok(Document { line, value })));
        }
        Err(error) => {
            let at = error.location().map(|at| usize::try_from(at.line()));
            let line = match at {
                Some(Ok(at)) if at > 0 => start_line + at - 1,
                _ => line,
            };
            let rendered = error
                .without_snippet()
                .render_with_formatter(&serde_saphyr::UserMessageFormatter);
            documents.push(Err(Malformed {
                line,
                reason: reason(&rendered),
            }));
        }
    }
}

/// The parser's limits, for a text of so many bytes: no document without aliases meets one, and with aliases none
/// grows to more than a few times its size, or a few MiB.
fn options(bytes: usize) -> serde_saphyr::Options {
    let bound = bytes.saturating_mul(4);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: bound.max(100_000),
            max_nodes: bound.max(100_000),
            max_total_scalar_bytes: bound.max(8 << 20),
            max_documents: usize::MAX,
        },
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
    }
}

/// The parser's message in one line, without the position at its end.
fn reason(rendered: &str) -> String {
    let line = rendered.lines().next().unwrap_or_default().trim();
    match line.rsplit_once(" at line ") {
        Some((reason, position)) if position.contains("column") => reason.to_owned(),
        _ => line.to_owned(),
    }
}

/// The values of a JSON text, one after another.
pub fn json(text: &str) -> Vec<Result<Document, Malformed>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let before = stream.byte_offset();
        let Some(next) = stream.next() else {
            return documents;
        };
        match next {
            Ok(value) => {
                let rest = text.get(before..).unwrap_or_default();
                let start = before + (rest.len() - rest.trim_start().len());
                let line = 1 + text.bytes().take(start).filter(|b| *b == b'\n').count();
                documents.push(Ok(Document { line, value }));
            }
            Err(error) => {
                // What comes after it can't be told apart from it.
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or_default();
                documents.push(Err(Malformed {
                    line: error.line().max(1),
                    reason: reason.to_owned(),
                }));
                return documents;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(documents: &[Result<Document, Malformed>]) -> Vec<Result<usize, usize>> {
        documents
            .iter()
            .map(|d| d.as_ref().map(|d| d.line).map_err(|m| m.line))
            .collect()
    }

    #[test]
    fn a_broken_document_costs_itself_alone() {
        let text = "# first\na: 1\n---\n\nb: [1\n---\n# nothing\n--- # third\nc: 3\n";
        assert_eq!(lines(&yaml(text)), [Ok(2), Err(5), Ok(9)]);
    }

    #[test]
    fn errors_are_one_line_without_a_position() {
        for text in [
            "a: [1",
            "a: 1\n b: 2\n",
            "a: *x",
            "a: 1\na: 2",
            "a: \"\\q\"",
        ] {
            let documents = yaml(text);
            let Err(malformed) = &documents[0] else {
                panic!("{text:?} was read: {documents:?}");
            };
            assert!(!malformed.reason.is_empty(), "{text:?}");
            assert!(!malformed.reason.contains('\n'), "{malformed}");
            assert!(!malformed.reason.contains("column"), "{malformed}");
        }
    }

    #[test]
    fn scalars_are_what_kubernetes_authors_mean() {
        let text = "a: yes\nb: on\nc: 8080\nd: 'true'\ne: true\nf: 1.5\ng: ~\nh: 2024-01-01T00:00:00Z\ni: .inf\n";
        let documents = yaml(text);
        let value = &documents[0].as_ref().unwrap().value;
        let expected = serde_json::json!({
            "a": "yes", "b": "on", "c": 8080, "d": "true", "e": true, "f": 1.5, "g": null,
            "h": "2024-01-01T00:00:00Z", "i": ".inf",
        });
        assert_eq!(*value, expected);
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let text = "base: &base {app: web, tier: front}\npod: {<<: *base, tier: back}\n";
        let documents = yaml(text);
        let value = &documents[0].as_ref().unwrap().value;
        assert_eq!(
            value["pod"],
            serde_json::json!({"app": "web", "tier": "back"})
        );
    }

    #[test]
    fn a_billion_laughs_is_an_error() {
        let mut text = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(yaml(&text)[0].is_err());
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_fine() {
        let documents = yaml("\u{feff}a: 1\r\n---\r\nb: 2\r\n");
        assert_eq!(lines(&documents), [Ok(1), Ok(3)]);
    }

    #[test]
    fn a_scalar_may_hold_what_looks_like_a_marker() {
        let documents = yaml("a: |\n  one\n  ---\n  two\nb: --- x\n");
        assert_eq!(documents.len(), 1);
        let value = &documents[0].as_ref().unwrap().value;
        assert_eq!(value["a"], "one\n---\ntwo\n");
    }

    #[test]
    fn a_long_list_meets_no_limit() {
        let mut text = String::from("items:\n");
        for n in 0..30_000 {
            text.push_str(&format!("- {{a: {n}, b: [x, y, z, u, v, w]}}\n"));
        }
        let documents = yaml(&text);
        let value = &documents[0].as_ref().unwrap().value;
        assert_eq!(value["items"].as_array().unwrap().len(), 30_000);
    }

    #[test]
    fn json_values_follow_one_another() {
        assert_eq!(lines(&json("{\"a\": 1}\n\n{\"b\": 2}\n")), [Ok(1), Ok(3)]);
        let documents = json("{\"a\": 1}\n{\"b\": \n}");
        assert_eq!(lines(&documents), [Ok(1), Err(3)]);
        let Err(malformed) = &documents[1] else {
            panic!("it was read");
        };
        assert!(!malformed.reason.contains("line"), "{malformed}");
        assert!(json("").is_empty());
    }
}
