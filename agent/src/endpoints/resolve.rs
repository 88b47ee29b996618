//! From evidence to endpoints: a pure function.
//!
//! In: the network, the CNI results, the cluster, what was resolved before, and the time. Out: [`Endpoints`].
//! Three questions, in this order: which pod is behind each veth (`owners`), which of the others lead out of
//! the node (`uplink`), and what holds for those that no one knows (`history`). What a pod says of itself,
//! the addresses in its namespace, can only choose among what the cluster and the CNI plug-ins say. Wherever
//! they disagree the answer is "not known", never a guess.

mod history;
mod owners;
#[cfg(test)]
mod tests;
mod uplink;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use podgate_core::model::{Cluster, LabelExpression, ObjectName, Pod, Selector};
use podgate_datapath::network::{Link, Network, VethPeer};

pub use self::history::{History, LONGEST_HOLD};
use self::owners::{InterfaceOwner, PodByInterface};
use super::{Endpoints, Hold, InterfaceState, PodInterface, cni::CniResults};

/// The dummy links on which proxies that use IPVS put every service address: kube-proxy
/// (`DefaultDummyDevice`) and kube-router (`KubeDummyIf`). What is sent to these does not end at the node, so
/// they are not the node's.
const IPVS_LINKS: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// What there is to go by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub network: &'a Network,
    pub cni: &'a CniResults,
    pub cluster: &'a Cluster,
    /// The name of this node.
    pub node: &'a str,
    /// Of the cluster's pods, those of this node.
    pub local: &'a BTreeMap<ObjectName, Arc<Pod>>,
}

/// `isolated`: whether some policy isolates a pod in some direction. `previous`: what the last call gave.
pub fn resolve(
    evidence: &Evidence<'_>,
    isolated: &dyn Fn(&Pod) -> bool,
    previous: &Endpoints,
    now: Instant,
) -> Endpoints {
    let candidates: Vec<Candidate<'_>> = candidates(evidence.network).collect();
    let owners = owners::find(evidence, &candidates, previous);
    let history = previous.history.with(evidence, &candidates, now);
    let uplinks = uplink::find(evidence, &candidates, &owners, previous, &history);
    let known = uncontested(known(evidence, &candidates, &owners, previous), &candidates, previous);
    let waiting: Vec<&Pod> =
        evidence.local_pods().filter(|pod| !owners.is_placed(&pod.name) && isolated(pod)).collect();

    let (mut veths, mut holds) = (BTreeMap::new(), BTreeMap::new());
    for candidate in candidates.iter().filter(|candidate| !uplinks.contains(&candidate.ifindex)) {
        let owner = owners.of(candidate);
        let state = if let Some(known) = known.get(&candidate.ifindex) {
            InterfaceState::Identified {
                pod: known.pod.clone(),
                addresses: known.addresses.clone(),
                gone: known.gone,
            }
        } else {
            let could_be = |pod: &&ObjectName| evidence.could_be_isolated(pod, isolated);
            // Those that something speaks for; they hold the veth until it is decided.
            let claimed: BTreeSet<&ObjectName> = match &owner {
                InterfaceOwner::Pod(pod) => Some(*pod).into_iter().filter(could_be).collect(),
                InterfaceOwner::Undecided(pods) => pods.iter().copied().filter(could_be).collect(),
                InterfaceOwner::FurtherNetwork | InterfaceOwner::Unclaimed => BTreeSet::new(),
            };
            // Those that have no veth yet, while it can be theirs.
            let waiting: Vec<(&ObjectName, Instant)> = match owner {
                InterfaceOwner::Undecided(_) | InterfaceOwner::Unclaimed => {
                    let until = |pod: &Pod| history.hold(candidate, &pod.name, now);
                    waiting.iter().filter_map(|pod| Some((&pod.name, until(pod)?))).collect()
                }
                InterfaceOwner::Pod(_) | InterfaceOwner::FurtherNetwork => Vec::new(),
            };
            let until = waiting.iter().map(|(_, until)| *until).max().filter(|_| claimed.is_empty());
            let pods: BTreeSet<ObjectName> =
                claimed.into_iter().chain(waiting.into_iter().map(|(pod, _)| pod)).cloned().collect();
            if pods.is_empty() {
                InterfaceState::Unmanaged
            } else {
                let same = candidate.before(previous).and_then(|_| previous.holds.get(&candidate.ifindex));
                let since = same.map_or(now, |hold| hold.since);
                holds.insert(candidate.ifindex, Hold { since, until, pods });
                InterfaceState::Pending
            }
        };
        let last = match owner {
            InterfaceOwner::Pod(pod) => Some(pod),
            InterfaceOwner::Undecided(_) | InterfaceOwner::FurtherNetwork | InterfaceOwner::Unclaimed => {
                candidate.last(previous)
            }
        };
        let link_address = match owner {
            InterfaceOwner::Pod(pod) => owners::given_link_address(evidence.cni, candidate, pod),
            InterfaceOwner::Undecided(_) | InterfaceOwner::FurtherNetwork | InterfaceOwner::Unclaimed => None,
        };
        veths.insert(candidate.ifindex, PodInterface { link_address, ..candidate.veth(state, last) });
    }
    Endpoints { veths, holds, uplinks, own_addresses: own_addresses(evidence.network), history }
}

/// A veth with its far end in another namespace.
struct Candidate<'a> {
    ifindex: u32,
    link: &'a Link,
    peer: &'a VethPeer,
}

/// A veth whose pod and addresses are known.
struct KnownPod<'a> {
    pod: &'a ObjectName,
    addresses: BTreeSet<IpAddr>,
    gone: bool,
}

impl<'a> Evidence<'a> {
    /// The pods that have, or will have, a veth on this node.
    fn local_pods(&self) -> impl Iterator<Item = &'a Pod> {
        self.local.values().map(Arc::as_ref)
    }

    /// The pod that a CNI result or an earlier look speaks of. One that was given to another node meanwhile
    /// is another pod with the same name. One without a node is taken at its word: manifests may leave it
    /// out.
    fn pod(&self, name: &ObjectName) -> Option<&'a Pod> {
        let pod = self.cluster.pods.get(name).filter(|pod| !pod.host_network)?;
        pod.node.as_deref().is_none_or(|node| node == self.node).then_some(pod)
    }

    /// Of a pod that the cluster does not know (yet), the labels are not known: any policy for its namespace
    /// may be meant.
    fn could_be_isolated(&self, name: &ObjectName, isolated: &dyn Fn(&Pod) -> bool) -> bool {
        self.pod(name).map_or_else(
            || {
                let mut policies = self.cluster.policies.values();
                let mut cluster_policies = self.cluster.cluster_policies.values();
                policies.any(|policy| {
                    policy.name.namespace == name.namespace && policy.subject != Selector::Nothing
                }) || cluster_policies.any(|policy| {
                    let namespace = self.cluster.namespace_labels(&name.namespace);
                    policy.subject.namespaces.matches(&namespace)
                        && policy.subject.pods != Selector::Nothing
                        && !(policy.ingress.is_empty() && policy.egress.is_empty())
                }) || self.cluster.calico.policies().any(|policy| {
                    let is_of_namespace =
                        policy.name.namespace.as_ref().is_none_or(|of| *of == name.namespace);
                    is_of_namespace && policy.subject != LabelExpression::NOTHING
                })
            },
            isolated,
        )
    }
}

impl<'a> Candidate<'a> {
    fn carries(&self, address: &IpAddr) -> bool {
        self.peer.addresses.contains(address)
    }

    /// This very device as it was resolved before.
    fn before<'p>(&self, previous: &'p Endpoints) -> Option<&'p PodInterface> {
        let same =
            |veth: &&PodInterface| veth.name == self.link.name && veth.generation == self.link.generation;
        previous.veths.get(&self.ifindex).filter(same)
    }

    /// The pod that it was found to be last.
    fn last<'p>(&self, previous: &'p Endpoints) -> Option<&'p ObjectName> {
        self.before(previous)?.last.as_ref()
    }

    /// What that pod might send from, if it was known.
    fn last_addresses<'p>(&self, previous: &'p Endpoints) -> Option<&'p BTreeSet<IpAddr>> {
        match &self.before(previous)?.state {
            InterfaceState::Identified { addresses, .. } => Some(addresses),
            InterfaceState::Pending | InterfaceState::Unmanaged => None,
        }
    }

    fn veth(&self, state: InterfaceState, last: Option<&ObjectName>) -> PodInterface {
        let Link { name, generation, master, .. } = self.link;
        PodInterface {
            ifindex: self.ifindex,
            generation: *generation,
            name: name.clone(),
            master: *master,
            link_address: None,
            state,
            last: last.cloned(),
        }
    }
}

fn candidates(network: &Network) -> impl Iterator<Item = Candidate<'_>> {
    network.links.iter().filter_map(|(ifindex, link)| {
        let peer = link.peer.as_ref()?;
        Some(Candidate { ifindex: *ifindex, link, peer })
    })
}

fn own_addresses(network: &Network) -> BTreeSet<IpAddr> {
    let links = network.links.values().filter(|link| !IPVS_LINKS.contains(&&*link.name));
    links.flat_map(|link| &link.addresses).map(ipnet::IpNet::addr).collect()
}

/// The veths whose owner is found, with what the owner may send from.
fn known<'a>(
    evidence: &Evidence<'a>,
    candidates: &[Candidate<'_>],
    owners: &PodByInterface<'a>,
    previous: &'a Endpoints,
) -> BTreeMap<u32, KnownPod<'a>> {
    let known = candidates.iter().filter_map(|candidate| {
        let InterfaceOwner::Pod(pod) = owners.of(candidate) else { return None };
        let before = candidate.last_addresses(previous).filter(|_| candidate.last(previous) == Some(pod));
        let (addresses, gone) = match evidence.pod(pod) {
            Some(object) => (addresses(evidence, candidate, object, before), false),
            // Without its object no one can tell which policies select it: only one that was evaluated before
            // stays so.
            None => (before?.clone(), true),
        };
        Some((candidate.ifindex, KnownPod { pod, addresses, gone }))
    });
    known.collect()
}

/// What a pod may send from: the addresses that the CNI plug-in gave it on this veth, and of those in its
/// status the ones that it carries as well. The status alone may be old (a new sandbox has a new address
/// before the API server knows), so it counts in full only where no plug-in left a result. What the peer
/// carries beyond that is the pod's own doing.
fn addresses(
    evidence: &Evidence<'_>,
    candidate: &Candidate<'_>,
    pod: &Pod,
    before: Option<&BTreeSet<IpAddr>>,
) -> BTreeSet<IpAddr> {
    let given = owners::given_addresses(evidence.cni, candidate, &pod.name);
    let status = pod.addresses.iter().copied();
    if !given.is_empty() {
        given.into_iter().chain(status.filter(|address| candidate.carries(address))).collect()
    } else if !pod.addresses.is_empty() {
        status.collect()
    } else {
        before.cloned().unwrap_or_default()
    }
}

/// An address has one owner. Of several, the one whose object exists, whose peer carries it, who had it
/// before, in this order; if that leaves several still, none has it. A veth without addresses is not known.
fn uncontested<'a>(
    mut known: BTreeMap<u32, KnownPod<'a>>,
    candidates: &[Candidate<'_>],
    previous: &Endpoints,
) -> BTreeMap<u32, KnownPod<'a>> {
    let mut holders: BTreeMap<IpAddr, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        for address in known.get(&candidate.ifindex).iter().flat_map(|known| &known.addresses) {
            holders.entry(*address).or_default().push(candidate);
        }
    }
    for (address, mut holders) in holders.into_iter().filter(|(_, holders)| holders.len() > 1) {
        let everyone: Vec<u32> = holders.iter().map(|holder| holder.ifindex).collect();
        prefer(&mut holders, |holder| known.get(&holder.ifindex).is_some_and(|known| !known.gone));
        prefer(&mut holders, |holder| holder.carries(&address));
        prefer(&mut holders, |holder| {
            holder.last_addresses(previous).is_some_and(|addresses| addresses.contains(&address))
        });
        let owner = if let [owner] = *holders { Some(owner.ifindex) } else { None };
        for ifindex in everyone.into_iter().filter(|ifindex| Some(*ifindex) != owner) {
            if let Some(known) = known.get_mut(&ifindex) {
                known.addresses.remove(&address);
            }
        }
    }
    known.retain(|_, known| !known.addresses.is_empty());
    known
}

/// Keeps those for which it holds, if there are any.
fn prefer<T>(all: &mut Vec<T>, holds: impl Fn(&T) -> bool) {
    if all.iter().any(&holds) {
        all.retain(holds);
    }
}
