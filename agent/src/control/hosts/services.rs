//! Services as devices with host endpoints must know them: kube-proxy translates what comes in only behind
//! these, so that a destination does not say whether a packet ends at one of the node's own processes.
//!
//! In: services, their endpoints, and the addresses at which this node takes packets. Out: where packets to
//! each address and port end that the addresses alone do not tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{Address, MAX_HOST_SERVICES, ServiceEnd, ServiceKey};
use podgate_core::model::{Cluster, ObjectName, Proxy, Service};

/// New ones stand beside old ones for a moment.
const MOST: usize = MAX_HOST_SERVICES / 2;
/// Node ports have room of their own, so that no one closes those of others.
const MOST_NODE_PORTS: usize = MOST / 2;

/// What was found, and of what.
#[derive(Debug, Default)]
pub(super) struct HostServices {
    /// Of a cluster, the services and their slices; nothing else is kept alive.
    cluster: Cluster,
    own: BTreeSet<IpAddr>,
    heard: BTreeSet<IpAddr>,
    pub(super) ends: BTreeMap<ServiceKey, ServiceEnd>,
}

impl HostServices {
    /// Finds it again if anything that counts has changed. `own`: this node's addresses; `heard`: others at
    /// which its stack takes packets.
    pub(super) fn find(&mut self, cluster: &Cluster, own: &BTreeSet<IpAddr>, heard: BTreeSet<IpAddr>) {
        let is_same = self.cluster.services.ptr_eq(&cluster.services)
            && self.cluster.slices.ptr_eq(&cluster.slices)
            && self.own == *own
            && self.heard == heard;
        if is_same {
            return;
        }
        let ends = ends(cluster, own, &heard);
        if ends.len() == MOST {
            tracing::error!(
                limit = MOST,
                "so many addresses and ports of services lead to this node's own processes or are its own: \
                 of the rest, only the address says whether policies of host endpoints apply"
            );
        }
        let Cluster { services, slices, .. } = cluster.clone();
        let cluster = Cluster { services, slices, ..Cluster::default() };
        *self = Self { cluster, own: own.clone(), heard, ends };
    }
}

/// No more are looked at than there is room for: a Service has many addresses times many ports. Those over
/// the limit of their namespace have none.
fn ends(
    cluster: &Cluster,
    own: &BTreeSet<IpAddr>,
    heard: &BTreeSet<IpAddr>,
) -> BTreeMap<ServiceKey, ServiceEnd> {
    let at_this_node = leading_to(cluster, own);
    let services = || cluster.services.values().filter(|service| !service.is_over_limit);
    let leading = || services().filter(|service| at_this_node.contains(&service.name));
    let others = || {
        let others = services().filter(|service| !at_this_node.contains(&service.name));
        others.filter(|service| service.proxy == Proxy::KubeProxy)
    };
    let node_ports = others().flat_map(|service| node_ports(service)).take(MOST_NODE_PORTS);
    let mut ends: BTreeMap<_, _> = node_ports.map(|key| (key, ServiceEnd::Elsewhere)).collect();
    // Of what has no ports, an address that several claim says nothing.
    let mut claims: BTreeMap<IpAddr, BTreeSet<&ObjectName>> = BTreeMap::new();
    for service in services() {
        addresses(service).for_each(|address| _ = claims.entry(address).or_default().insert(&service.name));
    }
    let is_alone = |address: &IpAddr| claims.get(address).is_some_and(|claims| claims.len() == 1);
    let whole = leading().flat_map(|service| addresses(service).filter(is_alone));
    let whole = whole.map(|address| ServiceKey::of_address(address.into()));
    let at_node = whole.chain(leading().flat_map(|it| addresses(it).flat_map(|address| keys(it, address))));
    ends.extend(at_node.take(MOST - ends.len()).map(|key| (key, ServiceEnd::Node)));
    let of_heard = others().flat_map(|service| {
        let heard = addresses(service).filter(|address| heard.contains(address));
        heard.flat_map(|address| keys(service, address))
    });
    for key in of_heard {
        if ends.len() == MOST {
            break;
        }
        ends.entry(key).or_insert(ServiceEnd::Elsewhere);
    }
    ends
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.cluster_addresses.iter().chain(&service.external_addresses).copied()
}

/// The services that have an endpoint at one of these addresses: ready or not, at whatever port.
fn leading_to<'a>(cluster: &'a Cluster, own: &BTreeSet<IpAddr>) -> BTreeSet<&'a ObjectName> {
    let slices = cluster.slices.values();
    let leading = slices.filter(|slice| slice.endpoints.iter().any(|it| own.contains(&it.address)));
    leading.map(|slice| &slice.service).collect()
}

fn keys(service: &Service, address: IpAddr) -> impl Iterator<Item = ServiceKey> {
    service.ports.iter().map(move |port| ServiceKey::new(address.into(), port.protocol, port.number))
}

/// They stand under the unspecified address of each family that the service has.
fn node_ports(service: &Service) -> impl Iterator<Item = ServiceKey> {
    let families = service.cluster_addresses.iter().map(|address| Address::from(*address).unspecified());
    families.flat_map(|family| {
        let ports = service.ports.iter();
        ports.filter_map(move |port| Some(ServiceKey::new(family, port.protocol, port.node_port?)))
    })
}

#[cfg(test)]
mod tests {
    use podgate_common::Protocol;
    use podgate_core::{
        fixtures::ready,
        model::{EndpointSlice, ServicePort, SlicePort},
    };

    use super::*;

    const OWN: &str = "172.16.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Adds a service with port 80, a node port, and one endpoint.
    fn add(cluster: &mut Cluster, name: &str, addresses: [&str; 2], node_port: u16, endpoint: &str) {
        let name = ObjectName::new("x", name);
        let [cluster_address, external] = addresses.map(ip);
        let port =
            ServicePort { name: "".into(), protocol: Protocol::Tcp, number: 80, node_port: Some(node_port) };
        let service = Service {
            name: name.clone(),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![cluster_address],
            external_addresses: vec![external],
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: vec![port],
        };
        let slice = EndpointSlice {
            name: name.clone(),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, number: Some(8_080) }],
            endpoints: vec![ready(ip(endpoint))],
        };
        cluster.services.insert(name.clone(), service.into());
        cluster.slices.insert(name, slice.into());
    }

    fn end(services: &HostServices, address: &str, port: u16) -> Option<ServiceEnd> {
        services.ends.get(&ServiceKey::new(ip(address).into(), Protocol::Tcp, port)).copied()
    }

    #[test]
    fn services_end_at_the_node_where_one_of_their_endpoints_is_there() {
        let mut cluster = Cluster::default();
        add(&mut cluster, "pods", ["10.96.0.1", "192.0.2.1"], 30_001, "10.0.0.7");
        add(&mut cluster, "own", ["10.96.0.2", "192.0.2.2"], 30_002, OWN);
        add(&mut cluster, "v6", ["fd00:96::1", "2001:db8::1"], 30_003, "fd00::7");
        let mut services = HostServices::default();
        services.find(&cluster, &[ip(OWN)].into(), BTreeSet::new());
        for address in ["10.96.0.2", "192.0.2.2"] {
            assert_eq!(end(&services, address, 80), Some(ServiceEnd::Node));
            assert_eq!(end(&services, address, 81), None);
            let whole = services.ends.get(&ServiceKey::of_address(ip(address).into()));
            assert_eq!(whole, Some(&ServiceEnd::Node), "of what has no ports");
        }
        assert_eq!(end(&services, "10.96.0.1", 80), None, "its address says it");
        assert_eq!(end(&services, "0.0.0.0", 30_001), Some(ServiceEnd::Elsewhere));
        assert_eq!(end(&services, "0.0.0.0", 30_002), None);
        assert_eq!(end(&services, "0.0.0.0", 30_003), None, "it has no IPv4");
        assert_eq!(end(&services, "::", 30_003), Some(ServiceEnd::Elsewhere));
    }

    #[test]
    fn an_address_that_the_node_hears_leads_elsewhere_at_the_ports_of_its_services() {
        let mut cluster = Cluster::default();
        add(&mut cluster, "pods", ["10.96.0.1", "192.0.2.1"], 30_001, "10.0.0.7");
        let mut services = HostServices::default();
        services.find(&cluster, &BTreeSet::new(), [ip("10.96.0.1")].into());
        assert_eq!(end(&services, "10.96.0.1", 80), Some(ServiceEnd::Elsewhere));
        assert_eq!(end(&services, "10.96.0.1", 22), None);
        assert_eq!(end(&services, "192.0.2.1", 80), None);
        // Whoever claims the same address does not open what leads to the node.
        add(&mut cluster, "own", ["10.96.0.2", "10.96.0.1"], 30_002, OWN);
        services.find(&cluster, &[ip(OWN)].into(), [ip("10.96.0.1")].into());
        assert_eq!(end(&services, "10.96.0.1", 80), Some(ServiceEnd::Node));
    }

    #[test]
    fn a_claim_on_the_nodes_own_address_opens_nothing() {
        let mut cluster = Cluster::default();
        add(&mut cluster, "claims", ["10.96.0.1", OWN], 30_001, "10.0.0.7");
        let mut services = HostServices::default();
        services.find(&cluster, &[ip(OWN)].into(), BTreeSet::new());
        assert_eq!(end(&services, OWN, 80), None);
    }

    #[test]
    fn no_one_takes_the_room_of_others_node_ports_and_no_more_are_looked_at_than_have_room() {
        let mut cluster = Cluster::default();
        add(&mut cluster, "z", ["10.96.0.1", "192.0.2.1"], 30_001, "10.0.0.7");
        for name in ["a", "b"] {
            add(&mut cluster, name, ["10.96.0.2", "192.0.2.2"], 30_002, OWN);
            let service = cluster.services.get_mut(&ObjectName::new("x", name)).unwrap();
            let service = std::sync::Arc::make_mut(service);
            let port = |number| ServicePort { number, node_port: None, ..service.ports[0].clone() };
            service.ports = (1..=u16::MAX).map(port).collect();
            // A product of millions.
            service.external_addresses =
                (0..5_000).map(|at: u32| std::net::Ipv4Addr::from(at).into()).collect();
        }
        let mut services = HostServices::default();
        services.find(&cluster, &[ip(OWN)].into(), BTreeSet::new());
        assert_eq!(services.ends.len(), MOST);
        assert_eq!(end(&services, "0.0.0.0", 30_001), Some(ServiceEnd::Elsewhere));
    }
}
