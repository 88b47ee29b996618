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
//!
//! The addresses of services that are over the limit of their namespace (`model/limits/services`) stand in a
//! filter, and all these services under one key ([`ServiceKey::FILTERED`]), which is always deferred: the
//! verdict is then found where the packet ends, which is the same verdict. So is what others claim at such an
//! address. Only their node ports are listed.

mod view;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{Endpoint, Protocol, ServiceKey, ServiceVerdict};

use self::view::bounded;
pub(super) use self::view::{AddressClaim, ServiceView, View};
use super::{Rows, Subject};
use crate::{
    address_filter::AddressFilter,
    model::{Cluster, EndpointSlice, Name, ObjectName, Pod, Proxy, Service},
};

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
    /// The addresses of the services under [`ServiceKey::FILTERED`].
    pub filter: AddressFilter,
}

impl Default for Services {
    fn default() -> Self {
        let (frontends, verdicts) = (OrdMap::new(), OrdMap::new());
        let backends = OrdMap::unit(0, Arc::default());
        let filter = AddressFilter::default();
        Self { backends, frontends, verdicts, leave_node: false, filter }
    }
}

impl Services {
    /// [`Endpoint::flags`] of every endpoint that is evaluated by these tables.
    pub const fn endpoint_flags(&self) -> u32 {
        if self.filter.is_empty() { 0 } else { Endpoint::HAS_FILTER }
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
    /// Any number of others, which are not distinguished.
    Unlisted,
}

/// By address, the rule sets of the egress of these pods.
pub(super) fn local<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    subjects: &OrdMap<ObjectName, Subject>,
) -> HashMap<IpAddr, [usize; 2]> {
    let local = pods.into_iter().filter(|pod| pod.host.is_none()).flat_map(|pod| {
        let subject = subjects.get(&pod.name).copied().unwrap_or_default();
        pod.addresses.iter().map(move |address| (*address, subject.of_egress()))
    });
    local.collect()
}

/// The rule sets that look up the backends of services: those of the egress of these pods, current and
/// previous ones. The node's own traffic is evaluated where it leaves the node, after its translation.
pub(super) fn isolating_sets<'a>(
    subjects: impl IntoIterator<Item = &'a Pod>,
    compiled: &OrdMap<ObjectName, Subject>,
    retained: impl IntoIterator<Item = usize>,
) -> BTreeSet<usize> {
    let (mut of_pods, mut of_hosts) = (BTreeSet::new(), BTreeSet::new());
    for pod in subjects {
        let subject = compiled.get(&pod.name).copied().unwrap_or_default();
        if pod.host.is_some() {
            of_hosts.extend(subject.rule_sets());
        } else {
            of_pods.extend(subject.of_egress());
        }
    }
    of_pods.extend(retained.into_iter().filter(|rule_set| !of_hosts.contains(rule_set)));
    of_pods.remove(&Subject::NOT_ISOLATED.egress);
    of_pods
}

/// `isolating_sets`: the rule sets that evaluate, or evaluated until now, the egress of some pod.
pub(super) fn compile(cluster: &Cluster, view: &View<'_>, isolating_sets: &BTreeSet<usize>) -> Services {
    // Without an isolated sender no one asks.
    if isolating_sets.is_empty() {
        return Services::default();
    }
    let mut services = Services::default();
    let mut known: HashMap<Arc<BTreeSet<Backend>>, usize> = HashMap::from([(Arc::default(), 0)]);
    let mut slices: HashMap<&ObjectName, Vec<&EndpointSlice>> = HashMap::new();
    cluster.slices.values().for_each(|slice| slices.entry(&slice.service).or_default().push(slice));
    let mut claims: BTreeMap<ServiceKey, Vec<AddressClaim>> = BTreeMap::new();
    services.leave_node = cluster.services.values().any(|service| has_foreign_node_port(service));
    for service in cluster.services.values() {
        let of_service = slices.remove(&service.name).unwrap_or_default();
        for (key, claim) in view.service(service, of_service).claims() {
            claims.entry(key).or_default().push(claim);
        }
    }
    services.filter = filter(cluster.services.values().map(|service| &**service));
    let filtered = claims.get(&ServiceKey::FILTERED).map(|claims| claim_of_filtered(together(claims)));
    for (key, at_key) in &claims {
        let own_addresses = view.site.own_addresses;
        let node_port = node_port(key, own_addresses).and_then(|key| claims.get(&key));
        let filtered = filtered.as_ref().filter(|_| is_filtered(&services.filter, key, own_addresses));
        let others = node_port.into_iter().flatten().chain(filtered);
        let claims: Vec<AddressClaim> = at_key.iter().chain(others).cloned().collect();
        let backends = together(&claims);
        let place = *known.entry(backends).or_insert_with_key(|backends| {
            let place = services.backends.len();
            services.backends.insert(place, backends.clone());
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
pub(super) fn together(claims: &[AddressClaim]) -> Arc<BTreeSet<Backend>> {
    if let [AddressClaim { backends, itself: None, .. }] = claims {
        return backends.clone();
    }
    let is_owned = claims.iter().any(|claim| claim.is_own);
    let counts = |is_own: bool, backend: &Backend| match backend {
        Backend::Node { .. } => !is_owned || is_own,
        Backend::Local { .. } | Backend::Elsewhere { .. } | Backend::Untranslated | Backend::Unlisted => true,
    };
    let mut all = BTreeSet::new();
    for AddressClaim { backends, itself, is_own } in claims {
        let counting = backends.iter().chain(itself).filter(|backend| counts(*is_own, backend));
        all.extend(counting.copied());
    }
    bounded(all).into()
}

/// The filter of the addresses of all services that are over the limit.
pub(super) fn filter<'a>(services: impl IntoIterator<Item = &'a Service>) -> AddressFilter {
    let over_limit = services.into_iter().filter(|service| service.is_over_limit);
    let addresses = over_limit.flat_map(|it| it.cluster_addresses.iter().chain(&it.external_addresses));
    AddressFilter::of(addresses.copied())
}

/// Whether the services in the filter may claim an address and port that is listed, too. Which ports they
/// have does not count: that takes a look at each of them for each of the ports of all others.
pub(super) fn is_filtered(
    filter: &AddressFilter,
    key: &ServiceKey,
    own_addresses: &BTreeSet<IpAddr>,
) -> bool {
    let may_have = |address| filter.may_have(address);
    if filter.is_empty() || key.is_filtered() {
        return false;
    }
    let address: IpAddr = key.address.into();
    match address.is_unspecified() {
        // A node port stands for the node's own addresses.
        true => own_addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4() && may_have(*own)),
        false => may_have(address),
    }
}

/// What is behind the filter, as one more claim at an address and port that is listed.
pub(super) const fn claim_of_filtered(backends: Arc<BTreeSet<Backend>>) -> AddressClaim {
    AddressClaim { backends, itself: None, is_own: false }
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
    let (mut some, mut denied, mut denied_elsewhere, mut denied_here) = (false, false, false, false);
    for backend in backends {
        match *backend {
            Backend::Untranslated => some = true,
            Backend::Unlisted => (some, denied_elsewhere) = (true, true),
            Backend::Node { identity, class } if rows.denies_own_node(rule_set, identity, class) => {
                denied_here = true;
            }
            Backend::Node { .. } => some = true,
            Backend::Local { identity, class, egress } => {
                let allowed = rows.allows(rule_set, identity, class);
                denied |= !allowed;
                some |= allowed || egress.contains(&rule_set);
            }
            Backend::Elsewhere { identity, class } => {
                let allowed = rows.allows(rule_set, identity, class);
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
