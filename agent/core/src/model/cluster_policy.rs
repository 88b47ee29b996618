//! ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) after validation, and its forerunners
//! AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1), and AWS's form of it (`networking.k8s.aws`),
//! which say the same in other words.
//!
//! A rule that was not understood has failed closed on its way here: one that accepts matches nothing, any
//! other one denies everything. Left out: names of rules, and peers by domain name, which match nothing.

use std::fmt;

use podgate_common::Direction;
use serde::{Deserialize, Serialize};

use super::{Labels, Name, Pod, Rule, Selector};

/// One ClusterNetworkPolicy. It isolates nothing: what no rule of it matches, it leaves to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Kind and name.
    pub name: ClusterPolicyName,
    /// Before or after NetworkPolicies.
    pub tier: Tier,
    /// Within the tier the lower number comes first, then the lower name.
    pub priority: u16,
    /// The pods that it selects.
    pub subject: ClusterSubject,
    /// The first rule that matches decides.
    pub ingress: Vec<ClusterRule>,
    /// Rules for connections from the pods, in order.
    pub egress: Vec<ClusterRule>,
    /// What it would deny is reported, and passes.
    pub audit: bool,
}

/// What such a policy is called; printed as in `ClusterNetworkPolicy base`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterPolicyName {
    /// The object's name.
    pub name: Name,
    /// The object's kind.
    pub kind: ClusterPolicyKind,
}

/// Names are unique within a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterPolicyKind {
    /// The kind that replaces the others.
    ClusterNetworkPolicy,
    /// Of v1alpha1: always of the tier Admin.
    AdminNetworkPolicy,
    /// Of v1alpha1: always of the tier Baseline, with a priority of 0.
    BaselineAdminNetworkPolicy,
    /// AWS's, of its own API group: it stands among the others, and lists ports as those of v1alpha1 do.
    AwsClusterNetworkPolicy,
}

/// Which policies are asked first: Admin, then NetworkPolicies, then Baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// After NetworkPolicies, for directions that none isolates.
    Baseline,
}

/// Which pods a policy is for: never those on the host network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSubject {
    /// By the labels of the namespace.
    pub namespaces: Selector,
    /// By the labels of the pod.
    pub pods: Selector,
}

/// What happens to a connection that matches a peer *and* a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRule {
    /// What happens to what matches.
    pub action: Action,
    /// Its peers name their namespaces: such a policy has none of its own.
    pub matches: Rule,
}

/// What a rule does with a connection that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It passes; nothing below is asked.
    Accept,
    /// It is dropped; nothing below is asked.
    Deny,
    /// The rest of this tier is not asked.
    Pass,
    /// Nothing: it is reported, and the next rule is asked. No ClusterNetworkPolicy has it.
    Log,
}

impl Tier {
    /// In the order in which they are asked.
    pub const ALL: [Self; 2] = [Self::Admin, Self::Baseline];
}

impl ClusterNetworkPolicy {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// Whether it selects a pod, whose namespace has these labels.
    pub fn selects(&self, pod: &Pod, namespace: &Labels) -> bool {
        !pod.host_network
            && pod.host.is_none()
            && self.subject.namespaces.matches(namespace)
            && self.subject.pods.matches(&pod.labels)
    }
}

impl fmt::Display for ClusterPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for ClusterPolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            // Unlike that of Kubernetes, it says whose it is.
            Self::AwsClusterNetworkPolicy => "AWS ClusterNetworkPolicy",
        })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        })
    }
}
