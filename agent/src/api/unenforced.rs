//! What is not enforced yet, or at all: pods without programs in front of them, and interfaces that wait for
//! their pod.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pod that some policy isolates, while nothing stands between it and everybody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnenforcedPod {
    /// `namespace/name`.
    pub pod: String,
    /// A word, as in `macvlan`.
    pub reason: String,
    /// A sentence.
    pub detail: String,
    pub age_seconds: u64,
}

impl fmt::Display for UnenforcedPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, reason, detail, age_seconds: _ } = self;
        write!(f, "{pod} is NOT ENFORCED ({reason}): {detail}")
    }
}

/// Interfaces that were held for several seconds, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holds {
    pub long: u64,
    /// Of these, those that ended without an answer.
    pub expired: u64,
}

impl Holds {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
