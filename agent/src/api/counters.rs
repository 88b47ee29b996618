//! What the programs in the kernel have counted: packets, connections that made room for others, and what was
//! lost.

use podgate_common::{Direction, Outcome};
use serde::{Deserialize, Serialize};

use super::{direction, outcome};

/// Connections that had to make room for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evictions {
    /// Those that were answered (`established`), or those that never were (`half-open`).
    pub state: String,
    /// Whose connection took their place: one of the same pod (`same-pod`), or of another (`other-pod`).
    #[serde(default)]
    pub newcomer: String,
    pub connections: u64,
}

/// What is counted in the kernel.
#[derive(Clone, Debug, Default)]
pub struct KernelCounters {
    pub packets: Vec<Counter>,
    pub evictions: Vec<Evictions>,
    pub lost: Lost,
    /// Packets that took the short cut.
    pub shortcut: u64,
}

/// What the programs could not count, report or remember, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Events for which the ring had no room.
    pub events: u64,
    /// Events beyond what one pod may send.
    pub events_of_share: u64,
    /// Packets that are counted for no pod.
    pub uncounted: u64,
    /// Packets that are counted for a pod, but for no policy.
    pub unattributed: u64,
    /// Datagrams in fragments beyond what one pod may send.
    pub fragments: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    #[serde(with = "direction")]
    pub direction: Direction,
    #[serde(with = "outcome")]
    pub outcome: Outcome,
    pub packets: u64,
}
