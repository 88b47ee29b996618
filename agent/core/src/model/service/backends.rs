//! Where kube-proxy leads a client of a service.
//!
//! In: a service's slices, and who asks. Out: the set that one backend is picked from. The rules are those of
//! kube-proxy's `pkg/proxy/{topology,endpointslicecache}.go`. Topology hints narrow the set for who asks for
//! that; a verdict on all of it is a verdict on any part.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use podgate_common::Protocol;

use super::{EndpointSlice, Frontend, Hints, Service, ServicePort, SliceEndpoint, SlicePort};
use crate::model::{Cluster, Name, ObjectName};

/// The slices of each service.
#[derive(Clone, Debug, Default)]
pub struct SlicesByService<'a>(HashMap<ObjectName, SlicesOfService<'a>>);

#[derive(Clone, Debug, Default)]
struct SlicesOfService<'a> {
    slices: Vec<Cow<'a, EndpointSlice>>,
    /// Which slices a port of the service leads to, and its number there.
    by_port: HashMap<(Name, Protocol), Vec<(usize, u16)>>,
}

impl Cluster {
    /// An index of the slices: built in one pass over them, then a question costs its own port's slices.
    pub fn slices_by_service(&self) -> SlicesByService<'_> {
        SlicesByService::of(self.slices.values().map(|slice| Cow::Borrowed(&**slice)))
    }
}

impl<'a> SlicesByService<'a> {
    /// An index of these slices alone.
    pub fn of(slices: impl IntoIterator<Item = Cow<'a, EndpointSlice>>) -> Self {
        let mut index: HashMap<ObjectName, SlicesOfService<'a>> = HashMap::new();
        for slice in slices {
            let of_service = index.entry(slice.service.clone()).or_default();
            let place = of_service.slices.len();
            for port in &slice.ports {
                if let Some(number) = port.number {
                    let places = of_service.by_port.entry((port.name.clone(), port.protocol)).or_default();
                    places.push((place, number));
                }
            }
            of_service.slices.push(slice);
        }
        Self(index)
    }
}

impl SlicesByService<'_> {
    /// What kube-proxy on `node` chooses from for a client that is a pod of that node, as address and port.
    ///
    /// `externalTrafficPolicy` does not count: kube-proxy leads clients inside the cluster to all endpoints.
    /// Terminating endpoints step in when no endpoint is ready; where only local ones may be used, when no
    /// local one is.
    pub fn backends(
        &self,
        service: &Service,
        port: &ServicePort,
        frontend: Frontend,
        v6: bool,
        node: &Name,
    ) -> BTreeSet<(IpAddr, u16)> {
        let local_only = service.internal_local && frontend == Frontend::Cluster;
        self.usable(service, port, v6, Some(node).filter(|_| local_only))
    }

    /// What kube-proxy on `node` chooses from for clients outside the cluster, where it leads them to its own
    /// endpoints alone.
    pub fn local(
        &self,
        service: &Service,
        port: &ServicePort,
        v6: bool,
        node: &Name,
    ) -> BTreeSet<(IpAddr, u16)> {
        self.usable(service, port, v6, Some(node))
    }

    /// `only`: the endpoints of this node.
    fn usable(
        &self,
        service: &Service,
        port: &ServicePort,
        v6: bool,
        only: Option<&Name>,
    ) -> BTreeSet<(IpAddr, u16)> {
        let is_reachable =
            |endpoint: &SliceEndpoint| only.is_none_or(|node| endpoint.node.as_ref() == Some(node));
        let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
        for (endpoint, number) in self.endpoints(service, port, v6) {
            if is_reachable(endpoint) && endpoint.ready {
                ready.insert((endpoint.address, number));
            } else if is_reachable(endpoint) && endpoint.serving && endpoint.terminating {
                leaving.insert((endpoint.address, number));
            }
        }
        if ready.is_empty() { leaving } else { ready }
    }

    /// The same, less what topology hints rule out for clients of the node, which is in `zone`.
    pub fn preferred(
        &self,
        service: &Service,
        port: &ServicePort,
        frontend: Frontend,
        v6: bool,
        node: &Name,
        zone: Option<&Name>,
    ) -> BTreeSet<(IpAddr, u16)> {
        let ready: Vec<_> =
            self.endpoints(service, port, v6).filter(|(endpoint, _)| endpoint.ready).collect();
        // Hints count when every endpoint has one and some endpoint is for this place.
        let hinted = |names: fn(&Hints) -> &[Name], here: Option<&Name>| {
            let names_of = |endpoint: &SliceEndpoint| -> Vec<Name> {
                endpoint.hints.as_deref().map(|hints| names(hints).to_vec()).unwrap_or_default()
            };
            let all = ready.iter().all(|(endpoint, _)| !names_of(endpoint).is_empty());
            let is_for_here =
                |endpoint: &SliceEndpoint| here.is_some_and(|here| names_of(endpoint).contains(here));
            let chosen = ready.iter().filter(|(endpoint, _)| is_for_here(endpoint));
            let chosen: BTreeSet<_> = chosen.map(|(endpoint, number)| (endpoint.address, *number)).collect();
            Some(chosen).filter(|chosen| all && !chosen.is_empty())
        };
        let local_only = service.internal_local && frontend == Frontend::Cluster;
        let by_hints =
            || hinted(|hints| &hints.nodes, Some(node)).or_else(|| hinted(|hints| &hints.zones, zone));
        let chosen = if local_only { None } else { by_hints() };
        chosen.unwrap_or_else(|| self.backends(service, port, frontend, v6, node))
    }

    /// The ready endpoints of a headless service, which its name stands for; by the name of a port also their
    /// numbers.
    pub fn headless(&self, service: &Service) -> Vec<(&SliceEndpoint, &[SlicePort])> {
        let slices = self.0.get(&service.name).into_iter().flat_map(|of_service| &of_service.slices);
        let endpoints =
            slices.flat_map(|slice| slice.endpoints.iter().map(|endpoint| (endpoint, &*slice.ports)));
        endpoints.filter(|(endpoint, _)| endpoint.ready).collect()
    }

    /// Which of its slices a port of a service leads to, by their place, and its number there. Ports that
    /// lead to the same slices have the same endpoints.
    pub fn places(&self, service: &Service, port: &ServicePort) -> &[(usize, u16)] {
        let of_service = self.0.get(&service.name);
        let places = of_service.and_then(|all| all.by_port.get(&(port.name.clone(), port.protocol)));
        places.map_or(&[], Vec::as_slice)
    }

    /// All endpoints of a port, whatever their conditions and wherever they are: what may be chosen at
    /// another time or by another proxy.
    pub fn all(&self, service: &Service, port: &ServicePort, v6: bool) -> BTreeSet<(IpAddr, u16)> {
        self.endpoints(service, port, v6).map(|(endpoint, number)| (endpoint.address, number)).collect()
    }

    /// The endpoints behind a port of a service, with its number there.
    fn endpoints(
        &self,
        service: &Service,
        port: &ServicePort,
        v6: bool,
    ) -> impl Iterator<Item = (&SliceEndpoint, u16)> {
        let of_service = self.0.get(&service.name);
        let led = self
            .places(service, port)
            .iter()
            .filter_map(move |&(place, number)| Some((&of_service?.slices[place], number)));
        let led = led.filter(|(slice, _)| service.is_led_by(slice));
        led.flat_map(move |(slice, number)| {
            let of_family = slice.endpoints.iter().filter(move |endpoint| endpoint.address.is_ipv6() == v6);
            of_family.map(move |endpoint| (endpoint, number))
        })
    }
}

#[cfg(test)]
mod tests;
