//! Which pods policies isolate, and which no policy says anything about.
//!
//! In: a cluster. Out: for each namespace that has pods, what policies do for each of them in each direction.
//! Pods on the host network are left out: no policy can select them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podgate_common::Direction;
use serde::Serialize;

use crate::{
    model::{Cluster, Name},
    policy_walk::{OrderedPolicies, PolicyWalk},
};

/// What policies do for a pod in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodCoverage {
    /// A NetworkPolicy isolates it.
    Isolated,
    /// Only cluster-wide policies have a say: what they do not decide passes.
    ClusterWide,
    /// Policies only report what they would deny.
    AuditOnly,
    /// No policy says anything about it.
    None,
}

/// What policies do for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoveredPod {
    /// Its name, without its namespace.
    pub name: Name,
    /// For connections to it.
    pub ingress: PodCoverage,
    /// For connections from it.
    pub egress: PodCoverage,
}

/// How many pods there are of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoverageCounts {
    /// A NetworkPolicy isolates them.
    pub isolated: usize,
    /// Only cluster-wide policies have a say.
    pub cluster_wide: usize,
    /// Policies only report.
    pub audit_only: usize,
    /// No policy.
    pub none: usize,
}

/// The pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceCoverage {
    /// The namespace.
    pub name: Name,
    /// For connections to its pods.
    pub ingress: CoverageCounts,
    /// For connections from its pods.
    pub egress: CoverageCounts,
    /// In the order of their names.
    pub pods: Vec<CoveredPod>,
}

/// The coverage of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Those that have pods, in the order of their names.
    pub namespaces: Vec<NamespaceCoverage>,
    /// Of all pods.
    pub ingress: CoverageCounts,
    /// Of all pods.
    pub egress: CoverageCounts,
}

/// The coverage of all pods.
pub fn coverage(cluster: &Cluster) -> Coverage {
    let policies = OrderedPolicies::of(cluster);
    let mut by_namespace: BTreeMap<&Name, Vec<CoveredPod>> = BTreeMap::new();
    for pod in cluster.pods.values().map(Arc::as_ref).filter(|pod| !pod.host_network) {
        let [ingress, egress] = [Direction::Ingress, Direction::Egress]
            .map(|direction| PodCoverage::of(&policies.for_pod(pod, direction)));
        let covered = CoveredPod { name: pod.name.name.clone(), ingress, egress };
        by_namespace.entry(&pod.name.namespace).or_default().push(covered);
    }
    let namespaces = by_namespace.into_iter().map(|(name, pods)| NamespaceCoverage {
        name: name.clone(),
        ingress: pods.iter().map(|pod| pod.ingress).collect(),
        egress: pods.iter().map(|pod| pod.egress).collect(),
        pods,
    });
    Coverage::of(namespaces.collect())
}

impl Coverage {
    fn of(namespaces: Vec<NamespaceCoverage>) -> Self {
        let all = |part: fn(&CoveredPod) -> PodCoverage| {
            namespaces.iter().flat_map(|namespace| &namespace.pods).map(part).collect()
        };
        let (ingress, egress) = (all(|pod| pod.ingress), all(|pod| pod.egress));
        Self { namespaces, ingress, egress }
    }

    /// That of one namespace alone.
    #[must_use]
    pub fn of_namespace(mut self, namespace: &str) -> Self {
        self.namespaces.retain(|known| &*known.name == namespace);
        Self::of(self.namespaces)
    }

    /// The namespaces that it is about.
    pub fn names(&self) -> BTreeSet<Name> {
        self.namespaces.iter().map(|namespace| namespace.name.clone()).collect()
    }
}

impl PodCoverage {
    fn of(walk: &PolicyWalk<'_>) -> Self {
        let enforced = walk.enforced();
        if enforced.isolates() {
            Self::Isolated
        } else if enforced.policies().next().is_some() {
            Self::ClusterWide
        } else if walk.has_audit() {
            Self::AuditOnly
        } else {
            Self::None
        }
    }

    /// As tables and JSON have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::ClusterWide => "cluster-wide",
            Self::AuditOnly => "audit-only",
            Self::None => "none",
        }
    }
}

impl CoverageCounts {
    /// How many pods there are.
    pub const fn all(&self) -> usize {
        let Self { isolated, cluster_wide, audit_only, none } = self;
        *isolated + *cluster_wide + *audit_only + *none
    }

    /// Whether at least so many of a hundred pods are isolated; without any pod, they are.
    pub const fn has_isolated(&self, percent: u8) -> bool {
        self.isolated * 100 >= self.all() * percent as usize
    }
}

impl FromIterator<PodCoverage> for CoverageCounts {
    fn from_iter<I: IntoIterator<Item = PodCoverage>>(pods: I) -> Self {
        let mut counts = Self::default();
        for pod in pods {
            *match pod {
                PodCoverage::Isolated => &mut counts.isolated,
                PodCoverage::ClusterWide => &mut counts.cluster_wide,
                PodCoverage::AuditOnly => &mut counts.audit_only,
                PodCoverage::None => &mut counts.none,
            } += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests;
