//! Calico's objects of a cluster, from both of its stores.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoTier, EndpointLabels, HostEndpoint, HostTraffic,
    NetworkSet, NetworkSetName,
};
use crate::model::{Labels, Name, ObjectName, Objects, Pod};

/// Where an object of Calico's is stored. Where both hold one of the same name, that of v3 counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalicoApi {
    /// `projectcalico.org/v3`: native custom resources, and what users write.
    V3,
    /// `crd.projectcalico.org/v1`: what Calico keeps of them.
    V1,
}

/// The objects of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalicoObjects {
    /// By name.
    pub tiers: Objects<Name, CalicoTier>,
    /// Policies of all kinds, by what the objects are called: the store of v1 may put the tier before the
    /// name that a policy has.
    pub policies: Objects<CalicoPolicyName, CalicoPolicy>,
    /// NetworkSets and GlobalNetworkSets.
    pub network_sets: Objects<NetworkSetName, NetworkSet>,
    /// Host endpoints of all nodes.
    pub host_endpoints: Objects<Name, HostEndpoint>,
}

/// All that a cluster holds of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calico {
    /// Of `projectcalico.org/v3`.
    pub v3: CalicoObjects,
    /// Of `crd.projectcalico.org/v1`.
    pub v1: CalicoObjects,
    /// The labels of service accounts.
    pub service_accounts: Objects<ObjectName, Labels>,
}

impl CalicoApi {
    /// The one that counts first.
    pub const ALL: [Self; 2] = [Self::V3, Self::V1];
}

impl Calico {
    /// Whether there are no policies, and so no verdict on a pod depends on any of them.
    pub fn is_empty(&self) -> bool {
        [&self.v3, &self.v1].into_iter().all(|objects| objects.policies.is_empty())
    }

    /// The host endpoints, each from the store that counts first.
    pub fn host_endpoints(&self) -> impl Iterator<Item = &HostEndpoint> {
        counting(&self.v3.host_endpoints, &self.v1.host_endpoints).map(|(_, host)| host)
    }

    /// The ends that represent them for selectors of rules.
    pub fn host_subjects(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.host_endpoints().map(|host| host.end(HostTraffic::Local))
    }

    /// The objects of one store.
    pub const fn of_mut(&mut self, api: CalicoApi) -> &mut CalicoObjects {
        match api {
            CalicoApi::V3 => &mut self.v3,
            CalicoApi::V1 => &mut self.v1,
        }
    }

    /// The tiers that count.
    pub fn tiers(&self) -> impl Iterator<Item = (&Name, &CalicoTier)> {
        counting(&self.v3.tiers, &self.v1.tiers)
    }

    /// The policies that count.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CalicoPolicy>> {
        let is_of_both = !self.v3.policies.is_empty() && !self.v1.policies.is_empty();
        let of_v3 = self.v3.policies.values().filter(|_| is_of_both).map(|policy| &policy.name);
        let of_v3: BTreeSet<&CalicoPolicyName> = of_v3.collect();
        let others = self.v1.policies.values().filter(move |policy| !of_v3.contains(&policy.name));
        self.v3.policies.values().chain(others)
    }

    /// The policy of this name that counts.
    pub fn policy(&self, name: &CalicoPolicyName) -> Option<&Arc<CalicoPolicy>> {
        let stored = CalicoPolicyName { name: format!("default.{}", name.name).into(), ..name.clone() };
        let stores = [&self.v3.policies, &self.v1.policies];
        let by_name = stores.into_iter().flat_map(|store| [store.get(name), store.get(&stored)]);
        let mut by_name = by_name.flatten().filter(|policy| policy.name == *name);
        // An annotation may name it otherwise than its object.
        by_name.next().or_else(|| {
            let stores = [&self.v3, &self.v1].into_iter();
            stores.flat_map(|store| store.policies_in(name.namespace.as_ref())).find(|it| it.name == *name)
        })
    }

    /// The policies that count of a namespace, or the cluster's own.
    pub fn policies_in(&self, namespace: Option<&Name>) -> impl Iterator<Item = &Arc<CalicoPolicy>> {
        let is_of_both = !self.v3.policies.is_empty() && !self.v1.policies.is_empty();
        let of_v3 = is_of_both.then(|| self.v3.policies_in(namespace).map(|policy| &policy.name));
        let of_v3: BTreeSet<&CalicoPolicyName> = of_v3.into_iter().flatten().collect();
        let others = self.v1.policies_in(namespace).filter(move |policy| !of_v3.contains(&policy.name));
        self.v3.policies_in(namespace).chain(others)
    }

    /// The network sets that count.
    pub fn network_sets(&self) -> impl Iterator<Item = &NetworkSet> {
        counting(&self.v3.network_sets, &self.v1.network_sets).map(|(_, set)| set)
    }

    /// The labels of a pod as selectors see them, given those of its namespace.
    pub fn labels_of<'a>(&'a self, pod: &'a Pod, namespace: &'a Labels) -> EndpointLabels<'a> {
        EndpointLabels::of_pod(pod, namespace, |name| self.service_accounts.get(name).map(Arc::as_ref))
    }
}

impl CalicoObjects {
    /// The policies of a namespace, or the cluster's own.
    fn policies_in(&self, namespace: Option<&Name>) -> impl Iterator<Item = &Arc<CalicoPolicy>> {
        let (namespace, kind) = (namespace.cloned(), CalicoPolicyKind::ALL[0]);
        let first = CalicoPolicyName { namespace, name: "".into(), kind };
        let following = self.policies.range(first.clone()..);
        following.take_while(move |(name, _)| name.namespace == first.namespace).map(|(_, policy)| policy)
    }
}

/// Those of the first, and those of the second that the first has not.
fn counting<'a, K: Ord + Clone, V>(
    first: &'a Objects<K, V>,
    second: &'a Objects<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let others = second.iter().filter(|(name, _)| !first.contains_key(*name));
    first.iter().chain(others).map(|(name, object)| (name, &**object))
}
