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

use crate::api::FlowEnd;

/// Between two indexes, in times that it takes to make one.
const PAUSE: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct AddressOwners {
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
    pub(super) fn end(
        &mut self,
        cluster: &Cluster,
        address: Option<IpAddr>,
        port: Option<u16>,
        local: Option<&Arc<Pod>>,
    ) -> FlowEnd {
        let mut end = FlowEnd { address, port, ..FlowEnd::default() };
        let found = match (local, address) {
            (Some(pod), _) => Some(AddressOwner::Pod(pod.name.clone())),
            (None, Some(address)) => self.find(cluster, address, port),
            (None, None) => None,
        };
        match found {
            Some(AddressOwner::Pod(name)) => {
                let pod = local.or_else(|| cluster.pods.get(&name));
                let labels = pod.into_iter().flat_map(|pod| pod.labels.iter());
                end.labels = labels.map(|(key, value)| (key.to_string(), value.to_string())).collect();
                end.pod = Some(name.to_string());
            }
            Some(AddressOwner::Service(name)) => end.service = Some(name.to_string()),
            Some(AddressOwner::Node(name)) => end.node = Some(name.to_string()),
            None => {}
        }
        end
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
