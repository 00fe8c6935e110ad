//! What the tests share: namespaces, short names for values, and a ruleset as the transaction that makes it.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use selvedge_nft::{
    Chain, Comment, Dataplane, Elements, Family, IfName, Kernel, Key, MapEntry, Name, Op,
    Ownership, Rule, Ruleset, Set, SetHeader, Table, TableId, Transaction, Value, Verdict,
};

/// Runs `test` on a thread in a network namespace of its own, which is gone afterwards.
pub fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("these tests make network namespaces: run them as root");
        test()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs nft in the calling thread's namespace with a script on its input; gives its output.
pub fn nft(arguments: &[&str], script: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed");
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "nft failed: {errors}\n{script}");
    String::from_utf8(output.stdout).unwrap()
}

/// Loads a script in the calling thread's namespace.
pub fn load(script: &str) {
    nft(&["-f", "-"], script);
}

/// What nft lists in the calling thread's namespace.
pub fn list() -> String {
    nft(&["-s", "list", "ruleset"], "")
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn comment(text: &str) -> Comment {
    Comment::new(text).unwrap()
}

pub fn v4(text: &str) -> Value {
    Value::Ipv4(text.parse::<Ipv4Addr>().unwrap())
}

pub fn v6(text: &str) -> Value {
    Value::Ipv6(text.parse::<Ipv6Addr>().unwrap())
}

pub fn interface(text: &str) -> Value {
    Value::IfName(IfName::new(text).unwrap())
}

pub fn key(values: &[Value]) -> Key {
    Key::new(values).unwrap()
}

pub fn k4(text: &str) -> Key {
    key(&[v4(text)])
}

pub fn inet() -> TableId {
    TableId {
        family: Family::Inet,
        name: name("selvedge"),
    }
}

pub fn bridge() -> TableId {
    TableId {
        family: Family::Bridge,
        name: name("selvedge"),
    }
}

pub fn keys(keys: impl IntoIterator<Item = Key>) -> Elements {
    Elements::Keys(keys.into_iter().collect())
}

pub fn ranges(ranges: impl IntoIterator<Item = (Key, Key)>) -> Elements {
    Elements::Ranges(ranges.into_iter().collect())
}

pub fn verdicts(entries: impl IntoIterator<Item = (Key, Verdict)>) -> Elements {
    let entry = |(key, verdict)| {
        let comment = None;
        (key, MapEntry { verdict, comment })
    };
    Elements::Verdicts(entries.into_iter().map(entry).collect())
}

pub fn set(key: &[selvedge_nft::Datatype], elements: Elements) -> Arc<Set> {
    Arc::new(Set {
        header: SetHeader {
            key: key.to_vec(),
            comment: None,
        },
        elements,
    })
}

pub fn chain(rules: impl IntoIterator<Item = Rule>) -> Arc<Chain> {
    Arc::new(Chain {
        rules: rules.into_iter().collect(),
        ..Chain::default()
    })
}

pub fn ruleset(tables: impl IntoIterator<Item = (TableId, Table)>) -> Ruleset {
    let shared = |(id, table)| (id, Arc::new(table));
    Ruleset {
        tables: tables.into_iter().map(shared).collect(),
    }
}

/// The transaction that makes a ruleset where there is nothing.
pub fn make(ruleset: &Ruleset) -> Transaction {
    let mut ops = Vec::new();
    for (id, table) in &ruleset.tables {
        ops.push(Op::AddTable {
            table: id.clone(),
            comment: table.comment.clone(),
            owned: table.ownership == Ownership::Own,
        });
        for (name, counter) in &table.counters {
            ops.push(Op::AddCounter {
                table: id.clone(),
                name: name.clone(),
                counter: counter.clone(),
            });
        }
        for (name, set) in &table.sets {
            ops.push(Op::AddSet {
                table: id.clone(),
                name: name.clone(),
                header: set.header.clone(),
                kind: set.elements.none(),
                size: None,
            });
        }
        for (name, chain) in &table.chains {
            ops.push(Op::AddChain {
                table: id.clone(),
                name: name.clone(),
                base: chain.base,
                comment: chain.comment.clone(),
            });
        }
        for (name, set) in &table.sets {
            ops.push(add(id, name, &set.header, set.elements.clone()));
        }
        for (name, chain) in &table.chains {
            for rule in &chain.rules {
                ops.push(Op::AddRule {
                    table: id.clone(),
                    chain: name.clone(),
                    rule: rule.clone(),
                });
            }
        }
    }
    Transaction { ops }
}

pub fn add(id: &TableId, name: &Name, header: &SetHeader, elements: Elements) -> Op {
    Op::AddElements {
        table: id.clone(),
        name: name.clone(),
        header: header.clone(),
        elements,
    }
}

pub fn delete(id: &TableId, name: &Name, header: &SetHeader, elements: Elements) -> Op {
    Op::DeleteElements {
        table: id.clone(),
        name: name.clone(),
        header: header.clone(),
        elements,
    }
}

/// Opens the calling thread's namespace and makes a ruleset in it.
pub fn kernel_with(ruleset: &Ruleset) -> Kernel {
    let mut kernel = Kernel::open().unwrap();
    kernel.commit(&make(ruleset)).unwrap();
    kernel
}

/// Reads our two tables.
pub fn read(kernel: &mut Kernel) -> Ruleset {
    kernel.read(&[inet(), bridge()]).unwrap()
}
