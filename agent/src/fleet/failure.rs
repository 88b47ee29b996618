//! Why a node has not answered.

use std::{fmt, time::Duration};

/// Sorted, so that nodes with one reason stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The node has no pod of the DaemonSet.
    NoAgent,
    /// The agent's pod is in this phase, or its container is in this state.
    NotRunning(String),
    /// RBAC: the namespace in which `get` or `create` of pods/exec is missing.
    Forbidden(String),
    /// The API server no longer accepts the credentials.
    Unauthorized,
    /// The pod was removed in the meantime.
    Gone,
    /// Another HTTP status in place of a stream.
    Refused(u16),
    TimedOut(Duration),
    /// More bytes than this side takes.
    TooLong(usize),
    /// What the agent's `podgate` says, one line.
    Failed(String),
    /// The answer is not what this program reads.
    Unreadable {
        /// Of the agent, where it is known and another one.
        version: Option<String>,
        error: String,
    },
    /// The way to the API server, or from there to the node.
    Connection(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAgent => f.write_str("no agent runs there"),
            Self::NotRunning(state) => write!(f, "its agent is not running: {state}"),
            Self::Forbidden(namespace) => {
                write!(f, "you may not get and create pods/exec in namespace {namespace} (403)")
            }
            Self::Unauthorized => {
                f.write_str("the API server does not accept your credentials (401): log in again")
            }
            Self::Gone => f.write_str("its agent's pod was removed"),
            Self::Refused(status) => write!(f, "the API server answers {status}"),
            Self::TimedOut(deadline) => {
                write!(f, "no answer within {} s", deadline.as_secs_f64())
            }
            Self::TooLong(limit) => write!(f, "its answer is longer than {} MiB", limit >> 20),
            Self::Failed(message) => write!(f, "its agent says: {message}"),
            Self::Unreadable { version: Some(version), error } => {
                write!(f, "its agent is podgate {version}, whose answer cannot be read: {error}")
            }
            Self::Unreadable { version: None, error } => write!(f, "its answer cannot be read: {error}"),
            Self::Connection(error) => write!(f, "the connection failed: {error}"),
        }
    }
}
