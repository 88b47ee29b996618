//! Decoded objects and the cluster that they are of.

use std::collections::BTreeMap;

use crate::model::{Cluster, ClusterPolicyName, ObjectName};

use super::{Decoded, Kind, ObjectId};

impl Decoded {
    /// Puts it into the cluster, in the place of an object of the same kind and name. Out: whether that changed
    /// anything.
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
    /// Takes all objects of the kind out of the cluster.
    pub(crate) fn clear(self, cluster: &mut Cluster) {
        match self {
            Self::Namespace => cluster.namespaces.clear(),
            Self::Node => cluster.nodes.clear(),
            Self::Pod => cluster.pods.clear(),
            Self::NetworkPolicy => cluster.policies.clear(),
            Self::ClusterPolicy(kind) => cluster.cluster_policies.retain(|name, _| name.kind != kind),
            Self::Service => cluster.services.clear(),
            Self::EndpointSlice => cluster.slices.clear(),
        }
    }
}

fn replace<K: Ord, V: PartialEq>(held: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if held.get(&key) == Some(&value) {
        return false;
    }
    held.insert(key, value);
    true
}
