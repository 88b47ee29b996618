//! What a rule of Calico's wants of its two ends, as a clause for one pod: its own end is decided here, the
//! other one is properties.
//!
//! In: both ends of the rule, the pod, and the network sets of its cluster. Out: what the other end has to
//! be, or that nothing can match. A family of addresses is the block of all of them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Atom, Condition, NetworkSets, Shared, network_sets::block};
use crate::model::{CalicoEnds, EntityMatch, HostTraffic, IpFamily, LabelExpression, Pod};

/// What the other end has to be: the first condition of the clause, and the rest.
pub(super) struct EndConditions {
    pub(super) peers: Option<BTreeSet<Shared<Atom>>>,
    pub(super) conditions: Vec<Condition>,
}

impl EndConditions {
    /// `denies`: whether the rule denies the traffic that it matches.
    pub(super) fn of(ends: &CalicoEnds, pod: &Pod, denies: bool, sets: &NetworkSets<'_>) -> Self {
        let CalicoEnds { peer, own, family } = ends;
        let mut conditions = conditions(peer, sets);
        if !own.is_any() || family.is_some() {
            let mut families = match &pod.host {
                Some(host) => host_families(own, pod, host.traffic, denies, sets),
                None => own_families(own, pod, sets),
            };
            families.retain(|own| family.is_none_or(|family| family == *own));
            let is_every = match &pod.host {
                Some(_) => families.len() == IpFamily::ALL.len(),
                None => pod.addresses.iter().all(|address| families.contains(&IpFamily::of(address))),
            };
            if families.is_empty() {
                conditions = vec![Condition::AnyOf(BTreeSet::new())];
            } else if !is_every {
                let blocks = families.into_iter().map(IpFamily::block).collect();
                conditions.push(Condition::AnyOf([Shared::new(Atom::Blocks(blocks))].into()));
            }
        }
        let first = conditions.iter().position(|condition| matches!(condition, Condition::AnyOf(_)));
        let peers = first.map(|first| conditions.remove(first).into_atoms());
        Self { peers, conditions }
    }
}

/// The families of a pod's addresses that meet what a rule wants of its own end.
fn own_families(own: &EntityMatch, pod: &Pod, sets: &NetworkSets<'_>) -> BTreeSet<IpFamily> {
    let matching = own_addresses(own, pod, sets).into_iter().filter(|(_, matches)| *matches);
    matching.map(|(address, _)| IpFamily::of(&address)).collect()
}

/// The address families in which a rule may match the host endpoint itself. A packet may have any of several
/// addresses, and forwarded traffic has addresses of others: a rule that denies then matches if any address
/// matches, any other rule only if all of them do.
fn host_families(
    own: &EntityMatch,
    pod: &Pod,
    traffic: HostTraffic,
    denies: bool,
    sets: &NetworkSets<'_>,
) -> BTreeSet<IpFamily> {
    if own.is_any() {
        return IpFamily::ALL.into();
    }
    let known = match traffic {
        HostTraffic::Local => own_addresses(own, pod, sets),
        HostTraffic::Forwarded => Vec::new(),
    };
    let of_family = |family: &IpFamily| {
        let mut matches = known
            .iter()
            .filter(|(address, _)| IpFamily::of(address) == *family)
            .map(|(_, it)| *it)
            .peekable();
        match matches.peek() {
            None => denies,
            Some(_) if denies => matches.any(|it| it),
            Some(_) => matches.all(|it| it),
        }
    };
    IpFamily::ALL.into_iter().filter(of_family).collect()
}

/// The addresses of an end, and whether each meets the rule's conditions on its own end.
fn own_addresses(own: &EntityMatch, pod: &Pod, sets: &NetworkSets<'_>) -> Vec<(IpAddr, bool)> {
    let namespace_labels = sets.cluster().namespace_labels(&pod.name.namespace);
    let labels = sets.cluster().calico.labels_of(pod, &namespace_labels);
    let matches = |address: IpAddr| {
        let is_selected =
            |selector: &LabelExpression| selector.matches(&labels) || sets.has_selected_at(selector, address);
        let EntityMatch { selector, not_selector, nets, not_nets, service: _ } = own;
        selector.as_ref().is_none_or(is_selected)
            && !not_selector.as_ref().is_some_and(is_selected)
            && nets.as_ref().is_none_or(|nets| is_in(nets, address))
            && !is_in(not_nets, address)
    };
    pod.addresses.iter().map(|address| (*address, matches(*address))).collect()
}

/// Whether an address is in any of these. A list may be long, and many rules may have it.
fn is_in(nets: &BTreeSet<IpNet>, address: IpAddr) -> bool {
    let host = IpNet::from(address);
    (0..=host.max_prefix_len())
        .filter_map(|length| IpNet::new(address, length).ok())
        .any(|net| nets.contains(&net.trunc()))
}

fn conditions(peer: &EntityMatch, sets: &NetworkSets<'_>) -> Vec<Condition> {
    // A service has ports, too: these are the rule's.
    let EntityMatch { selector, not_selector, nets, not_nets, service: _ } = peer;
    let mut conditions = Vec::new();
    conditions.extend(selector.as_ref().map(|selector| Condition::AnyOf(selected(selector, sets))));
    conditions.extend(nets.as_ref().map(|nets| Condition::AnyOf(within(nets))));
    conditions.extend(not_selector.as_ref().map(|selector| Condition::NoneOf(selected(selector, sets))));
    conditions.push(Condition::NoneOf(within(not_nets)));
    conditions.retain(|condition| match condition {
        Condition::AnyOf(_) => true,
        Condition::NoneOf(atoms) => !atoms.is_empty(),
    });
    conditions
}

/// Pods by their labels, and the sets that have such labels.
fn selected(selector: &LabelExpression, sets: &NetworkSets<'_>) -> BTreeSet<Shared<Atom>> {
    let mut atoms: BTreeSet<Shared<Atom>> = sets.selected(selector).collect();
    atoms.insert(Shared::new(Atom::Endpoints(selector.clone())));
    atoms
}

fn within(nets: &BTreeSet<IpNet>) -> BTreeSet<Shared<Atom>> {
    let blocks: BTreeSet<_> = nets.iter().map(block).collect();
    (!blocks.is_empty()).then(|| Shared::new(Atom::Blocks(blocks))).into_iter().collect()
}
