//! What differs between two snapshots of a cluster, found without a walk over what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use crate::model::{Cluster, EndpointSlice, Name, NetworkPolicy, ObjectName, Pod};

/// An object before and after a change: `None` where it was not there.
pub(super) type Forms<'a, T> = (Option<&'a T>, Option<&'a T>);

/// What differs between two snapshots.
pub(super) struct SnapshotChanges<'a> {
    /// Before and after.
    pub(super) pods: BTreeMap<&'a ObjectName, Forms<'a, Arc<Pod>>>,
    pub(super) namespaces: BTreeSet<&'a Name>,
    /// Those whose policies have come into or out of audit mode.
    pub(super) modes: BTreeSet<&'a Name>,
    /// In their old and their new form.
    pub(super) policies: Vec<&'a NetworkPolicy>,
    pub(super) cluster_policies: bool,
    pub(super) nodes: bool,
    /// Those that changed themselves, and those of which a slice did.
    pub(super) services: BTreeSet<&'a ObjectName>,
    pub(super) slices: Vec<Forms<'a, EndpointSlice>>,
}

impl<'a> SnapshotChanges<'a> {
    pub(super) fn between(old: &'a Cluster, new: &'a Cluster) -> Self {
        let pods = old.pods.diff(&new.pods).map(|difference| match difference {
            DiffItem::Add(name, pod) => (name, (None, Some(pod))),
            DiffItem::Update { old: (name, before), new: (_, after) } => (name, (Some(before), Some(after))),
            DiffItem::Remove(name, pod) => (name, (Some(pod), None)),
        });
        let namespaces = old.namespaces.diff(&new.namespaces).map(|difference| match difference {
            DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _) => {
                name
            }
        });
        let namespaces: BTreeSet<&Name> = namespaces.collect();
        let changed = namespaces.iter().copied();
        let modes = changed.filter(|name| old.is_in_audit(name) != new.is_in_audit(name)).collect();
        let policies = old.policies.diff(&new.policies).flat_map(both);
        let services = old.services.diff(&new.services).flat_map(both).map(|service| &service.name);
        let slices = old.slices.diff(&new.slices).map(forms);
        let slices: Vec<_> =
            slices.map(|(before, after)| (before.map(Arc::as_ref), after.map(Arc::as_ref))).collect();
        let of_slices = slices.iter().flat_map(|(before, after)| before.iter().chain(after));
        Self {
            pods: pods.collect(),
            namespaces,
            modes,
            policies: policies.map(|policy| &**policy).collect(),
            cluster_policies: old.cluster_policies.diff(&new.cluster_policies).next().is_some(),
            nodes: old.nodes.diff(&new.nodes).next().is_some(),
            services: services.chain(of_slices.map(|slice| &slice.service)).collect(),
            slices,
        }
    }
}

/// The old and the new form.
fn forms<'a, K, V>(difference: DiffItem<'a, 'a, K, V>) -> Forms<'a, V> {
    match difference {
        DiffItem::Add(_, value) => (None, Some(value)),
        DiffItem::Update { old: (_, before), new: (_, after) } => (Some(before), Some(after)),
        DiffItem::Remove(_, value) => (Some(value), None),
    }
}

/// Whichever of them there are.
fn both<'a, K, V>(difference: DiffItem<'a, 'a, K, V>) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
    let (before, after) = forms(difference);
    before.into_iter().chain(after)
}
