//! Calico's objects of which not everything counts: rules and network sets beyond the limits, rules that name
//! Services with more endpoints than there is room for, and policies of a tier that does not exist.
//!
//! Each store and each namespace by itself, and the cluster's objects together. A policy of an unknown tier
//! still selects its pods, and its rules fail closed: Calico leaves such policies out, but then what its
//! author wanted denied would pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use podgate_common::Direction;
use podgate_core::model::{
    ADMIN_TIER, Action, BASELINE_TIER, Calico, CalicoApi, CalicoPolicy, CalicoPolicyName, Cluster,
    DEFAULT_TIER, EndpointSlice, Limited, Name, NamedServices, NetworkSetLimit, NetworkSetName, ObjectName,
    Objects, Peer, Peers, Ports, Rule, limited_of_calico, named_services, network_sets_over_limit,
    services_over_room, without_services,
};

use super::{OF_CLUSTER, ValidationError, problem};
use crate::source::decode::{CalicoKind, Kind, ObjectId};

/// By store, and by the namespace of the policies; `None`: the cluster's.
type OverRoom = BTreeMap<(CalicoApi, Option<Name>), BTreeSet<ObjectName>>;

#[derive(Debug, Default)]
pub(super) struct CalicoLimits {
    /// What was looked at last.
    seen: Calico,
    slices: Objects<ObjectName, EndpointSlice>,
    /// The Services that rules name.
    services: BTreeSet<ObjectName>,
    over_room: OverRoom,
    policies: Vec<(CalicoApi, CalicoPolicyName, Arc<CalicoPolicy>)>,
    network_sets: Vec<(CalicoApi, NetworkSetName)>,
    /// Those of a tier that does not exist.
    closed: BTreeSet<(CalicoApi, CalicoPolicyName)>,
    problems: BTreeMap<ObjectId, ValidationError>,
}

impl CalicoLimits {
    /// Looks again if anything has changed. Out: whether something does not count as it is written.
    pub(super) fn look(&mut self, cluster: &Cluster) -> bool {
        let Cluster { calico, slices, .. } = cluster;
        let is_same = |api: CalicoApi| {
            let [seen, now] = [&self.seen, calico].map(|calico| match api {
                CalicoApi::V3 => &calico.v3,
                CalicoApi::V1 => &calico.v1,
            });
            seen.policies.ptr_eq(&now.policies)
                && seen.tiers.ptr_eq(&now.tiers)
                && seen.network_sets.ptr_eq(&now.network_sets)
        };
        let is_same = CalicoApi::ALL.into_iter().all(is_same);
        let has_other_slices = is_same && self.names_any_of(slices);
        self.slices.clone_from(slices);
        let mut look = !is_same;
        if !is_same || has_other_slices {
            if !is_same {
                self.services = services_of(calico);
            }
            let over_room =
                over_room(calico, &named_services(&self.services, slices.values().map(Arc::as_ref)));
            look |= over_room != self.over_room;
            self.over_room = over_room;
        }
        if look {
            let Self { slices, services, over_room, .. } = std::mem::take(self);
            *self = Self { seen: calico.clone(), slices, services, over_room, ..Self::default() };
            self.look_at_tiers();
            for api in CalicoApi::ALL {
                self.look_at(api);
            }
        }
        !self.policies.is_empty() || !self.network_sets.is_empty()
    }

    /// Puts what counts in the place of what is written.
    pub(super) fn apply(&self, cluster: &mut Cluster) {
        for (api, name, policy) in &self.policies {
            cluster.calico.of_mut(*api).policies.insert(name.clone(), policy.clone());
        }
        for (api, name) in &self.network_sets {
            cluster.calico.of_mut(*api).network_sets.remove(name);
        }
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = (ObjectId, &ValidationError)> {
        self.problems.iter().map(|(id, problem)| (id.clone(), problem))
    }

    /// Whether a slice of a Service that rules name is another one than before.
    fn names_any_of(&self, slices: &Objects<ObjectName, EndpointSlice>) -> bool {
        let is_named = |slice: &EndpointSlice| self.services.contains(&slice.service);
        !self.services.is_empty()
            && self.slices.diff(slices).any(|difference| match difference {
                DiffItem::Add(_, slice) | DiffItem::Remove(_, slice) => is_named(slice),
                DiffItem::Update { old: (_, old), new: (_, new) } => is_named(old) || is_named(new),
            })
    }

    fn look_at_tiers(&mut self) {
        let known = [ADMIN_TIER.0, DEFAULT_TIER.0, BASELINE_TIER.0];
        let tiers: Vec<&Name> = self.seen.tiers().map(|(name, _)| name).collect();
        let is_known = |tier: &Name| known.contains(&tier.as_str()) || tiers.contains(&tier);
        for api in CalicoApi::ALL {
            let store = match api {
                CalicoApi::V3 => &self.seen.v3,
                CalicoApi::V1 => &self.seen.v1,
            };
            for (name, policy) in store.policies.iter().filter(|(_, policy)| !is_known(&policy.tier)) {
                let message = format!(
                    "there is no tier {}: rules that allow match nothing, all others deny, and the rest is denied",
                    policy.tier
                );
                let id = id(api, name);
                let (file, object, field) = (String::new(), id.to_string(), "spec.tier".to_owned());
                self.problems.insert(id, ValidationError { file, object, field, message });
                self.closed.insert((api, name.clone()));
                self.policies.push((api, name.clone(), Arc::new(closed(policy))));
            }
        }
    }

    fn look_at(&mut self, api: CalicoApi) {
        let store = match api {
            CalicoApi::V3 => &self.seen.v3,
            CalicoApi::V1 => &self.seen.v1,
        };
        let mut by_namespace: BTreeMap<Option<&Name>, Vec<_>> = BTreeMap::new();
        for (name, policy) in &store.policies {
            by_namespace.entry(name.namespace.as_ref()).or_default().push((name, policy));
        }
        for (namespace, policies) in by_namespace {
            let whose = whose("policies", namespace);
            let over = self.over_room.get(&(api, namespace.cloned()));
            let with_large = over.map(|over| without_large_services(&policies, &over.iter().collect()));
            let with_large = with_large.unwrap_or_default();
            let fitting = policies.into_iter().map(|(name, policy)| match with_large.get(name) {
                Some(limited) => (name, &limited.policy),
                None => (name, policy),
            });
            let mut limited: BTreeMap<_, _> = limited_of_calico(fitting).into_iter().collect();
            for (name, of_services) in &with_large {
                limited.entry(*name).or_insert_with(|| of_services.clone());
            }
            for (name, limited) in limited {
                let id = id(api, name);
                let problem = problem(&limited, id.to_string(), &whose, OF_CLUSTER);
                self.problems.insert(id, problem);
                let is_closed = self.closed.contains(&(api, name.clone()));
                let fitting = if is_closed { Arc::new(closed(&limited.policy)) } else { limited.policy };
                self.policies.push((api, name.clone(), fitting));
            }
        }
        for (name, limit) in network_sets_over_limit(&store.network_sets) {
            let kind = if name.0.is_some() { CalicoKind::NetworkSet } else { CalicoKind::GlobalNetworkSet };
            let id = ObjectId::of_any(Kind::Calico(api, kind), name.0.clone(), name.1.clone());
            let whose = match limit {
                NetworkSetLimit::Networks | NetworkSetLimit::Groups => whose("network sets", name.0.as_ref()),
                NetworkSetLimit::OfAllNamespaces => "the network sets of all namespaces".to_owned(),
            };
            let message = format!("does not fit: {whose} have more than {limit}; no rule matches it");
            let (file, object, field) = (String::new(), id.to_string(), "spec.nets".to_owned());
            self.problems.insert(id, ValidationError { file, object, field, message });
            self.network_sets.push((api, name));
        }
    }
}

/// The policies that name one of these Services.
fn without_large_services<'p>(
    policies: &[(&'p CalicoPolicyName, &'p Arc<CalicoPolicy>)],
    over: &BTreeSet<&ObjectName>,
) -> BTreeMap<&'p CalicoPolicyName, Limited<CalicoPolicy>> {
    let limited = policies.iter().map(|(name, policy)| (*name, without_services(policy, over)));
    limited.filter_map(|(name, limited)| Some((name, limited?))).collect()
}

/// The Services that rules name.
fn services_of(calico: &Calico) -> BTreeSet<ObjectName> {
    let stores = [&calico.v3, &calico.v1].into_iter();
    stores.flat_map(|store| store.policies.values()).flat_map(|policy| policy.services()).cloned().collect()
}

/// The Services for whose endpoints those who name them have no room.
fn over_room(calico: &Calico, services: &NamedServices) -> OverRoom {
    let mut named: BTreeMap<(CalicoApi, Option<&Name>), BTreeSet<&ObjectName>> = BTreeMap::new();
    for (api, store) in [(CalicoApi::V3, &calico.v3), (CalicoApi::V1, &calico.v1)] {
        for policy in store.policies.values() {
            let scope = (api, policy.name.namespace.as_ref());
            policy.services().for_each(|service| {
                named.entry(scope).or_default().insert(service);
            });
        }
    }
    let over = named.into_iter().map(|((api, namespace), named)| {
        let over: BTreeSet<ObjectName> = services_over_room(&named, services).into_iter().cloned().collect();
        ((api, namespace.cloned()), over)
    });
    over.filter(|(_, over)| !over.is_empty()).collect()
}

fn whose(what: &str, namespace: Option<&Name>) -> String {
    match namespace {
        Some(namespace) => format!("the {what} of Calico's of namespace {namespace}"),
        None => format!("the cluster's {what} of Calico's"),
    }
}

fn id(api: CalicoApi, CalicoPolicyName { namespace, name, kind }: &CalicoPolicyName) -> ObjectId {
    ObjectId::of_any(Kind::Calico(api, CalicoKind::Policy(*kind)), namespace.clone(), name.clone())
}

/// With rules that fail closed.
fn closed(policy: &CalicoPolicy) -> CalicoPolicy {
    let mut policy = policy.clone();
    for direction in Direction::ALL {
        let rules = match direction {
            Direction::Ingress => &mut policy.ingress,
            Direction::Egress => &mut policy.egress,
        };
        for rule in rules.iter_mut().flatten() {
            match rule.action {
                Action::Accept | Action::Log => {
                    let peers = Peers::Listed(vec![Peer::Nothing]);
                    rule.matches = Rule { peers, ports: Ports::Any };
                }
                Action::Deny | Action::Pass => rule.action = Action::Deny,
            }
        }
    }
    policy
}
