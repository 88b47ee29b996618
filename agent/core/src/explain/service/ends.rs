//! Where connections to services and to ports of nodes end.
//!
//! In: a cluster, the node of the client, what it sends to. Out: the addresses and numbers that it may be led
//! to, and whether its own address is seen there.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    explain::{Question, Unanswerable, end::node_addresses},
    model::{Cluster, Frontend, Name, Proxy, Service, ServicePort},
    port_spec::{Port, PortSpec},
};

/// The label of a node that topology hints are about.
const ZONE: &str = "topology.kubernetes.io/zone";

/// An address and a number at which a connection may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) address: IpAddr,
    pub(super) number: u16,
    pub(super) way: Way,
}

/// How a client comes to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// By its own address.
    Kept,
    /// By the address of its node, if the end is on another one.
    Masqueraded,
    /// It is the client's own node, and hints or the translation lead elsewhere. The kernel does not know
    /// whether they do: what the client may not send to its node, it may not send to the service either.
    PassedOver,
}

/// A port of a service, and how the client came to it.
pub(super) struct MatchedServicePort<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a ServicePort,
    frontend: Frontend,
    /// The addresses and the number at which the client asks for it.
    addresses: Vec<IpAddr>,
    number: u16,
}

impl MatchedServicePort<'_> {
    /// Whether a node leads clients outside the cluster to its own endpoints alone, and leaves them their
    /// address.
    pub(super) fn is_local(&self) -> bool {
        let is_external = self.frontend == Frontend::External;
        is_external && self.service.external_local && self.service.proxy == Proxy::KubeProxy
    }
}

pub(super) fn named<'a>(
    service: &'a Service,
    question: &Question,
) -> Result<MatchedServicePort<'a>, Unanswerable> {
    let is_asked = |port: &&ServicePort| {
        port.protocol == question.port.protocol
            && match &question.port.port {
                Port::Number(number) => port.number == *number,
                Port::Name(name) => port.name == *name,
            }
    };
    let port = service.ports.iter().find(is_asked).ok_or_else(|| Unanswerable::NoServicePort {
        to: question.to.clone(),
        port: question.port.clone(),
    })?;
    Ok(MatchedServicePort {
        service,
        port,
        frontend: Frontend::Cluster,
        addresses: service.cluster_addresses.clone(),
        number: port.number,
    })
}

/// The services that answer at these addresses for a client of `node`. An address may be claimed by several;
/// but a cluster address is its own service's.
pub(super) fn at<'a>(
    cluster: &'a Cluster,
    node: Option<&Name>,
    addresses: &[IpAddr],
    asked: &PortSpec,
) -> Vec<MatchedServicePort<'a>> {
    let Port::Number(number) = asked.port else { return Vec::new() };
    let own = node.map(|node| node_addresses(cluster, node)).unwrap_or_default();
    let ports_of_services = |frontend,
                             is_there: &dyn Fn(&Service, &ServicePort, &IpAddr) -> bool|
     -> Vec<MatchedServicePort<'a>> {
        let services = cluster.services.values().filter(|service| service.proxy != Proxy::Headless);
        let ports = services.flat_map(|service| service.ports.iter().map(move |port| (&**service, port)));
        let ports = ports.filter(|(_, port)| port.protocol == asked.protocol);
        let found = ports.filter_map(|(service, port)| {
            let is_served =
                |address: &&IpAddr| service.has_family(address.is_ipv6()) && is_there(service, port, address);
            let addresses: Vec<IpAddr> = addresses.iter().filter(is_served).copied().collect();
            (!addresses.is_empty()).then_some(MatchedServicePort {
                service,
                port,
                frontend,
                addresses,
                number,
            })
        });
        found.collect()
    };
    let found = ports_of_services(Frontend::Cluster, &|service, port, address| {
        port.number == number && service.cluster_addresses.contains(address)
    });
    if !found.is_empty() {
        return found;
    }
    ports_of_services(Frontend::External, &|service, port, address| {
        // Its number first: of the ports of a service, one has it.
        port.number == number && service.external_addresses.contains(address)
            || port.node_port == Some(number) && own.contains(address)
    })
}

/// Where connections of clients of `node` end. Where the client's node is not known, it comes from outside,
/// by an external address. What another proxy than kube-proxy does with the address is not known, so it is
/// one of the ends. An external address that the client's own node has is the node's until it is translated.
pub(super) fn ends(
    cluster: &Cluster,
    node: Option<&Name>,
    ports_of_services: &[&MatchedServicePort<'_>],
) -> BTreeSet<End> {
    let slices = cluster.slices_by_service();
    let zone = node.and_then(|node| cluster.nodes.get(node)?.labels.get(ZONE));
    let own = node.map(|node| node_addresses(cluster, node)).unwrap_or_default();
    let outside = Name::from("");
    let mut ends = BTreeSet::new();
    for matched_port in ports_of_services {
        let MatchedServicePort { service, port, frontend, addresses, number } = matched_port;
        let (frontend, node) = node.map_or((Frontend::External, &outside), |node| (*frontend, node));
        let way = match frontend {
            Frontend::External if !service.external_local => Way::Masqueraded,
            Frontend::External | Frontend::Cluster => Way::Kept,
        };
        let end = |way| move |(address, number)| End { address, number, way };
        for v6 in [false, true].into_iter().filter(|v6| addresses.iter().any(|at| at.is_ipv6() == *v6)) {
            match service.proxy {
                Proxy::KubeProxy => {
                    let chosen = slices.preferred(service, port, frontend, v6, node, zone);
                    let all = slices.backends(service, port, frontend, v6, node).into_iter();
                    let passed_over = all.filter(|at| own.contains(&at.0) && !chosen.contains(at));
                    ends.extend(passed_over.map(end(Way::PassedOver)));
                    ends.extend(chosen.iter().copied().map(end(way)));
                }
                Proxy::Other | Proxy::Headless => {
                    ends.extend(slices.all(service, port, v6).into_iter().map(end(Way::Kept)));
                }
            }
        }
        let is_nodes = |address: &&IpAddr| {
            let is_external = service.external_addresses.contains(address) && port.number == *number;
            frontend == Frontend::External && is_external && own.contains(address)
        };
        let untranslated: Vec<End> = match service.proxy {
            Proxy::Other => addresses.iter().map(|address| end(Way::Kept)((*address, *number))).collect(),
            Proxy::KubeProxy | Proxy::Headless => {
                let nodes = addresses.iter().filter(is_nodes);
                nodes.map(|address| end(Way::PassedOver)((*address, *number))).collect()
            }
        };
        ends.extend(untranslated);
    }
    ends
}

/// Nothing is translated: a number is the endpoints' own, a name has the number that they give it.
pub(super) fn headless(cluster: &Cluster, service: &Service, question: &Question) -> BTreeSet<End> {
    let slices = cluster.slices_by_service();
    let mut ends = BTreeSet::new();
    for (endpoint, ports) in slices.headless(service) {
        match &question.port.port {
            Port::Number(number) => {
                ends.insert(End { address: endpoint.address, number: *number, way: Way::Kept });
            }
            Port::Name(name) => {
                let ports = ports.iter().filter(|port| port.name == *name);
                let ports = ports.filter(|port| port.protocol == question.port.protocol);
                let end = |number| End { address: endpoint.address, number, way: Way::Kept };
                ends.extend(ports.filter_map(|port| Some(end(port.number?))));
            }
        }
    }
    ends
}

/// Where host ports of these addresses of a node lead: to the pods themselves.
pub(super) fn host_port_ends(
    cluster: &Cluster,
    node: &Name,
    addresses: &[IpAddr],
    asked: &PortSpec,
) -> BTreeSet<(IpAddr, u16)> {
    let Port::Number(number) = asked.port else { return BTreeSet::new() };
    let mut ends = BTreeSet::new();
    for pod in cluster.pods.values().filter(|pod| pod.node.as_ref() == Some(node)) {
        for port in &pod.host_ports {
            if port.protocol != asked.protocol || port.number != number {
                continue;
            }
            let is_at = |at: &&IpAddr| port.address.is_none_or(|own| own == **at);
            for at in addresses.iter().filter(is_at) {
                let behind = pod.addresses.iter().filter(|address| address.is_ipv6() == at.is_ipv6());
                ends.extend(behind.map(|address| (*address, port.container_number)));
            }
        }
    }
    ends
}

/// Where a node leads clients outside the cluster that it leads to its own endpoints alone.
pub(super) fn local_ends(
    cluster: &Cluster,
    node: &Name,
    matched_port: &MatchedServicePort<'_>,
) -> BTreeSet<(IpAddr, u16)> {
    let MatchedServicePort { service, port, addresses, .. } = matched_port;
    let slices = cluster.slices_by_service();
    let families = [false, true].into_iter().filter(|v6| addresses.iter().any(|at| at.is_ipv6() == *v6));
    families.flat_map(|v6| slices.local(service, port, v6, node)).collect()
}
