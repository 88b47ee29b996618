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
    pub names: NameCounts,
}

/// What became of the replies of resolvers to pods that have rules with names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameCounts {
    /// Addresses that were learnt, or count for longer.
    pub learnt: u64,
    /// Addresses that counted, and whose place another one took.
    pub evicted: u64,
    /// Addresses that no name may open.
    pub refused: u64,
    /// Replies that were cut, so that the client asks again over TCP.
    pub cut: u64,
    /// Replies of which something could not be learnt.
    pub unlearnt: u64,
    /// Replies that contradict themselves.
    pub malformed: u64,
    pub agent: AgentNameCounts,
}

/// What the agent itself has done for these pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentNameCounts {
    /// Questions for new names of rules that a resolver has answered.
    pub answered: u64,
    /// Those that none has.
    pub unanswered: u64,
    /// New names that were not asked for, as their namespace has too many.
    pub left_out: u64,
    /// Addresses that were entered for pods, of the answers.
    pub entered: u64,
    /// Times that an address was made to count for longer, as a connection to it lives.
    pub renewed: u64,
}

impl NameCounts {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
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
