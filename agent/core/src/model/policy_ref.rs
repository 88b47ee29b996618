//! Policies of all kinds, and their names.

use std::{fmt, sync::Arc};

use podgate_common::Direction;

use super::{
    Action, CalicoPolicy, CalicoPolicyName, CalicoRule, ClusterNetworkPolicy, ClusterPolicyName, Name,
    NetworkPolicy, ObjectName, Peers, Rule,
};

/// A policy of any kind.
#[derive(Clone, Copy, Debug)]
pub enum PolicyRef<'a> {
    /// A NetworkPolicy: it isolates the pods that it selects.
    Namespaced(&'a NetworkPolicy),
    /// A cluster-wide policy: what none of its rules matches, it leaves to others.
    Cluster(&'a ClusterNetworkPolicy),
    /// One of Calico's.
    Calico(&'a Arc<CalicoPolicy>),
}

/// The name of a policy of any kind; printed as `namespace/name`, or as in `ClusterNetworkPolicy base`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// A NetworkPolicy.
    Namespaced(ObjectName),
    /// A cluster-wide policy.
    Cluster(ClusterPolicyName),
    /// One of Calico's.
    Calico(CalicoPolicyName),
}

impl<'a> PolicyRef<'a> {
    /// What it is called.
    pub fn name(self) -> PolicyName {
        match self {
            Self::Namespaced(policy) => PolicyName::Namespaced(policy.name.clone()),
            Self::Cluster(policy) => PolicyName::Cluster(policy.name.clone()),
            Self::Calico(policy) => PolicyName::Calico(policy.name.clone()),
        }
    }

    /// Where it is in memory: of two policies of one cluster it is not the same.
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Namespaced(policy) => std::ptr::from_ref(policy).addr(),
            Self::Cluster(policy) => std::ptr::from_ref(policy).addr(),
            Self::Calico(policy) => std::ptr::from_ref(policy).addr(),
        }
    }

    /// The namespace that it is in, and whose pods its peers are unless they say otherwise.
    pub fn namespace(self) -> Option<&'a Name> {
        match self {
            Self::Namespaced(policy) => Some(&policy.name.namespace),
            Self::Cluster(_) => None,
            Self::Calico(policy) => policy.name.namespace.as_ref(),
        }
    }

    /// The annotation that a rule of one direction comes from; `None`: it stands in `spec`.
    pub fn annotation(self, direction: Direction, index: usize) -> Option<&'static str> {
        match self {
            Self::Namespaced(policy) => policy.annotation(direction, index),
            Self::Cluster(_) | Self::Calico(_) => None,
        }
    }

    /// Whether a rule of one direction wants something of the pod itself beside that it is selected.
    pub(crate) fn wants_own_end(self, direction: Direction) -> bool {
        let wants = |rule: &CalicoRule| match &rule.matches.peers {
            Peers::Any | Peers::Listed(_) => false,
            Peers::Calico(ends) => !ends.own.is_any() || ends.family.is_some(),
        };
        match self {
            Self::Namespaced(_) | Self::Cluster(_) => false,
            Self::Calico(policy) => policy.rules(direction).unwrap_or_default().iter().any(wants),
        }
    }

    /// What the rules of one direction do with what they match.
    pub fn actions(self, direction: Direction) -> Vec<Action> {
        match self {
            Self::Namespaced(policy) => {
                vec![Action::Accept; policy.rules(direction).unwrap_or_default().len()]
            }
            Self::Cluster(policy) => policy.rules(direction).iter().map(|rule| rule.action).collect(),
            Self::Calico(policy) => {
                policy.rules(direction).unwrap_or_default().iter().map(|rule| rule.action).collect()
            }
        }
    }

    /// What the rules of one direction match.
    pub fn rules(self, direction: Direction) -> Vec<&'a Rule> {
        match self {
            Self::Namespaced(policy) => policy.rules(direction).unwrap_or_default().iter().collect(),
            Self::Cluster(policy) => policy.rules(direction).iter().map(|rule| &rule.matches).collect(),
            Self::Calico(policy) => {
                policy.rules(direction).unwrap_or_default().iter().map(|rule| &rule.matches).collect()
            }
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => name.fmt(f),
            Self::Cluster(name) => name.fmt(f),
            Self::Calico(name) => name.fmt(f),
        }
    }
}
