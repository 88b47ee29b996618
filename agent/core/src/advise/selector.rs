//! Selectors that tell one workload from all others of its namespace, by as few labels as that takes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Labels, Name},
    workload::by_preference,
};

/// Labels that a pod must have, and keys that it must not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadSelector {
    /// `matchLabels`
    pub labels: BTreeMap<Name, Name>,
    /// `matchExpressions` with `DoesNotExist`.
    pub absent: BTreeSet<Name>,
}

/// Labels that are tried together before all are taken.
const FEW: usize = 3;

impl WorkloadSelector {
    /// Matches these labels and none of the other sets. A workload without labels is known by the keys that
    /// it lacks.
    pub(super) fn among<'a>(own: &Labels, sets: impl Iterator<Item = &'a Labels>) -> Self {
        let others: Vec<&Labels> = sets.filter(|set| *set != own).collect();
        let terms: Vec<(&Name, &Name)> = by_preference(own).collect();
        let has = |set: &Labels, (key, value): &(&Name, &Name)| set.get(*key) == Some(*value);
        // Those that have all of its labels and more are distinguished by what they have more.
        let (larger, others): (Vec<&Labels>, Vec<&Labels>) =
            others.into_iter().partition(|set| terms.iter().all(|term| has(set, term)));
        let is_enough =
            |chosen: &[(&Name, &Name)]| !others.iter().any(|set| chosen.iter().all(|term| has(set, term)));
        let chosen = (1..=FEW.min(terms.len()))
            .find_map(|count| combinations(&terms, count).into_iter().find(|chosen| is_enough(chosen)))
            .unwrap_or(terms);
        let mut absent = BTreeSet::new();
        let mut left: Vec<&Labels> = larger;
        while !left.is_empty() {
            let mut counts: BTreeMap<&Name, usize> = BTreeMap::new();
            for key in left.iter().flat_map(|set| set.keys()).filter(|key| !own.contains_key(*key)) {
                *counts.entry(key).or_default() += 1;
            }
            let Some((key, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { break };
            left.retain(|set| !set.contains_key(key));
            absent.insert(key.clone());
        }
        let labels = chosen.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { labels, absent }
    }
}

/// So many of the items, in all ways, the earliest first.
fn combinations<T: Copy>(items: &[T], count: usize) -> Vec<Vec<T>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in items.iter().enumerate() {
        for mut rest in combinations(&items[at + 1..], count - 1) {
            rest.insert(0, *first);
            all.push(rest);
        }
    }
    all
}
