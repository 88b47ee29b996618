//! The endpoints of Services as rules of Calico's match them.
//!
//! In: a cluster. Out: for a Service, the properties of its addresses: one of all of them, and one of those
//! at the same ports. Rules that name the same Service share them, so what it takes grows with the Services
//! that are named and not with the rules.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    rc::Rc,
};

use ipnet::IpNet;

use super::{Atom, ClausePorts, Shared, network_sets::block};
use crate::model::{Cluster, EndpointSlice, Name, ObjectName, PortSet, ServiceEndpoints};

/// The Services of a cluster.
pub(super) struct ServicePeers<'a> {
    cluster: &'a Cluster,
    /// The slices of each Service, of the namespaces that were asked about.
    slices: RefCell<HashMap<Name, SlicesInNamespace<'a>>>,
    known: RefCell<HashMap<ObjectName, Rc<ServiceAtoms>>>,
}

type SlicesInNamespace<'a> = HashMap<&'a Name, Vec<&'a EndpointSlice>>;

/// The properties of the addresses of a Service.
#[derive(Debug)]
pub(super) struct ServiceAtoms {
    /// Of all; none if there are none.
    addresses: BTreeSet<Shared<Atom>>,
    /// Of those at the same ports.
    at_ports: BTreeMap<Shared<Atom>, PortSet>,
}

impl<'a> ServicePeers<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        Self { cluster, slices: RefCell::default(), known: RefCell::default() }
    }

    pub(super) fn atoms(&self, service: &ObjectName) -> Rc<ServiceAtoms> {
        if let Some(known) = self.known.borrow().get(service) {
            return known.clone();
        }
        let mut slices = self.slices.borrow_mut();
        let in_namespace = slices.entry(service.namespace.clone()).or_insert_with(|| {
            let mut by_service = SlicesInNamespace::new();
            for slice in self.cluster.slices_in(&service.namespace) {
                by_service.entry(&slice.service.name).or_default().push(slice);
            }
            by_service
        });
        let own = in_namespace.get(&service.name).into_iter().flatten().copied();
        let atoms = Rc::new(ServiceAtoms::of(&ServiceEndpoints::of(own)));
        self.known.borrow_mut().insert(service.clone(), atoms.clone());
        atoms
    }
}

impl ServiceAtoms {
    fn of(ServiceEndpoints { addresses, by_ports }: &ServiceEndpoints) -> Self {
        let all = (!addresses.is_empty()).then(|| hosts(addresses));
        let mut at_ports: BTreeMap<Shared<Atom>, PortSet> = BTreeMap::new();
        for (ports, addresses) in by_ports {
            // Slices with other ports may list the very same addresses.
            let known = at_ports.entry(hosts(addresses)).or_default();
            *known = known.union(ports);
        }
        Self { addresses: all.into_iter().collect(), at_ports }
    }

    /// What any endpoint has.
    pub(super) const fn addresses(&self) -> &BTreeSet<Shared<Atom>> {
        &self.addresses
    }

    /// Each address at its own ports: no port is every address's. `within`: those among these alone.
    pub(super) fn ports(&self, within: Option<&PortSet>) -> ClausePorts {
        let ports = self.at_ports.iter().map(|(atom, ports)| {
            let ports = within.map_or_else(|| ports.clone(), |within| ports.intersection(within));
            (atom.clone(), Shared::new(ports))
        });
        let named = ports.filter(|(_, ports)| !ports.is_empty()).collect();
        ClausePorts { numbers: Shared::new(PortSet::default()), named }
    }
}

fn hosts(addresses: &BTreeSet<IpAddr>) -> Shared<Atom> {
    Shared::new(Atom::Blocks(addresses.iter().map(|address| block(&IpNet::from(*address))).collect()))
}
