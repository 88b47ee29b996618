//! Whether new tables close something that was open for the same rule sets: an address has lost a property
//! that a rule wants, as when a network set loses a network.
//!
//! In: rule sets, and the tables before and after. Out: whether anything is closed; yes if that is not known.

use std::{collections::BTreeSet, sync::Arc};

use imbl::ordmap::DiffItem;
use podgate_common::Row;
use podgate_core::compiler::{CompiledTables, Subject};

use super::HostRuleSets;

pub(super) fn closes(evaluated: &HostRuleSets, before: &CompiledTables, after: &CompiledTables) -> bool {
    let rule_sets = evaluated.values().flatten().flat_map(|subject| [subject.ingress, subject.egress]);
    let mut rule_sets: BTreeSet<usize> = rule_sets.collect();
    rule_sets.remove(&Subject::NOT_ISOLATED.ingress);
    let (old, new) = (&before.identities, &after.identities);
    let mut moved = BTreeSet::new();
    for difference in old.addresses.diff(&new.addresses) {
        let address = match difference {
            DiffItem::Add(address, _) | DiffItem::Remove(address, _) => address,
            DiffItem::Update { new: (address, _), .. } => address,
        };
        moved.insert((old.identity(*address), new.identity(*address)));
    }
    if !Arc::ptr_eq(&old.prefixes, &new.prefixes) {
        for prefix in old.prefixes.keys().chain(new.prefixes.keys()) {
            let at = prefix.address.into();
            moved.insert((old.identity(at), new.identity(at)));
        }
    }
    moved.retain(|(old, new)| old != new);
    moved.into_iter().any(|(old, new)| {
        rule_sets.iter().any(|rule_set| {
            // An index never changes its meaning. One that is gone is found in the previous tables, if the
            // classes of ports are the same.
            let rows = if after.identities.signatures.contains_key(&old) {
                &after.rows
            } else if Arc::ptr_eq(&before.classes, &after.classes) {
                &before.rows
            } else {
                return true;
            };
            let allowed = |rows: &podgate_core::compiler::Rows, identity| {
                rows.allowed.get(&(*rule_set, identity)).cloned().unwrap_or_default()
            };
            loses(&allowed(rows, old), &allowed(&after.rows, new))
        })
    })
}

fn loses(before: &[Row], after: &[Row]) -> bool {
    before.iter().enumerate().any(|(block, row)| {
        let now = after.get(block).copied().unwrap_or_default();
        row.0.iter().zip(now.0).any(|(before, now)| before & !now != 0)
    })
}
