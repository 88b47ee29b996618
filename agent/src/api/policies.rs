//! What policies have done: the answer to `policies`.

use serde::{Deserialize, Serialize};

use super::EnforcedObject;

/// A policy that selects a pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// `namespace/name`, or as in `ClusterNetworkPolicy base`.
    pub policy: String,
    pub mode: Mode,
    /// The version that is enforced, where its source has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<EnforcedObject>,
    /// The local pods that it selects, `namespace/name`.
    pub pods: Vec<String>,
    /// `None`: it says nothing of this direction.
    pub ingress: Option<Hits>,
    pub egress: Option<Hits>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// What it would deny is reported, and passes.
    Audit,
}

/// What a policy has done in one direction, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    pub rules: Vec<RuleHits>,
    /// Packets that were dropped because no rule of it, nor of another policy, allows them.
    pub denied: u64,
    /// The same of a policy in audit mode: they have passed.
    pub would_deny: u64,
}

/// What one rule has matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// Its index in `ingress` or `egress`.
    pub rule: usize,
    /// New connections; of a rule that denies, packets. Packets of a connection that lives are no one's: they
    /// pass on its entry.
    pub hits: u64,
    /// For how many seconds nothing has matched it; `None`: nothing ever has.
    pub idle_seconds: Option<u64>,
}

/// All that is known of policies' hits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// For how long hits have been counted on this node.
    pub counted_seconds: u64,
    /// In the order of their names.
    pub policies: Vec<PolicyStatus>,
}
