//! The servers whose DNS replies pods with rules about names learn from.
//!
//! The cluster's own: its DNS service, in a namespace that only its administrators write to, by its addresses
//! and by those of its endpoints (a pod may reach these directly, and so does the load balancing of sockets),
//! and NodeLocal DNSCache where the node has its address. `--resolvers` stands in the place of all of them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use podgate_common::{Protocol, ServiceKey};
use podgate_core::model::{CLUSTER_DNS, Cluster, ObjectName};

/// Where NodeLocal DNSCache listens by its manifest.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

const DNS: u16 = 53;

/// DNS is asked over both.
const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// `configured`: by `--resolvers`; none: the cluster's own.
pub(super) fn resolvers(
    configured: &[SocketAddr],
    cluster: &Cluster,
    own_addresses: &BTreeSet<IpAddr>,
) -> BTreeSet<ServiceKey> {
    let both = |address: SocketAddr| {
        PROTOCOLS.map(|protocol| ServiceKey::new(address.ip().into(), protocol, address.port()))
    };
    if !configured.is_empty() {
        return configured.iter().copied().flat_map(both).collect();
    }
    let mut resolvers = BTreeSet::new();
    for (namespace, name) in CLUSTER_DNS {
        let name = ObjectName::new(namespace, name);
        let Some(service) = cluster.services.get(&name) else { continue };
        for port in service.ports.iter().filter(|port| port.number == DNS) {
            let addresses = service.cluster_addresses.iter();
            resolvers.extend(addresses.map(|at| ServiceKey::new((*at).into(), port.protocol, DNS)));
            let of_namespace = cluster.slices.range(ObjectName::new(namespace, "")..);
            let of_namespace = of_namespace.take_while(|(at, _)| at.namespace == namespace);
            for (_, slice) in of_namespace.filter(|(_, slice)| slice.service == name) {
                let led_to =
                    slice.ports.iter().filter(|led| led.name == port.name && led.protocol == port.protocol);
                for number in led_to.filter_map(|led| led.number) {
                    let endpoints = slice.endpoints.iter();
                    resolvers.extend(
                        endpoints.map(|end| ServiceKey::new(end.address.into(), port.protocol, number)),
                    );
                }
            }
        }
    }
    if own_addresses.contains(&NODE_LOCAL) {
        resolvers.extend(both(SocketAddr::new(NODE_LOCAL, DNS)));
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_resolvers_take_the_place_of_the_clusters() {
        let own = BTreeSet::from([NODE_LOCAL]);
        let of = |configured: &[SocketAddr]| resolvers(configured, &Cluster::default(), &own);
        let keys = |address: &str| -> BTreeSet<ServiceKey> {
            let address: SocketAddr = address.parse().unwrap();
            PROTOCOLS.map(|protocol| ServiceKey::new(address.ip().into(), protocol, address.port())).into()
        };
        assert_eq!(of(&[]), keys("169.254.20.10:53"));
        assert_eq!(of(&["192.0.2.1:5353".parse().unwrap()]), keys("192.0.2.1:5353"));
        assert_eq!(resolvers(&[], &Cluster::default(), &BTreeSet::new()), BTreeSet::new());
    }
}
