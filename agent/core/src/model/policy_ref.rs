//! Policies of either kind, and their names.

use std::fmt;

use podgate_common::Direction;

use super::{Action, ClusterNetworkPolicy, ClusterPolicyName, Name, NetworkPolicy, ObjectName, Rule};

/// A policy of either kind.
#[derive(Clone, Copy, Debug)]
pub enum PolicyRef<'a> {
    /// A NetworkPolicy: it isolates the pods that it selects.
    Namespaced(&'a NetworkPolicy),
    /// A cluster-wide policy: what none of its rules matches, it leaves to others.
    Cluster(&'a ClusterNetworkPolicy),
}

/// The name of a policy of either kind; printed as `namespace/name`, or as in `ClusterNetworkPolicy base`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// A NetworkPolicy.
    Namespaced(ObjectName),
    /// A cluster-wide policy.
    Cluster(ClusterPolicyName),
}

impl<'a> PolicyRef<'a> {
    /// What it is called.
    pub fn name(self) -> PolicyName {
        match self {
            Self::Namespaced(policy) => PolicyName::Namespaced(policy.name.clone()),
            Self::Cluster(policy) => PolicyName::Cluster(policy.name.clone()),
        }
    }

    /// Where it is in memory: of two policies of one cluster it is not the same.
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Namespaced(policy) => std::ptr::from_ref(policy).addr(),
            Self::Cluster(policy) => std::ptr::from_ref(policy).addr(),
        }
    }

    /// The namespace that it is in, and whose pods its peers are unless they say otherwise.
    pub const fn namespace(self) -> Option<&'a Name> {
        match self {
            Self::Namespaced(policy) => Some(&policy.name.namespace),
            Self::Cluster(_) => None,
        }
    }

    /// What the rules of one direction do with what they match.
    pub fn actions(self, direction: Direction) -> Vec<Action> {
        match self {
            Self::Namespaced(policy) => {
                vec![Action::Accept; policy.rules(direction).unwrap_or_default().len()]
            }
            Self::Cluster(policy) => policy.rules(direction).iter().map(|rule| rule.action).collect(),
        }
    }

    /// What the rules of one direction match.
    pub fn rules(self, direction: Direction) -> Vec<&'a Rule> {
        match self {
            Self::Namespaced(policy) => policy.rules(direction).unwrap_or_default().iter().collect(),
            Self::Cluster(policy) => policy.rules(direction).iter().map(|rule| &rule.matches).collect(),
        }
    }
}

impl PolicyName {
    /// Whether it denies what none of its rules matches.
    pub const fn isolates(&self) -> bool {
        match self {
            Self::Namespaced(_) => true,
            Self::Cluster(_) => false,
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => name.fmt(f),
            Self::Cluster(name) => name.fmt(f),
        }
    }
}
