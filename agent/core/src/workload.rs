//! Workloads: pods of a namespace with the same labels, but for those that differ between replicas and
//! releases.
//!
//! In: pods and their labels. Out: which are one workload, and what to call it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Labels, Name, Pod};

/// Labels that differ between the replicas of a workload, or between its releases.
const CHANGING: [&str; 14] = [
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "chart",
    "controller-revision-hash",
    "controller-uid",
    "helm.sh/chart",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
    "version",
];

/// Keys that name a workload, the best first; others come after these.
const NAMING: [&str; 9] = [
    "app.kubernetes.io/name",
    "app",
    "k8s-app",
    "name",
    "app.kubernetes.io/component",
    "component",
    "app.kubernetes.io/instance",
    "tier",
    "role",
];

/// Labels beside the first that a name may have.
const MORE: usize = 3;

/// Pods that are one workload have the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadId {
    /// Of the pods.
    pub namespace: Name,
    /// Those that last.
    pub labels: Labels,
}

impl WorkloadId {
    /// That of pods with these labels.
    pub fn new(namespace: Name, labels: &Labels) -> Self {
        Self { namespace, labels: lasting(labels) }
    }

    /// That of a pod.
    pub fn of(pod: &Pod) -> Self {
        Self::new(pod.name.namespace.clone(), &pod.labels)
    }
}

/// A name for each workload, as in `shop/frontend`: by its best label, by more where several have that.
pub fn workload_names(workloads: &BTreeSet<WorkloadId>) -> BTreeMap<WorkloadId, String> {
    let mut names = BTreeMap::new();
    let mut unnamed: Vec<&WorkloadId> = workloads.iter().collect();
    for more in 0..=MORE {
        let mut by_name: BTreeMap<String, Vec<&WorkloadId>> = BTreeMap::new();
        for workload in unnamed {
            by_name.entry(name(workload, more)).or_default().push(workload);
        }
        unnamed = Vec::new();
        for (name, of) in by_name {
            match &of[..] {
                [only] => _ = names.insert(WorkloadId::clone(only), name),
                several if more < MORE => unnamed.extend(several),
                several => {
                    let numbered = several.iter().zip(1..);
                    names.extend(numbered.map(|(workload, number)| {
                        (WorkloadId::clone(workload), format!("{name} #{number}"))
                    }));
                }
            }
        }
    }
    names
}

/// With so many labels beside the first.
fn name(WorkloadId { namespace, labels }: &WorkloadId, more: usize) -> String {
    let mut best = by_preference(labels);
    let first = best.next().map_or("(no labels)", |(_, value)| value.as_str());
    let others: String = best.take(more).map(|(key, value)| format!(" {key}={value}")).collect();
    format!("{namespace}/{first}{others}")
}

/// Labels, those first that say best what a workload is.
pub(crate) fn by_preference(labels: &Labels) -> impl Iterator<Item = (&Name, &Name)> {
    let rank = |key: &Name| NAMING.iter().position(|naming| *naming == key.as_str()).unwrap_or(NAMING.len());
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort_by_key(|(key, _)| (rank(key), (*key).clone()));
    sorted.into_iter()
}

/// Labels without those that change.
pub(crate) fn lasting(labels: &Labels) -> Labels {
    if labels.keys().any(|key| CHANGING.contains(&key.as_str())) {
        let lasting = labels.iter().filter(|(key, _)| !CHANGING.contains(&key.as_str()));
        return Labels::new(lasting.map(|(key, value)| (key.clone(), value.clone())).collect());
    }
    labels.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(namespace: &str, labels: &[(&str, &str)]) -> WorkloadId {
        let labels = labels.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect();
        WorkloadId::new(namespace.into(), &Labels::new(labels))
    }

    #[test]
    fn names_are_as_short_as_distinguishes_them() {
        let workloads = [
            workload("shop", &[("app", "web"), ("pod-template-hash", "77")]),
            workload("shop", &[("app", "db"), ("tier", "a")]),
            workload("shop", &[("app", "db"), ("tier", "b")]),
            workload("other", &[("zone", "1"), ("app", "web")]),
            workload("other", &[]),
        ];
        let names = workload_names(&workloads.iter().cloned().collect());
        let names: Vec<&str> = workloads.iter().map(|workload| &*names[workload]).collect();
        assert_eq!(names, ["shop/web", "shop/db tier=a", "shop/db tier=b", "other/web", "other/(no labels)"]);
    }

    #[test]
    fn replicas_and_releases_are_one_workload_and_no_two_have_one_name() {
        let release = |hash: &str| workload("shop", &[("app", "web"), ("pod-template-hash", hash)]);
        assert_eq!(release("1"), release("2"));
        let odd = |last: &str| workload("x", &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", last)]);
        let names = workload_names(&[odd("1"), odd("2")].into());
        assert_eq!(names[&odd("1")], "x/1 b=1 c=1 d=1 #1");
        assert_eq!(names[&odd("2")], "x/1 b=1 c=1 d=1 #2");
    }
}
