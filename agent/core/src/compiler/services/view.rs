//! What one service looks like from a node: what is behind each of its addresses and ports.
//!
//! In: the service and its slices. Out: claims. Time and memory are linear in these: endpoints that no rule
//! can distinguish are one, what is behind a port is found once for all addresses, and no more backends are
//! distinguished than [`MAX_BACKENDS`]. Those beyond are evaluated where the packet ends.

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Address, Protocol, ServiceKey};

use super::{Backend, Site, claim_of_filtered};
use crate::{
    compiler::{Classes, Identities, Rows},
    model::{EndpointSlice, Frontend, Proxy, Service, ServicePort, SliceEndpoint, SlicesByService},
};

/// Backends of an address and port that are distinguished: an object of 50 kB lists 1,000 endpoints and 100
/// ports, and rules may distinguish each of the first with each of the second.
const MAX_BACKENDS: usize = 64;

/// What one service has at an address and port.
#[derive(Clone, Debug)]
pub(in crate::compiler) struct AddressClaim {
    /// Shared by all addresses that lead to them.
    pub(in crate::compiler) backends: Arc<BTreeSet<Backend>>,
    /// The address itself, where a packet may end there.
    pub(in crate::compiler) itself: Option<Backend>,
    /// The address is a cluster address of the service.
    pub(in crate::compiler) is_own: bool,
}

/// What backends look like from a node.
#[derive(Clone, Copy)]
pub(in crate::compiler) struct View<'a> {
    pub(in crate::compiler) site: Site<'a>,
    /// The rule sets of the egress of this node's pods.
    pub(in crate::compiler) local: &'a HashMap<IpAddr, [usize; 2]>,
    pub(in crate::compiler) identities: &'a Identities,
    pub(in crate::compiler) classes: &'a Classes,
    pub(in crate::compiler) rows: &'a Rows,
}

/// One service as a node sees it.
pub(in crate::compiler) struct ServiceView<'a> {
    view: View<'a>,
    service: &'a Service,
    /// With one endpoint for all that are the same to this node.
    slices: SlicesByService<'a>,
    /// What each endpoint is, at any port.
    kinds: HashMap<IpAddr, Backend>,
    behind: HashMap<(Protocol, u16, Frontend, bool), PortBackends>,
    /// The same by slices and classes of ports there: an object may have many ports, of which each leads to
    /// many endpoints, and no rule can distinguish them.
    behind_slices: HashMap<(Places, Frontend, bool), PortBackends>,
    at_any_port: OnceCell<Arc<BTreeSet<Backend>>>,
    numbers: OnceCell<PortNumbers<'a>>,
}

/// The slices that a port leads to, and the classes of its numbers there: to rules, what is behind it.
type Places = Vec<(usize, usize)>;

/// What a port leads to.
#[derive(Clone)]
struct PortBackends {
    backends: Arc<BTreeSet<Backend>>,
    /// Packets that kube-proxy translates end there. One that is not ready yet may be so by the time that a
    /// packet is translated.
    is_certain: bool,
}

/// The ports of a service by protocol and number, and by protocol and node port.
struct PortNumbers<'a> {
    own: HashMap<(u16, u16), &'a ServicePort>,
    of_nodes: HashMap<(u16, u16), &'a ServicePort>,
}

impl<'a> View<'a> {
    /// `slices`: all of the service.
    pub(in crate::compiler) fn service(
        &self,
        service: &'a Service,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> ServiceView<'a> {
        let led = slices.into_iter().filter(|slice| service.is_led_by(slice));
        let led: Vec<&EndpointSlice> = led.collect();
        let addresses = led.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.address);
        let mut kinds: HashMap<IpAddr, Backend> =
            addresses.map(|address| (address, self.backend(address, 0))).collect();
        let distinct: HashSet<&Backend> = kinds.values().filter(|kind| !kind.is_node()).collect();
        if distinct.len() > MAX_BACKENDS {
            let others = kinds.values_mut().filter(|kind| !kind.is_node());
            others.for_each(|kind| *kind = Backend::Unlisted);
        }
        let reduced = led.into_iter().map(|slice| {
            let mut seen = HashSet::new();
            let is_new = |endpoint: &&SliceEndpoint| {
                let SliceEndpoint { address, node, ready, serving, terminating, hints: _ } = endpoint;
                let is_here = service.internal_local && node.as_ref() == Some(self.site.node);
                let is_leaving = !ready && *serving && *terminating;
                seen.insert((kinds[address], address.is_ipv6(), is_here, *ready, is_leaving))
            };
            let endpoints = slice.endpoints.iter().filter(is_new).cloned().collect();
            let EndpointSlice { name, service, proxy, ports, endpoints: _ } = slice;
            let (name, service, ports) = (name.clone(), service.clone(), ports.clone());
            Cow::Owned(EndpointSlice { name, service, proxy: *proxy, ports, endpoints })
        });
        ServiceView {
            view: *self,
            service,
            slices: SlicesByService::of(reduced),
            kinds,
            behind: HashMap::new(),
            behind_slices: HashMap::new(),
            at_any_port: OnceCell::new(),
            numbers: OnceCell::new(),
        }
    }

    /// What an address is to this node.
    fn backend(&self, address: IpAddr, class: usize) -> Backend {
        let identity = self.identities.identity(address);
        if self.site.own_addresses.contains(&address) {
            return Backend::Node { identity, class };
        }
        match self.local.get(&address) {
            Some(&egress) => Backend::Local { identity, class, egress },
            None => Backend::Elsewhere { identity, class },
        }
    }
}

impl<'a> ServiceView<'a> {
    /// Every address and port of the service, with what is behind it.
    pub(in crate::compiler) fn claims(&mut self) -> BTreeMap<ServiceKey, AddressClaim> {
        let mut found = BTreeMap::new();
        let service = self.service;
        if service.is_over_limit {
            found.insert(ServiceKey::FILTERED, self.at_any_port());
        }
        for port in &service.ports {
            for (key, frontend) in frontends(service, port) {
                // An address may be the service's own one and an external one.
                if !found.contains_key(&key)
                    && let Some(claim) = self.claim(port, key, frontend)
                {
                    found.insert(key, claim);
                }
            }
        }
        found
    }

    /// What is behind one of these, which the service is known to claim.
    pub(in crate::compiler) fn claim_at(&mut self, key: ServiceKey) -> Option<AddressClaim> {
        if key.is_filtered() {
            return Some(self.at_any_port());
        }
        let address: IpAddr = key.address.into();
        let service = self.service;
        let PortNumbers { own, of_nodes } = self.numbers.get_or_init(|| PortNumbers::of(service));
        let ports = if address.is_unspecified() { of_nodes } else { own };
        let port = *ports.get(&(key.protocol, key.port))?;
        let is_own = service.cluster_addresses.contains(&address);
        self.claim(port, key, if is_own { Frontend::Cluster } else { Frontend::External })
    }

    /// `None`: a node port that is perhaps no more than a port of the node's.
    fn claim(&mut self, port: &ServicePort, key: ServiceKey, frontend: Frontend) -> Option<AddressClaim> {
        let v6 = !key.address.is_v4();
        let PortBackends { backends, is_certain } = self.behind(port, frontend, v6).clone();
        let is_node_port = key.address.is_unspecified();
        if is_node_port && !is_certain {
            return None;
        }
        let address: IpAddr = key.address.into();
        let is_nodes = self.view.site.own_addresses.contains(&address);
        // A cluster address that the node itself has (NodeLocal DNSCache) may be exempt from translation.
        let is_translated = is_certain && (is_node_port || frontend == Frontend::Cluster && !is_nodes);
        let itself = (!is_translated).then(|| match is_nodes {
            true => Backend::Untranslated,
            false => self.view.backend(address, self.view.classes.class(port.protocol, key.port)),
        });
        Some(AddressClaim { backends, itself, is_own: frontend == Frontend::Cluster })
    }

    fn behind(&mut self, port: &ServicePort, frontend: Frontend, v6: bool) -> &PortBackends {
        let Self { view, service, slices, kinds, behind, behind_slices, .. } = self;
        behind.entry((port.protocol, port.number, frontend, v6)).or_insert_with(|| {
            let known = behind_slices.entry((places(view, slices, service, port), frontend, v6));
            let known = known.or_insert_with(|| {
                let class = |number| view.classes.class(port.protocol, number);
                let chosen = slices.backends(service, port, frontend, v6, view.site.node);
                let is_certain = service.proxy == Proxy::KubeProxy && !chosen.is_empty();
                let endpoints = if is_certain { chosen } else { slices.all(service, port, v6) };
                let backend = |(address, number)| kinds[&address].at(class(number));
                let backends = bounded(endpoints.into_iter().map(backend).collect());
                PortBackends { backends: backends.into(), is_certain }
            });
            known.clone()
        })
    }

    /// What is behind an address of which no port is distinguished: anything, and the node itself where any
    /// port leads there.
    fn at_any_port(&self) -> AddressClaim {
        let Self { view, service, slices, kinds, at_any_port, .. } = self;
        let backends = at_any_port.get_or_init(|| {
            let of_port = |port: &ServicePort| -> Vec<Backend> {
                let class = |number| view.classes.class(port.protocol, number);
                let all = [false, true].into_iter().flat_map(|v6| slices.all(service, port, v6));
                all.map(|(address, number)| kinds[&address].at(class(number))).collect()
            };
            let ports = service.ports.iter().map(|port| (places(view, slices, service, port), port));
            let distinct: HashMap<_, &ServicePort> = ports.collect();
            let all = distinct.into_values().flat_map(of_port).filter(Backend::is_node);
            Arc::new(all.chain([Backend::Unlisted]).collect())
        });
        claim_of_filtered(backends.clone())
    }
}

fn places(view: &View<'_>, slices: &SlicesByService<'_>, service: &Service, port: &ServicePort) -> Places {
    let places = slices.places(service, port).iter();
    places.map(|(place, number)| (*place, view.classes.class(port.protocol, *number))).collect()
}

/// Every address that leads to one port of a service, but for those in the filter. Node ports stand under the
/// unspecified address, which no service has.
fn frontends(service: &Service, port: &ServicePort) -> impl Iterator<Item = (ServiceKey, Frontend)> {
    let Service { cluster_addresses, external_addresses, is_over_limit, .. } = service;
    let key = |address: Address, number| ServiceKey::new(address, port.protocol, number);
    let families = cluster_addresses.iter().map(|address| Address::from(*address).unspecified());
    let node_ports =
        families.filter_map(move |unspecified| Some((key(unspecified, port.node_port?), Frontend::External)));
    let listed = [(cluster_addresses, Frontend::Cluster), (external_addresses, Frontend::External)];
    let listed = listed.into_iter().filter(move |_| !is_over_limit);
    let all = listed.flat_map(|(addresses, frontend)| addresses.iter().map(move |at| (at, frontend)));
    all.filter(|(address, _)| !address.is_unspecified())
        .map(move |(address, frontend)| (key((*address).into(), port.number), frontend))
        .chain(node_ports)
}

impl<'a> PortNumbers<'a> {
    fn of(service: &'a Service) -> Self {
        let (mut own, mut of_nodes) = (HashMap::new(), HashMap::new());
        for port in &service.ports {
            let protocol = port.protocol as u16;
            own.entry((protocol, port.number)).or_insert(port);
            if let Some(number) = port.node_port {
                of_nodes.entry((protocol, number)).or_insert(port);
            }
        }
        Self { own, of_nodes }
    }
}

impl Backend {
    pub(super) const fn is_node(&self) -> bool {
        match self {
            Self::Node { .. } => true,
            Self::Local { .. } | Self::Elsewhere { .. } | Self::Untranslated | Self::Unlisted => false,
        }
    }

    /// The same at another port.
    const fn at(self, class: usize) -> Self {
        match self {
            Self::Node { identity, class: _ } => Self::Node { identity, class },
            Self::Local { identity, class: _, egress } => Self::Local { identity, class, egress },
            Self::Elsewhere { identity, class: _ } => Self::Elsewhere { identity, class },
            Self::Untranslated | Self::Unlisted => self,
        }
    }
}

/// No more than are distinguished. The node itself stays: what it must not get is stopped before.
pub(super) fn bounded(mut backends: BTreeSet<Backend>) -> BTreeSet<Backend> {
    if backends.iter().filter(|backend| !backend.is_node()).count() > MAX_BACKENDS {
        backends.retain(Backend::is_node);
        backends.insert(Backend::Unlisted);
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_beyond_the_bound_are_one_and_those_of_the_node_stay() {
        let node = [1, 2].map(|class| Backend::Node { identity: 0, class });
        let with = |others: usize| -> BTreeSet<Backend> {
            let others = (0..others).map(|identity| Backend::Elsewhere { identity, class: 1 });
            others.chain(node).collect()
        };
        assert_eq!(bounded(with(MAX_BACKENDS)), with(MAX_BACKENDS));
        let expected: BTreeSet<Backend> = node.into_iter().chain([Backend::Unlisted]).collect();
        assert_eq!(bounded(with(MAX_BACKENDS + 1)), expected);
        // One more claim changes nothing.
        let more = expected.iter().copied().chain(with(MAX_BACKENDS));
        assert_eq!(bounded(more.collect()), expected);
    }
}
