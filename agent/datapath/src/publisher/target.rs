//! What must be written: the differences between the tables that were published last and new ones, in the
//! kernel's ids.
//!
//! In tables of one series they are found in what changed. Otherwise, after a failed write too, all entries
//! are compared with those that the kernel holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use podgate_common::{
    Address, BITS_PER_ROW, ClassId, IdentityId, PolicyId, PrefixKey, Row, RowKey, ServiceId, ServiceKey,
    ServiceVerdict, Strata, Stratum,
};
use podgate_core::compiler::{CompiledTables, NameStratum, RuleSet, compile_rows};

use super::{
    ids::{Assigned, Ids},
    names::NameKeys,
};
use crate::TableSet;

/// Entries that change: `None` goes.
pub(super) type MapChanges<K, V> = BTreeMap<K, Option<V>>;

pub(super) struct PublishTarget {
    /// What the kernel holds until now, if that is known.
    pub(super) before: Option<CompiledTables>,
    pub(super) ids: Assigned,
    pub(super) rows: MapChanges<RowKey, Row>,
    /// What the rule sets in force say of identities that go, for the classes to come.
    pub(super) crossing: BTreeMap<RowKey, Row>,
    pub(super) addresses: MapChanges<Address, IdentityId>,
    pub(super) prefixes: MapChanges<PrefixKey, IdentityId>,
    pub(super) services: MapChanges<ServiceKey, ServiceId>,
}

impl PublishTarget {
    /// From tables of the same series, which the kernel holds under these ids.
    pub(super) fn since(
        before: CompiledTables,
        mut assigned: Assigned,
        tables: &CompiledTables,
        ids: &mut Ids,
        set: &TableSet,
        in_force: &BTreeMap<PolicyId, Arc<RuleSet>>,
        names: &NameKeys,
    ) -> Self {
        ids.assign(tables, &before, &mut assigned);
        let (rows, crossing) = if Arc::ptr_eq(&before.classes, &tables.classes) {
            (changed_rows(&before, tables, &assigned), BTreeMap::new())
        } else {
            // All rows are written otherwise.
            (
                compared(set.rows.entries(), rows(tables, &assigned)),
                crossing(tables, &assigned, ids, in_force),
            )
        };
        let mut addresses = MapChanges::new();
        change(&mut addresses, before.identities.addresses.diff(&tables.identities.addresses), |at, id| {
            vec![(names.key(*at), assigned.identities[id])]
        });
        let mut services = MapChanges::new();
        change(&mut services, before.services.frontends.diff(&tables.services.frontends), |key, place| {
            vec![(*key, assigned.services[place])]
        });
        let prefixes = if Arc::ptr_eq(&before.identities.prefixes, &tables.identities.prefixes) {
            MapChanges::new()
        } else {
            compared(set.prefixes.entries(), prefixes(tables, &assigned))
        };
        Self { before: Some(before), ids: assigned, rows, crossing, addresses, prefixes, services }
    }

    /// From what the kernel holds, whatever that is.
    pub(super) fn compared(
        ids: Assigned,
        tables: &CompiledTables,
        known: &Ids,
        set: &TableSet,
        in_force: &BTreeMap<PolicyId, Arc<RuleSet>>,
        names: &NameKeys,
    ) -> Self {
        let addresses = tables.identities.addresses.iter();
        let services = tables.services.frontends.iter();
        Self {
            before: None,
            rows: compared(set.rows.entries(), rows(tables, &ids)),
            crossing: crossing(tables, &ids, known, in_force),
            addresses: compared(
                set.addresses.entries(),
                addresses.map(|(at, id)| (names.key(*at), ids.identities[id])),
            ),
            prefixes: compared(set.prefixes.entries(), prefixes(tables, &ids)),
            services: compared(set.services.entries(), services.map(|(key, at)| (*key, ids.services[at]))),
            ids,
        }
    }
}

/// Rows of tables with the same classes.
fn changed_rows(before: &CompiledTables, tables: &CompiledTables, ids: &Assigned) -> MapChanges<RowKey, Row> {
    let mut changed = MapChanges::new();
    let own_node = |tables: &CompiledTables| tables.rows.denied_on_own_node.clone();
    for (until_now, now, key) in [
        (before.rows.allowed.clone(), tables.rows.allowed.clone(), RowKey::new as RowKeyOf),
        (own_node(before), own_node(tables), RowKey::of_own_node),
    ] {
        let mut encoder = Encoder::new(ids, key);
        change(&mut changed, until_now.diff(&now), |at, blocks| encoder.rows(*at, blocks));
    }
    change(&mut changed, before.strata.diff(&tables.strata), |at, parts| vec![strata_row(*at, parts, ids)]);
    change(&mut changed, before.services.verdicts.diff(&tables.services.verdicts), |at, verdict| {
        service_row(*at, *verdict, ids).into_iter().collect()
    });
    changed
}

/// How many rows tables have.
pub(super) fn count_rows(tables: &CompiledTables, ids: &Assigned) -> usize {
    rows(tables, ids).count()
}

/// All rows, and the verdicts on services.
fn rows<'a>(tables: &'a CompiledTables, ids: &'a Assigned) -> impl Iterator<Item = (RowKey, Row)> + 'a {
    let of = |rows: &'a OrdMap<(usize, usize), Arc<[Row]>>, key: RowKeyOf| {
        let mut encoder = Encoder::new(ids, key);
        rows.iter().flat_map(move |(at, blocks)| encoder.rows(*at, blocks))
    };
    let verdicts = tables.services.verdicts.iter();
    of(&tables.rows.allowed, RowKey::new)
        .chain(of(&tables.rows.denied_on_own_node, RowKey::of_own_node))
        .chain(tables.strata.iter().map(|(at, parts)| strata_row(*at, parts, ids)))
        .chain(verdicts.filter_map(|(at, verdict)| service_row(*at, *verdict, ids)))
}

fn prefixes<'a>(
    tables: &'a CompiledTables,
    ids: &'a Assigned,
) -> impl Iterator<Item = (PrefixKey, IdentityId)> + 'a {
    tables.identities.prefixes.iter().map(|(prefix, id)| (*prefix, ids.identities[id]))
}

fn crossing(
    tables: &CompiledTables,
    ids: &Assigned,
    known: &Ids,
    in_force: &BTreeMap<PolicyId, Arc<RuleSet>>,
) -> BTreeMap<RowKey, Row> {
    let leaving = known.leaving(tables);
    if leaving.is_empty() {
        return BTreeMap::new();
    }
    let signatures = leaving.iter().map(|(signature, _)| &**signature).enumerate();
    let rule_sets = tables.rule_sets.iter().filter(|(index, _)| in_force.contains_key(&ids.policies[index]));
    let rule_sets = rule_sets.map(|(index, rule_set)| (*index, &**rule_set));
    let compiled = compile_rows(rule_sets, signatures, &tables.classes, &tables.closed);
    let identities = leaving.iter().map(|(_, id)| *id).enumerate().collect();
    let ids = Assigned { identities, ..ids.clone() };
    let of = |rows: &OrdMap<(usize, usize), Arc<[Row]>>, key: RowKeyOf| -> Vec<(RowKey, Row)> {
        let mut encoder = Encoder::new(&ids, key);
        rows.iter().flat_map(|(at, blocks)| encoder.rows(*at, blocks)).collect()
    };
    let allowed = of(&compiled.allowed, RowKey::new);
    allowed.into_iter().chain(of(&compiled.denied_on_own_node, RowKey::of_own_node)).collect()
}

type RowKeyOf = fn(PolicyId, IdentityId, ClassId) -> RowKey;

/// Writes rows under the kernel's ids. Many identities share theirs, and their bits are looked at once.
struct Encoder<'a> {
    ids: &'a Assigned,
    key: RowKeyOf,
    /// The rows are kept, so that no others get the place in memory that they are known by.
    known: HashMap<*const Row, (Arc<[Row]>, EncodedRows)>,
}

/// Each by one of its classes.
type EncodedRows = Vec<(ClassId, Row)>;

impl<'a> Encoder<'a> {
    fn new(ids: &'a Assigned, key: RowKeyOf) -> Self {
        Self { ids, key, known: HashMap::new() }
    }

    /// The rows of a rule set and an identity; only those with a bit.
    fn rows(&mut self, (rule_set, identity): (usize, usize), blocks: &Arc<[Row]>) -> Vec<(RowKey, Row)> {
        let Self { ids, key, known } = self;
        let (policy, identity) = (ids.policies[&rule_set], ids.identities[&identity]);
        let (_, rows) =
            known.entry(blocks.as_ptr()).or_insert_with(|| (blocks.clone(), by_block(blocks, &ids.classes)));
        rows.iter().map(|(class, row)| (key(policy, identity, *class), *row)).collect()
    }
}

/// Rows by a class of theirs, in the kernel's ids.
fn by_block(blocks: &[Row], classes: &[ClassId]) -> EncodedRows {
    let mut rows: BTreeMap<u16, (ClassId, Row)> = BTreeMap::new();
    for (index, class) in classes.iter().enumerate() {
        let (block, bit) = (index / usize::from(BITS_PER_ROW), index % usize::from(BITS_PER_ROW));
        if blocks[block].0[bit / 64] >> (bit % 64) & 1 != 0 {
            let (_, row) = rows.entry(class.0 / BITS_PER_ROW).or_insert((*class, Row::default()));
            row.set(*class);
        }
    }
    rows.into_values().collect()
}

/// The parts of a rule set with names.
fn strata_row(rule_set: usize, parts: &Arc<[NameStratum]>, ids: &Assigned) -> (RowKey, Row) {
    let mut strata = Strata::default();
    for (place, part) in strata.0.iter_mut().zip(&**parts) {
        *place = Stratum { names: ids.policies[&part.names], open: ids.policies[&part.open] };
    }
    (RowKey::of_strata(ids.policies[&rule_set]), strata.row())
}

fn service_row(
    (rule_set, place): (usize, usize),
    verdict: ServiceVerdict,
    ids: &Assigned,
) -> Option<(RowKey, Row)> {
    Some((RowKey::of_service(ids.policies[&rule_set], ids.services[&place]), verdict.row()?))
}

/// Notes what differences make of entries.
fn change<'a, A: 'a, B: 'a, K: Ord, V>(
    changed: &mut MapChanges<K, V>,
    differences: impl Iterator<Item = DiffItem<'a, 'a, A, B>>,
    mut entries: impl FnMut(&A, &B) -> Vec<(K, V)>,
) {
    for difference in differences {
        let (before, now) = match difference {
            DiffItem::Add(key, value) => (None, Some((key, value))),
            DiffItem::Update { old, new } => (Some(old), Some(new)),
            DiffItem::Remove(key, value) => (Some((key, value)), None),
        };
        for (key, _) in before.into_iter().flat_map(|(key, value)| entries(key, value)) {
            changed.entry(key).or_insert(None);
        }
        for (key, value) in now.into_iter().flat_map(|(key, value)| entries(key, value)) {
            changed.insert(key, Some(value));
        }
    }
}

/// What must change to make `wanted` of what is held.
fn compared<K: Ord + Copy, V: Copy + PartialEq>(
    held: &BTreeMap<K, V>,
    wanted: impl Iterator<Item = (K, V)>,
) -> MapChanges<K, V> {
    let mut changed: MapChanges<K, V> = held.keys().map(|key| (*key, None)).collect();
    for (key, value) in wanted {
        if held.get(&key) == Some(&value) {
            changed.remove(&key);
        } else {
            changed.insert(key, Some(value));
        }
    }
    changed
}

/// How many entries come that are not there.
pub(super) fn new_keys<K: Ord, V>(held: &BTreeMap<K, V>, changed: &MapChanges<K, V>) -> usize {
    changed.iter().filter(|(key, value)| value.is_some() && !held.contains_key(key)).count()
}

pub(super) fn united(row: Row, other: Row) -> Row {
    let mut words = row.0;
    for (word, more) in words.iter_mut().zip(other.0) {
        *word |= more;
    }
    Row(words)
}
