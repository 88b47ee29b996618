//! Whose an address is.
//!
//! An index over the cluster, made when it is needed: it costs nothing while nothing is reported. After a
//! change it is made again, at most so often that it costs a fiftieth of a CPU; what has moved in between is
//! shown without a name.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use podgate_core::model::{Cluster, Name, ObjectName, Pod};

use super::{EndOwner, EventEnd};

/// Between two indexes, in times that it takes to make one.
const PAUSE: u32 = 50;

#[derive(Debug, Default)]
pub struct AddressOwners {
    /// Sorted by address.
    index: Vec<(IpAddr, AddressOwner)>,
    /// What it was made of.
    of: Option<Cluster>,
    made: Option<Instant>,
    took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AddressOwner {
    Pod(ObjectName),
    Service(ObjectName),
    Node(Name),
}

impl AddressOwners {
    /// Names the end with this address; `local`: the pod whose veth it is, whatever the address says.
    pub fn end(
        &mut self,
        cluster: &Cluster,
        address: Option<IpAddr>,
        port: Option<u16>,
        local: Option<&Arc<Pod>>,
    ) -> EventEnd {
        let owner = match (local, address) {
            (Some(pod), _) => Some(EndOwner::Pod(pod.clone())),
            (None, Some(address)) => {
                self.find(cluster, address, port).and_then(|owner| owner.in_cluster(cluster))
            }
            (None, None) => None,
        };
        EventEnd { address, port, owner }
    }

    fn find(&mut self, cluster: &Cluster, address: IpAddr, port: Option<u16>) -> Option<AddressOwner> {
        let is_old = self.of.as_ref().is_none_or(|of| {
            !of.pods.ptr_eq(&cluster.pods)
                || !of.services.ptr_eq(&cluster.services)
                || !of.nodes.ptr_eq(&cluster.nodes)
        });
        if is_old && self.made.is_none_or(|made| made.elapsed() >= self.took * PAUSE) {
            self.make(cluster);
        }
        let first = self.index.partition_point(|(of, _)| *of < address);
        let mut owners =
            self.index[first..].iter().take_while(|(of, _)| *of == address).map(|(_, owner)| owner);
        owners.find(|owner| owner.has(cluster, address, port)).cloned()
    }

    fn make(&mut self, cluster: &Cluster) {
        let began = Instant::now();
        self.index.clear();
        for pod in cluster.pods.values().filter(|pod| !pod.host_network) {
            let owner = AddressOwner::Pod(pod.name.clone());
            self.index.extend(pod.addresses.iter().map(|address| (*address, owner.clone())));
        }
        for service in cluster.services.values() {
            let owner = AddressOwner::Service(service.name.clone());
            let addresses = service.cluster_addresses.iter().chain(&service.external_addresses);
            self.index.extend(addresses.map(|address| (*address, owner.clone())));
        }
        for (name, node) in &cluster.nodes {
            let owner = AddressOwner::Node(name.clone());
            self.index.extend(node.addresses.iter().map(|address| (*address, owner.clone())));
        }
        self.index.sort_unstable();
        self.of = Some(cluster.clone());
        self.took = began.elapsed();
        self.made = Some(Instant::now());
    }
}

impl AddressOwner {
    fn in_cluster(self, cluster: &Cluster) -> Option<EndOwner> {
        Some(match self {
            Self::Pod(name) => EndOwner::Pod(cluster.pods.get(&name)?.clone()),
            Self::Service(name) => EndOwner::Service(name),
            Self::Node(name) => EndOwner::Node(name),
        })
    }

    /// Whether it is so, by the cluster that evaluated the packet.
    fn has(&self, cluster: &Cluster, address: IpAddr, port: Option<u16>) -> bool {
        match self {
            Self::Pod(name) => cluster.pods.get(name).is_some_and(|pod| pod.addresses.contains(&address)),
            Self::Service(name) => cluster.services.get(name).is_some_and(|service| {
                port.is_none_or(|port| service.ports.iter().any(|own| own.number == port))
            }),
            Self::Node(name) => cluster.nodes.get(name).is_some_and(|node| node.addresses.contains(&address)),
        }
    }
}
