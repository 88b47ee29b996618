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
        let found = ends(cluster, own, &heard);
        if found.len() > MOST {
            tracing::error!(
                limit = MOST,
                "so many addresses and ports of services lead to this node's own processes or are its own: \
                 of the rest, only the address says whether policies of host endpoints apply"
            );
        }
        // Those that close something come first.
        let mut found: Vec<(ServiceKey, ServiceEnd)> = found.into_iter().collect();
        found.sort_by_key(|(key, end)| (*end, *key));
        let Cluster { services, slices, .. } = cluster.clone();
        let cluster = Cluster { services, slices, ..Cluster::default() };
        *self = Self { cluster, own: own.clone(), heard, ends: found.into_iter().take(MOST).collect() };
    }
}

fn ends(
    cluster: &Cluster,
    own: &BTreeSet<IpAddr>,
    heard: &BTreeSet<IpAddr>,
) -> BTreeMap<ServiceKey, ServiceEnd> {
    let at_this_node = leading_to(cluster, own);
    let mut ends = BTreeMap::new();
    for service in cluster.services.values() {
        let addresses = service.cluster_addresses.iter().chain(&service.external_addresses);
        if at_this_node.contains(&service.name) {
            // Its node ports belong to the node as well: that is what is said of the node's addresses anyway.
            for address in addresses {
                ends.insert(ServiceKey::of_address((*address).into()), ServiceEnd::Node);
                ends.extend(keys(service, *address).map(|key| (key, ServiceEnd::Node)));
            }
        } else if service.proxy == Proxy::KubeProxy {
            let of_node = addresses.filter(|address| heard.contains(address));
            for key in of_node.flat_map(|address| keys(service, *address)).chain(node_ports(service)) {
                ends.entry(key).or_insert(ServiceEnd::Elsewhere);
            }
        }
    }
    ends
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
    fn of_too_many_those_stay_that_close_something() {
        let mut cluster = Cluster::default();
        let port = |number| ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            number,
            node_port: Some(number),
        };
        for name in ["a", "b"] {
            add(&mut cluster, name, ["10.96.0.1", "10.96.0.1"], 30_001, "10.0.0.7");
            let name = ObjectName::new("x", name);
            let service = cluster.services.get_mut(&name).unwrap();
            std::sync::Arc::make_mut(service).ports = (1..=u16::MAX).map(port).collect();
        }
        add(&mut cluster, "own", ["10.96.0.2", "192.0.2.2"], 30_002, OWN);
        let mut services = HostServices::default();
        services.find(&cluster, &[ip(OWN)].into(), [ip("10.96.0.1")].into());
        assert_eq!(services.ends.len(), MOST);
        assert_eq!(end(&services, "10.96.0.2", 80), Some(ServiceEnd::Node));
    }
}
