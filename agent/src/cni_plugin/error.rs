//! How a CNI plugin fails: an object of JSON on standard output, and exit code 1.

use serde_json::json;

/// Codes of the CNI specification ("Error").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    InvalidEnvironment = 4,
    /// Input or output failed.
    Failure = 5,
    CannotDecode = 6,
    InvalidConfiguration = 7,
    /// The runtime, and the kubelet behind it, shall come again.
    TryAgainLater = 11,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct CniError {
    pub(super) code: Code,
    pub(super) message: String,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `version`: the one that the runtime speaks.
    pub(super) fn json(&self, version: &str) -> String {
        let message = self.message.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = format!("podgate: {message}");
        json!({"cniVersion": version, "code": self.code as u32, "msg": message, "details": ""}).to_string()
    }
}
