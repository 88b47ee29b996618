//! Which pod is behind which veth.
//!
//! Three witnesses, the best first. A CNI result that names the veth settles it. Else the addresses at the
//! far end count, compared with those that CNI results and pods' statuses tell. Else the veth keeps the pod
//! that it was known as: the pod behind a veth never changes, while a pod may change its addresses. Whoever
//! speaks for a veth may be wrong about which one it is (two pods claim one address, a pod takes another's),
//! so veths are settled by exclusion.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_core::model::{Name, ObjectName};

use super::{Candidate, Evidence};
use crate::endpoints::{
    Endpoints,
    cni::{CniResult, CniResults},
};

/// What is found out of each veth.
pub(super) struct PodByInterface<'a> {
    /// By ifindex.
    settled: BTreeMap<u32, &'a ObjectName>,
    placed: BTreeSet<&'a ObjectName>,
    /// By ifindex: the pods that something spoke for.
    claims: BTreeMap<u32, BTreeSet<&'a ObjectName>>,
    /// Veths that CNI results name for pods' further networks.
    further: BTreeSet<u32>,
}

/// Who is behind a veth.
pub(super) enum InterfaceOwner<'a, 'o> {
    Pod(&'a ObjectName),
    /// Something speaks for each of them, nothing decides.
    Undecided(&'o BTreeSet<&'a ObjectName>),
    /// A pod's further interface, which NetworkPolicy is not about.
    FurtherNetwork,
    Unclaimed,
}

impl<'a> PodByInterface<'a> {
    pub(super) fn of(&self, candidate: &Candidate<'_>) -> InterfaceOwner<'a, '_> {
        if let Some(pod) = self.settled.get(&candidate.ifindex) {
            return InterfaceOwner::Pod(pod);
        }
        match self.claims.get(&candidate.ifindex) {
            Some(pods) if !pods.is_empty() => InterfaceOwner::Undecided(pods),
            _ if self.further.contains(&candidate.ifindex) => InterfaceOwner::FurtherNetwork,
            _ => InterfaceOwner::Unclaimed,
        }
    }

    /// Whether a veth is known to be this pod's.
    pub(super) fn is_placed(&self, pod: &ObjectName) -> bool {
        self.placed.contains(pod)
    }
}

pub(super) fn find<'a>(
    evidence: &Evidence<'a>,
    candidates: &[Candidate<'_>],
    previous: &'a Endpoints,
) -> PodByInterface<'a> {
    let witnesses = EvidenceIndex::new(*evidence, candidates);
    let (mut claims, mut named, mut further) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for candidate in candidates {
        let pods = witnesses.claims(candidate, previous);
        if let Some(pod) = only(&pods).filter(|_| !witnesses.named(candidate).is_empty()) {
            named.insert(candidate.ifindex, pod);
        }
        if witnesses.names_further_network(candidate) {
            further.insert(candidate.ifindex);
        }
        claims.insert(candidate.ifindex, pods);
    }
    let settled = exclude(named, claims.clone(), |pod, duplicate_claims| {
        let mut duplicate_claims: Vec<_> =
            candidates.iter().filter(|it| duplicate_claims.contains(&it.ifindex)).collect();
        super::prefer(&mut duplicate_claims, |duplicate_claim| {
            witnesses.by_address(duplicate_claim).contains(pod)
        });
        super::prefer(&mut duplicate_claims, |duplicate_claim| duplicate_claim.last(previous) == Some(pod));
        if let [winner] = *duplicate_claims { Some(winner.ifindex) } else { None }
    });
    let placed = settled.values().copied().collect();
    PodByInterface { settled, placed, claims, further }
}

/// The addresses that CNI results give a pod on this veth.
pub(super) fn given_addresses(
    cni: &CniResults,
    candidate: &Candidate<'_>,
    pod: &ObjectName,
) -> BTreeSet<IpAddr> {
    results_for(cni, candidate, pod).iter().flat_map(|result| &result.addresses).copied().collect()
}

/// The link-layer address that the CNI plugin gave a pod on this veth; `None` also where its results
/// disagree.
pub(super) fn given_link_address(
    cni: &CniResults,
    candidate: &Candidate<'_>,
    pod: &ObjectName,
) -> Option<[u8; 6]> {
    let results = results_for(cni, candidate, pod);
    let mut given = results.iter().filter_map(|result| result.link_address);
    let first = given.next()?;
    given.all(|other| other == first).then_some(first)
}

/// The CNI results that speak of a pod behind this veth.
fn results_for<'a>(cni: &'a CniResults, candidate: &Candidate<'_>, pod: &ObjectName) -> Vec<&'a CniResult> {
    let of_pod = || cni.0.iter().filter(|result| result.primary && result.pod == *pod);
    let carried = |result: &&CniResult| result.addresses.iter().any(|address| candidate.carries(address));
    let mut results: Vec<_> =
        of_pod().filter(|result| result.host_interfaces.contains(&candidate.link.name)).collect();
    if results.is_empty() {
        results = of_pod().filter(carried).collect();
    }
    super::prefer(&mut results, carried);
    results
}

/// The evidence, by what it is looked up with.
struct EvidenceIndex<'a> {
    evidence: Evidence<'a>,
    /// CNI results by the interfaces of the node that they name.
    naming: BTreeMap<&'a Name, Vec<&'a CniResult>>,
    /// Pods by the addresses of CNI results for their first network that name no veth of this node.
    given: BTreeMap<IpAddr, Vec<&'a ObjectName>>,
    /// Pods of this node by the addresses of their status.
    reported: BTreeMap<IpAddr, Vec<&'a ObjectName>>,
}

impl<'a> EvidenceIndex<'a> {
    fn new(evidence: Evidence<'a>, candidates: &[Candidate<'_>]) -> Self {
        let veths: BTreeSet<&Name> = candidates.iter().map(|candidate| &candidate.link.name).collect();
        let mut new =
            Self { evidence, naming: BTreeMap::new(), given: BTreeMap::new(), reported: BTreeMap::new() };
        for result in &evidence.cni.0 {
            for name in &result.host_interfaces {
                new.naming.entry(name).or_default().push(result);
            }
            if result.primary && !result.host_interfaces.iter().any(|name| veths.contains(name)) {
                for address in &result.addresses {
                    new.given.entry(*address).or_default().push(&result.pod);
                }
            }
        }
        for pod in evidence.local_pods() {
            for address in &pod.addresses {
                new.reported.entry(*address).or_default().push(&pod.name);
            }
        }
        new
    }

    /// The pods that may be behind a veth.
    fn claims(&self, candidate: &Candidate<'_>, previous: &'a Endpoints) -> BTreeSet<&'a ObjectName> {
        let named = self.named(candidate);
        let reported = || carried(&self.reported, candidate);
        if named.iter().any(|pod| self.evidence.pod(pod).is_some()) {
            return named;
        }
        if !named.is_empty() {
            // A result that was left over names a pod that is no more. Or the pod is too new for the cluster
            // to know.
            return named.into_iter().chain(reported()).collect();
        }
        // The address of a pod that has ended stays in its status for a while. A CNI result goes before the
        // address is given to another pod.
        let given: BTreeSet<_> = carried(&self.given, candidate).collect();
        if given.iter().any(|pod| self.evidence.pod(pod).is_some()) {
            return given.into_iter().filter(|pod| self.evidence.pod(pod).is_some()).collect();
        }
        let mut pods: BTreeSet<_> = given.into_iter().chain(reported()).collect();
        // A pod that is gone gives way to whoever is there.
        let last = candidate.last(previous);
        pods.extend(last.filter(|pod| pods.is_empty() || self.evidence.pod(pod).is_some()));
        pods
    }

    /// The pods whose first network is on this veth, as CNI results have it. Of several results for one name,
    /// those whose address is there: the others are left over.
    fn named(&self, candidate: &Candidate<'_>) -> BTreeSet<&'a ObjectName> {
        let results = self.naming.get(&candidate.link.name).into_iter().flatten();
        let mut results: Vec<_> = results.filter(|result| result.primary).collect();
        super::prefer(&mut results, |result| {
            result.addresses.iter().any(|address| candidate.carries(address))
        });
        results.iter().map(|result| &result.pod).collect()
    }

    fn names_further_network(&self, candidate: &Candidate<'_>) -> bool {
        self.naming
            .get(&candidate.link.name)
            .is_some_and(|results| results.iter().all(|result| !result.primary))
    }

    /// The pods that have, by CNI result or status, an address that the peer carries.
    fn by_address(&self, candidate: &Candidate<'_>) -> BTreeSet<&'a ObjectName> {
        carried(&self.given, candidate).chain(carried(&self.reported, candidate)).collect()
    }
}

fn carried<'w, 'a: 'w>(
    pods: &'w BTreeMap<IpAddr, Vec<&'a ObjectName>>,
    candidate: &'w Candidate<'_>,
) -> impl Iterator<Item = &'a ObjectName> + 'w {
    candidate.peer.addresses.iter().filter_map(|address| pods.get(address)).flatten().copied()
}

/// Settles the veths for which one pod alone is left, and takes that pod from the others, until nothing
/// changes. `decide`: to which of several veths that no one else claims a pod belongs.
fn exclude<'a>(
    mut settled: BTreeMap<u32, &'a ObjectName>,
    mut claims: BTreeMap<u32, BTreeSet<&'a ObjectName>>,
    decide: impl Fn(&ObjectName, &BTreeSet<u32>) -> Option<u32>,
) -> BTreeMap<u32, &'a ObjectName> {
    let mut found = settled.clone();
    loop {
        for (ifindex, pod) in &found {
            claims.remove(ifindex);
            for pods in claims.values_mut() {
                pods.remove(pod);
            }
        }
        settled.append(&mut found);
        let mut alone: BTreeMap<&ObjectName, BTreeSet<u32>> = BTreeMap::new();
        for (ifindex, pods) in &claims {
            if let Some(pod) = only(pods) {
                alone.entry(pod).or_default().insert(*ifindex);
            }
        }
        found.extend(
            alone
                .into_iter()
                .filter_map(|(pod, duplicate_claims)| Some((decide(pod, &duplicate_claims)?, pod))),
        );
        if found.is_empty() {
            return settled;
        }
    }
}

fn only<'a>(pods: &BTreeSet<&'a ObjectName>) -> Option<&'a ObjectName> {
    pods.first().copied().filter(|_| pods.len() == 1)
}
