//! Port classes of one node, never more than its tables have room for.
//!
//! All rule sets of a node share the table of classes. When they tell more ports apart than it has room for, those that name
//! the most ranges are closed, one after the other, until the others fit: they allow nothing, and everyone else is evaluated
//! as if they were not there. A rule set is never closed for what smaller ones ask for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Classes, RuleSet, Shared, classes, rules};
use crate::model::PortSet;

/// Class ids have 16 bits, and while a change is published the classes before and after it stand side by side.
pub const MAX_CLASSES: usize = 1 << 14;

/// The classes of these rule sets, but for those of the second part of the answer, which must be closed.
pub(super) fn classes_of<'a>(
    rule_sets: impl Iterator<Item = (usize, &'a Arc<RuleSet>)>,
    max: usize,
) -> (Classes, BTreeSet<usize>) {
    let mut open: Vec<(usize, &Arc<RuleSet>)> = rule_sets.collect();
    let all = classes::compile(rules::port_sets(open.iter().map(|(_, rule_set)| *rule_set)));
    if all.signatures.len() <= max {
        return (all, BTreeSet::new());
    }
    let mut users: BTreeMap<&Shared<PortSet>, usize> = BTreeMap::new();
    for (_, rule_set) in &open {
        own_sets(rule_set).into_iter().for_each(|set| *users.entry(set).or_default() += 1);
    }
    let ranges = |sets: &mut dyn Iterator<Item = &Shared<PortSet>>| sets.map(|set| set.len()).sum::<usize>();
    open.sort_by_cached_key(|(_, rule_set)| {
        Reverse((ranges(&mut own_sets(rule_set).into_iter()), (*rule_set).clone()))
    });
    let mut closed = BTreeSet::new();
    for (index, rule_set) in open.iter().copied() {
        // Between two ends of ranges all ports are of one class.
        if 2 * ranges(&mut users.keys().copied()) < max {
            break;
        }
        closed.insert(index);
        for set in own_sets(rule_set) {
            if let Some(count) = users.get_mut(set) {
                *count -= 1;
                if *count == 0 {
                    users.remove(set);
                }
            }
        }
    }
    (classes::compile(users.into_keys()), closed)
}

fn own_sets(rule_set: &Arc<RuleSet>) -> BTreeSet<&Shared<PortSet>> {
    rules::port_sets([rule_set]).collect()
}
