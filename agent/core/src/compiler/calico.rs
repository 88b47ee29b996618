//! What a rule of Calico's wants of its two ends, as a clause for one pod: its own end is decided here, the
//! other one is properties.
//!
//! In: both ends of the rule, the pod, and the cluster with its network sets. Out: what the other end has to
//! be, or that nothing can match. A family of addresses is the block of all of them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Atom, Condition, Shared};
use crate::model::{
    CalicoEnds, Cluster, EndpointLabels, EntityMatch, IpBlock, IpFamily, LabelExpression, NetworkSet, Pod,
};

/// What the other end has to be: the first condition of the clause, and the rest.
pub(super) struct EndConditions {
    pub(super) peers: Option<BTreeSet<Shared<Atom>>>,
    pub(super) conditions: Vec<Condition>,
}

impl EndConditions {
    pub(super) fn of(ends: &CalicoEnds, pod: &Pod, cluster: &Cluster) -> Self {
        let CalicoEnds { peer, own, family } = ends;
        let mut conditions = conditions(peer, cluster);
        if !own.is_any() || family.is_some() {
            let mut families = own_families(own, pod, cluster);
            families.retain(|own| family.is_none_or(|family| family == *own));
            let is_every = pod.addresses.iter().all(|address| families.contains(&IpFamily::of(address)));
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
pub(crate) fn own_families(own: &EntityMatch, pod: &Pod, cluster: &Cluster) -> BTreeSet<IpFamily> {
    let namespace_labels = cluster.namespace_labels(&pod.name.namespace);
    let labels = cluster.calico.labels_of(pod, &namespace_labels);
    let matching = pod.addresses.iter().filter(|address| {
        let is_in = |nets: &BTreeSet<IpNet>| nets.iter().any(|net| net.contains(*address));
        let is_selected = |selector: &LabelExpression| {
            selector.matches(&labels) || selected_sets(selector, cluster).any(|set| is_in(&set.nets))
        };
        let EntityMatch { selector, not_selector, nets, not_nets } = own;
        selector.as_ref().is_none_or(is_selected)
            && !not_selector.as_ref().is_some_and(is_selected)
            && nets.as_ref().is_none_or(is_in)
            && !is_in(not_nets)
    });
    matching.map(IpFamily::of).collect()
}

/// The network sets that an expression matches.
pub(crate) fn selected_sets<'a>(
    selector: &'a LabelExpression,
    cluster: &'a Cluster,
) -> impl Iterator<Item = &'a NetworkSet> {
    cluster.calico.network_sets().filter(|set| {
        let namespace = set.namespace.as_ref().map(|namespace| cluster.namespace_labels(namespace));
        selector.matches(&EndpointLabels::of_set(set, namespace.as_ref()))
    })
}

fn conditions(peer: &EntityMatch, cluster: &Cluster) -> Vec<Condition> {
    let EntityMatch { selector, not_selector, nets, not_nets } = peer;
    let mut conditions = Vec::new();
    conditions.extend(selector.as_ref().map(|selector| Condition::AnyOf(selected(selector, cluster))));
    conditions.extend(nets.as_ref().map(|nets| Condition::AnyOf(within(nets))));
    conditions.extend(not_selector.as_ref().map(|selector| Condition::NoneOf(selected(selector, cluster))));
    conditions.push(Condition::NoneOf(within(not_nets)));
    conditions.retain(|condition| match condition {
        Condition::AnyOf(_) => true,
        Condition::NoneOf(atoms) => !atoms.is_empty(),
    });
    conditions
}

/// Pods by their labels, and the networks of the sets that have such labels.
fn selected(selector: &LabelExpression, cluster: &Cluster) -> BTreeSet<Shared<Atom>> {
    let nets = selected_sets(selector, cluster).flat_map(|set| set.nets.iter().copied()).collect();
    let mut atoms = within(&nets);
    atoms.insert(Shared::new(Atom::Endpoints(selector.clone())));
    atoms
}

fn within(nets: &BTreeSet<IpNet>) -> BTreeSet<Shared<Atom>> {
    let blocks = nets.iter().map(|cidr| IpBlock { cidr: *cidr, except: BTreeSet::new() });
    let blocks: BTreeSet<IpBlock> = blocks.collect();
    (!blocks.is_empty()).then(|| Shared::new(Atom::Blocks(blocks))).into_iter().collect()
}
