//! Which policies are asked about the connections of a pod, in which order, and what they decide together:
//! for the compiler, for `explain` and for the attribution of what has happened.
//!
//! In: a cluster; who walks says which connections each rule matches. Out: the policies with a say, and what
//! each rule, each tier and all of them together decide. What a rule matches is not known here.

mod decision;

use std::collections::BTreeSet;

pub use decision::{ConnectionSet, Decision, TierDecision, TierWalk};
use podgate_common::Direction;

use crate::model::{Cluster, ClusterNetworkPolicy, NetworkPolicy, Pod, PolicyRef, Rule, Tier};

/// The policies of a cluster, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct OrderedPolicies<'a> {
    cluster: &'a Cluster,
    admin: Vec<&'a ClusterNetworkPolicy>,
    baseline: Vec<&'a ClusterNetworkPolicy>,
}

/// The policies with a say in the connections of one pod in one direction, in the order in which they are
/// asked.
#[derive(Clone, Debug)]
pub struct PolicyWalk<'a> {
    direction: Direction,
    whole_namespace_audits: bool,
    admin: Vec<&'a ClusterNetworkPolicy>,
    policies: Vec<&'a NetworkPolicy>,
    baseline: Vec<&'a ClusterNetworkPolicy>,
}

/// Connections that are walked together, by their places in a list of the visitor's.
pub type ConnectionIndexes = BTreeSet<usize>;

/// Who walks over policies.
pub trait PolicyVisitor<'a> {
    /// Whether policies and rules are tried, too, that no connection is left for.
    const TRIES_ALL: bool;

    /// The rules of this policy come next.
    fn policy(&mut self, policy: PolicyRef<'a>);

    /// Which of the connections that are left a rule matches.
    fn rule(&mut self, index: usize, rule: &'a Rule, left: &ConnectionIndexes) -> ConnectionIndexes;
}

/// What came out of a walk.
#[derive(Clone, Debug)]
pub struct Walked<'a> {
    /// The policies that were tried, in their order.
    pub policies: Vec<WalkedPolicy<'a>>,
    /// What they decide.
    pub decision: Decision<ConnectionIndexes>,
}

/// A policy that was tried.
#[derive(Clone, Debug)]
pub struct WalkedPolicy<'a> {
    /// The policy.
    pub policy: PolicyRef<'a>,
    /// It only reports what it would deny.
    pub audit: bool,
    /// The connections that each rule matches, of those that were left. Of a cluster-wide policy it is the
    /// first of its tier that does.
    pub hits: Vec<ConnectionIndexes>,
}

impl<'a> OrderedPolicies<'a> {
    /// Whose they are.
    pub const fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// All of a cluster's.
    pub fn of(cluster: &'a Cluster) -> Self {
        let [admin, baseline] = [Tier::Admin, Tier::Baseline].map(|tier| cluster.by_precedence(tier));
        Self { cluster, admin, baseline }
    }

    /// Those with a say for a pod in a direction, in audit mode or not.
    pub fn for_pod(&self, pod: &Pod, direction: Direction) -> PolicyWalk<'a> {
        let namespace = &pod.name.namespace;
        let [admin, baseline] = [&self.admin, &self.baseline].map(|tier| {
            // The labels of the namespace are not looked for when there is no one to ask.
            let labels = (!tier.is_empty()).then(|| self.cluster.namespace_labels(namespace));
            let selects = |policy: &ClusterNetworkPolicy| {
                labels.as_ref().is_some_and(|labels| policy.selects(pod, labels))
            };
            let with_rules = tier.iter().copied().filter(|policy| !policy.rules(direction).is_empty());
            with_rules.filter(|policy| selects(policy)).collect()
        });
        PolicyWalk {
            direction,
            whole_namespace_audits: self.cluster.is_in_audit(namespace),
            admin,
            policies: self.cluster.policies_selecting(pod, direction).collect(),
            baseline,
        }
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

impl<'a> PolicyWalk<'a> {
    /// Those that are not in audit mode.
    #[must_use]
    pub fn enforced(&self) -> Self {
        let mut enforced = self.clone();
        enforced.policies.retain(|policy| !self.audits(PolicyRef::Namespaced(policy)));
        for tier in [&mut enforced.admin, &mut enforced.baseline] {
            tier.retain(|policy| !self.audits(PolicyRef::Cluster(policy)));
        }
        enforced
    }

    /// Whether any of them is in audit mode.
    pub fn has_audit(&self) -> bool {
        self.policies().any(|policy| self.audits(policy))
    }

    /// Whether one of them is in audit mode: it only reports what it would deny.
    pub const fn audits(&self, policy: PolicyRef<'_>) -> bool {
        match policy {
            PolicyRef::Namespaced(policy) => self.whole_namespace_audits || policy.audit,
            PolicyRef::Cluster(policy) => policy.audit,
        }
    }

    /// All of them, in their order.
    pub fn policies(&self) -> impl Iterator<Item = PolicyRef<'a>> {
        let policies = self.policies.iter().copied().map(PolicyRef::Namespaced);
        let [admin, baseline] =
            [&self.admin, &self.baseline].map(|tier| tier.iter().copied().map(PolicyRef::Cluster));
        admin.chain(policies).chain(baseline)
    }

    /// The NetworkPolicies among them: any isolates the pod.
    pub fn isolating(&self) -> &[&'a NetworkPolicy] {
        &self.policies
    }

    /// The cluster-wide policies of a tier that may decide: none of the tier Baseline where a NetworkPolicy
    /// isolates the pod.
    pub fn deciding(&self, tier: Tier) -> &[&'a ClusterNetworkPolicy] {
        match tier {
            Tier::Admin => &self.admin,
            // "NetworkPolicy always makes a final decision for selected pods": on all but what their own node
            // may do.
            Tier::Baseline if !self.policies.is_empty() => &[],
            Tier::Baseline => &self.baseline,
        }
    }

    /// Asks all of them about connections.
    pub fn walk(&self, connections: ConnectionIndexes, visitor: &mut impl PolicyVisitor<'a>) -> Walked<'a> {
        let mut steps = WalkProgress { walk: self, visitor, left: connections, walked: Vec::new() };
        let admin = steps.tier(&self.admin);
        let allowed_by_policies = (!self.policies.is_empty()).then(|| steps.isolating());
        let of_tiers = admin.then(steps.tier(&self.baseline));
        Walked { policies: steps.walked, decision: Decision { of_tiers, allowed_by_policies } }
    }
}

/// How far a walk has come.
struct WalkProgress<'s, 'a, V> {
    walk: &'s PolicyWalk<'a>,
    visitor: &'s mut V,
    /// Connections about which nothing is decided yet.
    left: ConnectionIndexes,
    walked: Vec<WalkedPolicy<'a>>,
}

impl<'a, V: PolicyVisitor<'a>> WalkProgress<'_, 'a, V> {
    fn tier(&mut self, policies: &[&'a ClusterNetworkPolicy]) -> TierDecision<ConnectionIndexes> {
        let mut tier = TierWalk::default();
        let mut left = self.left.clone();
        for policy in policies {
            let rules = policy.rules(self.walk.direction);
            self.policy(PolicyRef::Cluster(policy), &mut left, |index, matched, left| {
                let hit = tier.meet(rules[index].action, matched);
                left.subtract(&hit);
                hit
            });
        }
        let decision = tier.decision();
        self.left.subtract(&decision.accepted);
        self.left.subtract(&decision.denied);
        decision
    }

    /// Out: what NetworkPolicies allow. They deny the rest: nothing is left.
    fn isolating(&mut self) -> ConnectionIndexes {
        let mut allowed = ConnectionIndexes::new();
        let mut left = std::mem::take(&mut self.left);
        for policy in &self.walk.policies {
            self.policy(PolicyRef::Namespaced(policy), &mut left, |_, matched, _| {
                allowed.unite(&matched);
                matched
            });
        }
        allowed
    }

    /// `meet`: what becomes of those that a rule matches.
    fn policy(
        &mut self,
        policy: PolicyRef<'a>,
        left: &mut ConnectionIndexes,
        mut meet: impl FnMut(usize, ConnectionIndexes, &mut ConnectionIndexes) -> ConnectionIndexes,
    ) {
        if left.is_empty() && !V::TRIES_ALL {
            return;
        }
        self.visitor.policy(policy);
        let mut hits = Vec::new();
        for (index, rule) in policy.rules(self.walk.direction).into_iter().enumerate() {
            let is_tried = V::TRIES_ALL || !left.is_empty();
            let matched =
                if is_tried { self.visitor.rule(index, rule, left) } else { ConnectionIndexes::new() };
            hits.push(meet(index, matched, left));
        }
        self.walked.push(WalkedPolicy { policy, audit: self.walk.audits(policy), hits });
    }
}

#[cfg(test)]
mod tests;
