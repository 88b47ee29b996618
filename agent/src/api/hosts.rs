//! Host endpoints in `status`.

use serde::{Deserialize, Serialize};

/// The node's devices with a host endpoint, by what enforces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounts {
    /// Their policies, for good.
    pub enforced: usize,
    /// Their policies, until they are undone if nothing confirms them.
    pub unconfirmed: usize,
    /// What was before the last change.
    pub undone: usize,
}

impl HostCounts {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
