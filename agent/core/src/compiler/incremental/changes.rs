//! What differs between two snapshots of a cluster, found without a walk over what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use crate::model::{
    Calico, CalicoPolicy, Cluster, EndpointSlice, Name, NetworkPolicy, NetworkSet, ObjectName, Pod,
};

/// An object before and after a change: `None` where it was not there.
pub(super) type Forms<'a, T> = (Option<&'a T>, Option<&'a T>);

/// What differs between two snapshots.
pub(super) struct SnapshotChanges<'a> {
    /// Before and after; host endpoints, too.
    pub(super) pods: BTreeMap<&'a ObjectName, Forms<'a, Arc<Pod>>>,
    pub(super) namespaces: BTreeSet<&'a Name>,
    /// Those whose policies have come into or out of audit mode.
    pub(super) modes: BTreeSet<&'a Name>,
    /// In their old and their new form.
    pub(super) policies: Vec<&'a NetworkPolicy>,
    pub(super) cluster_policies: bool,
    /// In their old and their new form.
    pub(super) calico_policies: Vec<&'a CalicoPolicy>,
    /// What all of Calico's policies may depend on: tiers, network sets, and policies that may take the place
    /// of any, or hide any.
    pub(super) calico_for_all: bool,
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
        let pods = pods.chain(changed_hosts(old, new));
        let namespaces = old.namespaces.diff(&new.namespaces).map(|difference| match difference {
            DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _) => {
                name
            }
        });
        let mut namespaces: BTreeSet<&Name> = namespaces.collect();
        // What a service account is called is a property of its pods, as what their namespace is called.
        let accounts = old.calico.service_accounts.diff(&new.calico.service_accounts);
        namespaces.extend(accounts.map(|difference| match difference {
            DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _) => {
                &name.namespace
            }
        }));
        let changed = namespaces.iter().copied();
        let modes = changed.filter(|name| old.is_in_audit(name) != new.is_in_audit(name)).collect();
        let policies = old.policies.diff(&new.policies).flat_map(both);
        let stores = [(&old.calico.v3, &new.calico.v3), (&old.calico.v1, &new.calico.v1)];
        let calico_policies =
            stores.iter().flat_map(|(old, new)| old.policies.diff(&new.policies).flat_map(both));
        let mut calico_policies: Vec<_> = calico_policies.map(|policy| &**policy).collect();
        let has_staged = calico_policies.iter().any(|policy| policy.name.kind.is_staged());
        // One that comes or goes in one store may hide one of the other, which selects other pods.
        let is_of_both = |calico: &Calico| !calico.v3.policies.is_empty() && !calico.v1.policies.is_empty();
        let may_hide = !calico_policies.is_empty() && (is_of_both(&old.calico) || is_of_both(&new.calico));
        // Selectors match the sets of a namespace by its labels, too.
        let has_changed = |set: &NetworkSet| set.namespace.as_ref().is_some_and(|of| namespaces.contains(of));
        let has_other_sets = !namespaces.is_empty() && new.calico.network_sets().any(has_changed);
        let calico_for_all = has_staged
            || may_hide
            || has_other_sets
            || stores.iter().any(|(old, new)| {
                old.tiers.diff(&new.tiers).next().is_some()
                    || old.network_sets.diff(&new.network_sets).next().is_some()
            });
        let services = old.services.diff(&new.services).flat_map(both).map(|service| &service.name);
        let slices = old.slices.diff(&new.slices).map(forms);
        let slices: Vec<_> =
            slices.map(|(before, after)| (before.map(Arc::as_ref), after.map(Arc::as_ref))).collect();
        // A rule that names a service is compiled again when its endpoints are others.
        let named = services_with_other_endpoints(&slices);
        if !named.is_empty() {
            let all = stores.iter().flat_map(|(_, new)| new.policies.values());
            let naming = all.filter(|policy| policy.services().any(|service| named.contains(service)));
            calico_policies.extend(naming.map(|policy| &**policy));
        }
        let of_slices = slices.iter().flat_map(|(before, after)| before.iter().chain(after));
        Self {
            pods: pods.collect(),
            namespaces,
            modes,
            policies: policies.map(|policy| &**policy).collect(),
            cluster_policies: old.cluster_policies.diff(&new.cluster_policies).next().is_some(),
            calico_policies,
            calico_for_all,
            nodes: old.nodes.diff(&new.nodes).next().is_some(),
            services: services.chain(of_slices.map(|slice| &slice.service)).collect(),
            slices,
        }
    }
}

impl SnapshotChanges<'_> {
    /// Whether any policy is another one.
    pub(super) fn has_policies(&self) -> bool {
        let of_calico = self.calico_for_all || !self.calico_policies.is_empty();
        !self.policies.is_empty() || self.cluster_policies || of_calico
    }

    /// Whether one of Calico's that changed is for a pod, or was.
    pub(super) fn has_calico_policy_for(&self, pod: &Pod, cluster: &Cluster) -> bool {
        !self.calico_policies.is_empty() && {
            let labels = cluster.namespace_labels(&pod.name.namespace);
            let labels = cluster.calico.labels_of(pod, &labels);
            self.calico_policies.iter().any(|policy| policy.selects(pod, &labels))
        }
    }
}

/// Host endpoints of which any has changed.
fn changed_hosts<'a>(
    old: &'a Cluster,
    new: &'a Cluster,
) -> impl Iterator<Item = (&'a ObjectName, Forms<'a, Arc<Pod>>)> {
    let stores = [(&old.calico.v3, &new.calico.v3), (&old.calico.v1, &new.calico.v1)];
    let is_other = stores.iter().any(|(old, new)| !old.host_endpoints.ptr_eq(&new.host_endpoints));
    let mut changed: BTreeMap<&ObjectName, Forms<'a, Arc<Pod>>> = BTreeMap::new();
    if is_other {
        for host in old.calico.host_subjects() {
            changed.entry(&host.name).or_default().0 = Some(host);
        }
        for host in new.calico.host_subjects() {
            changed.entry(&host.name).or_default().1 = Some(host);
        }
        changed.retain(|_, (before, after)| before != after);
    }
    changed.into_iter()
}

/// The services of slices with other addresses or ports than before.
fn services_with_other_endpoints<'a>(slices: &[Forms<'a, EndpointSlice>]) -> BTreeSet<&'a ObjectName> {
    let changed = slices.iter().filter(|(before, after)| match (before, after) {
        (Some(before), Some(after)) => !before.has_same_endpoints(after),
        (Some(slice), None) | (None, Some(slice)) => !slice.endpoints.is_empty(),
        (None, None) => false,
    });
    changed.flat_map(|(before, after)| before.iter().chain(after)).map(|slice| &slice.service).collect()
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
