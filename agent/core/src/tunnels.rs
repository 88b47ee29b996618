//! Services that lead to a tunnel of a node.
//!
//! Whoever may write EndpointSlices can make a service of a node's VXLAN or Geneve port. A pod that sends to
//! the service's address then sends to the tunnel, and what the node takes out of its packets is in no pod's
//! name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{Protocol, ServiceKey};

use crate::address_filter::AddressFilter;
use crate::model::{Cluster, Name, ObjectName, Proxy, Service, ServicePort, SlicePort};

/// From where the services of a cluster lead to tunnels, all over UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelServices {
    /// Node ports.
    pub node_ports: BTreeSet<u16>,
    /// Ports of the addresses below.
    pub ports: BTreeSet<u16>,
    /// Where these services have such ports. First cluster addresses, which are the service's alone, with
    /// [all ports](ServiceKey::of_all_ports). Then external ones with their ports, which whoever may write a
    /// Service claims: those that kube-proxy does not serve close nothing, nor does who claims the cluster
    /// address of another service.
    pub frontends: BTreeSet<ServiceKey>,
    /// Where there is no room for so many, the addresses of all of them instead.
    pub filter: AddressFilter,
    /// What the filter takes for one of these, and is another service's own: no one closes that for others
    /// ([`ServiceKey::of_no_tunnel`]).
    pub exceptions: BTreeSet<ServiceKey>,
}

impl TunnelServices {
    /// `ports`: where tunnels of nodes listen; `nodes`: at which addresses; `room`: for how many frontends.
    /// No more are looked at: a Service has room for many addresses times many ports. Of more, the addresses
    /// stand in a filter.
    pub fn of(cluster: &Cluster, ports: &BTreeSet<u16>, nodes: &BTreeSet<IpAddr>, room: usize) -> Self {
        let services = leading(cluster, ports, nodes);
        let mut found = Self::default();
        for port in services.iter().flat_map(|(_, ports)| ports) {
            found.node_ports.extend(port.node_port);
            found.ports.insert(port.number);
        }
        let own = services.iter().flat_map(|(service, _)| &service.cluster_addresses);
        let own = own.map(|address| ServiceKey::of_all_ports((*address).into()));
        let claiming = services.iter().filter(|(service, _)| service.proxy == Proxy::KubeProxy);
        let claimed = claiming.flat_map(|(service, ports)| {
            let addresses: BTreeSet<_> = service.external_addresses.iter().collect();
            addresses.into_iter().flat_map(|address| ports.iter().map(|port| frontend(*address, port)))
        });
        let mut all = own.chain(claimed).peekable();
        if all.peek().is_none() {
            return found;
        }
        let others: BTreeSet<ServiceKey> =
            cluster.services.values().flat_map(|it| own_frontends(it)).collect();
        let frontends = all.by_ref().take(room).filter(|key| !others.contains(key)).collect();
        if all.next().is_none() {
            found.frontends = frontends;
            return found;
        }
        let own: BTreeSet<IpAddr> =
            services.iter().flat_map(|(service, _)| &service.cluster_addresses).copied().collect();
        let claiming = services.iter().filter(|(service, _)| service.proxy == Proxy::KubeProxy);
        let claimed = claiming.flat_map(|(service, _)| &service.external_addresses).copied();
        found.filter = AddressFilter::of(own.iter().copied().chain(claimed));
        let others = others.into_iter().filter(|key| found.ports.contains(&key.port));
        let others =
            others.map(|key| (IpAddr::from(key.address), ServiceKey::of_no_tunnel(key.address, key.port)));
        let taken = others.filter(|(at, _)| !own.contains(at) && found.filter.may_have(*at));
        found.exceptions = taken.map(|(_, key)| key).take(room).collect();
        found
    }
}

/// The services that lead to a tunnel of a node, with the ports that do. Nearly always none. An object may
/// have as many ports as it has room for: each is looked at once.
fn leading<'a>(
    cluster: &'a Cluster,
    ports: &BTreeSet<u16>,
    nodes: &BTreeSet<IpAddr>,
) -> Vec<(&'a Service, Vec<&'a ServicePort>)> {
    let is_tunnel = |port: &&SlicePort| {
        port.protocol == Protocol::Udp && port.number.is_some_and(|number| ports.contains(&number))
    };
    let mut names: BTreeMap<&ObjectName, (&Service, BTreeSet<&Name>)> = BTreeMap::new();
    for slice in cluster.slices.values() {
        let mut tunnels = slice.ports.iter().filter(is_tunnel).peekable();
        if tunnels.peek().is_some()
            && slice.endpoints.iter().any(|endpoint| nodes.contains(&endpoint.address))
            && let Some(service) = cluster.services.get(&slice.service)
            && service.is_led_by(slice)
        {
            let (_, names) = names.entry(&slice.service).or_insert_with(|| (service, BTreeSet::new()));
            names.extend(tunnels.map(|port| &port.name));
        }
    }
    let with_ports = names.into_values().map(|(service, names)| {
        (service, udp_ports(service).filter(|port| names.contains(&port.name)).collect::<Vec<_>>())
    });
    with_ports.filter(|(_, ports)| !ports.is_empty()).collect()
}

fn udp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol == Protocol::Udp)
}

fn own_frontends(service: &Service) -> impl Iterator<Item = ServiceKey> {
    let addresses = &service.cluster_addresses;
    udp_ports(service).flat_map(|port| addresses.iter().map(|address| frontend(*address, port)))
}

fn frontend(address: IpAddr, port: &ServicePort) -> ServiceKey {
    ServiceKey::new(address.into(), Protocol::Udp, port.number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{fixtures::ready, model::EndpointSlice};

    const NODE: &str = "172.16.0.1";
    const VXLAN: u16 = 8_472;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Service `x/NAME` at an address, port 53 of UDP, with a backend.
    fn add(
        cluster: &mut Cluster,
        name: &str,
        cluster_address: &str,
        external: &[&str],
        backend: (&str, u16),
    ) {
        let name = ObjectName::new("x", name);
        let port =
            ServicePort { name: "".into(), protocol: Protocol::Udp, number: 53, node_port: Some(30_053) };
        let service = Service {
            name: name.clone(),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![ip(cluster_address)],
            external_addresses: external.iter().map(|address| ip(address)).collect(),
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: vec![ServicePort { number: 54, name: "other".into(), ..port.clone() }, port],
        };
        let slice = EndpointSlice {
            name: name.clone(),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name: "".into(), protocol: Protocol::Udp, number: Some(backend.1) }],
            endpoints: vec![ready(ip(backend.0))],
        };
        cluster.services.insert(name.clone(), Arc::new(service));
        cluster.slices.insert(name, Arc::new(slice));
    }

    /// For more than the tests need.
    const ROOM: usize = 100;

    /// Node ports; and addresses with their ports, 0 for all.
    fn found(cluster: &Cluster) -> (Vec<u16>, BTreeSet<(IpAddr, u16)>) {
        let found = TunnelServices::of(cluster, &[VXLAN].into(), &[ip(NODE)].into(), ROOM);
        assert!(found.filter.is_empty() && found.exceptions.is_empty());
        let frontends = found.frontends.into_iter().map(|key| (key.address.into(), key.port));
        (found.node_ports.into_iter().collect(), frontends.collect())
    }

    #[test]
    fn a_service_of_a_nodes_tunnel_is_found_at_each_of_its_addresses() {
        let mut cluster = Cluster::default();
        for (at, backend) in [(1, (NODE, 53)), (2, ("172.16.0.9", VXLAN)), (3, ("10.1.0.1", VXLAN))] {
            add(&mut cluster, &format!("s{at}"), &format!("10.96.0.{at}"), &[], backend);
        }
        assert_eq!(found(&cluster), (vec![], BTreeSet::new()), "another port, another host, a pod");
        add(&mut cluster, "tunnel", "10.96.0.4", &["192.0.2.1"], (NODE, VXLAN));
        let frontends = [(ip("10.96.0.4"), 0), (ip("192.0.2.1"), 53)].into();
        assert_eq!(found(&cluster), (vec![30_053], frontends), "not its other port");
    }

    #[test]
    fn who_claims_the_cluster_address_of_another_service_closes_it_for_no_one() {
        let mut cluster = Cluster::default();
        add(&mut cluster, "dns", "10.96.0.10", &[], ("10.1.0.1", 53));
        add(&mut cluster, "tunnel", "10.96.0.4", &["10.96.0.10", "10.96.0.4"], (NODE, VXLAN));
        assert_eq!(found(&cluster).1, [(ip("10.96.0.4"), 0)].into());
    }

    #[test]
    fn what_kube_proxy_does_not_serve_closes_no_external_address() {
        for proxy in [Proxy::Other, Proxy::Headless] {
            let mut cluster = Cluster::default();
            add(&mut cluster, "tunnel", "10.96.0.4", &["192.0.2.1"], (NODE, VXLAN));
            let name = ObjectName::new("x", "tunnel");
            Arc::make_mut(&mut cluster.services[&name]).proxy = proxy;
            assert_eq!(found(&cluster).1, [(ip("10.96.0.4"), 0)].into(), "{proxy:?}");
        }
        // Nor does kube-proxy read a slice of another proxy's.
        let mut cluster = Cluster::default();
        add(&mut cluster, "tunnel", "10.96.0.4", &["192.0.2.1"], (NODE, VXLAN));
        Arc::make_mut(&mut cluster.slices[&ObjectName::new("x", "tunnel")]).proxy = Proxy::Other;
        assert_eq!(found(&cluster), (vec![], BTreeSet::new()));
    }

    /// A Service has room for thousands of addresses and of ports: never are all of both put together.
    #[test]
    fn no_more_are_looked_at_than_there_is_room_for() {
        let external: Vec<String> =
            (0..3_000).map(|at| format!("198.18.{}.{}", at / 250, at % 250)).collect();
        let external: Vec<&str> = external.iter().chain(&external).map(String::as_str).collect();
        let mut cluster = Cluster::default();
        add(&mut cluster, "dns", "203.0.113.10", &[], ("10.1.0.1", 53));
        let external: Vec<&str> = external.into_iter().chain(["203.0.113.10"]).collect();
        add(&mut cluster, "tunnel", "10.96.0.4", &external, (NODE, VXLAN));
        let service = Arc::make_mut(&mut cluster.services[&ObjectName::new("x", "tunnel")]);
        let port = service.ports[1].clone();
        service.ports = (1..=3_000).map(|number| ServicePort { number, ..port.clone() }).collect();
        let found = TunnelServices::of(&cluster, &[VXLAN].into(), &[ip(NODE)].into(), ROOM);
        assert!(found.frontends.is_empty());
        let closed = external.iter().chain(&["10.96.0.4"]);
        assert!({ closed }.all(|address| found.filter.may_have(ip(address))));
        // Of another's address only what it has itself is open.
        assert!(found.filter.may_have(ip("203.0.113.10")));
        let open = [53, 54].map(|port| ServiceKey::of_no_tunnel(ip("203.0.113.10").into(), port));
        assert_eq!(found.exceptions, open.into());
        assert_eq!(found.ports.len(), 3_000);
    }
}
