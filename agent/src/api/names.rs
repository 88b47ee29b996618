//! What pods have learnt of names: the answer to `names`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A pod of this node, and the addresses that its rules with names let it reach now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNames {
    /// `namespace/name`.
    pub pod: String,
    /// False: no name could allow what its policies deny, so it learns nothing.
    pub has_rules: bool,
    /// How many addresses count, those too that are left out.
    pub live: usize,
    /// How many it has room for; one address counts once for each name.
    pub capacity: usize,
    /// How many of them are left out, so that the answer is not too long.
    #[serde(default, skip_serializing_if = "is_none")]
    pub omitted: usize,
    /// Why its table cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Servers that it has asked for names, of which at most four stand here, and that are no resolvers that
    /// the node believes: it learns nothing from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untrusted_resolvers: Vec<SocketAddr>,
    /// Sorted by name and address.
    pub entries: Vec<LearntName>,
}

/// An address that a pod has learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearntName {
    pub address: IpAddr,
    /// The name as far as the node's rules tell it from others: `api.example.com`, or `*.example.com`.
    pub name: String,
    /// The rules of the pod that match the name. None: it is another pod's rules that have it, and the
    /// address is not open.
    pub policies: Vec<NameRules>,
    /// For how long it counts, unless another reply makes it longer.
    pub seconds_left: u64,
    /// Connections to the address that the pod has opened, and that live on when the name has ended.
    pub connections: usize,
}

/// The rules of a policy that match a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRules {
    /// `namespace/name`, or as in `ClusterNetworkPolicy base`.
    pub policy: String,
    /// Indexes in `egress`.
    pub rules: Vec<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_none(count: &usize) -> bool {
    *count == 0
}
