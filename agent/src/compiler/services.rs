//! Services: what stands behind an address and port that the node translates after a packet has left its pod.
//!
//! Two services whose backends no rule can tell apart are one to the kernel. The verdict of an egress rule set on a
//! service is that on its backends: on all of them, on some, on none.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{Address, BITS_PER_ROW, ClassId, Protocol, ServiceKey, ServiceVerdict};

use super::{Classes, Identities, Rows, Subject};
use crate::model::{Cluster, Front, Name, ObjectName, Pod, Service, ServicePort, SlicesByService};

/// Where tables will be used: a service looks different on each node.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub node: &'a Name,
    /// What the node's own stack answers to.
    pub own_addresses: &'a BTreeSet<IpAddr>,
}

/// The services of the cluster as clients of one node see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Distinct sets of backends. Index 0: none at all.
    pub behind: OrdMap<usize, Arc<BTreeSet<Backend>>>,
    /// Which of them each address and port leads to; node ports stand under the unspecified address.
    pub fronts: OrdMap<ServiceKey, usize>,
    /// By (rule set, set of backends). What is missing is denied.
    pub verdicts: OrdMap<(usize, usize), ServiceVerdict>,
    /// A packet to a service may leave the node for a backend that its sender must not reach: to one with allowed and
    /// forbidden backends, or by a protocol without handshake on an entry of before. Of such a connection the node may
    /// choose another backend while `from_pod` still knows it; a new TCP connection is always judged.
    pub leave_node: bool,
}

impl Default for Services {
    fn default() -> Self {
        let (fronts, verdicts) = (OrdMap::new(), OrdMap::new());
        Self { behind: OrdMap::unit(0, Arc::default()), fronts, verdicts, leave_node: false }
    }
}

/// A backend as far as rules can tell, by indexes into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// The node itself, which is open to its pods but for what a ClusterNetworkPolicy denies.
    Node {
        identity: usize,
        class: usize,
    },
    /// A pod of this node; `egress` are its own rule sets. To itself a pod may always send.
    Local {
        identity: usize,
        class: usize,
        egress: [usize; 2],
    },
    Elsewhere {
        identity: usize,
        class: usize,
    },
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

/// `judging`: the rule sets that judge, or judged until now, the egress of some pod.
pub(super) fn compile(cluster: &Cluster, view: &View<'_>, judging: &BTreeSet<usize>) -> Services {
    // Without an isolated sender nobody asks.
    if judging.is_empty() {
        return Services::default();
    }
    let mut services = Services::default();
    let mut known: HashMap<BTreeSet<Backend>, usize> = HashMap::from([(BTreeSet::new(), 0)]);
    let slices = cluster.slices_by_service();
    // Of several services that claim one address and port, the last one has it.
    let fronts = cluster.services.values().flat_map(|service| view.fronts(service, &slices));
    for (key, behind) in fronts.collect::<BTreeMap<_, _>>() {
        let place = *known.entry(behind).or_insert_with_key(|behind| {
            let place = services.behind.len();
            services.behind.insert(place, Arc::new(behind.clone()));
            place
        });
        services.fronts.insert(key, place);
    }
    let without_handshake: BTreeSet<usize> =
        services.fronts.iter().filter(|(key, _)| !has_handshake(key)).map(|(_, place)| *place).collect();
    for &rule_set in judging {
        for (place, behind) in &services.behind {
            let judged = judge(rule_set, behind, view.rows);
            services.leave_node |= judged.may_leave(without_handshake.contains(place));
            if judged.verdict != ServiceVerdict::Denied {
                services.verdicts.insert((rule_set, *place), judged.verdict);
            }
        }
    }
    services
}

/// Whether what goes there begins with a packet that is always judged.
pub(super) fn has_handshake(key: &ServiceKey) -> bool {
    key.protocol == Protocol::Tcp as u16
}

/// Every address and port that leads to one port of a service.
fn fronts<'a>(service: &'a Service, port: &'a ServicePort) -> impl Iterator<Item = (ServiceKey, Front)> + 'a {
    let key = |address: Address, number| ServiceKey::new(address, port.protocol, number);
    let at = move |addresses: &'a [IpAddr], front| {
        addresses.iter().map(move |address| (key((*address).into(), port.number), front))
    };
    let families = service.cluster_addresses.iter().map(|address| Address::from(*address).unspecified());
    let node_ports =
        families.filter_map(move |unspecified| Some((key(unspecified, port.node_port?), Front::External)));
    at(&service.cluster_addresses, Front::Cluster)
        .chain(at(&service.external_addresses, Front::External))
        .chain(node_ports)
}

/// What a rule set says of a set of backends.
pub(super) struct Judged {
    pub(super) verdict: ServiceVerdict,
    /// A backend that is denied is on another node.
    denied_elsewhere: bool,
}

impl Judged {
    /// See [`Services::leave_node`].
    pub(super) fn may_leave(&self, without_handshake: bool) -> bool {
        self.denied_elsewhere && (self.verdict == ServiceVerdict::Deferred || without_handshake)
    }
}

pub(super) fn judge(rule_set: usize, behind: &BTreeSet<Backend>, rows: &Rows) -> Judged {
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
    for backend in behind {
        match *backend {
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
    Judged { verdict, denied_elsewhere }
}

impl View<'_> {
    /// Every address and port of a service, with what is behind it.
    pub(super) fn fronts(
        &self,
        service: &Service,
        slices: &SlicesByService<'_>,
    ) -> BTreeMap<ServiceKey, BTreeSet<Backend>> {
        let mut found = BTreeMap::new();
        for port in &service.ports {
            for (key, front) in fronts(service, port) {
                let v6 = !key.address.is_v4();
                let behind = slices.backends(service, port, front, v6, self.site.node);
                let behind = behind.into_iter().map(|at| self.backend(at, port.protocol)).collect();
                found.insert(key, behind);
            }
        }
        found
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
