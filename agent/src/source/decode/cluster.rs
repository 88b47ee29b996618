//! Decoded objects and the cluster that they are of.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use podgate_core::model::{Cluster, ClusterPolicyName, ObjectName, Objects};

use super::{Decoded, Kind, ObjectId};

impl Decoded {
    /// Puts it into the cluster, in the place of an object of the same kind and name. Out: whether that
    /// changed anything.
    pub(crate) fn put(self, cluster: &mut Cluster) -> bool {
        match self {
            Self::Namespace(name, namespace) => replace(&mut cluster.namespaces, name, namespace),
            Self::Node(name, node) => replace(&mut cluster.nodes, name, node),
            Self::Pod(pod) => replace(&mut cluster.pods, pod.name.clone(), pod),
            Self::FinishedPod(name) => cluster.pods.remove(&name).is_some(),
            Self::Policy(policy) => replace(&mut cluster.policies, policy.name.clone(), policy),
            Self::ClusterPolicy(policy) => {
                replace(&mut cluster.cluster_policies, policy.name.clone(), policy)
            }
            Self::Service(service) => replace(&mut cluster.services, service.name.clone(), service),
            Self::UnservedService(name) => cluster.services.remove(&name).is_some(),
            Self::Slice(slice) => replace(&mut cluster.slices, slice.name.clone(), slice),
            Self::UnservedSlice(name) => cluster.slices.remove(&name).is_some(),
            Self::Removed(id) => id.remove(cluster),
        }
    }
}

impl ObjectId {
    /// Takes the object out of the cluster. Out: whether it was there.
    pub(crate) fn remove(self, cluster: &mut Cluster) -> bool {
        let Self { kind, namespace, name } = self;
        let full = namespace.map(|namespace| ObjectName { namespace, name: name.clone() });
        match (kind, full) {
            (Kind::Namespace, _) => cluster.namespaces.remove(&name).is_some(),
            (Kind::Node, _) => cluster.nodes.remove(&name).is_some(),
            (Kind::ClusterPolicy(kind), _) => {
                cluster.cluster_policies.remove(&ClusterPolicyName { name, kind }).is_some()
            }
            (Kind::Pod, Some(full)) => cluster.pods.remove(&full).is_some(),
            (Kind::NetworkPolicy, Some(full)) => cluster.policies.remove(&full).is_some(),
            (Kind::Service, Some(full)) => cluster.services.remove(&full).is_some(),
            (Kind::EndpointSlice, Some(full)) => cluster.slices.remove(&full).is_some(),
            (Kind::Pod | Kind::NetworkPolicy | Kind::Service | Kind::EndpointSlice, None) => false,
        }
    }
}

impl Kind {
    /// Puts the objects of the kind in `listed` into the place of those in the cluster. What did not change
    /// stays the very object that it was, so that it is there once, and is not looked at again.
    pub(crate) fn replace(self, cluster: &mut Cluster, listed: Cluster) {
        match self {
            Self::Namespace => take_over(&mut cluster.namespaces, listed.namespaces),
            Self::Node => take_over(&mut cluster.nodes, listed.nodes),
            Self::Pod => take_over(&mut cluster.pods, listed.pods),
            Self::NetworkPolicy => take_over(&mut cluster.policies, listed.policies),
            Self::ClusterPolicy(kind) => {
                let mut listed = listed.cluster_policies;
                let others = cluster.cluster_policies.iter().filter(|(name, _)| name.kind != kind);
                listed.extend(others.map(|(name, policy)| (name.clone(), policy.clone())));
                take_over(&mut cluster.cluster_policies, listed);
            }
            Self::Service => take_over(&mut cluster.services, listed.services),
            Self::EndpointSlice => take_over(&mut cluster.slices, listed.slices),
        }
    }
}

/// Writes the differences.
fn take_over<K: Ord + Clone, V: Eq>(held: &mut Objects<K, V>, listed: Objects<K, V>) {
    if held.is_empty() {
        *held = listed;
        return;
    }
    for difference in held.clone().diff(&listed) {
        match difference {
            DiffItem::Add(name, object) | DiffItem::Update { new: (name, object), .. } => {
                held.insert(name.clone(), object.clone());
            }
            DiffItem::Remove(name, _) => {
                held.remove(name);
            }
        }
    }
}

fn replace<K: Ord + Clone, V: PartialEq>(held: &mut Objects<K, V>, key: K, value: V) -> bool {
    if held.get(&key).is_some_and(|known| **known == value) {
        return false;
    }
    held.insert(key, Arc::new(value));
    true
}
