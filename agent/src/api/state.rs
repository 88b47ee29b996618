//! The state of an endpoint, as it is reported.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedState {
    /// Its pod and addresses are known: evaluated.
    Identified,
    /// Not known yet, and a pod that could be isolated may be behind it: nothing new passes.
    Pending,
    /// Not known, and no pod that could be isolated can be behind it: everything passes.
    Unmanaged,
    /// A host endpoint with a change that is enforced, and undone unless it is confirmed in time.
    Unconfirmed,
    /// A host endpoint with a change that was not confirmed in time: the state before it is enforced.
    Undone,
}

impl fmt::Display for ReportedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identified => "identified",
            Self::Pending => "pending",
            Self::Unmanaged => "unmanaged",
            Self::Unconfirmed => "unconfirmed",
            Self::Undone => "undone",
        })
    }
}
