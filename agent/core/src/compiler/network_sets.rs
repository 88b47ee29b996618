//! The network sets of a cluster as rules of Calico's match them.
//!
//! In: a cluster. Out: for a selector, one property of addresses for each group of sets that no selector can
//! distinguish. Many selectors share these, so what it takes grows with the sets and not with the selectors.
//! What was found out is kept: rules have the same selectors, and pods ask for the same addresses.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    rc::Rc,
};

use ipnet::IpNet;

use super::{Atom, Shared};
use crate::model::{Cluster, EndpointLabels, IpBlock, LabelExpression, Labels, Name, NetworkSet};

/// The network sets of a cluster.
pub(crate) struct NetworkSets<'a> {
    cluster: &'a Cluster,
    groups: OnceCell<Vec<SetGroup<'a>>>,
    /// The groups that a selector matches.
    selected: RefCell<HashMap<LabelExpression, Rc<[usize]>>>,
    /// The groups that hold an address.
    holding: RefCell<HashMap<IpAddr, Rc<BTreeSet<usize>>>>,
}

/// Sets of one namespace, or of the cluster, with the same labels.
struct SetGroup<'a> {
    /// One of them.
    set: &'a NetworkSet,
    namespace: Option<Labels>,
    nets: Vec<&'a BTreeSet<IpNet>>,
    blocks: Shared<Atom>,
}

impl<'a> NetworkSets<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        let (selected, holding) = (RefCell::default(), RefCell::default());
        Self { cluster, groups: OnceCell::new(), selected, holding }
    }

    pub(super) const fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// What the addresses have that are in sets with such labels.
    pub(super) fn selected(&self, selector: &LabelExpression) -> impl Iterator<Item = Shared<Atom>> {
        let groups = self.groups();
        let selected = self.selected_groups(selector);
        (0..selected.len()).map(move |at| groups[selected[at]].blocks.clone())
    }

    /// Whether an address is in a set with such labels.
    pub(super) fn has_selected_at(&self, selector: &LabelExpression, address: IpAddr) -> bool {
        let known = self.holding.borrow().get(&address).cloned();
        let holding = known.unwrap_or_else(|| {
            let holds = |group: &SetGroup<'_>| {
                group.nets.iter().any(|nets| nets.iter().any(|net| net.contains(&address)))
            };
            let groups = self.groups().iter().enumerate().filter(|(_, group)| holds(group));
            let holding: Rc<BTreeSet<usize>> = Rc::new(groups.map(|(at, _)| at).collect());
            self.holding.borrow_mut().insert(address, holding.clone());
            holding
        });
        !holding.is_empty() && self.selected_groups(selector).iter().any(|group| holding.contains(group))
    }

    fn selected_groups(&self, selector: &LabelExpression) -> Rc<[usize]> {
        if let Some(known) = self.selected.borrow().get(selector) {
            return known.clone();
        }
        let groups = self.groups().iter().enumerate().filter(|(_, group)| group.is_matched(selector));
        let selected: Rc<[usize]> = groups.map(|(at, _)| at).collect();
        self.selected.borrow_mut().insert(selector.clone(), selected.clone());
        selected
    }

    fn groups(&self) -> &[SetGroup<'a>] {
        self.groups.get_or_init(|| {
            let mut alike: BTreeMap<(Option<&Name>, &Labels), Vec<&'a NetworkSet>> = BTreeMap::new();
            for set in self.cluster.calico.network_sets().filter(|set| !set.nets.is_empty()) {
                alike.entry((set.namespace.as_ref(), &set.labels)).or_default().push(set);
            }
            alike.into_values().map(|sets| SetGroup::of(sets, self.cluster)).collect()
        })
    }
}

impl<'a> SetGroup<'a> {
    fn of(sets: Vec<&'a NetworkSet>, cluster: &Cluster) -> Self {
        let set = sets[0];
        let namespace = set.namespace.as_ref().map(|namespace| cluster.namespace_labels(namespace));
        let nets: Vec<_> = sets.into_iter().map(|set| &set.nets).collect();
        let blocks = nets.iter().flat_map(|nets| nets.iter().map(block)).collect();
        Self { set, namespace, nets, blocks: Shared::new(Atom::Blocks(blocks)) }
    }

    fn is_matched(&self, selector: &LabelExpression) -> bool {
        let is_elsewhere = selector.namespace().is_some_and(|of| self.set.namespace.as_ref() != Some(of));
        !is_elsewhere && selector.matches(&EndpointLabels::of_set(self.set, self.namespace.as_ref()))
    }
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

/// A network as a block without exceptions.
pub(super) fn block(net: &IpNet) -> IpBlock {
    IpBlock { cidr: *net, except: BTreeSet::new() }
}
