//! Services and the endpoints behind them (v1 Service, discovery.k8s.io/v1 EndpointSlice).
//!
//! Only what decides where a service leads a client. Left out: how one backend is picked out of the set
//! (session affinity, weights), which clients a load balancer admits, and names in DNS.

mod backends;
mod endpoints;

use std::net::IpAddr;

use podgate_common::Protocol;

use super::{Name, ObjectName};

pub use backends::SlicesByService;
pub use endpoints::ServiceEndpoints;

/// A Service with a cluster address, or a headless one. It is served in the families of its cluster
/// addresses, also on node ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// Which proxy serves it.
    pub proxy: Proxy,
    /// `spec.clusterIPs`, else `spec.clusterIP`: one of a family at most. Empty: headless.
    pub cluster_addresses: Vec<IpAddr>,
    /// `spec.externalIPs`, and what `status.loadBalancer.ingress` names as a virtual address (`ipMode` is not
    /// `Proxy`).
    pub external_addresses: Vec<IpAddr>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`: a node leads clients outside the cluster to its own endpoints alone,
    /// and leaves them their address.
    pub external_local: bool,
    /// The ports that clients connect to.
    pub ports: Vec<ServicePort>,
    /// Its frontends do not fit ([`super::MAX_FRONTENDS`]): to the tables, each of its addresses leads
    /// anywhere on any port, which is evaluated where a packet ends.
    pub is_over_limit: bool,
}

/// What translates packets to the addresses of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proxy {
    /// The node's own proxy.
    KubeProxy,
    /// One that the label `service.kubernetes.io/service-proxy-name` names: how it leads packets, and whether
    /// it is there at all, is not known.
    Other,
    /// None: the service is headless, its name in DNS stands for the addresses of its endpoints.
    Headless,
}

/// A port that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when it has none.
    pub name: Name,
    /// The port's protocol.
    pub protocol: Protocol,
    /// What clients send to at the addresses of the service.
    pub number: u16,
    /// What clients send to at the addresses of nodes.
    pub node_port: Option<u16>,
}

/// Some of a service's endpoints, all of one family. Its ports are those of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The label `kubernetes.io/service-name`.
    pub service: ObjectName,
    /// By its own labels: kube-proxy reads no slice of another proxy's or of a headless service.
    pub proxy: Proxy,
    /// The backends' ports.
    pub ports: Vec<SlicePort>,
    /// The backends.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of every backend of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service's port that leads here.
    pub name: Name,
    /// The port's protocol.
    pub protocol: Protocol,
    /// `None` is "all ports", which kube-proxy leads no one to.
    pub number: Option<u16>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The first of `addresses`: kube-proxy reads no other.
    pub address: IpAddr,
    /// The node that it runs on.
    pub node: Option<Name>,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, also while it ends.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
    /// Most endpoints have none.
    pub hints: Option<Box<Hints>>,
}

/// For the clients of which zones and nodes an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Zones whose clients should use it.
    pub zones: Vec<Name>,
    /// Nodes whose clients should use it.
    pub nodes: Vec<Name>,
}

/// Which kind of address or port a client sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A cluster address.
    Cluster,
    /// An external address, a load balancer's address, or a node port.
    External,
}

impl Service {
    /// Whether its proxy may read a slice that is said to be the service's.
    pub fn is_led_by(&self, slice: &EndpointSlice) -> bool {
        match self.proxy {
            Proxy::KubeProxy => slice.proxy == Proxy::KubeProxy,
            Proxy::Other => slice.proxy != Proxy::Headless,
            Proxy::Headless => true,
        }
    }

    /// Whether kube-proxy serves it for clients of a family at all. If not, its node ports are ordinary ports
    /// of the node in that family.
    pub fn has_family(&self, v6: bool) -> bool {
        self.cluster_addresses.iter().any(|address| address.is_ipv6() == v6)
    }
}
