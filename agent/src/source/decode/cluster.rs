//! Decoded objects and the cluster that they are of.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use podgate_core::model::{
    CalicoApi, CalicoPolicyName, Cluster, ClusterPolicyName, NetworkPolicyKind, ObjectName, Objects,
};

use super::{Decoded, Kind, ObjectId, kind::CalicoKind};

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
            Self::Tier(api, name, tier) => replace(&mut cluster.calico.of_mut(api).tiers, name, tier),
            Self::CalicoPolicy(api, name, policy) => {
                replace(&mut cluster.calico.of_mut(api).policies, name, policy)
            }
            Self::NetworkSet(api, name, set) => {
                let key = (set.namespace.clone(), name);
                replace(&mut cluster.calico.of_mut(api).network_sets, key, set)
            }
            Self::HostEndpoint(api, host) => {
                replace(&mut cluster.calico.of_mut(api).host_endpoints, host.name.clone(), host)
            }
            Self::ServiceAccount(name, labels) => replace(&mut cluster.calico.service_accounts, name, labels),
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
            (Kind::NetworkPolicy | Kind::ApplicationNetworkPolicy | Kind::FqdnNetworkPolicy, full) => {
                let policy = full.zip(kind.of_network_policy()).map(|(full, kind)| kind.policy_name(full));
                policy.is_some_and(|policy| cluster.policies.remove(&policy).is_some())
            }
            (Kind::Namespace, _) => cluster.namespaces.remove(&name).is_some(),
            (Kind::Node, _) => cluster.nodes.remove(&name).is_some(),
            (Kind::ClusterPolicy(kind), _) => {
                cluster.cluster_policies.remove(&ClusterPolicyName { name, kind }).is_some()
            }
            (Kind::Pod, Some(full)) => cluster.pods.remove(&full).is_some(),
            (Kind::Service, Some(full)) => cluster.services.remove(&full).is_some(),
            (Kind::EndpointSlice, Some(full)) => cluster.slices.remove(&full).is_some(),
            (Kind::ServiceAccount, Some(full)) => cluster.calico.service_accounts.remove(&full).is_some(),
            (Kind::Calico(api, kind), full) => {
                let objects = cluster.calico.of_mut(api);
                let namespace = full.map(|full| full.namespace);
                match kind {
                    CalicoKind::Tier => objects.tiers.remove(&name).is_some(),
                    CalicoKind::Policy(kind) => {
                        objects.policies.remove(&CalicoPolicyName { namespace, name, kind }).is_some()
                    }
                    CalicoKind::NetworkSet | CalicoKind::GlobalNetworkSet => {
                        objects.network_sets.remove(&(namespace, name)).is_some()
                    }
                    CalicoKind::HostEndpoint => objects.host_endpoints.remove(&name).is_some(),
                }
            }
            (Kind::Pod | Kind::Service | Kind::EndpointSlice | Kind::ServiceAccount, None) => false,
        }
    }
}

impl Kind {
    /// Whether a cluster holds an object of this kind, which a server may know or not.
    pub(crate) fn is_in(self, cluster: &Cluster) -> bool {
        match self {
            Self::ClusterPolicy(kind) => cluster.cluster_policies.keys().any(|name| name.kind == kind),
            Self::Calico(api, kind) => {
                let objects = match api {
                    CalicoApi::V3 => &cluster.calico.v3,
                    CalicoApi::V1 => &cluster.calico.v1,
                };
                match kind {
                    CalicoKind::Tier => !objects.tiers.is_empty(),
                    CalicoKind::Policy(kind) => objects.policies.keys().any(|name| name.kind == kind),
                    CalicoKind::NetworkSet => objects.network_sets.keys().any(|(of, _)| of.is_some()),
                    CalicoKind::GlobalNetworkSet => objects.network_sets.keys().any(|(of, _)| of.is_none()),
                    CalicoKind::HostEndpoint => !objects.host_endpoints.is_empty(),
                }
            }
            Self::ServiceAccount => !cluster.calico.service_accounts.is_empty(),
            Self::Namespace => !cluster.namespaces.is_empty(),
            Self::Node => !cluster.nodes.is_empty(),
            Self::Pod => !cluster.pods.is_empty(),
            Self::NetworkPolicy | Self::ApplicationNetworkPolicy | Self::FqdnNetworkPolicy => {
                cluster.policies.keys().any(|name| self.is_kind_of(name))
            }
            Self::Service => !cluster.services.is_empty(),
            Self::EndpointSlice => !cluster.slices.is_empty(),
        }
    }

    /// Puts the objects of the kind in `listed` into the place of those in the cluster. What did not change
    /// stays the very object that it was, so that it is there once, and is not looked at again.
    pub(crate) fn replace(self, cluster: &mut Cluster, listed: Cluster) {
        match self {
            Self::Namespace => take_over(&mut cluster.namespaces, listed.namespaces),
            Self::Node => take_over(&mut cluster.nodes, listed.nodes),
            Self::Pod => take_over(&mut cluster.pods, listed.pods),
            Self::NetworkPolicy | Self::ApplicationNetworkPolicy | Self::FqdnNetworkPolicy => {
                let mut listed = listed.policies;
                let others = cluster.policies.iter().filter(|(name, _)| !self.is_kind_of(name));
                listed.extend(others.map(|(name, policy)| (name.clone(), policy.clone())));
                take_over(&mut cluster.policies, listed);
            }
            Self::ClusterPolicy(kind) => {
                let mut listed = listed.cluster_policies;
                let others = cluster.cluster_policies.iter().filter(|(name, _)| name.kind != kind);
                listed.extend(others.map(|(name, policy)| (name.clone(), policy.clone())));
                take_over(&mut cluster.cluster_policies, listed);
            }
            Self::Service => take_over(&mut cluster.services, listed.services),
            Self::EndpointSlice => take_over(&mut cluster.slices, listed.slices),
            Self::ServiceAccount => {
                take_over(&mut cluster.calico.service_accounts, listed.calico.service_accounts);
            }
            Self::Calico(api, kind) => {
                let mut calico = listed.calico;
                let (held, listed) = (cluster.calico.of_mut(api), calico.of_mut(api));
                match kind {
                    CalicoKind::Tier => take_over(&mut held.tiers, std::mem::take(&mut listed.tiers)),
                    CalicoKind::Policy(kind) => {
                        let mut policies = std::mem::take(&mut listed.policies);
                        let others = held.policies.iter().filter(|(name, _)| name.kind != kind);
                        policies.extend(others.map(|(name, policy)| (name.clone(), policy.clone())));
                        take_over(&mut held.policies, policies);
                    }
                    CalicoKind::NetworkSet | CalicoKind::GlobalNetworkSet => {
                        let is_namespaced = kind == CalicoKind::NetworkSet;
                        let mut sets = std::mem::take(&mut listed.network_sets);
                        let others = held.network_sets.iter();
                        let others =
                            others.filter(|((namespace, _), _)| namespace.is_some() != is_namespaced);
                        sets.extend(others.map(|(name, set)| (name.clone(), set.clone())));
                        take_over(&mut held.network_sets, sets);
                    }
                    CalicoKind::HostEndpoint => {
                        take_over(&mut held.host_endpoints, std::mem::take(&mut listed.host_endpoints));
                    }
                }
            }
        }
    }
}

impl Kind {
    /// Whether a policy of a namespace is of this kind.
    fn is_kind_of(self, policy: &ObjectName) -> bool {
        self.of_network_policy() == Some(NetworkPolicyKind::of(policy).0)
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
