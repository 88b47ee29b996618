//! The state of a cluster: what a source fills and the compiler reads.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use podgate_common::{Direction, Protocol};

use super::{EndpointSlice, Labels, Name, NetworkPolicy, ObjectName, Service};

/// A full picture of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub namespaces: BTreeMap<Name, Namespace>,
    pub pods: BTreeMap<ObjectName, Pod>,
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    pub nodes: BTreeMap<Name, Node>,
    pub services: BTreeMap<ObjectName, Service>,
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
}

/// A namespace. `labels` always hold `kubernetes.io/metadata.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub labels: Labels,
}

/// A pod that has not finished. Terminating pods count until they are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: ObjectName,
    pub labels: Labels,
    /// `spec.nodeName`; `None` while the pod is not scheduled.
    pub node: Option<Name>,
    /// `status.podIPs`, else `status.podIP`. Empty while the pod has none.
    pub addresses: Vec<IpAddr>,
    /// Shares the node's network: neither subject nor selected peer.
    pub host_network: bool,
    /// Named container ports, those of restartable init containers too. One name may stand for several numbers.
    pub ports: Vec<NamedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    pub name: Name,
    pub protocol: Protocol,
    pub number: u16,
}

/// A node and the addresses of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub addresses: Vec<IpAddr>,
}

impl Cluster {
    /// The policies that isolate a pod in a direction, in the order of their names.
    pub fn isolating(&self, pod: &Pod, direction: Direction) -> impl Iterator<Item = &NetworkPolicy> {
        let first = ObjectName::new(pod.name.namespace.clone(), "");
        self.policies
            .range(first..)
            .map(|(_, policy)| policy)
            .take_while(|policy| policy.name.namespace == pod.name.namespace)
            .filter(move |policy| policy.rules(direction).is_some() && policy.selects(pod))
    }

    /// Whether any policy isolates a pod in any direction.
    pub fn is_isolated(&self, pod: &Pod) -> bool {
        Direction::ALL.into_iter().any(|direction| self.isolating(pod, direction).next().is_some())
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
