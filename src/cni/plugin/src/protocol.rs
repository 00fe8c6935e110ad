//! What the plugin and the daemon say to each other: on a unix stream socket, a [`Request`] of one line, then a [`Reply`]
//! of one line, each JSON.
//!
//! Both have bounded sizes, and say which version of this they are of: plugin and daemon are replaced one after the other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The version of all this.
pub const VERSION: u32 = 1;

/// Where the daemon listens, unless it is told otherwise.
pub const SOCKET: &str = "/run/selvedge/cni.sock";

/// The longest line. A GC of a thousand pods takes a hundred kilobytes.
pub const LONGEST_LINE: usize = 256 * 1024;

/// The most addresses and the most interfaces of an attachment.
pub const MOST: usize = 32;

/// The longest text in an attachment: a namespace, a name, an identifier. Kubernetes' names have at most 253 bytes.
pub const LONGEST_TEXT: usize = 253;

/// What identifies an attachment of a container to a network, by the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id {
    /// The network's name, from its configuration.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME: the interface within the container.
    pub ifname: String,
}

/// Whose network it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodId {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID; empty where the runtime does not say it.
    #[serde(default)]
    pub uid: String,
}

/// A pod's attachment to the pods' network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What identifies it.
    pub id: Id,
    /// The pod.
    pub pod: PodId,
    /// The interfaces outside the pod that were made or used for it: a bridge, and one of its ports.
    pub interfaces: Vec<String>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// An attachment that is still in use, as GC lists them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Valid {
    /// CNI_CONTAINERID.
    #[serde(rename = "containerID")]
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// What the plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    /// A pod's network is made: enforce the pod's policies on it, and answer when the kernel has acknowledged that.
    Add {
        /// The attachment.
        attachment: Attachment,
        /// How long the plugin waits for the answer, in milliseconds.
        patience: u64,
    },
    /// A pod's network goes.
    Del {
        /// The attachment's.
        id: Id,
    },
    /// Is this still so?
    Check {
        /// The attachment.
        attachment: Attachment,
    },
    /// Of this network these attachments are all that there are.
    Gc {
        /// The network's name.
        network: String,
        /// The attachments.
        valid: Vec<Valid>,
    },
    /// Could an ADD succeed?
    Status,
}

impl Command {
    /// Its name in the CNI specification.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "ADD",
            Self::Del { .. } => "DEL",
            Self::Check { .. } => "CHECK",
            Self::Gc { .. } => "GC",
            Self::Status => "STATUS",
        }
    }
}

/// What the plugin says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What for.
    #[serde(flatten)]
    pub command: Command,
}

/// Why the daemon does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request can't be understood.
    Malformed,
    /// The daemon can't enforce anything yet, or no more in time.
    NotReady,
    /// There is no such attachment.
    Unknown,
}

/// That the daemon does not do what it was asked, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of what sort it is.
    pub reason: Reason,
    /// In one line.
    pub message: String,
}

impl Refusal {
    /// A refusal. Whatever was asked, it stays one line.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into().replace(char::is_control, " ");
        Self { reason, message }
    }
}

/// What the daemon answers: done, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// None when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl From<Result<(), Refusal>> for Reply {
    fn from(result: Result<(), Refusal>) -> Self {
        Self {
            version: VERSION,
            refusal: result.err(),
        }
    }
}

/// A value as a line.
///
/// # Errors
/// When it has no form as JSON, which those of this module have.
pub fn line(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a request.
///
/// # Errors
/// [`Reason::Malformed`], with what is wrong.
pub fn request(line: &[u8]) -> Result<Command, Refusal> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |text: String| Refusal::new(Reason::Malformed, text);
    let unreadable = |error: serde_json::Error| malformed(format!("no request: {error}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(unreadable)?;
    if version != VERSION {
        return Err(malformed(format!(
            "the plugin speaks version {version} and the daemon version {VERSION}; `selvedge cni install` copies the one that fits"
        )));
    }
    let Request { command, .. } = serde_json::from_slice(line).map_err(unreadable)?;
    check(&command).map_err(malformed)?;
    Ok(command)
}

/// Reads a reply.
///
/// # Errors
/// When it is none.
pub fn reply(line: &[u8]) -> Result<Result<(), Refusal>, serde_json::Error> {
    let Reply { refusal, .. } = serde_json::from_slice(line)?;
    Ok(refusal.map_or(Ok(()), Err))
}

/// What is wrong with a command's contents.
fn check(command: &Command) -> Result<(), String> {
    match command {
        Command::Add { attachment, .. } | Command::Check { attachment } => attachment.check(),
        Command::Del { id } => id.check(),
        Command::Gc { network, valid } => {
            text("network", network)?;
            valid.iter().try_for_each(|valid| {
                text("container", &valid.container)?;
                text("ifname", &valid.ifname)
            })
        }
        Command::Status => Ok(()),
    }
}

impl Id {
    fn check(&self) -> Result<(), String> {
        text("network", &self.network)?;
        text("container", &self.container)?;
        text("ifname", &self.ifname)
    }
}

impl Attachment {
    /// What is wrong with it, in one line: it is too large, or names nothing.
    ///
    /// # Errors
    /// That.
    pub fn check(&self) -> Result<(), String> {
        self.id.check()?;
        text("namespace", &self.pod.namespace)?;
        text("name", &self.pod.name)?;
        if !self.pod.uid.is_empty() {
            text("uid", &self.pod.uid)?;
        }
        if self.interfaces.len() > MOST || self.addresses.len() > MOST {
            return Err(format!("more than {MOST} interfaces or addresses"));
        }
        self.interfaces
            .iter()
            .try_for_each(|name| text("interface", name))
    }
}

/// Whether a text is one: not empty, not too long, nothing in it that would garble a log.
fn text(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if text.len() > LONGEST_TEXT {
        return Err(format!("{what} is longer than {LONGEST_TEXT} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{what} has a control character"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
