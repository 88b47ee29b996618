//! How far an endpoint is known.

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
    /// A host endpoint whose last change counts until it is undone, unless it is confirmed before.
    Unconfirmed,
    /// A host endpoint whose last change was not confirmed: what was before it counts.
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
