//! The two ends of a question: how users name them, and what they are in a cluster.

use std::{fmt, net::IpAddr, str::FromStr};

use podgate_common::Direction;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::name::{self, AskedName, LearntNames, ShownAddress};
use crate::{
    model::{
        Cluster, DomainName, Name, ObjectName, Pod,
        syntax::{dns_label, dns_subdomain},
    },
    port_spec::PortSpec,
};

/// An end as users write it: `namespace/pod`, `namespace/svc:NAME`, `node/NAME`, `name:DOMAIN` or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum EndpointRef {
    /// A pod: `namespace/name`.
    Pod(ObjectName),
    /// A service: `namespace/svc:name`.
    Service(ObjectName),
    /// A node: `node/name`.
    Node(Name),
    /// A name of the DNS, which only a destination can be: `name:api.example.com`.
    Name(DomainName),
    /// An address, whoever has it.
    Address(IpAddr),
}

/// Text that names no end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is none of NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME, name:DOMAIN or an address")]
pub struct BadEndpointRef(String);

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unanswerable {
    /// A service sends nothing.
    #[error("{0}: a service opens no connections, ask about the pods behind it")]
    FromService(EndpointRef),
    /// Nor does a name.
    #[error("{0}: a name opens no connections, ask about a pod or an address")]
    FromName(EndpointRef),
    /// The cluster has no service of this name.
    #[error("no service {0}: it does not exist, or it is only a name for something elsewhere")]
    NoSuchService(ObjectName),
    /// The service has no such port.
    #[error("{to} has no port {port}")]
    NoServicePort {
        /// The service.
        to: EndpointRef,
        /// The port that was asked about.
        port: PortSpec,
    },
    /// The cluster has no pod of this name.
    #[error("no pod {0}: it does not exist, or it has finished")]
    NoSuchPod(ObjectName),
    /// The cluster has no node of this name.
    #[error("no node {0}: no Node object has this name, and no pod runs there")]
    NoSuchNode(Name),
    /// It has no address yet.
    #[error("{0} has no address yet")]
    NoAddress(EndpointRef),
    /// The pod has no port of this name.
    #[error("{to} has no container port {port}")]
    NoSuchPort {
        /// The pod.
        to: EndpointRef,
        /// The port that was asked about.
        port: PortSpec,
    },
}

/// What is not said by an address that comes from a pod's own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNodeAddress {
    /// The address, as it is called.
    pub address: String,
    /// The node.
    pub node: Name,
}

/// An end found in the cluster.
pub(super) struct ResolvedEndpoint<'a> {
    /// What to call it: the pod, if it is one.
    pub(super) shown: String,
    pub(super) addresses: Vec<IpAddr>,
    kind: EndpointKind<'a>,
    /// It was named by an address.
    is_address: bool,
}

enum EndpointKind<'a> {
    /// With a network of its own: policies select it.
    Pod(&'a Pod),
    /// On the host network of its node, `None` while it has none: counts as an address of the node.
    HostPod(&'a Pod),
    Node(&'a Name),
    /// No one's, or an address of a node.
    Address {
        node: Option<&'a Name>,
    },
    /// Addresses in place of those that it has.
    Name(&'a DomainName),
}

impl<'a> ResolvedEndpoint<'a> {
    pub(super) fn resolve(cluster: &'a Cluster, end: &'a EndpointRef) -> Result<Self, Unanswerable> {
        let (kind, addresses) = match end {
            EndpointRef::Pod(name) => {
                let pod = cluster.pods.get(name).ok_or_else(|| Unanswerable::NoSuchPod(name.clone()))?;
                of_pod(cluster, pod)
            }
            EndpointRef::Service(_) => return Err(Unanswerable::FromService(end.clone())),
            EndpointRef::Node(name) => {
                let known = cluster.nodes.contains_key(name)
                    || cluster.pods.values().any(|pod| pod.node.as_ref() == Some(name));
                if !known {
                    return Err(Unanswerable::NoSuchNode(name.clone()));
                }
                (EndpointKind::Node(name), node_addresses(cluster, name))
            }
            EndpointRef::Name(domain) => (EndpointKind::Name(domain), name::addresses(cluster)),
            // The address of a pod is that pod, and only this address is in question.
            EndpointRef::Address(address) => (of_address(cluster, address), vec![*address]),
        };
        if addresses.is_empty() {
            return Err(Unanswerable::NoAddress(end.clone()));
        }
        let shown = match kind {
            EndpointKind::Pod(pod) => pod.name.to_string(),
            EndpointKind::HostPod(_)
            | EndpointKind::Node(_)
            | EndpointKind::Name(_)
            | EndpointKind::Address { .. } => end.to_string(),
        };
        let is_address = match end {
            EndpointRef::Address(_) => true,
            EndpointRef::Pod(_) | EndpointRef::Service(_) | EndpointRef::Node(_) | EndpointRef::Name(_) => {
                false
            }
        };
        Ok(Self { shown, addresses, kind, is_address })
    }

    pub(super) fn shown_as(self, name: &str) -> Self {
        Self { shown: name.to_owned(), ..self }
    }

    /// The pod, if policies can select it.
    pub(super) const fn policed(&self) -> Option<&'a Pod> {
        match self.kind {
            EndpointKind::Pod(pod) => Some(pod),
            EndpointKind::HostPod(_)
            | EndpointKind::Node(_)
            | EndpointKind::Name(_)
            | EndpointKind::Address { .. } => None,
        }
    }

    /// What an answer calls one of its addresses.
    pub(super) fn shown_address(&self, address: IpAddr) -> ShownAddress {
        match self.kind {
            EndpointKind::Name(name) => ShownAddress::Of(name.clone()),
            EndpointKind::Pod(_)
            | EndpointKind::HostPod(_)
            | EndpointKind::Node(_)
            | EndpointKind::Address { .. } => ShownAddress::Address(address),
        }
    }

    /// What names are asked by. Names open no address of a node.
    pub(super) fn asked_name<'n>(&self, learnt: &'n LearntNames, address: IpAddr) -> Option<AskedName<'n>>
    where
        'a: 'n,
    {
        match self.kind {
            EndpointKind::Name(name) => Some(AskedName::Name(name)),
            EndpointKind::Pod(_) | EndpointKind::Address { node: None } => {
                Some(AskedName::Learnt(learnt, address))
            }
            EndpointKind::HostPod(_) | EndpointKind::Node(_) | EndpointKind::Address { node: Some(_) } => {
                None
            }
        }
    }

    /// The pod that the question named by an address.
    pub(super) fn pod_of_address(&self) -> Option<ObjectName> {
        let pod = self.policed().filter(|_| self.is_address)?;
        Some(pod.name.clone())
    }

    /// The pod whose containers name ports.
    pub(super) const fn container(&self) -> Option<&'a Pod> {
        match self.kind {
            EndpointKind::Pod(pod) | EndpointKind::HostPod(pod) => Some(pod),
            EndpointKind::Node(_) | EndpointKind::Name(_) | EndpointKind::Address { .. } => None,
        }
    }

    /// Where it runs, or whose address it is.
    pub(super) const fn node(&self) -> Option<&'a Name> {
        match self.kind {
            EndpointKind::Pod(pod) | EndpointKind::HostPod(pod) => pod.node.as_ref(),
            EndpointKind::Node(node) => Some(node),
            EndpointKind::Address { node } => node,
            EndpointKind::Name(_) => None,
        }
    }

    pub(super) const fn is_host_pod(&self) -> bool {
        match self.kind {
            EndpointKind::HostPod(_) => true,
            EndpointKind::Pod(_)
            | EndpointKind::Node(_)
            | EndpointKind::Name(_)
            | EndpointKind::Address { .. } => false,
        }
    }

    /// Whether this peer is the node that `pod` runs on.
    pub(super) fn is_own_node(&self, pod: &Pod, direction: Direction) -> bool {
        let node = match (&self.kind, direction) {
            (EndpointKind::Pod(_) | EndpointKind::Name(_), _) => None,
            (EndpointKind::HostPod(peer), _) => peer.node.as_ref(),
            (EndpointKind::Node(node), _) => Some(*node),
            (EndpointKind::Address { node }, Direction::Egress) => *node,
            // The address alone proves nothing: others may send with it, address translation does.
            (EndpointKind::Address { .. }, Direction::Ingress) => None,
        };
        node.is_some() && node == pod.node.as_ref()
    }

    /// What is not said by an address that comes from `pod`'s own node.
    pub(super) fn note(&self, pod: &Pod, direction: Direction) -> Option<OwnNodeAddress> {
        match &self.kind {
            EndpointKind::Address { node: Some(node) }
                if direction == Direction::Ingress && pod.node.as_ref() == Some(node) =>
            {
                Some(OwnNodeAddress { address: self.shown.clone(), node: Name::clone(node) })
            }
            EndpointKind::Pod(_)
            | EndpointKind::HostPod(_)
            | EndpointKind::Node(_)
            | EndpointKind::Name(_)
            | EndpointKind::Address { .. } => None,
        }
    }
}

fn of_pod<'a>(cluster: &Cluster, pod: &'a Pod) -> (EndpointKind<'a>, Vec<IpAddr>) {
    match &pod.node {
        _ if !pod.host_network => (EndpointKind::Pod(pod), pod.addresses.to_vec()),
        Some(node) if pod.addresses.is_empty() => (EndpointKind::HostPod(pod), node_addresses(cluster, node)),
        _ => (EndpointKind::HostPod(pod), pod.addresses.to_vec()),
    }
}

fn of_address<'a>(cluster: &'a Cluster, address: &IpAddr) -> EndpointKind<'a> {
    let owners = || cluster.pods.values().filter(|pod| pod.addresses.contains(address));
    if let Some(pod) = owners().find(|pod| !pod.host_network) {
        return EndpointKind::Pod(pod);
    }
    let node = cluster.nodes.iter().find(|(_, node)| node.addresses.contains(address)).map(|(name, _)| name);
    EndpointKind::Address { node: node.or_else(|| owners().find_map(|pod| pod.node.as_ref())) }
}

/// Of its Node object, else of the pods on its host network.
pub(super) fn node_addresses(cluster: &Cluster, name: &Name) -> Vec<IpAddr> {
    match cluster.nodes.get(name) {
        Some(node) if !node.addresses.is_empty() => node.addresses.clone(),
        _ => cluster
            .pods
            .values()
            .filter(|pod| pod.host_network && pod.node.as_ref() == Some(name))
            .find(|pod| !pod.addresses.is_empty())
            .map_or_else(Vec::new, |pod| pod.addresses.to_vec()),
    }
}

impl fmt::Display for OwnNodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, node } = self;
        write!(
            f,
            "{address} is an address of the pod's own node; what the node itself sends is always allowed, see \
             --from node/{node}"
        )
    }
}

impl EndpointRef {
    /// The pod, if it is named as one.
    pub const fn pod(&self) -> Option<&ObjectName> {
        match self {
            Self::Pod(name) => Some(name),
            Self::Service(_) | Self::Node(_) | Self::Name(_) | Self::Address(_) => None,
        }
    }
}

impl FromStr for EndpointRef {
    type Err = BadEndpointRef;

    fn from_str(text: &str) -> Result<Self, BadEndpointRef> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if let Some(name) = text.strip_prefix("name:") {
            return DomainName::parse(name).map(Self::Name).map_err(|_| BadEndpointRef(text.into()));
        }
        match text.split_once('/') {
            Some((namespace, name)) if dns_label(namespace).is_ok() => match name.strip_prefix("svc:") {
                Some(service) if dns_label(service).is_ok() => {
                    Ok(Self::Service(ObjectName::new(namespace, service)))
                }
                None if dns_subdomain(name).is_ok() && namespace == "node" => Ok(Self::Node(name.into())),
                None if dns_subdomain(name).is_ok() => Ok(Self::Pod(ObjectName::new(namespace, name))),
                _ => Err(BadEndpointRef(text.into())),
            },
            _ => Err(BadEndpointRef(text.into())),
        }
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Service(ObjectName { namespace, name }) => write!(f, "{namespace}/svc:{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl From<EndpointRef> for String {
    fn from(end: EndpointRef) -> Self {
        end.to_string()
    }
}

impl TryFrom<String> for EndpointRef {
    type Error = BadEndpointRef;

    fn try_from(text: String) -> Result<Self, BadEndpointRef> {
        text.parse()
    }
}
