//! Services: what stands behind an address and port that the node translates after a packet has left its pod.
//!
//! In: services and their endpoints. Out: for each address and port all destinations that a packet to it may
//! end at, and the verdict of each egress rule set on them: on all, on some, on none.
//!
//! Whoever may create a Service chooses its external addresses, and nothing says when the node begins to
//! translate them, if it ever does: the address itself is one of the destinations. So it is where a service
//! is not kube-proxy's, and where it has no endpoints. Several services may claim one address: then all that
//! is behind any of them counts. But a cluster address is its own service's. Two addresses whose destinations
//! no rule can distinguish are one to the kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{Address, BITS_PER_ROW, ClassId, Protocol, ServiceKey, ServiceVerdict};

use super::{Classes, Identities, Rows, Subject};
use crate::model::{Cluster, Frontend, Name, ObjectName, Pod, Proxy, Service, ServicePort, SlicesByService};

/// Where tables will be used: a service looks different on each node.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The node that the tables are for.
    pub node: &'a Name,
    /// What the node's own stack answers to.
    pub own_addresses: &'a BTreeSet<IpAddr>,
}

/// The services of the cluster as clients of one node see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Distinct sets of backends. Index 0: none at all.
    pub backends: OrdMap<usize, Arc<BTreeSet<Backend>>>,
    /// Which of them each address and port leads to; node ports stand under the unspecified address.
    pub frontends: OrdMap<ServiceKey, usize>,
    /// By (rule set, set of backends). What is missing is denied.
    pub verdicts: OrdMap<(usize, usize), ServiceVerdict>,
    /// A packet to a service may leave the node for a backend that its sender must not reach: to one with
    /// allowed and forbidden backends, or by a protocol without handshake on an entry of before. Of such a
    /// connection the node may choose another backend while `from_pod` still knows it; a new TCP connection
    /// is always evaluated. Or to one that is led there by another proxy, see [`has_foreign_node_port`].
    pub leave_node: bool,
}

impl Default for Services {
    fn default() -> Self {
        let (frontends, verdicts) = (OrdMap::new(), OrdMap::new());
        Self { backends: OrdMap::unit(0, Arc::default()), frontends, verdicts, leave_node: false }
    }
}

/// A backend as far as rules can tell, by indexes into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// The node itself, which is open to its pods but for what a ClusterNetworkPolicy denies.
    Node {
        /// Of the node's address.
        identity: usize,
        /// Of the backend's port.
        class: usize,
    },
    /// A pod of this node; `egress` are its own rule sets. To itself a pod may always send.
    Local {
        /// Of the pod's address.
        identity: usize,
        /// Of the backend's port.
        class: usize,
        /// Enforced, and in audit mode.
        egress: [usize; 2],
    },
    /// Another node's, or outside the cluster.
    Elsewhere {
        /// Of the backend's address.
        identity: usize,
        /// Of the backend's port.
        class: usize,
    },
    /// The packet is not translated and the node itself has the address: whether a ClusterNetworkPolicy
    /// denies that is asked with the packet.
    Untranslated,
}

/// What one service has at an address and port.
#[derive(Clone, Debug)]
pub(super) struct AddressClaim {
    pub(super) backends: BTreeSet<Backend>,
    /// The address is a cluster address of the service.
    pub(super) is_own: bool,
}

/// What backends look like from a node.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) site: Site<'a>,
    /// The rule sets of the egress of this node's pods.
    pub(super) local: &'a HashMap<IpAddr, [usize; 2]>,
    pub(super) identities: &'a Identities,
    pub(super) classes: &'a Classes,
    pub(super) rows: &'a Rows,
}

/// By address, the rule sets of the egress of these pods.
pub(super) fn local<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    subjects: &OrdMap<ObjectName, Subject>,
) -> HashMap<IpAddr, [usize; 2]> {
    let local = pods.into_iter().flat_map(|pod| {
        let subject = subjects.get(&pod.name).copied().unwrap_or_default();
        pod.addresses.iter().map(move |address| (*address, subject.of_egress()))
    });
    local.collect()
}

/// `isolating_sets`: the rule sets that evaluate, or evaluated until now, the egress of some pod.
pub(super) fn compile(cluster: &Cluster, view: &View<'_>, isolating_sets: &BTreeSet<usize>) -> Services {
    // Without an isolated sender no one asks.
    if isolating_sets.is_empty() {
        return Services::default();
    }
    let mut services = Services::default();
    let mut known: HashMap<BTreeSet<Backend>, usize> = HashMap::from([(BTreeSet::new(), 0)]);
    let slices = cluster.slices_by_service();
    let mut claims: BTreeMap<ServiceKey, Vec<AddressClaim>> = BTreeMap::new();
    services.leave_node = cluster.services.values().any(|service| has_foreign_node_port(service));
    for service in cluster.services.values() {
        for (key, claim) in view.claims(service, &slices, |_| true) {
            claims.entry(key).or_default().push(claim);
        }
    }
    for (key, at_key) in &claims {
        let node_port = node_port(key, view.site.own_addresses).and_then(|key| claims.get(&key));
        let backends = together(at_key.iter().chain(node_port.into_iter().flatten()).cloned().collect());
        let place = *known.entry(backends).or_insert_with_key(|backends| {
            let place = services.backends.len();
            services.backends.insert(place, Arc::new(backends.clone()));
            place
        });
        services.frontends.insert(*key, place);
    }
    let without_handshake: BTreeSet<usize> =
        services.frontends.iter().filter(|(key, _)| !has_handshake(key)).map(|(_, place)| *place).collect();
    for &rule_set in isolating_sets {
        for (place, backends) in &services.backends {
            let verdict_of_set = backend_set_verdict(rule_set, backends, view.rows);
            services.leave_node |= verdict_of_set.may_leave(without_handshake.contains(place));
            if verdict_of_set.verdict != ServiceVerdict::Denied {
                services.verdicts.insert((rule_set, *place), verdict_of_set.verdict);
            }
        }
    }
    services
}

/// Whether another proxy than kube-proxy may lead packets to the node's own address elsewhere: nothing else
/// is known of such a port, so it is the own node to `from_pod`.
pub(super) fn has_foreign_node_port(service: &Service) -> bool {
    service.proxy == Proxy::Other && service.ports.iter().any(|port| port.node_port.is_some())
}

/// Where the node ports stand that lead on from an address of the node's own, also if a service claims the
/// very address: else whoever may create a service could hide the backends of a node port.
pub(super) fn node_port(key: &ServiceKey, own_addresses: &BTreeSet<IpAddr>) -> Option<ServiceKey> {
    let is_own = own_addresses.contains(&key.address.into());
    is_own.then_some(ServiceKey { address: key.address.unspecified(), ..*key })
}

/// Whether what goes there begins with a packet that is always evaluated.
pub(super) fn has_handshake(key: &ServiceKey) -> bool {
    key.protocol == Protocol::Tcp as u16
}

/// All that is behind an address and port that these claim.
///
/// Whoever claims the cluster address of another service adds to what a packet may end at, but must not close
/// it for everybody: that some rule set denies an address of the node is such a reason to close it, see
/// [`backend_set_verdict`].
pub(super) fn together(mut claims: Vec<AddressClaim>) -> BTreeSet<Backend> {
    if let [alone] = &mut *claims {
        return std::mem::take(&mut alone.backends);
    }
    let is_owned = claims.iter().any(|claim| claim.is_own);
    let counts =
        |is_own: bool, backend: &Backend| !is_owned || is_own || !matches!(backend, Backend::Node { .. });
    let all = claims.into_iter().flat_map(|AddressClaim { backends, is_own }| {
        backends.into_iter().filter(move |backend| counts(is_own, backend))
    });
    all.collect()
}

/// Every address and port that leads to one port of a service. Node ports stand under the unspecified
/// address, which no service has.
fn frontends<'a>(
    service: &'a Service,
    port: &'a ServicePort,
) -> impl Iterator<Item = (ServiceKey, Frontend)> + 'a {
    let key = |address: Address, number| ServiceKey::new(address, port.protocol, number);
    let at = move |addresses: &'a [IpAddr], frontend| {
        let addresses = addresses.iter().filter(|address| !address.is_unspecified());
        addresses.map(move |address| (key((*address).into(), port.number), frontend))
    };
    let families = service.cluster_addresses.iter().map(|address| Address::from(*address).unspecified());
    let node_ports =
        families.filter_map(move |unspecified| Some((key(unspecified, port.node_port?), Frontend::External)));
    at(&service.cluster_addresses, Frontend::Cluster)
        .chain(at(&service.external_addresses, Frontend::External))
        .chain(node_ports)
}

/// What a rule set says of a set of backends.
pub(super) struct BackendSetVerdict {
    pub(super) verdict: ServiceVerdict,
    /// A backend that is denied is on another node.
    denied_elsewhere: bool,
}

impl BackendSetVerdict {
    /// See [`Services::leave_node`].
    pub(super) fn may_leave(&self, without_handshake: bool) -> bool {
        self.denied_elsewhere && (self.verdict == ServiceVerdict::Deferred || without_handshake)
    }
}

pub(super) fn backend_set_verdict(
    rule_set: usize,
    backends: &BTreeSet<Backend>,
    rows: &Rows,
) -> BackendSetVerdict {
    let place = |class: usize| {
        let (block, bit) = (class / usize::from(BITS_PER_ROW), class % usize::from(BITS_PER_ROW));
        (block, ClassId(u16::try_from(bit).expect("a remainder below 256")))
    };
    let allows = |identity, class| {
        let (block, class) = place(class);
        rows.row(rule_set, identity, block).is_some_and(|row| row.has(class))
    };
    let denies_own_node = |identity, class| {
        let (block, class) = place(class);
        rows.own_node_row(rule_set, identity, block).is_some_and(|row| row.has(class))
    };
    let (mut some, mut denied, mut denied_elsewhere, mut denied_here) = (false, false, false, false);
    for backend in backends {
        match *backend {
            Backend::Untranslated => some = true,
            Backend::Node { identity, class } if denies_own_node(identity, class) => denied_here = true,
            Backend::Node { .. } => some = true,
            Backend::Local { identity, class, egress } => {
                let allowed = allows(identity, class);
                denied |= !allowed;
                some |= allowed || egress.contains(&rule_set);
            }
            Backend::Elsewhere { identity, class } => {
                let allowed = allows(identity, class);
                (some, denied_elsewhere) = (some || allowed, denied_elsewhere || !allowed);
            }
        }
    }
    // No hook sees what is delivered to the node after the translation: what must not be is stopped before.
    let verdict = match (some && !denied_here, denied || denied_elsewhere) {
        (true, false) => ServiceVerdict::Allowed,
        (true, true) => ServiceVerdict::Deferred,
        (false, _) => ServiceVerdict::Denied,
    };
    BackendSetVerdict { verdict, denied_elsewhere }
}

impl View<'_> {
    /// Every address and port of a service that is wanted, with what is behind it.
    pub(super) fn claims(
        &self,
        service: &Service,
        slices: &SlicesByService<'_>,
        is_wanted: impl Fn(&ServiceKey) -> bool,
    ) -> BTreeMap<ServiceKey, AddressClaim> {
        let mut found = BTreeMap::new();
        for port in &service.ports {
            for (key, frontend) in frontends(service, port).filter(|(key, _)| is_wanted(key)) {
                // An address may be the service's own one and an external one.
                if !found.contains_key(&key)
                    && let Some(claim) = self.claim(service, port, key, frontend, slices)
                {
                    found.insert(key, claim);
                }
            }
        }
        found
    }

    /// `None`: a node port that is perhaps no more than a port of the node's.
    fn claim(
        &self,
        service: &Service,
        port: &ServicePort,
        key: ServiceKey,
        frontend: Frontend,
        slices: &SlicesByService<'_>,
    ) -> Option<AddressClaim> {
        let v6 = !key.address.is_v4();
        let chosen = slices.backends(service, port, frontend, v6, self.site.node);
        // One that is not ready yet may be so by the time that the packet is translated.
        let is_certain = service.proxy == Proxy::KubeProxy && !chosen.is_empty();
        let is_node_port = key.address.is_unspecified();
        if is_node_port && !is_certain {
            return None;
        }
        let endpoints = if is_certain { chosen } else { slices.all(service, port, v6) };
        let mut backends: BTreeSet<Backend> =
            endpoints.into_iter().map(|at| self.backend(at, port.protocol)).collect();
        let address: IpAddr = key.address.into();
        let is_nodes = self.site.own_addresses.contains(&address);
        // A cluster address that the node itself has (NodeLocal DNSCache) may be exempt from translation.
        let is_translated = is_certain && (is_node_port || frontend == Frontend::Cluster && !is_nodes);
        if !is_translated {
            let untranslated = match is_nodes {
                true => Backend::Untranslated,
                false => self.backend((address, key.port), port.protocol),
            };
            backends.insert(untranslated);
        }
        Some(AddressClaim { backends, is_own: frontend == Frontend::Cluster })
    }

    /// What an address is to this node.
    fn backend(&self, (address, port): (IpAddr, u16), protocol: Protocol) -> Backend {
        let identity = self.identities.identity(address);
        let class = self.classes.class(protocol, port);
        if self.site.own_addresses.contains(&address) {
            return Backend::Node { identity, class };
        }
        match self.local.get(&address) {
            Some(&egress) => Backend::Local { identity, class, egress },
            None => Backend::Elsewhere { identity, class },
        }
    }
}
