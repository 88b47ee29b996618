//! The servers whose DNS replies pods with rules about names learn from.
//!
//! The cluster's own: its DNS service, in a namespace that only its administrators write to, by its addresses
//! and by those of its endpoints (a pod may reach these directly, and so does the load balancing of sockets),
//! and NodeLocal DNSCache where the node has its address. `--resolvers` stands in the place of all of them.
//!
//! Any tenant may claim their addresses as external ones of a Service of his (CVE-2020-8554). Then a reply
//! counts only where connection tracking says that a resolver's backend has sent it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use podgate_common::{MAX_RESOLVERS, Protocol, Resolver, ServiceKey};
use podgate_core::model::{Cluster, ObjectName};

/// Where NodeLocal DNSCache listens by its manifest.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

const DNS: u16 = 53;

/// DNS is asked over both.
const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// The kernel has room for as many that come as for those that go.
const MOST: usize = MAX_RESOLVERS / 2;

/// What was found, and of what.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    /// In place of the cluster's own, if there are any.
    pub(super) configured: Vec<SocketAddr>,
    /// Of a cluster, the nodes, the services and their slices; nothing else is kept alive.
    cluster: Cluster,
    has_node_local: bool,
    found: BTreeMap<ServiceKey, Resolver>,
    /// Services that claim the addresses of some.
    claimants: BTreeSet<ObjectName>,
}

impl Resolvers {
    /// Finds them again if anything that counts has changed.
    pub(super) fn find(
        &mut self,
        cluster: &Cluster,
        own_addresses: &BTreeSet<IpAddr>,
    ) -> &BTreeMap<ServiceKey, Resolver> {
        let has_node_local = own_addresses.contains(&NODE_LOCAL);
        if self.has_node_local == has_node_local && self.is_of(cluster) {
            return &self.found;
        }
        let resolvers = resolvers(&self.configured, cluster, has_node_local);
        let (found, claimants) = claimed(resolvers, cluster);
        for service in claimants.difference(&self.claimants) {
            tracing::warn!(
                %service,
                "the service claims the address of a resolver: pods learn names only from replies that \
                 connection tracking shows to be of the resolver's own backends"
            );
        }
        if found.len() > MOST {
            tracing::error!(
                found = found.len(),
                limit = MOST,
                "so many resolvers: pods learn from the first"
            );
        }
        self.found = found.into_iter().take(MOST).collect();
        let Cluster { nodes, services, slices, .. } = cluster.clone();
        self.cluster = Cluster { nodes, services, slices, ..Cluster::default() };
        (self.has_node_local, self.claimants) = (has_node_local, claimants);
        &self.found
    }

    /// Whether its nodes, services and slices are the very same: a source shares what has not changed.
    fn is_of(&self, cluster: &Cluster) -> bool {
        !self.found.is_empty()
            && self.cluster.nodes.ptr_eq(&cluster.nodes)
            && self.cluster.services.ptr_eq(&cluster.services)
            && self.cluster.slices.ptr_eq(&cluster.slices)
    }
}

/// In place of the cluster's own, `configured` if there are any. `has_node_local`: NodeLocal DNSCache may be
/// on the node.
pub(crate) fn resolvers(
    configured: &[SocketAddr],
    cluster: &Cluster,
    has_node_local: bool,
) -> BTreeSet<ServiceKey> {
    if !configured.is_empty() {
        return configured.iter().copied().flat_map(both).collect();
    }
    let mut resolvers = BTreeSet::new();
    for service in cluster.dns_services() {
        for port in service.ports.iter().filter(|port| port.number == DNS) {
            let addresses = service.cluster_addresses.iter();
            resolvers.extend(addresses.map(|at| ServiceKey::new((*at).into(), port.protocol, DNS)));
            let namespace = &service.name.namespace;
            let of_namespace = cluster.slices.range(ObjectName::new(&**namespace, "")..);
            let of_namespace = of_namespace.take_while(|(at, _)| at.namespace == *namespace);
            for (_, slice) in of_namespace.filter(|(_, slice)| slice.service == service.name) {
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
    if has_node_local {
        resolvers.extend(both(SocketAddr::new(NODE_LOCAL, DNS)));
    }
    resolvers
}

fn both(address: SocketAddr) -> [ServiceKey; 2] {
    PROTOCOLS.map(|protocol| ServiceKey::new(address.ip().into(), protocol, address.port()))
}

/// Which of them services claim as external addresses of their own, and these services. A cluster address is
/// one service's alone.
fn claimed(
    resolvers: BTreeSet<ServiceKey>,
    cluster: &Cluster,
) -> (BTreeMap<ServiceKey, Resolver>, BTreeSet<ObjectName>) {
    let mut found: BTreeMap<_, _> = resolvers.into_iter().map(|key| (key, Resolver::BELIEVED)).collect();
    let mut claimants = BTreeSet::new();
    let services = if found.is_empty() { None } else { Some(cluster.services.values()) };
    for service in services.into_iter().flatten() {
        for address in &service.external_addresses {
            for port in &service.ports {
                let key = ServiceKey::new((*address).into(), port.protocol, port.number);
                if let Some(believed) = found.get_mut(&key) {
                    *believed = Resolver::CLAIMED;
                    claimants.insert(service.name.clone());
                }
            }
        }
    }
    (found, claimants)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podgate_core::{
        fixtures::ready,
        model::{EndpointSlice, Node, OPENSHIFT_DNS, OPENSHIFT_NODE, Proxy, Service, ServicePort, SlicePort},
    };

    use super::*;

    const DNS_ADDRESS: &str = "10.96.0.10";
    const BACKEND: &str = "10.1.0.53";

    fn key(address: &str, port: u16) -> ServiceKey {
        ServiceKey::new(address.parse::<IpAddr>().unwrap().into(), Protocol::Udp, port)
    }

    /// A service at this address, on port 53 of UDP, that leads to a backend.
    fn with(mut cluster: Cluster, (namespace, name): (&str, &str), at: &str, backend: &str) -> Cluster {
        let name = ObjectName::new(namespace, name);
        let service = Service {
            name: name.clone(),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![at.parse().unwrap()],
            external_addresses: Vec::new(),
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: vec![ServicePort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                number: 53,
                node_port: None,
            }],
        };
        cluster.services.insert(name.clone(), service.into());
        let port = SlicePort { name: "dns".into(), protocol: Protocol::Udp, number: Some(5_353) };
        let slice = EndpointSlice {
            name: name.clone(),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![port],
            endpoints: vec![ready(backend.parse().unwrap())],
        };
        cluster.slices.insert(name, slice.into());
        cluster
    }

    fn found(cluster: &Cluster) -> BTreeMap<ServiceKey, Resolver> {
        Resolvers::default().find(cluster, &BTreeSet::new()).clone()
    }

    #[test]
    fn configured_resolvers_take_the_place_of_the_clusters() {
        let own = BTreeSet::from([NODE_LOCAL]);
        let of = |configured: &[SocketAddr]| -> BTreeSet<ServiceKey> {
            let mut resolvers = Resolvers { configured: configured.to_vec(), ..Resolvers::default() };
            resolvers.find(&Cluster::default(), &own).keys().copied().collect()
        };
        let keys = |address: &str| BTreeSet::from(both(address.parse().unwrap()));
        assert_eq!(of(&[]), keys("169.254.20.10:53"));
        assert_eq!(of(&["192.0.2.1:5353".parse().unwrap()]), keys("192.0.2.1:5353"));
        assert_eq!(found(&Cluster::default()), BTreeMap::new());
    }

    #[test]
    fn the_clusters_service_and_its_backends_are_believed_and_no_others_of_its_name() {
        let dns = with(Cluster::default(), ("kube-system", "kube-dns"), DNS_ADDRESS, BACKEND);
        let expected = [key(DNS_ADDRESS, 53), key(BACKEND, 5_353)].map(|key| (key, Resolver::BELIEVED));
        assert_eq!(found(&dns), expected.into());
        let mut both = dns.clone();
        for other in [("tenant", "kube-dns"), ("openshift-dns", "dns-default"), ("kube-system-2", "coredns")]
        {
            both = with(both, other, "10.96.0.66", "10.1.0.66");
        }
        // A slice that names the service from another namespace.
        let mut slice = (*both.slices[&ObjectName::new("tenant", "kube-dns")]).clone();
        slice.service = ObjectName::new("kube-system", "kube-dns");
        both.slices.insert(slice.name.clone(), slice.into());
        assert_eq!(found(&both), expected.into());
    }

    #[test]
    fn openshifts_service_is_believed_on_its_nodes_alone() {
        let mut cluster = with(Cluster::default(), OPENSHIFT_DNS, DNS_ADDRESS, BACKEND);
        assert_eq!(found(&cluster), BTreeMap::new());
        let labels = Arc::new([(OPENSHIFT_NODE.into(), "rhel".into())].into());
        cluster.nodes.insert("n1".into(), Arc::new(Node { labels, addresses: Vec::new() }));
        assert_eq!(found(&cluster).len(), 2);
    }

    #[test]
    fn who_claims_the_address_of_a_resolver_has_its_replies_proved() {
        let mut resolvers = Resolvers::default();
        let dns = with(Cluster::default(), ("kube-system", "kube-dns"), DNS_ADDRESS, BACKEND);
        let mut cluster = with(dns.clone(), ("tenant", "evil"), "10.96.0.66", "10.1.0.66");
        let service = Arc::make_mut(&mut cluster.services[&ObjectName::new("tenant", "evil")]);
        service.external_addresses = vec![DNS_ADDRESS.parse().unwrap()];
        let mut states = |cluster: &Cluster| -> Vec<Resolver> {
            let found = resolvers.find(cluster, &BTreeSet::new());
            [key(DNS_ADDRESS, 53), key(BACKEND, 5_353)].map(|key| found[&key]).into()
        };
        assert_eq!(states(&dns), [Resolver::BELIEVED, Resolver::BELIEVED]);
        assert_eq!(states(&cluster), [Resolver::CLAIMED, Resolver::BELIEVED]);
        assert_eq!(states(&dns), [Resolver::BELIEVED, Resolver::BELIEVED]);
    }
}
