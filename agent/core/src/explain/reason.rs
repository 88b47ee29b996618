//! The reason of the verdict at one end of a connection.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Verdict;

/// The reason of the verdict at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictReason {
    /// Allow: no policy selects what is not a pod with a network of its own.
    NotAPod,
    /// Allow: a pod always reaches itself.
    Itself,
    /// Allow: no policy selects the pod for this direction.
    NotIsolated,
    /// Allow: only ClusterNetworkPolicies select the pod for this direction, and none of their rules decides.
    Undecided,
    /// Allow: a pod and its own node always reach each other.
    OwnNode,
    /// Allow: each address and port is allowed by some rule.
    RuleMatches,
    /// Deny: some address or port is allowed by no rule.
    NoRuleMatches,
    /// Allow: a rule of a ClusterNetworkPolicy is the first that matches.
    ClusterPolicyAccepts,
    /// Deny: a rule of a ClusterNetworkPolicy is the first that matches.
    ClusterPolicyDenies,
    /// Allow: a rule of a policy of Calico's is the first that matches.
    CalicoPolicyAllows,
    /// Deny: a rule of a policy of Calico's is the first that matches.
    CalicoPolicyDenies,
    /// Deny: a tier with a policy of Calico's for the pod, of which no rule matches.
    EndOfTier,
    /// Deny: the service has no endpoint that the client could be led to.
    NoBackend,
    /// Allow: a port that host endpoints leave open whatever policies say.
    Failsafe,
    /// Allow: no policy decides, and a profile of the host endpoint allows.
    Profile,
    /// Deny: no policy decides, and no profile of the host endpoint allows.
    NoProfile,
    /// Allow at this end: another node has the address, and the client's policies see that node.
    TranslatedElsewhere,
    /// The client's node masquerades the connection: the other end evaluates that node's address.
    Masqueraded,
}

impl VerdictReason {
    /// The verdict that this reason leads to.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::NotAPod
            | Self::Itself
            | Self::NotIsolated
            | Self::Undecided
            | Self::OwnNode
            | Self::RuleMatches
            | Self::ClusterPolicyAccepts
            | Self::CalicoPolicyAllows
            | Self::Failsafe
            | Self::Profile
            | Self::TranslatedElsewhere
            | Self::Masqueraded => Verdict::Allow,
            Self::NoRuleMatches
            | Self::NoProfile
            | Self::ClusterPolicyDenies
            | Self::CalicoPolicyDenies
            | Self::EndOfTier
            | Self::NoBackend => Verdict::Deny,
        }
    }
}

impl fmt::Display for VerdictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPod => "not a pod with a network of its own, so no policy selects it",
            Self::Itself => "a pod always reaches itself",
            Self::NotIsolated => "not isolated, no policy selects it for this direction",
            Self::Undecided => "not isolated, and no rule of a cluster-wide policy decides",
            Self::OwnNode => "a pod and its own node always reach each other",
            Self::RuleMatches => "isolated, a rule matches",
            Self::NoRuleMatches => "isolated, no rule matches",
            Self::ClusterPolicyAccepts => "a cluster-wide policy accepts",
            Self::ClusterPolicyDenies => "a cluster-wide policy denies",
            Self::CalicoPolicyAllows => "a policy of Calico's allows",
            Self::CalicoPolicyDenies => "a policy of Calico's denies",
            Self::EndOfTier => "a tier ends, and no rule of it matches",
            Self::Failsafe => "a failsafe port, which no policy of a host endpoint closes",
            Self::Profile => "no policy decides, and a profile of the host endpoint allows",
            Self::NoProfile => "no policy decides, and the host endpoint has no profile that allows",
            Self::NoBackend => "the service leads nowhere from there",
            Self::Masqueraded => "evaluated by the address of the client's node, under which it arrives",
            Self::TranslatedElsewhere => {
                "evaluated where it leaves the client, by the address of the other node"
            }
        })
    }
}
