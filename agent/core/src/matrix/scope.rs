//! Which pods a matrix is about.

use std::collections::BTreeSet;

use crate::model::{Name, ObjectName, Pod};

/// Sources and destinations. By default all pods that have an address and a network of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatrixScope {
    /// On both sides; `None`: those of all namespaces.
    pub namespace: Option<Name>,
    /// On both sides: labels that a pod has, with their value or, as `None`, with any.
    pub labels: Vec<(Name, Option<Name>)>,
    /// Instead of those of the namespace. Empty: no others.
    pub from: BTreeSet<PodGroup>,
    /// Likewise.
    pub to: BTreeSet<PodGroup>,
}

/// One pod, or all of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodGroup {
    /// By its name.
    Namespace(Name),
    /// By its name.
    Pod(ObjectName),
}

impl MatrixScope {
    /// Whether a pod is a source or a destination.
    pub fn has(&self, pod: &Pod) -> bool {
        self.is_source(pod) || self.is_destination(pod)
    }

    pub(super) fn is_source(&self, pod: &Pod) -> bool {
        self.is_in(&self.from, pod)
    }

    pub(super) fn is_destination(&self, pod: &Pod) -> bool {
        self.is_in(&self.to, pod)
    }

    fn is_in(&self, groups: &BTreeSet<PodGroup>, pod: &Pod) -> bool {
        let of_group = |group: &PodGroup| match group {
            PodGroup::Namespace(namespace) => *namespace == pod.name.namespace,
            PodGroup::Pod(name) => *name == pod.name,
        };
        let is_named = match (groups.is_empty(), &self.namespace) {
            (false, _) => groups.iter().any(of_group),
            (true, Some(namespace)) => *namespace == pod.name.namespace,
            (true, None) => true,
        };
        let has = |(key, value): &(Name, Option<Name>)| {
            pod.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        is_in_matrix(pod) && is_named && self.labels.iter().all(has)
    }
}

/// Others have no interface of their own at which policies count.
pub(super) fn is_in_matrix(pod: &Pod) -> bool {
    !pod.host_network && !pod.addresses.is_empty()
}
