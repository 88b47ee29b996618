//! The policies of a cluster in one list of tiers, and those of them with a say for a pod.
//!
//! Without Calico's policies there are three tiers: cluster-wide policies of the tier Admin, NetworkPolicies,
//! cluster-wide policies of the tier Baseline. With them these are the tiers kube-admin, default and
//! kube-baseline among Calico's own, and NetworkPolicies stand in the tier default at a fixed order.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use podgate_common::Direction;

use super::{PolicyWalk, WalkTier};
use crate::model::{
    ADMIN_TIER, BASELINE_TIER, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, Cluster,
    ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, DEFAULT_TIER, EnforcedName, HostSubject,
    Labels, NETWORK_POLICY_ORDER, Name, Pod, PolicyName, PolicyRef, PolicyScope, Tier, TierOrder,
};

/// The policies of a cluster, in one list of tiers.
///
/// Policies of a namespace are found and sorted when the first of its pods is evaluated: a cluster may have
/// many, and a change concerns few of them.
#[derive(Clone, Debug)]
pub struct OrderedPolicies<'a> {
    cluster: &'a Cluster,
    tiers: Vec<OrderedTier<'a>>,
    /// The names of these tiers.
    known: HashSet<&'a str>,
    /// The cluster-wide policies that staged policies replace.
    replaced: BTreeSet<PolicyName>,
    of_namespaces: RefCell<HashMap<Name, Rc<NamespacePolicies<'a>>>>,
}

/// A tier, and the policies in it that may apply to pods of any namespace, in the order of evaluation.
#[derive(Clone, Debug)]
struct OrderedTier<'a> {
    name: &'a str,
    /// Its place among the tiers. `None`: it does not exist, and comes last of all.
    place: Option<TierOrder>,
    policies: Vec<OrderedPolicy<'a>>,
    /// Whether it denies what none of its rules matches, for pods that any of its policies selects.
    denies_rest: bool,
}

/// Calico's policies of a namespace: pods of other namespaces are not compared with them.
#[derive(Debug, Default)]
struct NamespacePolicies<'a> {
    /// By tier, in the order of evaluation.
    by_tier: BTreeMap<&'a str, Vec<OrderedPolicy<'a>>>,
    /// The tiers among these that do not exist, and have no policies of the cluster.
    unknown: Vec<OrderedTier<'a>>,
    /// The policies that staged policies replace.
    replaced: BTreeSet<PolicyName>,
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
        let tier = |(name, order), policies, denies_rest| {
            let place = Some(TierOrder::of(order).unwrap_or(TierOrder::LAST));
            OrderedTier { name, place, policies, denies_rest }
        };
        let mut tiers = vec![
            tier(ADMIN_TIER, admin, false),
            tier(DEFAULT_TIER, vec![OrderedPolicy::NetworkPolicies], true),
            tier(BASELINE_TIER, baseline, false),
        ];
        let (mut known, mut replaced) = (HashSet::new(), BTreeSet::new());
        if !cluster.calico.is_empty() {
            known.extend(tiers.iter().map(|tier| tier.name));
            for (name, object) in cluster.calico.tiers() {
                // No object may redefine a tier of Kubernetes' own policies.
                if known.insert(name) {
                    let (place, denies_rest) = (Some(object.order), !object.passes_rest);
                    tiers.push(OrderedTier { name, place, policies: Vec::new(), denies_rest });
                }
            }
            let own = NamespacePolicies::of(cluster, None, &known);
            replaced = own.replaced;
            known.extend(own.unknown.iter().map(|tier| tier.name));
            tiers.extend(own.unknown);
            for tier in &mut tiers {
                tier.policies.extend(own.by_tier.get(tier.name).into_iter().flatten());
                tier.policies.sort_by_key(|policy| policy.place());
            }
            tiers.sort_by_key(OrderedTier::place);
        }
        Self { cluster, tiers, known, replaced, of_namespaces: RefCell::default() }
    }

    /// Calico's policies of each tier, whomever they select, in the order in which they are asked.
    pub fn of_calico(&self) -> Vec<Vec<&'a Arc<CalicoPolicy>>> {
        let mut by_tier: BTreeMap<_, Vec<&'a Arc<CalicoPolicy>>> = BTreeMap::new();
        let places: HashMap<&str, _> = self.tiers.iter().map(|tier| (tier.name, tier.place())).collect();
        for policy in self.cluster.calico.policies().filter(|policy| !policy.removes) {
            let tier = policy.tier.as_str();
            let place = places.get(tier).copied().unwrap_or((true, None, tier));
            by_tier.entry(place).or_default().push(policy);
        }
        by_tier.values_mut().for_each(|policies| {
            policies.sort_by_key(|policy| OrderedPolicy::Calico(policy).place());
        });
        by_tier.into_values().collect()
    }

    /// The policies that apply to a pod or a host endpoint in a direction, in audit mode or not.
    pub fn for_pod(&self, pod: &Pod, direction: Direction) -> PolicyWalk<'a> {
        if let Some(host) = &pod.host {
            return self.for_host(pod, host, direction);
        }
        let namespace = &pod.name.namespace;
        let own = self.of_namespace(namespace);
        let mut in_order: Vec<&OrderedTier<'a>> = self.tiers.iter().chain(&own.unknown).collect();
        if !own.unknown.is_empty() {
            in_order.sort_by_key(|tier| tier.place());
        }
        // Labels are not looked for when there is no one to ask.
        let is_empty =
            |tier: &OrderedTier<'_>| matches!(tier.policies[..], [] | [OrderedPolicy::NetworkPolicies]);
        let labels = if own.by_tier.is_empty() && self.tiers.iter().all(is_empty) {
            Labels::default()
        } else {
            self.cluster.namespace_labels(namespace)
        };
        let endpoint = self.cluster.calico.labels_of(pod, &labels);
        let mut tiers = Vec::new();
        for tier in in_order {
            let OrderedTier { name, place: _, policies: _, denies_rest } = tier;
            let mut asked = Vec::new();
            for policy in tier.with(own.by_tier.get(name)).iter() {
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
        self.note_replaced(&mut walk, &own.replaced);
        walk
    }

    /// `of_namespace`: the policies of the namespace that staged policies replace.
    fn note_replaced(&self, walk: &mut PolicyWalk<'_>, of_namespace: &BTreeSet<PolicyName>) {
        if !self.replaced.is_empty() || !of_namespace.is_empty() {
            let names = walk.policies().map(PolicyRef::name);
            let is_replaced = |name: &_| self.replaced.contains(name) || of_namespace.contains(name);
            walk.replaced = names.filter(is_replaced).collect();
        }
    }

    /// Calico's global policies for a host endpoint. Each stage ([`PolicyScope::STAGES`]) walks over all
    /// tiers; traffic of the node's own processes that the last stage leaves undecided passes only by a
    /// profile.
    fn for_host(&self, pod: &Pod, host: &HostSubject, direction: Direction) -> PolicyWalk<'a> {
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
        self.note_replaced(&mut walk, &BTreeSet::new());
        walk
    }

    fn of_namespace(&self, namespace: &Name) -> Rc<NamespacePolicies<'a>> {
        if let Some(known) = self.of_namespaces.borrow().get(namespace) {
            return known.clone();
        }
        let found = Rc::new(NamespacePolicies::of(self.cluster, Some(namespace), &self.known));
        self.of_namespaces.borrow_mut().insert(namespace.clone(), found.clone());
        found
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
    fn place(&self) -> TierPlace<'a> {
        (self.place.is_none(), self.place, self.name)
    }

    /// Its policies with those of a namespace.
    fn with(&self, own: Option<&Vec<OrderedPolicy<'a>>>) -> Cow<'_, [OrderedPolicy<'a>]> {
        let Some(own) = own else { return Cow::Borrowed(&self.policies) };
        let mut policies = [&self.policies[..], own].concat();
        // Two lists in order: it only merges them.
        policies.sort_by_key(|policy| policy.place());
        Cow::Owned(policies)
    }
}

impl<'a> NamespacePolicies<'a> {
    /// Those of a namespace, or the cluster's own. `known`: the tiers that exist.
    fn of(cluster: &'a Cluster, namespace: Option<&Name>, known: &HashSet<&str>) -> Self {
        let mut found = Self::default();
        for policy in cluster.calico.policies_in(namespace) {
            found.replaced.extend(policy.name.enforced().map(|name| match name {
                EnforcedName::Calico(name) => PolicyName::Calico(name),
                EnforcedName::Kubernetes(name) => PolicyName::Namespaced(name),
            }));
            if !policy.removes {
                found.by_tier.entry(&policy.tier).or_default().push(OrderedPolicy::Calico(policy));
            }
        }
        found.by_tier.values_mut().for_each(|policies| policies.sort_by_key(|policy| policy.place()));
        let unknown = found.by_tier.keys().filter(|name| !known.contains(*name));
        let tier = |name| OrderedTier { name, place: None, policies: Vec::new(), denies_rest: true };
        found.unknown = unknown.copied().map(tier).collect();
        found
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

/// Whether it does not exist, its order and its name.
type TierPlace<'a> = (bool, Option<TierOrder>, &'a str);
