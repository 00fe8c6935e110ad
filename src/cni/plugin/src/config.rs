//! What the container runtime says: `CNI_…` in the environment, and the network's configuration on standard input.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::plugin::{Code, Failure};
use crate::protocol::{Id, LONGEST_TEXT, PodId, SOCKET, Valid};

/// The versions of the CNI specification that are understood, oldest first. Their results have one form as far as this
/// plugin looks at them.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The longest configuration that is read. One with a result takes a few kilobytes.
const LONGEST: u64 = 4 << 20;

/// How long an ADD waits for the daemon where nothing else is configured.
const TIMEOUT: u64 = 10;

/// How long it may be told to wait, in seconds. kubelet gives the whole start of a pod's sandbox two minutes.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=110;

/// What an ADD comes to when the daemon does not do its part in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnreachable {
    /// It fails: the pod does not start, and kubelet tries again.
    #[default]
    Fail,
    /// The pod starts, and its policies follow when the daemon does its part.
    Pass,
}

/// The configuration as it stands in the conflist, with what the runtime puts in.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    cni_version: Option<String>,
    #[serde(default)]
    name: String,
    socket: Option<PathBuf>,
    timeout: Option<u64>,
    #[serde(default)]
    on_unreachable: OnUnreachable,
    prev_result: Option<Box<RawValue>>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Valid>>,
}

/// The configuration of the network.
#[derive(Debug)]
pub struct Config {
    /// The version of the specification that it is of, one of [`VERSIONS`].
    pub version: String,
    /// The network's name.
    pub network: String,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// How long an ADD waits for it.
    pub timeout: Duration,
    /// What an ADD comes to otherwise.
    pub on_unreachable: OnUnreachable,
    /// What the plugins before have done, as JSON.
    pub previous: Option<Box<RawValue>>,
    /// The attachments that are still in use, for GC.
    pub valid: Option<Vec<Valid>>,
}

/// Reads standard input.
fn read(input: &mut impl Read) -> Result<Given, Failure> {
    let mut text = Vec::new();
    let read = input.take(LONGEST + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::new(Code::Io, format!("stdin can't be read: {error}")))?;
    if text.len() as u64 > LONGEST {
        let reason = format!("the configuration is longer than {LONGEST} bytes");
        return Err(Failure::new(Code::Decode, reason));
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            Code::Decode,
            format!("the configuration can't be read: {error}"),
        )
    })
}

/// The version of the specification that is asked for, for VERSION, which answers whatever comes.
pub fn asked_version(input: &mut impl Read) -> Option<String> {
    read(input).ok()?.cni_version
}

impl Config {
    /// Reads the configuration, for a command that came with this version of the specification.
    ///
    /// # Errors
    /// When there is something in it that can't be done, by the specification's codes.
    pub fn read(input: &mut impl Read, since: &str) -> Result<Self, Failure> {
        let given = read(input)?;
        // Without one it is 0.1.0, whose results have another form.
        let version = given.cni_version.unwrap_or_else(|| "0.1.0".to_owned());
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        if place(&version) < place(since).max(Some(0)) {
            let known = VERSIONS.join(", ");
            let reason = format!(
                "cniVersion {version} does not do here; understood are {known}, and this command since {since}"
            );
            return Err(Failure::new(Code::Version, reason));
        }
        let invalid = |reason: String| Failure::new(Code::Config, reason).of(&version);
        if given.name.is_empty() || given.name.len() > LONGEST_TEXT {
            return Err(invalid("name: the network has none".to_owned()));
        }
        let timeout = given.timeout.unwrap_or(TIMEOUT);
        if !TIMEOUTS.contains(&timeout) {
            let (first, last) = TIMEOUTS.into_inner();
            return Err(invalid(format!(
                "timeout: {timeout} is not between {first} and {last} seconds"
            )));
        }
        let socket = given.socket.unwrap_or_else(|| PathBuf::from(SOCKET));
        if !socket.is_absolute() {
            return Err(invalid(format!(
                "socket: {} is no absolute path",
                socket.display()
            )));
        }
        Ok(Self {
            network: given.name,
            socket,
            timeout: Duration::from_secs(timeout),
            on_unreachable: given.on_unreachable,
            previous: given.prev_result,
            valid: given.valid_attachments,
            version,
        })
    }
}

/// The container that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// CNI_CONTAINERID.
    pub id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// The pod, where CNI_ARGS names one.
    pub pod: Option<PodId>,
}

impl Container {
    /// Reads the environment.
    ///
    /// # Errors
    /// When a variable is missing that the specification asks for.
    pub fn of(environment: &impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let needed = |name: &str| match environment(name) {
            Some(value) if !value.is_empty() && value.len() <= LONGEST_TEXT => Ok(value),
            Some(value) if !value.is_empty() => Err(Failure::new(
                Code::Environment,
                format!("{name} is longer than {LONGEST_TEXT} bytes"),
            )),
            _ => Err(Failure::new(
                Code::Environment,
                format!("{name} is not set"),
            )),
        };
        let arguments = environment("CNI_ARGS").unwrap_or_default();
        let argument = |name: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let pod = argument("K8S_POD_NAMESPACE").zip(argument("K8S_POD_NAME"));
        Ok(Self {
            id: needed("CNI_CONTAINERID")?,
            ifname: needed("CNI_IFNAME")?,
            pod: pod.map(|(namespace, name)| PodId {
                namespace,
                name,
                uid: argument("K8S_POD_UID").unwrap_or_default(),
            }),
        })
    }

    /// What identifies its attachment to a network.
    pub fn attachment(&self, network: &str) -> Id {
        Id {
            network: network.to_owned(),
            container: self.id.clone(),
            ifname: self.ifname.clone(),
        }
    }
}
