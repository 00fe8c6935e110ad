//! The commands of the CNI specification, and what is answered.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::client::{self, ClientError, Wait};
use crate::config::{Config, Container, OnUnreachable, VERSIONS, asked_version};
use crate::protocol::{Attachment, Command, Reason, Refusal};
use crate::result::{links, passed_on};

/// How long other commands than ADD wait: what a pod's end waits for must be short.
const SHORT: Duration = Duration::from_secs(2);

/// How much sooner than the plugin the daemon gives up at least, so that its reason is heard; where there is more time, an
/// eighth of it, but no more than half of what is left.
const MARGIN: Duration = Duration::from_millis(250);

/// The specification's error codes, and this plugin's own from 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The version of the specification is not understood.
    Version = 1,
    /// A variable of the environment is missing or wrong.
    Environment = 4,
    /// Something can't be read or reached.
    Io = 5,
    /// Something can't be decoded.
    Decode = 6,
    /// The configuration is wrong.
    Config = 7,
    /// It may go better in a moment.
    TryAgain = 11,
    /// STATUS: no ADD would succeed.
    NotAvailable = 50,
    /// The attachment is not what it was.
    Unknown = 100,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: Code,
    message: String,
    version: Option<String>,
}

impl Failure {
    /// A failure, in one line.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into().replace(['\n', '\r'], " "),
            version: None,
        }
    }

    /// The same, in this version of the specification.
    #[must_use]
    pub fn of(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    fn json(&self) -> String {
        let newest = VERSIONS.last().copied().unwrap_or_default();
        let version = self.version.as_deref().unwrap_or(newest);
        json!({"cniVersion": version, "code": self.code as u32, "msg": self.message}).to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What the container runtime gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it went well: the exit code.
    pub success: bool,
    /// What goes to standard output: a result, or an error.
    pub stdout: String,
    /// What goes to standard error, for the runtime's log.
    pub notes: Vec<String>,
}

impl Answer {
    fn success(stdout: String) -> Self {
        Self {
            success: true,
            stdout,
            notes: Vec::new(),
        }
    }
}

/// Does what the environment and the input say.
pub fn run(environment: impl Fn(&str) -> Option<String>, input: &mut impl Read) -> Answer {
    match act(&environment, input) {
        Ok(answer) => answer,
        Err(failure) => Answer {
            success: false,
            stdout: failure.json(),
            notes: Vec::new(),
        },
    }
}

fn act(
    environment: &impl Fn(&str) -> Option<String>,
    input: &mut impl Read,
) -> Result<Answer, Failure> {
    let [first, .., last] = VERSIONS;
    match environment("CNI_COMMAND").as_deref() {
        Some("ADD") => add(&Config::read(input, first)?, &Container::of(environment)?),
        Some("DEL") => del(&Config::read(input, first)?, &Container::of(environment)?),
        Some("CHECK") => check(&Config::read(input, "0.4.0")?, &Container::of(environment)?),
        Some("GC") => gc(&Config::read(input, last)?),
        Some("STATUS") => status(&Config::read(input, last)?),
        Some("VERSION") => {
            let asked = asked_version(input).unwrap_or_else(|| last.to_owned());
            let answer = json!({"cniVersion": asked, "supportedVersions": VERSIONS});
            Ok(Answer::success(answer.to_string()))
        }
        Some(other) => {
            let reason = format!("CNI_COMMAND is {other:?}, which is no command");
            Err(Failure::new(Code::Environment, reason))
        }
        None => {
            let reason =
                "CNI_COMMAND is not set: this is a CNI plugin, which container runtimes run";
            Err(Failure::new(Code::Environment, reason))
        }
    }
}

/// The result of the plugins before, which ADD and CHECK come with.
fn previous(config: &Config) -> Result<&str, Failure> {
    let reason = "prevResult is missing: this plugin comes after the one that makes the network";
    let missing = || Failure::new(Code::Config, reason).of(&config.version);
    config
        .previous
        .as_deref()
        .map(|raw| raw.get())
        .ok_or_else(missing)
}

/// The attachment that a command is about; none where it is not a pod's.
fn attachment(config: &Config, container: &Container) -> Result<Option<Attachment>, Failure> {
    let wrong = |reason: String| {
        Failure::new(Code::Decode, format!("prevResult: {reason}")).of(&config.version)
    };
    let links = links(previous(config)?).map_err(wrong)?;
    let Some(pod) = container.pod.clone() else {
        return Ok(None);
    };
    let attachment = Attachment {
        id: container.attachment(&config.network),
        pod,
        interfaces: links.host,
        addresses: links.addresses,
    };
    attachment.check().map_err(wrong)?;
    Ok(Some(attachment))
}

/// What has come of asking the daemon, as the specification would have it said.
fn failure(config: &Config, outcome: Result<Result<(), Refusal>, ClientError>) -> Option<Failure> {
    let (code, message) = match outcome {
        Ok(Ok(())) => return None,
        Ok(Err(refusal)) => {
            let code = match refusal.reason {
                Reason::Malformed => Code::Config,
                Reason::NotReady => Code::TryAgain,
                Reason::Unknown => Code::Unknown,
            };
            (code, refusal.message)
        }
        Err(error @ ClientError::Unreachable { .. }) => {
            let mend =
                "where Selvedge is gone for good, `selvedge cni uninstall` takes the plugin away";
            (Code::TryAgain, format!("{error}; {mend}"))
        }
        Err(error) => (Code::TryAgain, error.to_string()),
    };
    Some(Failure::new(code, message).of(&config.version))
}

/// A pod's network has been made.
fn add(config: &Config, container: &Container) -> Result<Answer, Failure> {
    let result = passed_on(previous(config)?, &config.version);
    let mut answer = Answer::success(result);
    let Some(attachment) = attachment(config, container)? else {
        return Ok(answer);
    };
    let pod = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
    let margin = config.timeout / 8;
    let command = move |left: Duration| Command::Add {
        attachment: attachment.clone(),
        patience: {
            let margin = MARGIN.max(margin.min(left / 2));
            u64::try_from(left.saturating_sub(margin).as_millis()).unwrap_or(u64::MAX)
        },
    };
    let outcome = client::ask(&config.socket, config.timeout, Wait::ForDaemon, command);
    match (failure(config, outcome), config.on_unreachable) {
        (None, _) => Ok(answer),
        (Some(failure), OnUnreachable::Fail) => {
            let message = format!("pod {pod} can't start yet: {failure}");
            Err(Failure::new(failure.code, message).of(&config.version))
        }
        (Some(failure), OnUnreachable::Pass) => {
            answer
                .notes
                .push(format!("pod {pod} starts before its policies: {failure}"));
            Ok(answer)
        }
    }
}

/// A pod's network goes. That succeeds in any case: a pod must be able to end.
fn del(config: &Config, container: &Container) -> Result<Answer, Failure> {
    let mut answer = Answer::success(String::new());
    let id = container.attachment(&config.network);
    let command = move |_| Command::Del { id: id.clone() };
    let outcome = client::ask(&config.socket, SHORT, Wait::No, command);
    if let Some(failure) = failure(config, outcome) {
        answer.notes.push(failure.to_string());
    }
    Ok(answer)
}

/// Is the pod's network still what it was?
fn check(config: &Config, container: &Container) -> Result<Answer, Failure> {
    let Some(attachment) = attachment(config, container)? else {
        return Ok(Answer::success(String::new()));
    };
    let command = move |_| Command::Check {
        attachment: attachment.clone(),
    };
    let outcome = client::ask(&config.socket, SHORT, Wait::No, command);
    strict(config, outcome)
}

/// What is not named goes.
fn gc(config: &Config) -> Result<Answer, Failure> {
    let Some(valid) = config.valid.clone() else {
        let reason = "cni.dev/valid-attachments is missing";
        return Err(Failure::new(Code::Config, reason).of(&config.version));
    };
    let network = config.network.clone();
    let command = move |_| Command::Gc {
        network: network.clone(),
        valid: valid.clone(),
    };
    let outcome = client::ask(&config.socket, SHORT, Wait::No, command);
    strict(config, outcome)
}

/// Could a pod start now?
fn status(config: &Config) -> Result<Answer, Failure> {
    let outcome = client::ask(&config.socket, SHORT, Wait::No, |_| Command::Status);
    strict(config, outcome).map_err(|failure| Failure {
        code: Code::NotAvailable,
        ..failure
    })
}

/// The answer of a command that only matters where the daemon is a must.
fn strict(
    config: &Config,
    outcome: Result<Result<(), Refusal>, ClientError>,
) -> Result<Answer, Failure> {
    let mut answer = Answer::success(String::new());
    match (failure(config, outcome), config.on_unreachable) {
        (None, _) => Ok(answer),
        (Some(failure), OnUnreachable::Fail) => Err(failure),
        (Some(failure), OnUnreachable::Pass) => {
            answer.notes.push(failure.to_string());
            Ok(answer)
        }
    }
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
