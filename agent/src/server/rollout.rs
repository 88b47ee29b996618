//! Which version of each policy this node enforces, and on which of its pods it does not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use podgate_common::Direction;
use podgate_core::{
    model::{ObjectName, Pod, PolicyName},
    policy_walk::OrderedPolicies,
};

use crate::{
    api::{EnforcedObject, PolicyRollout, RELEASE, RolloutReport, UnguardedPod},
    endpoints::InterfaceState,
    snapshot::{EnforcedPolicy, Snapshot},
};

/// The pods of this node that a policy selects, and those that it does not reach.
#[derive(Debug, Default)]
struct Selected {
    pods: usize,
    unenforced: Vec<UnguardedPod>,
}

/// `only`: the name of a policy, as it is printed.
pub(super) fn rollout(snapshot: &Snapshot, only: Option<&str>) -> RolloutReport {
    let cluster = &snapshot.cluster;
    let of_namespaces = cluster.policies.keys().cloned().map(PolicyName::Namespaced);
    let of_cluster = cluster.cluster_policies.keys().cloned().map(PolicyName::Cluster);
    let meant = |policy: &PolicyName| only.is_none_or(|only| policy.to_string() == only);
    let policies: BTreeSet<PolicyName> = of_namespaces.chain(of_cluster).filter(meant).collect();
    let mut selected = selected(snapshot, &policies);
    let policies = policies.into_iter().map(|policy| {
        let Selected { pods, unenforced } = selected.remove(&policy).unwrap_or_default();
        let object = snapshot.versions.get(&policy).map(EnforcedObject::from);
        PolicyRollout { policy: policy.to_string(), object, pods, unenforced }
    });
    RolloutReport {
        node: snapshot.progress.node.to_string(),
        version: RELEASE.to_owned(),
        ready: snapshot.progress.ready,
        revision: snapshot.progress.revision,
        last_error: snapshot.last_error().map(str::to_owned),
        policies: policies.collect(),
    }
}

fn selected(snapshot: &Snapshot, policies: &BTreeSet<PolicyName>) -> BTreeMap<PolicyName, Selected> {
    let mut found: BTreeMap<PolicyName, Selected> = BTreeMap::new();
    let attached = snapshot.interfaces.values().filter_map(|interface| match &interface.veth.state {
        InterfaceState::Identified { pod, .. } if interface.attached => Some(pod),
        InterfaceState::Identified { .. } | InterfaceState::Pending | InterfaceState::Unmanaged => None,
    });
    let attached: BTreeSet<&ObjectName> = attached.collect();
    let ordered = OrderedPolicies::of(&snapshot.cluster);
    let node = &snapshot.progress.node;
    let is_local =
        |pod: &&Pod| pod.node.as_ref() == Some(node) && !pod.host_network && !pod.addresses.is_empty();
    for pod in snapshot.cluster.pods.values().map(|pod| &**pod).filter(is_local) {
        let walks = Direction::ALL.map(|direction| ordered.for_pod(pod, direction));
        let names: BTreeSet<PolicyName> =
            walks.iter().flat_map(|walk| walk.policies()).map(|policy| policy.name()).collect();
        let reason = match snapshot.unenforced.get(&pod.name) {
            Some(unenforced) => Some(format!("{}: {}", unenforced.reason, unenforced.detail)),
            None if attached.contains(&pod.name) => None,
            None => Some("its interface is not known yet".to_owned()),
        };
        for name in names.into_iter().filter(|name| policies.contains(name)) {
            let selected = found.entry(name).or_default();
            selected.pods += 1;
            let unguarded =
                |reason: &String| UnguardedPod { pod: pod.name.to_string(), reason: reason.clone() };
            selected.unenforced.extend(reason.as_ref().map(unguarded));
        }
    }
    found
}

impl From<&EnforcedPolicy> for EnforcedObject {
    fn from(EnforcedPolicy { object, since, latency }: &EnforcedPolicy) -> Self {
        let since = Timestamp::try_from(*since).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            uid: object.uid.as_deref().map(str::to_owned),
            resource_version: object.resource_version.as_deref().map(str::to_owned),
            generation: object.generation,
            since: format!("{since:.3}"),
            latency_microseconds: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_without_pods_are_listed_and_pods_without_programs_are_named() {
        let mut snapshot = Snapshot::example(true);
        let cluster = std::sync::Arc::make_mut(&mut snapshot.cluster);
        for name in ["p", "q"] {
            let policy = podgate_core::fixtures::policy(name, Some(vec![]), None);
            cluster.policies.insert(policy.name.clone(), policy.into());
        }
        let all = rollout(&snapshot, None);
        let names: Vec<&str> = all.policies.iter().map(|policy| &*policy.policy).collect();
        assert_eq!(names, ["x/p", "x/q"]);
        let is_local = |pod: &&std::sync::Arc<Pod>| {
            pod.node.as_ref() == Some(&snapshot.progress.node) && !pod.host_network
        };
        let local = snapshot.cluster.pods.values().filter(is_local);
        let local: Vec<String> = local.map(|pod| pod.name.to_string()).collect();
        assert_eq!(local, ["x/a", "x/b"]);
        let PolicyRollout { pods, unenforced, object, .. } = &rollout(&snapshot, Some("x/p")).policies[0];
        assert_eq!((*pods, object), (local.len(), &None));
        // The example has an interface for x/a alone.
        assert!(unenforced.iter().all(|pod| pod.pod != "x/a"), "{unenforced:?}");
        assert_eq!(unenforced.len(), local.len() - 1);
        for interface in snapshot.interfaces.values_mut() {
            interface.attached = false;
        }
        let unattached = rollout(&snapshot, Some("x/p"));
        assert_eq!(unattached.policies[0].unenforced.len(), local.len());
        assert_eq!(rollout(&snapshot, Some("x/nope")).policies, []);
    }
}
