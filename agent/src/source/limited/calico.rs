//! Calico's objects of which not everything counts: rules and network sets beyond the limits, and policies of
//! a tier that does not exist.
//!
//! Each store and each namespace by itself, and the cluster's objects together. A policy of an unknown tier
//! still selects its pods, and its rules fail closed: Calico leaves such policies out, but then what its
//! author wanted denied would pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podgate_common::Direction;
use podgate_core::model::{
    ADMIN_TIER, Action, BASELINE_TIER, Calico, CalicoApi, CalicoPolicy, CalicoPolicyName, Cluster,
    DEFAULT_TIER, Name, NetworkSetLimit, NetworkSetName, Peer, Peers, Ports, Rule, limited_of_calico,
    network_sets_over_limit,
};

use super::{OF_CLUSTER, ValidationError, problem};
use crate::source::decode::{CalicoKind, Kind, ObjectId};

#[derive(Debug, Default)]
pub(super) struct CalicoLimits {
    /// What was looked at last.
    seen: Calico,
    policies: Vec<(CalicoApi, CalicoPolicyName, Arc<CalicoPolicy>)>,
    network_sets: Vec<(CalicoApi, NetworkSetName)>,
    /// Those of a tier that does not exist.
    closed: BTreeSet<(CalicoApi, CalicoPolicyName)>,
    problems: BTreeMap<ObjectId, ValidationError>,
}

impl CalicoLimits {
    /// Looks again if anything has changed. Out: whether something does not count as it is written.
    pub(super) fn look(&mut self, calico: &Calico) -> bool {
        let is_same = |api: CalicoApi| {
            let [seen, now] = [&self.seen, calico].map(|calico| match api {
                CalicoApi::V3 => &calico.v3,
                CalicoApi::V1 => &calico.v1,
            });
            seen.policies.ptr_eq(&now.policies)
                && seen.tiers.ptr_eq(&now.tiers)
                && seen.network_sets.ptr_eq(&now.network_sets)
        };
        if !CalicoApi::ALL.into_iter().all(is_same) {
            *self = Self { seen: calico.clone(), ..Self::default() };
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
            for (name, limited) in limited_of_calico(policies) {
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
