//! Which version of each policy a node enforces: the answer to `rollout`.

use serde::{Deserialize, Serialize};

/// How far the policies have come on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReport {
    pub node: String,
    /// Of the agent.
    pub version: String,
    /// The first full picture of every source is enforced.
    pub ready: bool,
    pub revision: u32,
    /// The last thing that failed and was not put right since.
    pub last_error: Option<String>,
    /// All that are enforced, also those that select no pod of this node; in the order of their names.
    pub policies: Vec<PolicyRollout>,
}

/// One policy on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRollout {
    /// `namespace/name`, or as in `ClusterNetworkPolicy base`.
    pub policy: String,
    /// `None`: its source has no versions, as manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<EnforcedObject>,
    /// How many pods of this node it selects, of those that have an address.
    pub pods: usize,
    /// Those of them on which it is not enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<UnguardedPod>,
}

/// A version of a policy, as it is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedObject {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub generation: Option<i64>,
    /// RFC 3339, UTC, with milliseconds.
    pub since: String,
    /// From its watch event, or the list that the agent began with, until it was enforced.
    pub latency_microseconds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnguardedPod {
    /// `namespace/name`
    pub pod: String,
    pub reason: String,
}
