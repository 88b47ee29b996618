//! Rules with names, in steps: few rule sets have any, and what these say is found again when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Incremental, Mentioned, mentioned::Reclassified};
use crate::compiler::{atoms::Holder, names, rules};

impl Incremental {
    /// Adds the parts of the rule sets in use to these.
    pub(super) fn use_strata(&mut self, in_use: &mut BTreeSet<usize>) {
        let mut strata = BTreeMap::new();
        let without = std::mem::take(&mut self.nameless);
        for index in in_use.iter().copied().collect::<Vec<_>>() {
            if without.contains(&index) {
                self.nameless.insert(index);
                continue;
            }
            let known = self.tables.strata.get(&index).cloned();
            let parts = known.unwrap_or_else(|| {
                let rule_set = self.rule_sets.contents()[&index].clone();
                names::indexes(names::strata(&rule_set), |part| self.rule_sets.number(&part))
            });
            if parts.is_empty() {
                self.nameless.insert(index);
            } else {
                in_use.extend(parts.iter().flat_map(|part| [part.names, part.open]));
                strata.insert(index, parts);
            }
        }
        self.tables.strata = strata.into_iter().collect();
    }

    /// A rule set that is closed allows nothing by names either.
    pub(super) fn forget_closed_strata(&mut self) {
        for index in &*self.tables.closed {
            self.tables.strata.remove(index);
        }
    }

    /// Renews what the rule sets that are not closed say of names.
    pub(super) fn claim_names(&mut self, mentioned: &Mentioned, reclassified: Option<&Reclassified>) {
        let closed = &self.tables.closed;
        // While any rule set is closed, each change of the rule sets in use determines again which ones are.
        let is_any_closed =
            reclassified.is_some_and(|before| !closed.is_empty() || !before.closed.is_empty());
        if !mentioned.is_any_of(Holder::Names) && !is_any_closed {
            return;
        }
        let now = if closed.is_empty() {
            names::places(self.atoms.keys())
        } else {
            let contents = self.rule_sets.contents();
            let open = self.in_use.difference(closed).map(|index| &contents[index]);
            names::places(rules::atoms(open))
        };
        let now: BTreeMap<_, _> = now.into_iter().map(|(place, said)| (place, Arc::new(said))).collect();
        let before = std::mem::replace(&mut self.names, now.clone());
        for (place, said) in before.iter().filter(|(place, said)| now.get(*place) != Some(*said)) {
            self.claims.release(names::key(place), said);
        }
        for (place, said) in now.iter().filter(|(place, said)| before.get(*place) != Some(*said)) {
            self.claims.claim(names::key(place), said);
        }
        self.tables.names = Arc::new(now.into_keys().collect());
    }
}
