//! What stands around the CNI plugin: Flannel's configuration, what container runtimes say, what plugin and daemon say to
//! each other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use selvedge::cni::conflist::{
    Entry, OnUnreachable, PLUGIN, has_plugin, insert, is_flannel, remove,
};
use selvedge_cni::config::{Config, VERSIONS};
use selvedge_cni::plugin::{self, Answer};
use selvedge_cni::protocol::{self, Command, Reply, Request, SOCKET, VERSION};
use selvedge_cni::result::{links, passed_on};
use serde_json::Value;

/// The first byte says as what the rest is read.
///
/// Nothing panics, and each promise below is kept.
pub fn cni(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    match (choice % 4, str::from_utf8(bytes)) {
        (0, Ok(text)) => list(text),
        (1, _) => lines(bytes),
        (2, Ok(text)) => result(text),
        (3, _) => run(bytes),
        _ => {}
    }
}

/// A configuration list: our plugin comes into it once, goes out of it whole, and all else stays.
fn list(text: &str) {
    let (flannel, there, without) = (is_flannel(text), has_plugin(text), remove(text));
    let entry = Entry::new(PathBuf::from(SOCKET), 10, OnUnreachable::Fail);
    let inserted = insert(text, &entry);
    let (Ok(flannel), Ok(there)) = (&flannel, &there) else {
        assert!(flannel.is_err() && there.is_err() && without.is_err() && inserted.is_err());
        return;
    };
    let without = without.unwrap();
    assert_eq!(without.is_some(), *there);
    let without = without.as_deref().unwrap_or(text);
    assert!(!has_plugin(without).unwrap());
    assert_eq!(is_flannel(without).unwrap(), *flannel);
    assert_eq!(remove(without).unwrap(), None);
    assert_rest(text, without);

    assert_eq!(inserted.is_ok(), *flannel);
    let Ok(inserted) = inserted else { return };
    assert!(inserted.is_some() || *there);
    let with = inserted.as_deref().unwrap_or(text);
    assert!(has_plugin(with).unwrap());
    assert_eq!(insert(with, &entry).unwrap(), None);
    if inserted.is_some() {
        assert_eq!(remove(with).unwrap().as_deref(), Some(without));
    }
}

/// Without our plugin two lists are the same.
fn assert_rest(before: &str, after: &str) {
    let rest = |text: &str| {
        let mut list: Value = serde_json::from_str(text).ok()?;
        // By position fields can be said, too; nobody but serde takes that for a list.
        let plugins = list.get_mut("plugins").and_then(Value::as_array_mut)?;
        plugins.retain(|plugin| plugin["type"] != PLUGIN && plugin[0] != PLUGIN);
        Some(list)
    };
    if let Some(before) = rest(before) {
        assert_eq!(rest(after), Some(before));
    }
}

/// What one of the two says to the other: it comes back the same, and a refusal is one line.
fn lines(line: &[u8]) {
    match protocol::request(line) {
        Ok(command) => {
            let request = Request {
                version: VERSION,
                command,
            };
            let again = protocol::request(&protocol::line(&request).unwrap());
            assert_eq!(again, Ok(request.command));
        }
        Err(refusal) => assert_line(&refusal.message),
    }
    if let Ok(answer) = protocol::reply(line) {
        let again = protocol::line(&Reply::from(answer.clone())).unwrap();
        assert_eq!(protocol::reply(&again).unwrap(), answer);
    }
}

fn assert_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// What the plugins before have done: it is passed on as it came, but for a version where it says none.
fn result(text: &str) {
    if let Err(reason) = links(text) {
        assert_line(&reason);
    }
    let passed = passed_on(text, "1.0.0");
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(text) else {
        assert_eq!(passed, text);
        return;
    };
    match fields.contains_key("cniVersion") {
        true => assert_eq!(passed, text),
        false => {
            fields.insert("cniVersion".to_owned(), "1.0.0".into());
            let passed: Value = serde_json::from_str(&passed).unwrap();
            assert_eq!(passed, Value::Object(fields));
        }
    }
}

/// The variables of the environment that the plugin reads, in the order in which an input has them.
const VARIABLES: [&str; 4] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS"];

/// A line for each of [`VARIABLES`], one that is the daemon's answer, and then standard input: the plugin as a whole, with
/// a daemon that says what the input says.
///
/// What the plugin answers is what the specification allows, and the daemon understands which pod it is asked for.
fn run(bytes: &[u8]) {
    let mut parts = bytes.splitn(VARIABLES.len() + 2, |byte| *byte == b'\n');
    let variables = VARIABLES.map(|_| parts.next().and_then(|part| str::from_utf8(part).ok()));
    let (Some(answer), Some(input)) = (parts.next(), parts.next()) else {
        return;
    };
    let environment = |name: &str| {
        let at = VARIABLES.iter().position(|variable| *variable == name)?;
        variables[at].map(str::to_owned)
    };
    let directory = super::directory();
    let socket = directory.path().join("cni.sock");
    let input = on(&socket, input);
    let config = Config::read(&mut input.as_slice(), VERSIONS[0]);
    let answer = match &config {
        // Whoever listens elsewhere is nobody to try this on.
        Ok(config) if config.socket != socket => return,
        Ok(_) => {
            let plugin = || plugin::run(environment, &mut input.as_slice());
            let (answer, heard) = with_daemon(&socket, answer, plugin);
            for line in heard {
                assert_asked(&line);
            }
            answer
        }
        Err(_) => plugin::run(environment, &mut input.as_slice()),
    };
    assert_answer(variables[0], config.ok().as_ref(), &answer);
}

/// The configuration with the socket in it. It is still text that nobody has read.
fn on(socket: &Path, input: &[u8]) -> Vec<u8> {
    match input.strip_prefix(b"{") {
        Some(rest) => {
            let head = format!("{{\"socket\":{:?},", socket.display().to_string());
            [head.as_bytes(), rest].concat()
        }
        None => input.to_owned(),
    }
}

/// Runs the plugin beside a daemon that answers whatever it is asked with this line. With the plugin's answer comes what
/// the daemon was asked.
fn with_daemon(
    socket: &Path,
    answer: &[u8],
    plugin: impl FnOnce() -> Answer,
) -> (Answer, Vec<Vec<u8>>) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::scope(|scope| {
        let daemon = scope.spawn(|| {
            let mut heard = Vec::new();
            loop {
                let mut reader = BufReader::new(listener.accept().unwrap().0);
                let mut line = Vec::new();
                reader.read_until(b'\n', &mut line).unwrap();
                if line.is_empty() {
                    return heard;
                }
                heard.push(line);
                let answer = [answer, b"\n"].concat();
                reader.get_mut().write_all(&answer).unwrap();
            }
        });
        let answer = plugin();
        // Who comes and says nothing ends it.
        drop(UnixStream::connect(socket).unwrap());
        (answer, daemon.join().unwrap())
    })
}

/// A request is a line that can be read, and what it says of a pod's network is taken.
fn assert_asked(line: &[u8]) {
    let request: Request = serde_json::from_slice(line).unwrap();
    assert_eq!(line.last(), Some(&b'\n'));
    if let Command::Add { .. } | Command::Check { .. } = &request.command {
        assert_eq!(protocol::request(line), Ok(request.command));
    }
}

/// What the specification says of standard output, and this plugin of its notes.
fn assert_answer(command: Option<&str>, config: Option<&Config>, answer: &Answer) {
    for note in &answer.notes {
        assert!(!note.contains('\n'), "{note:?}");
    }
    if !answer.success {
        let error: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert!(VERSIONS.contains(&error["cniVersion"].as_str().unwrap()));
        assert!(error["code"].is_u64());
        assert!(!error["msg"].as_str().unwrap().contains('\n'), "{error}");
        return;
    }
    match command {
        Some("ADD") => {
            let config = config.unwrap();
            let previous = config.previous.as_ref().unwrap();
            assert_eq!(answer.stdout, passed_on(previous.get(), &config.version));
        }
        Some("VERSION") => {
            let versions: Value = serde_json::from_str(&answer.stdout).unwrap();
            assert_eq!(
                versions["supportedVersions"],
                Value::from(VERSIONS.to_vec())
            );
        }
        _ => assert_eq!(answer.stdout, ""),
    }
}
