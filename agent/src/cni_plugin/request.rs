//! What the runtime asks: variables of the environment and a configuration on standard input.
//!
//! Out: checked values, or the error that the CNI specification has for what is wrong.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    error::{CniError, Code},
    json,
};
use crate::options::{BPFFS, SOCKET};

/// Versions of the CNI specification in which plugins can be chained.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The one that errors are in where the runtime's is not known.
const VERSION: &str = "1.0.0";

/// How long a pod waits for its policies. The kubelet tries again after that, with a new sandbox.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Container runtimes give a plugin some minutes.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CniCommand {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One run of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CniRequest {
    pub(super) command: CniCommand,
    pub(super) version: String,
    pub(super) settings: Settings,
    /// The result of the plugins before, as it was given.
    pub(super) previous: Option<String>,
    /// The name of the network that the configuration is of; attachments of others are not ours to forget.
    pub(super) network: String,
    /// GC: the attachments that are still there; `None`: the runtime does not say.
    pub(super) valid: Option<Vec<Attachment>>,
    /// Not of VERSION, GC and STATUS.
    pub(super) attachment: Option<Attachment>,
    /// Path of the pod's network namespace; a DEL may have none.
    pub(super) namespace: Option<PathBuf>,
    /// `CNI_ARGS`, as in `K8S_POD_NAME=web`.
    pub(super) arguments: Vec<(String, String)>,
}

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Attachment {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    #[serde(rename = "ifname")]
    pub(super) interface: String,
}

/// What our entry in the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) socket: PathBuf,
    pub(super) bpffs: PathBuf,
    pub(super) timeout: Duration,
    pub(super) when_unknown: WhenUnknown,
}

/// What a pod may do that is started without an agent, while it is not known whether policies isolate pods of
/// its namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhenUnknown {
    /// Nothing, until an agent runs
    #[default]
    Closed,
    /// Everything, until an agent runs
    Open,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    cni_version: Option<String>,
    socket: Option<PathBuf>,
    bpffs: Option<PathBuf>,
    /// In seconds.
    timeout: Option<f64>,
    #[serde(default)]
    when_unknown: WhenUnknown,
    #[serde(default)]
    name: String,
    /// The first is the specification's name, the second that of libcni before
    /// (containernetworking/cni#1101).
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Attachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
}

impl CniRequest {
    /// The version that an answer is in, whatever else is wrong with the request.
    pub(super) fn version_of(input: &str) -> String {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            cni_version: String,
        }
        let version = serde_json::from_str(input).map(|version: Version| version.cni_version);
        version.ok().filter(|version| VERSIONS.contains(&&**version)).unwrap_or_else(|| VERSION.to_owned())
    }

    /// `environment`: looks up a variable.
    pub(super) fn read(
        environment: &dyn Fn(&str) -> Option<OsString>,
        input: &str,
    ) -> Result<Self, CniError> {
        let variable = |name: &str| {
            let value = environment(name).map(|value| value.to_string_lossy().into_owned());
            value.filter(|value| !value.is_empty())
        };
        let needed = |name: &str| {
            let missing = || CniError::new(Code::InvalidEnvironment, format!("{name} is not set"));
            variable(name).ok_or_else(missing)
        };
        let command = match &*needed("CNI_COMMAND")? {
            "ADD" => CniCommand::Add,
            "DEL" => CniCommand::Del,
            "CHECK" => CniCommand::Check,
            "GC" => CniCommand::Gc,
            "STATUS" => CniCommand::Status,
            "VERSION" => CniCommand::Version,
            other => {
                let message = format!("CNI_COMMAND is {other}, which is no command");
                return Err(CniError::new(Code::InvalidEnvironment, message));
            }
        };
        let configuration: Configuration = serde_json::from_str(input)
            .map_err(|error| CniError::new(Code::CannotDecode, format!("the configuration: {error}")))?;
        let version = configuration.cni_version.clone().unwrap_or_else(|| "0.1.0".to_owned());
        if command != CniCommand::Version && !VERSIONS.contains(&&*version) {
            let message = format!("version {version} of CNI is none of {}", VERSIONS.join(", "));
            return Err(CniError::new(Code::IncompatibleVersion, message));
        }
        let attachment = match command {
            CniCommand::Version | CniCommand::Gc | CniCommand::Status => None,
            CniCommand::Add | CniCommand::Del | CniCommand::Check => {
                let attachment =
                    Attachment { container: needed("CNI_CONTAINERID")?, interface: needed("CNI_IFNAME")? };
                Some(attachment.checked()?)
            }
        };
        let namespace = match command {
            CniCommand::Add | CniCommand::Check => Some(needed("CNI_NETNS")?),
            _ => variable("CNI_NETNS"),
        };
        let arguments = variable("CNI_ARGS").unwrap_or_default();
        let arguments = arguments.split(';').filter_map(|argument| argument.split_once('='));
        let members = json::members(input, 0..input.len()).into_iter();
        let previous = members.rev().find(|(name, _)| name == "prevResult").map(|(_, value)| &input[value]);
        Ok(Self {
            command,
            version,
            previous: previous.filter(|result| *result != "null").map(str::to_owned),
            network: configuration.name.clone(),
            valid: configuration.valid.clone().or_else(|| configuration.attachments.clone()),
            attachment,
            namespace: namespace.map(PathBuf::from),
            arguments: arguments.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            settings: configuration.settings()?,
        })
    }

    pub(super) fn argument(&self, key: &str) -> Option<&str> {
        self.arguments.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }
}

impl Attachment {
    /// Both become part of a file's name.
    fn checked(self) -> Result<Self, CniError> {
        // "must start with an alphanumeric character, optionally followed by any combination of one or more
        // alphanumeric characters, underscore (_), dot (.) or hyphen (-)" (CNI specification,
        // "CNI_CONTAINERID").
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric();
        let is_id = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.len() <= 128
                && text.bytes().all(|byte| is_letter(byte) || matches!(byte, b'_' | b'.' | b'-'))
        };
        let invalid = |name: &str, value: &str| {
            CniError::new(Code::InvalidEnvironment, format!("{name} is {value:?}, which is no name"))
        };
        if !is_id(&self.container) {
            return Err(invalid("CNI_CONTAINERID", &self.container));
        }
        let is_interface = self.interface.len() <= 15
            && !matches!(&*self.interface, "." | "..")
            && self.interface.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        if !is_interface {
            return Err(invalid("CNI_IFNAME", &self.interface));
        }
        Ok(self)
    }
}

impl Configuration {
    fn settings(self) -> Result<Settings, CniError> {
        let timeout = match self.timeout {
            None => TIMEOUT,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|timeout| *timeout <= LONGEST_TIMEOUT)
                .ok_or_else(|| {
                    let message = format!("timeout is {seconds}, not 0 to {}", LONGEST_TIMEOUT.as_secs());
                    CniError::new(Code::InvalidConfiguration, message)
                })?,
        };
        Ok(Settings {
            socket: self.socket.unwrap_or_else(|| SOCKET.into()),
            bpffs: self.bpffs.unwrap_or_else(|| BPFFS.into()),
            timeout,
            when_unknown: self.when_unknown,
        })
    }
}
