//! What belongs to nodes, as last found: their addresses, where their tunnels listen, and from where services
//! lead to these.
//!
//! Finding it takes a look at every node, and at every slice of every service. Nearly all passes change none
//! of them, nor what a tunnel is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{HEARD_BY_NODE, MAX_TUNNEL_SERVICES, NODE, OTHER_NODE, TunnelPort};
use podgate_core::{model::Cluster, tunnels::TunnelServices};
use podgate_datapath::publisher::Wanted;

/// Where nodes listen for VXLAN (IANA's port and the one that Linux has by default) and for Geneve: other
/// nodes may have devices that this one has not.
const TUNNEL_PORTS: [u16; 3] = [4_789, 8_472, 6_081];

/// Addresses and ports of services that are closed because they lead to tunnels. New ones stand beside old
/// ones for a moment.
const MOST_TUNNEL_SERVICES: usize = MAX_TUNNEL_SERVICES / 2;

/// What was found, and of what.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Of a cluster, the nodes, the services and their slices; nothing else is kept alive.
    cluster: Cluster,
    own: BTreeSet<IpAddr>,
    heard: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    /// By address.
    owners: BTreeMap<IpAddr, u32>,
    found: TunnelServices,
}

impl Nodes {
    /// Finds it again if anything that counts has changed. `own`: this node's addresses; `heard`: others at
    /// which its own stack takes packets; `ports`: of its tunnels.
    pub(super) fn find(
        &mut self,
        cluster: &Cluster,
        own: &BTreeSet<IpAddr>,
        heard: BTreeSet<IpAddr>,
        ports: impl Iterator<Item = u16>,
    ) {
        let ports: BTreeSet<u16> = TUNNEL_PORTS.into_iter().chain(ports).collect();
        if self.is_of(cluster) && self.own == *own && self.heard == heard && self.ports == ports {
            return;
        }
        let others = cluster.nodes.values().flat_map(|node| &node.addresses);
        let heard_owners = heard.iter().map(|address| (*address, HEARD_BY_NODE));
        let owners: BTreeMap<IpAddr, u32> = heard_owners
            .chain(others.map(|address| (*address, OTHER_NODE)))
            .chain(own.iter().map(|address| (*address, NODE)))
            .collect();
        let addresses = owners.keys().copied().collect();
        let found = TunnelServices::of(cluster, &ports, &addresses, MOST_TUNNEL_SERVICES);
        if !found.filter.is_empty() && self.found.filter.is_empty() {
            tracing::warn!(
                limit = MOST_TUNNEL_SERVICES,
                "so many addresses and ports of services lead to tunnels of nodes: all UDP ports that do are \
                 closed to pods at all addresses of these services"
            );
        }
        let Cluster { nodes, services, slices, .. } = cluster.clone();
        let cluster = Cluster { nodes, services, slices, ..Cluster::default() };
        *self = Self { cluster, own: own.clone(), heard, ports, owners, found };
    }

    /// What the kernel must know of them.
    pub(super) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted { owners: self.owners.clone(), ..Wanted::default() };
        let of_nodes = self.ports.iter().chain(&self.found.node_ports);
        wanted.tunnel_ports.extend(of_nodes.map(|port| (*port, TunnelPort::OF_NODES)));
        for port in &self.found.ports {
            let known = wanted.tunnel_ports.entry(*port).or_default();
            *known = known.union(TunnelPort::OF_SERVICES);
        }
        wanted.tunnel_services = self.found.frontends.union(&self.found.exceptions).copied().collect();
        wanted.tunnel_filter.clone_from(&self.found.filter);
        wanted
    }

    /// Whether its nodes, services and slices are the very same: a source shares what has not changed.
    fn is_of(&self, cluster: &Cluster) -> bool {
        self.cluster.nodes.ptr_eq(&cluster.nodes)
            && self.cluster.services.ptr_eq(&cluster.services)
            && self.cluster.slices.ptr_eq(&cluster.slices)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podgate_core::{
        fixtures::ready,
        model::{EndpointSlice, Labels, Name, Node, ObjectName, Proxy, Service, ServicePort, SlicePort},
    };

    use super::*;

    const OTHER: &str = "172.16.0.2";
    const OWN: &str = "172.16.0.1";
    const HEARD: &str = "172.16.0.255";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_belongs_to_nodes_is_found_again_when_nodes_services_slices_addresses_or_ports_change() {
        let mut cluster = Cluster::default();
        let mut nodes = Nodes::default();
        let mut found = |cluster: &Cluster, own: &[&str], ports: &[u16]| {
            let own = own.iter().map(|address| ip(address)).collect();
            nodes.find(cluster, &own, BTreeSet::from([ip(HEARD)]), ports.iter().copied());
            let wanted = nodes.wanted();
            assert_eq!(wanted.owners.get(&ip(HEARD)), Some(&HEARD_BY_NODE));
            assert!(own.iter().all(|address| wanted.owners.get(address) == Some(&NODE)));
            (wanted.tunnel_services.len(), wanted.tunnel_ports.contains_key(&9_000))
        };
        let name = ObjectName::new("x", "s");
        let port = ServicePort {
            name: "".into(),
            protocol: podgate_common::Protocol::Udp,
            number: 53,
            node_port: None,
        };
        let service = Service {
            name: name.clone(),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![ip("10.96.0.9")],
            external_addresses: Vec::new(),
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: vec![port],
        };
        let slice = |address: &str, number| EndpointSlice {
            name: name.clone(),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort {
                name: "".into(),
                protocol: podgate_common::Protocol::Udp,
                number: Some(number),
            }],
            endpoints: vec![ready(ip(address))],
        };
        assert_eq!(found(&cluster, &[], &[]), (0, false));
        cluster.slices.insert(name.clone(), slice(OTHER, 4_789).into());
        assert_eq!(found(&cluster, &[], &[]), (0, false), "no service yet");
        cluster.services.insert(name.clone(), service.into());
        assert_eq!(found(&cluster, &[], &[]), (0, false), "no node yet");
        let node: Name = "n2".into();
        cluster
            .nodes
            .insert(node.clone(), Arc::new(Node { labels: Labels::default(), addresses: vec![ip(OTHER)] }));
        assert_eq!(found(&cluster, &[], &[]), (1, false));
        cluster.slices.insert(name.clone(), slice(OWN, 4_789).into());
        assert_eq!(found(&cluster, &[], &[]), (0, false), "another address");
        assert_eq!(found(&cluster, &[OWN], &[]), (1, false), "it is this node's");
        cluster.slices.insert(name.clone(), slice(OWN, 9_000).into());
        assert_eq!(found(&cluster, &[OWN], &[]), (0, false), "no tunnel's port");
        assert_eq!(found(&cluster, &[OWN], &[9_000]), (1, true), "one of this node's tunnels");
        assert_eq!(found(&cluster, &[OWN], &[9_000]), (1, true), "nothing has changed");
    }
}
