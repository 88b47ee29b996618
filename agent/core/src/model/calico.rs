//! Calico's objects (projectcalico.org/v3 and crd.projectcalico.org/v1) after defaults and validation: tiers,
//! policies with an order and ordered rules, network sets, and the labels of service accounts.
//!
//! A rule that was not understood has failed closed on its way here, as those of a ClusterNetworkPolicy: one
//! that allows matches nothing, any other denies what it might match.

mod host_endpoint;
mod objects;
mod rule;
mod selector;

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use ipnet::IpNet;
use podgate_common::Direction;
use serde::{Deserialize, Serialize};

pub use host_endpoint::{
    DEFAULT_ALLOW_PROFILE, FailsafePorts, HOST_ENDPOINTS, HostDevices, HostEndpoint, HostSubject,
    HostTraffic, PolicyScope,
};
pub use objects::{Calico, CalicoApi, CalicoObjects};
pub use rule::{CalicoEnds, EntityMatch, IpFamily};
pub use selector::{EndpointLabels, LabelExpression, LabelTest, label_keys};

use super::{Action, Labels, Name, ObjectName, Pod, Rule};

/// One of Calico's policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoPolicy {
    /// Kind, namespace and name.
    pub name: CalicoPolicyName,
    /// The tier that it is in.
    pub tier: Name,
    /// Its place in the tier; those of the same order come by their names.
    pub order: TierOrder,
    /// The pods that it is for, with the namespaces and service accounts that it names.
    pub subject: LabelExpression,
    /// Rules for connections to the pods, in order. `None`: it says nothing of them.
    pub ingress: Option<Vec<CalicoRule>>,
    /// Rules for connections from the pods, in order.
    pub egress: Option<Vec<CalicoRule>>,
    /// What it would deny is reported, and passes: a staged policy, or one in audit mode.
    pub audit: bool,
    /// It stands for the removal of the policy that has its name (`stagedAction: Delete`).
    pub removes: bool,
    /// Which traffic of host endpoints it is for.
    pub scope: PolicyScope,
}

/// What such a policy is called; printed as in `GlobalNetworkPolicy base`, `Calico NetworkPolicy shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalicoPolicyName {
    /// The object's namespace; `None`: it is the cluster's.
    pub namespace: Option<Name>,
    /// The object's name.
    pub name: Name,
    /// The object's kind.
    pub kind: CalicoPolicyKind,
}

/// Names are unique within a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CalicoPolicyKind {
    /// Of the cluster.
    GlobalNetworkPolicy,
    /// Of a namespace, and of Calico's group.
    NetworkPolicy,
    /// A GlobalNetworkPolicy that is not enforced yet.
    StagedGlobalNetworkPolicy,
    /// A NetworkPolicy of Calico that is not enforced yet.
    StagedNetworkPolicy,
    /// A NetworkPolicy of Kubernetes that is not enforced yet.
    StagedKubernetesNetworkPolicy,
}

/// What happens to a connection that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalicoRule {
    /// What happens to what matches.
    pub action: Action,
    /// What matches.
    pub matches: Rule,
}

/// A place among tiers, or among the policies of one: ascending, and those without one last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierOrder(f64);

/// A tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoTier {
    /// Its place among the tiers.
    pub order: TierOrder,
    /// Whether what none of its rules matches goes on to the next tier: it is denied otherwise.
    pub passes_rest: bool,
}

/// A list of networks with labels, which selectors match as they match pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// The object's namespace; `None`: a GlobalNetworkSet.
    pub namespace: Option<Name>,
    /// What selectors look at.
    pub labels: Labels,
    /// Its networks, masked.
    pub nets: BTreeSet<IpNet>,
}

/// The name of a network set: `None` for the namespace of a GlobalNetworkSet.
pub type NetworkSetName = (Option<Name>, Name);

/// The tiers that are there without an object, with their places; all of them by what podgate knows of them.
pub const ADMIN_TIER: (&str, f64) = ("kube-admin", 1_000.0);
/// Kubernetes' NetworkPolicies are in it, too.
pub const DEFAULT_TIER: (&str, f64) = ("default", 1_000_000.0);
/// Asked last of these.
pub const BASELINE_TIER: (&str, f64) = ("kube-baseline", 10_000_000.0);
/// The order of NetworkPolicies of Kubernetes in the tier default.
pub const NETWORK_POLICY_ORDER: f64 = 1_000.0;

impl CalicoPolicy {
    /// The rules of one direction; `None`: it says nothing of it.
    pub fn rules(&self, direction: Direction) -> Option<&[CalicoRule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    /// The Services that its rules name, of both directions.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        let rules = self.ingress.iter().chain(&self.egress).flatten();
        rules.filter_map(|rule| rule.matches.service())
    }

    /// Whether it is for a pod with these labels, or for any traffic of such a host endpoint.
    pub fn selects(&self, pod: &Pod, labels: &EndpointLabels<'_>) -> bool {
        let is_in_namespace =
            self.name.namespace.as_ref().is_none_or(|namespace| *namespace == pod.name.namespace);
        let is_of_scope = match &pod.host {
            Some(host) => Direction::ALL.into_iter().any(|direction| self.is_for_host(host, direction)),
            None => self.scope.is_for_pods(),
        };
        !pod.host_network && is_of_scope && is_in_namespace && self.subject.matches(labels)
    }
}

impl CalicoPolicyKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::GlobalNetworkPolicy,
        Self::NetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
    ];

    /// Whether it is not enforced yet.
    pub const fn is_staged(self) -> bool {
        match self {
            Self::GlobalNetworkPolicy | Self::NetworkPolicy => false,
            Self::StagedGlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy => true,
        }
    }

    /// Whether its rules only allow, in no order, and do not count for a pod's own node.
    pub const fn is_of_kubernetes(self) -> bool {
        match self {
            Self::StagedKubernetesNetworkPolicy => true,
            Self::GlobalNetworkPolicy
            | Self::NetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedNetworkPolicy => false,
        }
    }

    /// The object's `kind`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        }
    }
}

impl CalicoPolicyName {
    /// What it takes the place of once it is enforced; `None`: it is enforced.
    pub fn enforced(&self) -> Option<EnforcedName> {
        let namespaced =
            || self.namespace.clone().map(|namespace| ObjectName::new(namespace, self.name.clone()));
        let as_kind = |kind| EnforcedName::Calico(Self { kind, ..self.clone() });
        match self.kind {
            CalicoPolicyKind::GlobalNetworkPolicy | CalicoPolicyKind::NetworkPolicy => None,
            CalicoPolicyKind::StagedGlobalNetworkPolicy => {
                Some(as_kind(CalicoPolicyKind::GlobalNetworkPolicy))
            }
            CalicoPolicyKind::StagedNetworkPolicy => Some(as_kind(CalicoPolicyKind::NetworkPolicy)),
            CalicoPolicyKind::StagedKubernetesNetworkPolicy => namespaced().map(EnforcedName::Kubernetes),
        }
    }
}

/// What a staged policy stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnforcedName {
    /// A policy of Calico.
    Calico(CalicoPolicyName),
    /// A NetworkPolicy of Kubernetes.
    Kubernetes(ObjectName),
}

impl TierOrder {
    /// Without a place of its own: after all that have one.
    pub const LAST: Self = Self(f64::INFINITY);

    /// `None` for what is no number.
    pub fn of(number: f64) -> Option<Self> {
        // One zero, so that equal places are equal.
        (!number.is_nan()).then_some(Self(number + 0.0))
    }

    /// The number; infinite without one.
    pub const fn number(self) -> f64 {
        self.0
    }
}

impl Eq for TierOrder {}

impl PartialOrd for TierOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TierOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for TierOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_finite() { write!(f, "{}", self.0) } else { f.write_str("none") }
    }
}

impl fmt::Display for CalicoPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, kind } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// Unlike that of Kubernetes, Calico's NetworkPolicy says whose it is.
impl fmt::Display for CalicoPolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy => f.write_str("Calico NetworkPolicy"),
            Self::GlobalNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy => f.write_str(self.kind()),
        }
    }
}
