//! What the tests share: the real nft in a network namespace of its own, short ways to say values, and a ruleset with a
//! bit of everything.

mod handmade;

use std::process::Command;

pub(crate) use self::handmade::handmade;
use crate::name::{Comment, IfName, Name};
use crate::rule::{Rule, Verdict};
use crate::ruleset::{
    BaseChain, Chain, ChainPolicy, Elements, Family, Hook, MapEntry, Set, SetHeader, TableId,
};
use crate::value::{Datatype, Key, Value};

/// Loads the scripts one after another with `nft -f` in a fresh network namespace, which needs root, and gives what
/// `nft -s list ruleset` says there afterwards. What nft complains of is the error.
pub(crate) fn namespace(scripts: &[&str]) -> Result<String, String> {
    const LOAD: &str =
        r#"for script; do printf %s "$script" | nft -f - || exit 1; done; nft -s list ruleset"#;
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", LOAD, "sh"])
        .args(scripts)
        .output()
        .unwrap();
    if output.status.success() && output.stderr.is_empty() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn comment(text: &str) -> Option<Comment> {
    Some(Comment::new(text).unwrap())
}

pub(crate) fn key(values: &[Value]) -> Key {
    Key::new(values).unwrap()
}

pub(crate) fn v4(text: &str) -> Value {
    Value::Ipv4(text.parse().unwrap())
}

pub(crate) fn v6(text: &str) -> Value {
    Value::Ipv6(text.parse().unwrap())
}

pub(crate) fn interface(text: &str) -> Value {
    Value::IfName(IfName::new(text).unwrap())
}

pub(crate) fn table_id(family: Family, text: &str) -> TableId {
    TableId {
        family,
        name: name(text),
    }
}

pub(crate) fn header(types: &[Datatype]) -> SetHeader {
    SetHeader {
        key: types.to_vec(),
        comment: None,
    }
}

pub(crate) fn keys(types: &[Datatype], keys: impl IntoIterator<Item = Key>) -> Set {
    Set {
        header: header(types),
        elements: Elements::Keys(keys.into_iter().collect()),
    }
}

pub(crate) fn ranges(types: &[Datatype], ranges: &[(&[Value], &[Value])]) -> Set {
    let ranges = ranges.iter().map(|(first, last)| (key(first), key(last)));
    Set {
        header: header(types),
        elements: Elements::Ranges(ranges.collect()),
    }
}

pub(crate) fn map(types: &[Datatype], entries: impl IntoIterator<Item = (Key, Verdict)>) -> Set {
    let entries = entries.into_iter().map(|(key, verdict)| {
        let comment = None;
        (key, MapEntry { verdict, comment })
    });
    Set {
        header: header(types),
        elements: Elements::Verdicts(entries.collect()),
    }
}

pub(crate) fn chain(rules: impl IntoIterator<Item = Rule>) -> Chain {
    Chain {
        rules: rules.into_iter().collect(),
        ..Chain::default()
    }
}

pub(crate) fn base(hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain {
        hook,
        priority,
        policy: ChainPolicy::Accept,
    })
}

pub(crate) fn jump(to: &str) -> Rule {
    Rule::new([Verdict::Jump(name(to)).into()])
}

/// A listing without what depends on history: objects by name, the elements of each set in one order.
pub(crate) fn sorted_listing(listing: &str) -> Vec<(String, Vec<String>)> {
    let mut tables = Vec::new();
    for table in listing.split_inclusive("\n}\n") {
        let (mut head, mut body) = table.split_once('\n').unwrap();
        if body.starts_with("\tcomment") {
            let end = head.len() + 1 + body.find('\n').unwrap();
            (head, body) = table.split_at(end + 1);
        }
        let mut objects = Vec::new();
        // Every object ends in a brace at one tab.
        for object in body.split_inclusive("\n\t}\n") {
            let object = object.trim_start_matches('\n');
            let (head, elements) = match object.split_once("elements = { ") {
                Some((head, elements)) => (head, elements.trim_end_matches("}\n\t")),
                None => (object, ""),
            };
            let mut elements: Vec<_> = elements
                .trim_end_matches([' ', '}', '\n', '\t'])
                .split(", ")
                .flat_map(|part| part.split(",\n"))
                .map(str::trim)
                .collect();
            elements.sort_unstable();
            objects.push(format!("{head}{}", elements.join("\n")));
        }
        objects.sort_unstable();
        tables.push((head.to_owned(), objects));
    }
    tables.sort_unstable();
    tables
}

/// Which of the scripts `nft -f` loads, each tried on its own in the same fresh network namespace.
pub(crate) fn accepted(scripts: &[String]) -> Vec<bool> {
    const TRY: &str = r#"for script; do
        printf %s "$script" | nft -f - 2>/dev/null && echo yes || echo no
        nft flush ruleset
    done"#;
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", TRY, "sh"])
        .args(scripts)
        .output()
        .unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = answers.lines().map(|line| line == "yes").collect();
    assert_eq!(answers.len(), scripts.len());
    answers
}
