//! What rule sets mention, and how often: what is mentioned for the first time, or not any more, changes the
//! tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    compiler::{Atom, Classes, Shared, atoms::Holder},
    model::PortSet,
};

/// What became of the rule sets in use, and of what they mention.
#[derive(Default)]
pub(super) struct Mentioned {
    /// New ones.
    pub(super) rule_sets: BTreeSet<usize>,
    pub(super) gone: BTreeSet<usize>,
    /// Those that are mentioned now and were not, or the other way round.
    pub(super) atoms: BTreeSet<Shared<Atom>>,
    pub(super) port_sets: BTreeSet<Shared<PortSet>>,
}

/// What was known of ports before they were distinguished otherwise.
pub(super) struct Reclassified {
    pub(super) classes: Arc<Classes>,
    pub(super) closed: Arc<BTreeSet<usize>>,
}

impl Mentioned {
    /// Whether a property is among them that these can have.
    pub(super) fn is_any_of(&self, holder: Holder) -> bool {
        self.atoms.iter().any(|atom| atom.holder() == holder)
    }

    pub(super) fn toggle_atom(&mut self, atom: &Shared<Atom>) {
        if !self.atoms.remove(atom) {
            self.atoms.insert(atom.clone());
        }
    }

    pub(super) fn toggle_port_set(&mut self, set: &Shared<PortSet>) {
        if !self.port_sets.remove(set) {
            self.port_sets.insert(set.clone());
        }
    }
}

/// Out: whether no other one has mentioned it before.
pub(super) fn mention(
    mentions: &mut BTreeMap<Shared<Atom>, Vec<usize>>,
    atom: &Shared<Atom>,
    rule_set: usize,
) -> bool {
    if let Some(known) = mentions.get_mut(atom) {
        if let Err(place) = known.binary_search(&rule_set) {
            known.insert(place, rule_set);
        }
        return false;
    }
    mentions.insert(atom.clone(), vec![rule_set]);
    true
}

/// Out: whether no other one mentions it.
pub(super) fn unmention(
    mentions: &mut BTreeMap<Shared<Atom>, Vec<usize>>,
    atom: &Shared<Atom>,
    rule_set: usize,
) -> bool {
    let Some(known) = mentions.get_mut(atom) else { return false };
    if let Ok(place) = known.binary_search(&rule_set) {
        known.remove(place);
    }
    let was_last = known.is_empty();
    if was_last {
        mentions.remove(atom);
    }
    was_last
}

/// Out: whether it is the first.
pub(super) fn count<T: Ord + Clone>(counts: &mut BTreeMap<T, usize>, what: &T) -> bool {
    if let Some(count) = counts.get_mut(what) {
        *count += 1;
        return false;
    }
    counts.insert(what.clone(), 1);
    true
}

/// Out: whether it was the last.
pub(super) fn discount<T: Ord>(counts: &mut BTreeMap<T, usize>, what: &T) -> bool {
    let Some(count) = counts.get_mut(what) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(what);
        return true;
    }
    false
}
