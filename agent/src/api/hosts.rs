//! Host endpoints in `status`.

use serde::{Deserialize, Serialize};

/// Counts of the node's devices with a host endpoint, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounts {
    /// Their policies are enforced, and confirmed.
    pub enforced: usize,
    /// Their policies are enforced; the last change is undone unless it is confirmed in time.
    pub unconfirmed: usize,
    /// The last change was undone: the policies of before are enforced.
    pub undone: usize,
    /// Their policies are not enforced: programs are missing there, or come after others; or they have no
    /// device.
    #[serde(default)]
    pub unenforced: usize,
}

impl HostCounts {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
