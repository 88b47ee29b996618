//! The policies of a cluster in one list of tiers, and those of them with a say for a pod.
//!
//! Without Calico's policies there are three tiers: cluster-wide policies of the tier Admin, NetworkPolicies,
//! cluster-wide policies of the tier Baseline. With them these are the tiers kube-admin, default and
//! kube-baseline among Calico's own, and NetworkPolicies stand in the tier default at a fixed order.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use podgate_common::Direction;

use super::{PolicyWalk, WalkTier};
use crate::model::{
    ADMIN_TIER, BASELINE_TIER, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, Cluster,
    ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, DEFAULT_TIER, EnforcedName, HostEnd, Labels,
    NETWORK_POLICY_ORDER, Name, Pod, PolicyName, PolicyRef, PolicyScope, Tier, TierOrder,
};

/// The policies of a cluster, in one list of tiers.
#[derive(Clone, Debug)]
pub struct OrderedPolicies<'a> {
    cluster: &'a Cluster,
    tiers: Vec<OrderedTier<'a>>,
    /// Those whose places staged policies take.
    replaced: BTreeSet<PolicyName>,
}

/// The policies of a tier, whomever they select, in the order in which they are asked.
#[derive(Clone, Debug)]
struct OrderedTier<'a> {
    name: &'a str,
    /// But for Calico's of namespaces.
    policies: Vec<OrderedPolicy<'a>>,
    /// Calico's of each namespace: a pod is not tried against those of others.
    of_namespaces: HashMap<&'a Name, Vec<OrderedPolicy<'a>>>,
    /// Whether it denies what none of its rules matches, for pods that any of its policies selects.
    denies_rest: bool,
}

#[derive(Clone, Copy, Debug)]
enum OrderedPolicy<'a> {
    Cluster(&'a ClusterNetworkPolicy),
    Calico(&'a Arc<CalicoPolicy>),
    /// Those of the pod's namespace.
    NetworkPolicies,
}

impl<'a> OrderedPolicies<'a> {
    /// Whose they are.
    pub const fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// All of a cluster's.
    pub fn of(cluster: &'a Cluster) -> Self {
        let of_cluster = |tier| cluster.by_precedence(tier).into_iter().map(OrderedPolicy::Cluster).collect();
        let [admin, baseline] = [Tier::Admin, Tier::Baseline].map(of_cluster);
        let tier = |name, policies, denies_rest| OrderedTier {
            name,
            policies,
            of_namespaces: HashMap::new(),
            denies_rest,
        };
        let known = [
            (ADMIN_TIER, tier(ADMIN_TIER.0, admin, false)),
            (DEFAULT_TIER, tier(DEFAULT_TIER.0, vec![OrderedPolicy::NetworkPolicies], true)),
            (BASELINE_TIER, tier(BASELINE_TIER.0, baseline, false)),
        ];
        if cluster.calico.is_empty() {
            let tiers = known.into_iter().map(|(_, tier)| tier).collect();
            return Self { cluster, tiers, replaced: BTreeSet::new() };
        }
        let mut places: BTreeMap<&str, TierOrder> = BTreeMap::new();
        let mut by_name: BTreeMap<&str, OrderedTier<'a>> = BTreeMap::new();
        for ((name, order), tier) in known {
            places.insert(name, TierOrder::of(order).unwrap_or(TierOrder::LAST));
            by_name.insert(name, tier);
        }
        for (name, object) in cluster.calico.tiers() {
            // What Kubernetes' own policies are in is not up to an object.
            if !by_name.contains_key(name.as_str()) {
                places.insert(name, object.order);
                by_name.insert(name, tier(name, Vec::new(), !object.passes_rest));
            }
        }
        let mut replaced = BTreeSet::new();
        for policy in cluster.calico.policies() {
            replaced.extend(policy.name.enforced().map(|name| match name {
                EnforcedName::Calico(name) => PolicyName::Calico(name),
                EnforcedName::Kubernetes(name) => PolicyName::Namespaced(name),
            }));
            if !policy.removes {
                // In a tier that does not exist it comes last of all.
                let of_tier =
                    by_name.entry(&policy.tier).or_insert_with(|| tier(&policy.tier, Vec::new(), true));
                let list = match &policy.name.namespace {
                    Some(namespace) => of_tier.of_namespaces.entry(namespace).or_default(),
                    None => &mut of_tier.policies,
                };
                list.push(OrderedPolicy::Calico(policy));
            }
        }
        let mut tiers: Vec<OrderedTier<'a>> = by_name.into_values().collect();
        tiers.sort_by_key(|tier| {
            let place = places.get(tier.name).copied();
            (place.is_none(), place, tier.name)
        });
        for tier in &mut tiers {
            for list in tier.of_namespaces.values_mut().chain([&mut tier.policies]) {
                list.sort_by_key(|policy| policy.place());
            }
        }
        Self { cluster, tiers, replaced }
    }

    /// Calico's policies of each tier, whomever they select, in the order in which they are asked.
    pub fn of_calico(&self) -> Vec<Vec<&'a Arc<CalicoPolicy>>> {
        let tiers = self.tiers.iter().map(|tier| {
            let all = tier.policies.iter().chain(tier.of_namespaces.values().flatten());
            let mut policies: Vec<&OrderedPolicy<'a>> = all.collect();
            policies.sort_by_key(|policy| policy.place());
            let of_calico = policies.into_iter().filter_map(|policy| match policy {
                OrderedPolicy::Calico(policy) => Some(*policy),
                OrderedPolicy::Cluster(_) | OrderedPolicy::NetworkPolicies => None,
            });
            of_calico.collect()
        });
        tiers.collect()
    }

    /// Those with a say for a pod or a host endpoint in a direction, in audit mode or not.
    pub fn for_pod(&self, pod: &Pod, direction: Direction) -> PolicyWalk<'a> {
        if let Some(host) = &pod.host {
            return self.for_host(pod, host, direction);
        }
        let namespace = &pod.name.namespace;
        // Labels are not looked for when there is no one to ask.
        let is_empty = |tier: &OrderedTier<'_>| {
            matches!(tier.policies[..], [] | [OrderedPolicy::NetworkPolicies])
                && !tier.of_namespaces.contains_key(namespace)
        };
        let labels = if self.tiers.iter().all(is_empty) {
            Labels::default()
        } else {
            self.cluster.namespace_labels(namespace)
        };
        let endpoint = self.cluster.calico.labels_of(pod, &labels);
        let mut tiers = Vec::new();
        for tier in &self.tiers {
            let OrderedTier { name, policies: _, of_namespaces: _, denies_rest } = tier;
            let mut asked = Vec::new();
            for policy in tier.policies_in(namespace).iter() {
                match *policy {
                    OrderedPolicy::Cluster(policy) if policy.rules(direction).is_empty() => {}
                    OrderedPolicy::Cluster(policy) => {
                        let is_asked = policy.selects(pod, &labels);
                        asked.extend(is_asked.then_some(PolicyRef::Cluster(policy)));
                    }
                    OrderedPolicy::Calico(policy) if policy.rules(direction).is_none() => {}
                    OrderedPolicy::Calico(policy) => {
                        let is_asked = policy.selects(pod, &endpoint);
                        asked.extend(is_asked.then_some(PolicyRef::Calico(policy)));
                    }
                    OrderedPolicy::NetworkPolicies => {
                        let policies = self.cluster.policies_selecting(pod, direction);
                        asked.extend(policies.map(PolicyRef::Namespaced));
                    }
                }
            }
            if !asked.is_empty() {
                tiers.push(WalkTier { name, policies: asked, denies_rest: *denies_rest });
            }
        }
        let mut walk = PolicyWalk {
            direction,
            whole_namespace_audits: self.cluster.is_in_audit(namespace),
            tiers,
            replaced: Vec::new(),
            denies_undecided: false,
        };
        self.note_replaced(&mut walk);
        walk
    }

    fn note_replaced(&self, walk: &mut PolicyWalk<'_>) {
        if !self.replaced.is_empty() {
            let names = walk.policies().map(PolicyRef::name);
            walk.replaced = names.filter(|name| self.replaced.contains(name)).collect();
        }
    }

    /// Of Calico's policies of the cluster, those for a host endpoint. All tiers are asked for each stage
    /// ([`PolicyScope::STAGES`]) in turn; what the last one leaves of the node's own traffic only a profile
    /// lets pass.
    fn for_host(&self, pod: &Pod, host: &HostEnd, direction: Direction) -> PolicyWalk<'a> {
        let labels = Labels::default();
        let endpoint = self.cluster.calico.labels_of(pod, &labels);
        let (mut tiers, last) = (Vec::new(), PolicyScope::STAGES.len() - 1);
        for (stage, scopes) in PolicyScope::STAGES.iter().enumerate() {
            for tier in &self.tiers {
                let of_calico = tier.policies.iter().filter_map(|policy| match policy {
                    OrderedPolicy::Calico(policy) => Some(*policy),
                    OrderedPolicy::Cluster(_) | OrderedPolicy::NetworkPolicies => None,
                });
                let asked = of_calico.filter(|policy| {
                    scopes.contains(&policy.scope)
                        && policy.rules(direction).is_some()
                        && policy.is_for_host(host, direction)
                        && policy.subject.matches(&endpoint)
                });
                let policies: Vec<PolicyRef<'a>> = asked.map(PolicyRef::Calico).collect();
                if !policies.is_empty() {
                    let denies_rest = tier.denies_rest && stage == last;
                    tiers.push(WalkTier { name: tier.name, policies, denies_rest });
                }
            }
        }
        let denies_undecided = host.denies_undecided();
        let whole_namespace_audits = false;
        let mut walk =
            PolicyWalk { direction, whole_namespace_audits, tiers, replaced: Vec::new(), denies_undecided };
        self.note_replaced(&mut walk);
        walk
    }

    /// Whether any has a say in a pod's connections that is not in audit mode.
    pub fn is_any_enforced(&self, pod: &Pod) -> bool {
        Direction::ALL.into_iter().any(|direction| {
            let walk = self.for_pod(pod, direction);
            walk.policies().any(|policy| !walk.audits(policy))
        })
    }

    /// Whether any with a say for a pod is in audit mode.
    pub fn is_any_in_audit(&self, pod: &Pod) -> bool {
        Direction::ALL.into_iter().any(|direction| self.for_pod(pod, direction).has_audit())
    }
}

impl<'a> OrderedTier<'a> {
    /// Those that may be for pods of a namespace.
    fn policies_in(&self, namespace: &Name) -> Cow<'_, [OrderedPolicy<'a>]> {
        let Some(own) = self.of_namespaces.get(namespace) else { return Cow::Borrowed(&self.policies) };
        let mut policies = [&self.policies[..], own].concat();
        // Two lists in order: it only merges them.
        policies.sort_by_key(|policy| policy.place());
        Cow::Owned(policies)
    }
}

impl<'a> OrderedPolicy<'a> {
    /// Among the policies of its tier. Of one order, what may deny comes before NetworkPolicies, which only
    /// allow: that is the closed reading of an order that Calico does not define.
    fn place(&self) -> PolicyPlace<'a> {
        let of = |number| TierOrder::of(number).unwrap_or(TierOrder::LAST);
        match *self {
            Self::Cluster(policy) => {
                let ClusterPolicyName { name, kind } = &policy.name;
                (of(f64::from(policy.priority)), false, name, Some(*kind), None)
            }
            Self::Calico(policy) => {
                let CalicoPolicyName { namespace, name, kind } = &policy.name;
                (policy.order, kind.is_of_kubernetes(), name, None, Some((*kind, namespace.as_deref())))
            }
            Self::NetworkPolicies => (of(NETWORK_POLICY_ORDER), true, "", None, None),
        }
    }
}

/// Order, whether it only allows, name, and what tells those of one name apart.
type PolicyPlace<'a> =
    (TierOrder, bool, &'a str, Option<ClusterPolicyKind>, Option<(CalicoPolicyKind, Option<&'a str>)>);
