//! The state of a cluster: what a source fills and the compiler reads.
//!
//! The maps are persistent: a snapshot costs nothing, shares everything with the one before but what changed
//! in between, and what that is can be found without a walk over the rest ([`OrdMap::diff`]).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use imbl::OrdMap;
use podgate_common::{Direction, Protocol};
use smallvec::SmallVec;

use super::{
    Calico, ClusterNetworkPolicy, ClusterPolicyName, EndpointSlice, HostSubject, HostTraffic, Labels, Name,
    NetworkPolicy, ObjectName, Service, ServiceEndpoints, Tier, Uid,
};

/// A full picture of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// By name.
    pub namespaces: Objects<Name, Namespace>,
    /// Those that run or will; finished ones are left out.
    pub pods: Objects<ObjectName, Pod>,
    /// NetworkPolicies.
    pub policies: Objects<ObjectName, NetworkPolicy>,
    /// Cluster-wide policies of every kind.
    pub cluster_policies: Objects<ClusterPolicyName, ClusterNetworkPolicy>,
    /// Calico's policies, and what they speak of.
    pub calico: Calico,
    /// By name.
    pub nodes: Objects<Name, Node>,
    /// Services, also headless ones.
    pub services: Objects<ObjectName, Service>,
    /// Backends of services.
    pub slices: Objects<ObjectName, EndpointSlice>,
}

/// Objects by name. Whoever holds one shares it: it never changes, another takes its place.
pub type Objects<K, V> = OrdMap<K, Arc<V>>;

/// A namespace. `labels` always hold `kubernetes.io/metadata.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What selectors look at.
    pub labels: Labels,
    /// All its NetworkPolicies are in audit mode.
    pub audit: bool,
}

/// A pod that has not finished. Terminating pods count until they are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `None`: the source does not say it, or the kubelet has another for the pod (one that is static).
    pub uid: Option<Uid>,
    /// What selectors look at.
    pub labels: Labels,
    /// `spec.serviceAccountName`; `None`: the source does not say it.
    pub service_account: Option<Name>,
    /// `spec.nodeName`; `None` while the pod is not scheduled.
    pub node: Option<Name>,
    /// `status.podIPs`, else `status.podIP`. Empty while the pod has none.
    pub addresses: PodAddresses,
    /// Shares the node's network: neither subject nor selected peer.
    pub host_network: bool,
    /// Named container ports, those of restartable init containers too. One name may stand for several
    /// numbers. Shared, as labels are.
    pub ports: Arc<[NamedPort]>,
    /// What its node leads to it, if it is not on the host network.
    pub host_ports: Box<[HostPort]>,
    /// Set if this represents a host endpoint of its node, not a pod.
    pub host: Option<Box<HostSubject>>,
}

impl Pod {
    /// Whether it represents forwarded traffic of a host endpoint: the ends of that traffic are others.
    pub(crate) fn is_of_forwarded(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.traffic == HostTraffic::Forwarded)
    }
}

/// Of a pod: one, or one of each family. A single one takes no memory of its own.
pub type PodAddresses = SmallVec<[IpAddr; 1]>;

/// A port of the node's addresses that leads to a port of a pod (`hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// `None`: every address of the node.
    pub address: Option<IpAddr>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The port on the node.
    pub number: u16,
    /// The pod's own.
    pub container_number: u16,
}

/// A port of a container that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name that policies and services use.
    pub name: Name,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The port's number.
    pub number: u16,
}

/// A node and the addresses of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What selectors look at.
    pub labels: Labels,
    /// The node's addresses, of both families.
    pub addresses: Vec<IpAddr>,
}

impl Cluster {
    /// The policies that isolate a pod in a direction, or would if they were not in audit mode, in the order
    /// of their names.
    pub fn policies_selecting(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies_in(&pod.name.namespace)
            .map(Arc::as_ref)
            .filter(move |policy| policy.rules(direction).is_some() && policy.selects(pod))
    }

    /// The NetworkPolicies of a namespace, in the order of their names.
    pub fn policies_in(&self, namespace: &Name) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let first = ObjectName::new(namespace.clone(), "");
        let following = self.policies.range(first..).map(|(_, policy)| policy);
        following.take_while(|policy| policy.name.namespace == *namespace)
    }

    /// The Services of a namespace, in the order of their names.
    pub fn services_in(&self, namespace: &Name) -> impl Iterator<Item = &Arc<Service>> {
        let first = ObjectName::new(namespace.clone(), "");
        let following = self.services.range(first..).map(|(_, service)| service);
        following.take_while(|service| service.name.namespace == *namespace)
    }

    /// The EndpointSlices of a namespace, in the order of their names.
    pub fn slices_in(&self, namespace: &Name) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let first = ObjectName::new(namespace.clone(), "");
        let following = self.slices.range(first..).map(|(_, slice)| slice);
        following.take_while(|slice| slice.name.namespace == *namespace)
    }

    /// The endpoints of a Service, by all its slices.
    pub fn service_endpoints(&self, service: &ObjectName) -> ServiceEndpoints {
        let slices = self.slices_in(&service.namespace).filter(|slice| slice.service == *service);
        ServiceEndpoints::of(slices.map(Arc::as_ref))
    }

    /// The ClusterNetworkPolicies of a tier, the first to be asked first.
    pub fn by_precedence(&self, tier: Tier) -> Vec<&ClusterNetworkPolicy> {
        let mut policies: Vec<_> =
            self.cluster_policies.values().map(Arc::as_ref).filter(|policy| policy.tier == tier).collect();
        policies.sort_by_key(|policy| (policy.priority, &policy.name));
        policies
    }

    /// Whether all NetworkPolicies of a namespace are in audit mode.
    pub fn is_in_audit(&self, namespace: &Name) -> bool {
        self.namespaces.get(namespace).is_some_and(|namespace| namespace.audit)
    }

    /// Labels of a namespace; one that no object declares has its name label alone.
    pub fn namespace_labels(&self, namespace: &Name) -> Labels {
        self.namespaces.get(namespace).map_or_else(
            || Arc::new(BTreeMap::from([(NAMESPACE_NAME_LABEL.into(), namespace.clone())])),
            |found| found.labels.clone(),
        )
    }
}

/// The immutable label that the API server puts on every namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
