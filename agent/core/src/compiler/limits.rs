//! What the tables of one node have room for, whatever its pods' policies say together.
//!
//! All rule sets of a node share the classes of ports, the identities of networks, and the tree of names.
//! All rule sets of a node share the classes of ports, the identities of networks, and the tree of names.
//! When they distinguish more than there is room for, those that need the most room are closed until the
//! others fit: they allow nothing, and all others are evaluated as if these were not there. A rule set is
//! never closed for one that needs more room than it does: of names where names do not fit, of ports and
//! networks where those do not.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use podgate_common::{BITS_PER_ROW, MAX_LABELS_OF_RULES, PrefixKey};

use super::{Classes, RuleSet, Signature, atoms::blocks, classes, names, prefixes, rules};

/// What the tables of a node have room for.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Classes of ports. Their ids have 16 bits, and while a change is published the classes before and after
    /// it stand side by side.
    pub classes: usize,
    /// For all classes together, the lists of ports that each lies in; for all groups of addresses, the lists
    /// of blocks.
    pub memberships: usize,
    /// Rows that a rule set has which allows everything: groups of addresses times blocks of classes.
    pub rows: usize,
    /// Labels of names, each once below the one to its right.
    pub labels: usize,
}

impl TableLimits {
    /// Of a node's tables.
    pub const NODE: Self =
        Self { classes: 1 << 14, memberships: 1 << 19, rows: 1 << 15, labels: MAX_LABELS_OF_RULES };
    pub(super) const NONE: Self =
        Self { classes: usize::MAX, memberships: usize::MAX, rows: usize::MAX, labels: usize::MAX };
}

/// What rule sets distinguish.
pub(super) struct Groups {
    pub(super) classes: Classes,
    pub(super) prefixes: BTreeMap<PrefixKey, Arc<Signature>>,
}

impl Groups {
    /// `None`: more than the limits allow.
    fn of<'a>(
        rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
        limits: &TableLimits,
    ) -> Option<Self> {
        let classes = classes::compile(rules::port_sets(rule_sets.clone()), limits)?;
        let atoms: BTreeSet<_> = rules::atoms(rule_sets).collect();
        let prefixes = prefixes::compile(&blocks(atoms), limits)?;
        let groups = Self { classes, prefixes };
        groups.fit(limits).then_some(groups)
    }

    fn fit(&self, limits: &TableLimits) -> bool {
        fits(&self.classes, address_groups(self.prefixes.values().map(Arc::as_ptr)), limits)
    }

    fn len(&self) -> usize {
        self.classes.signatures.len() + address_groups(self.prefixes.values().map(Arc::as_ptr))
    }
}

/// How many different ones there are, and that of all other addresses.
pub(super) fn address_groups<T: Ord>(of_prefixes: impl Iterator<Item = T>) -> usize {
    of_prefixes.collect::<BTreeSet<_>>().len() + 1
}

/// Whether these classes and so many groups of addresses have room together.
pub(super) fn fits(classes: &Classes, address_groups: usize, limits: &TableLimits) -> bool {
    let blocks = classes.signatures.len().div_ceil(usize::from(BITS_PER_ROW));
    blocks * address_groups <= limits.rows
}

/// What was found out about rule sets when they were closed last: it saves the search.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How many groups each tells apart by itself.
    weights: HashMap<usize, usize>,
    closed: usize,
}

/// What these rule sets distinguish, but for those of the second part of the answer, which must be closed.
/// `found` changes nothing but how long it takes.
pub(super) fn groups_of<'a>(
    rule_sets: impl Iterator<Item = (usize, &'a Arc<RuleSet>)>,
    limits: &TableLimits,
    found: &mut Found,
) -> (Groups, BTreeSet<usize>) {
    let (mut all, of_names) = without_most_labels(rule_sets.collect(), limits);
    let without = |all: &[(usize, &'a Arc<RuleSet>)], closed: usize| {
        Groups::of(all[closed..].iter().map(|(_, rule_set)| *rule_set).collect::<Vec<_>>(), limits)
    };
    if found.closed == 0
        && let Some(groups) = without(&all, 0)
    {
        return (groups, of_names);
    }
    let in_use: BTreeSet<usize> = all.iter().map(|(index, _)| *index).collect();
    found.weights.retain(|index, _| in_use.contains(index));
    all.sort_by_cached_key(|(index, rule_set)| {
        let own = || Groups::of([*rule_set], &TableLimits::NONE).map_or(usize::MAX, |own| own.len());
        Reverse((*found.weights.entry(*index).or_insert_with(own), (*rule_set).clone()))
    });
    // Fewer rule sets never tell more apart: between these lies the least number to close. Mostly it is that
    // of before.
    let (mut least, mut enough) = (usize::from(found.closed == 0), all.len());
    let mut likely = vec![found.closed + 1, found.closed.saturating_sub(1), found.closed];
    let mut groups = Groups { classes: Classes::undivided(), prefixes: BTreeMap::new() };
    while least < enough {
        let likely = likely.pop().filter(|closed| (least..enough).contains(closed));
        let closed = likely.unwrap_or_else(|| usize::midpoint(least, enough));
        match without(&all, closed) {
            Some(fitting) => (enough, groups) = (closed, fitting),
            None => least = closed + 1,
        }
    }
    found.closed = enough;
    (groups, all[..enough].iter().map(|(index, _)| *index).chain(of_names).collect())
}

/// Closes the rule sets with the most labels of names until the others fit. Ports and networks are limited
/// separately: closing a rule set without names frees no label, and closing one without ports and networks
/// frees no group.
fn without_most_labels<'a>(
    mut all: Vec<(usize, &'a Arc<RuleSet>)>,
    limits: &TableLimits,
) -> (Vec<(usize, &'a Arc<RuleSet>)>, BTreeSet<usize>) {
    let labels = |rule_sets: &[(usize, &'a Arc<RuleSet>)]| {
        names::label_count(rules::atoms(rule_sets.iter().map(|(_, rule_set)| *rule_set).collect::<Vec<_>>()))
    };
    if labels(&all) <= limits.labels {
        return (all, BTreeSet::new());
    }
    all.sort_by_cached_key(|own| Reverse((labels(std::slice::from_ref(own)), own.1.clone())));
    // Leaving out more rule sets never adds labels.
    let (mut least, mut enough) = (1, all.len());
    while least < enough {
        let closed = usize::midpoint(least, enough);
        if labels(&all[closed..]) <= limits.labels { enough = closed } else { least = closed + 1 }
    }
    let open = all.split_off(enough);
    (open, all.into_iter().map(|(index, _)| index).collect())
}
