//! Which policies are asked about the connections of a pod, in which order, and what they decide together:
//! for the compiler, for `explain` and for the attribution of what has happened.
//!
//! In: a cluster; who walks says which connections each rule matches. Out: the policies with a say, and what
//! each rule, each tier and all of them together decide. What a rule matches is not known here.

mod decision;

use std::collections::BTreeSet;

pub use decision::{ConnectionSet, Decision, RulesDecision, RulesWalk, TierEnd};
use podgate_common::Direction;

use crate::model::{Action, Cluster, ClusterNetworkPolicy, Pod, PolicyRef, Rule, Tier};

/// The policies of a cluster, in one list of tiers.
#[derive(Clone, Debug)]
pub struct OrderedPolicies<'a> {
    cluster: &'a Cluster,
    tiers: Vec<OrderedTier<'a>>,
}

/// The policies of a tier, whomever they select, in the order in which they are asked.
#[derive(Clone, Debug)]
struct OrderedTier<'a> {
    policies: Vec<OrderedPolicy<'a>>,
    /// Whether it denies what none of its rules matches, for pods that any of its policies selects.
    denies_rest: bool,
}

#[derive(Clone, Copy, Debug)]
enum OrderedPolicy<'a> {
    Cluster(&'a ClusterNetworkPolicy),
    /// Those of the pod's namespace.
    NetworkPolicies,
}

/// The policies with a say in the connections of one pod in one direction, in the order in which they are
/// asked.
#[derive(Clone, Debug)]
pub struct PolicyWalk<'a> {
    direction: Direction,
    whole_namespace_audits: bool,
    tiers: Vec<WalkTier<'a>>,
}

/// The policies of a tier with a say: there is one at least.
#[derive(Clone, Debug)]
pub struct WalkTier<'a> {
    policies: Vec<PolicyRef<'a>>,
    denies_rest: bool,
}

/// Policies of a tier that are asked together.
#[derive(Clone, Copy, Debug)]
pub enum PolicyGroup<'w, 'a> {
    /// One after the other: the first rule that matches decides.
    InOrder(&'w [PolicyRef<'a>]),
    /// NetworkPolicies: whatever any of their rules matches is accepted.
    AnyOf(&'w [PolicyRef<'a>]),
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
    /// The connections that each rule matches, of those that were left. Of any but a NetworkPolicy it is the
    /// first of its tier that does.
    pub hits: Vec<ConnectionIndexes>,
    /// How its tier ends.
    pub end: TierEnd,
    /// What the end of its tier drops.
    pub dropped_at_end: ConnectionIndexes,
}

impl<'a> OrderedPolicies<'a> {
    /// Whose they are.
    pub const fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// All of a cluster's.
    pub fn of(cluster: &'a Cluster) -> Self {
        let of_cluster = |tier| OrderedTier {
            policies: cluster.by_precedence(tier).into_iter().map(OrderedPolicy::Cluster).collect(),
            denies_rest: false,
        };
        let default = OrderedTier { policies: vec![OrderedPolicy::NetworkPolicies], denies_rest: true };
        Self { cluster, tiers: vec![of_cluster(Tier::Admin), default, of_cluster(Tier::Baseline)] }
    }

    /// Those with a say for a pod in a direction, in audit mode or not.
    pub fn for_pod(&self, pod: &Pod, direction: Direction) -> PolicyWalk<'a> {
        let namespace = &pod.name.namespace;
        // The labels of the namespace are not looked for when there is no one to ask.
        let mut labels = None;
        let mut is_asked = |policy: &ClusterNetworkPolicy| {
            !policy.rules(direction).is_empty()
                && policy.selects(pod, labels.get_or_insert_with(|| self.cluster.namespace_labels(namespace)))
        };
        let mut tiers = Vec::new();
        for OrderedTier { policies, denies_rest } in &self.tiers {
            let mut asked = Vec::new();
            for policy in policies {
                match *policy {
                    OrderedPolicy::Cluster(policy) if is_asked(policy) => {
                        asked.push(PolicyRef::Cluster(policy));
                    }
                    OrderedPolicy::Cluster(_) => {}
                    OrderedPolicy::NetworkPolicies => {
                        let policies = self.cluster.policies_selecting(pod, direction);
                        asked.extend(policies.map(PolicyRef::Namespaced));
                    }
                }
            }
            if !asked.is_empty() {
                tiers.push(WalkTier { policies: asked, denies_rest: *denies_rest });
            }
        }
        PolicyWalk { direction, whole_namespace_audits: self.cluster.is_in_audit(namespace), tiers }
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
        let tiers = self.tiers.iter().map(|tier| {
            let policies = tier.policies.iter().copied().filter(|policy| !self.audits(*policy));
            WalkTier { policies: policies.collect(), denies_rest: tier.denies_rest }
        });
        Self { tiers: tiers.filter(|tier| !tier.policies.is_empty()).collect(), ..*self }
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
        self.tiers.iter().flat_map(|tier| tier.policies.iter().copied())
    }

    /// Whether a tier denies what none of its rules matches.
    pub fn isolates(&self) -> bool {
        self.tiers.iter().any(|tier| tier.end() != TierEnd::Pass)
    }

    /// The tiers that may decide: none comes after one that leaves nothing. "NetworkPolicy always makes a
    /// final decision for selected pods": on all but what their own node may do.
    pub fn deciding(&self) -> &[WalkTier<'a>] {
        let last = self.tiers.iter().position(|tier| tier.end() != TierEnd::Pass);
        last.map_or(&self.tiers, |last| &self.tiers[..=last])
    }

    /// Asks all of them about connections.
    pub fn walk(&self, connections: ConnectionIndexes, visitor: &mut impl PolicyVisitor<'a>) -> Walked<'a> {
        let decision = Decision::of(connections);
        let mut progress = WalkProgress { walk: self, visitor, decision, walked: Vec::new() };
        self.tiers.iter().for_each(|tier| progress.tier(tier));
        Walked { policies: progress.walked, decision: progress.decision }
    }
}

impl<'a> WalkTier<'a> {
    /// What becomes of what none of its rules matches.
    pub fn end(&self) -> TierEnd {
        match self.denies_rest {
            false => TierEnd::Pass,
            true if self.policies.iter().all(is_of_any) => TierEnd::Isolate,
            true => TierEnd::Deny,
        }
    }

    /// Its policies, in their order.
    pub fn policies(&self) -> &[PolicyRef<'a>] {
        &self.policies
    }

    /// The same, by how they are asked.
    pub fn groups(&self) -> impl Iterator<Item = PolicyGroup<'_, 'a>> {
        let groups = self.policies.chunk_by(|one, next| is_of_any(one) == is_of_any(next));
        groups.map(|group| match group.iter().all(is_of_any) {
            true => PolicyGroup::AnyOf(group),
            false => PolicyGroup::InOrder(group),
        })
    }
}

impl WalkedPolicy<'_> {
    /// What a rule of it decides about a connection: that it passes, or not. `None`: none does.
    pub fn decided(&self, direction: Direction, connection: usize) -> Option<bool> {
        let hits = self.policy.actions(direction).into_iter().zip(&self.hits);
        let mut decided =
            hits.filter(|(_, hits)| hits.contains(&connection)).filter_map(|(action, _)| match action {
                Action::Accept => Some(true),
                Action::Deny => Some(false),
                Action::Pass | Action::Log => None,
            });
        decided.next()
    }
}

/// Whether the order of its rules, and of others of its sort, does not count.
const fn is_of_any(policy: &PolicyRef<'_>) -> bool {
    match policy {
        PolicyRef::Namespaced(_) => true,
        PolicyRef::Cluster(_) => false,
    }
}

/// How far a walk has come.
struct WalkProgress<'s, 'a, V> {
    walk: &'s PolicyWalk<'a>,
    visitor: &'s mut V,
    decision: Decision<ConnectionIndexes>,
    walked: Vec<WalkedPolicy<'a>>,
}

impl<'a, V: PolicyVisitor<'a>> WalkProgress<'_, 'a, V> {
    fn tier(&mut self, tier: &WalkTier<'a>) {
        let (first, end) = (self.walked.len(), tier.end());
        for group in tier.groups() {
            match group {
                PolicyGroup::InOrder(policies) => self.in_order(policies, end),
                PolicyGroup::AnyOf(policies) => self.any_of(policies, end),
            }
        }
        let dropped = self.decision.end_tier(end);
        self.walked[first..].iter_mut().for_each(|policy| policy.dropped_at_end.clone_from(&dropped));
    }

    fn in_order(&mut self, policies: &[PolicyRef<'a>], end: TierEnd) {
        for policy in policies {
            let actions = policy.actions(self.walk.direction);
            self.policy(*policy, end, |decision, index, matched| {
                let mut rule = RulesWalk::default();
                let hit = rule.meet(actions[index], matched);
                decision.rules(rule.decision().by_ref());
                hit
            });
        }
    }

    /// What several of their rules match is a hit of each.
    fn any_of(&mut self, policies: &[PolicyRef<'a>], end: TierEnd) {
        let mut rules = RulesDecision::<ConnectionIndexes>::default();
        for policy in policies {
            self.policy(*policy, end, |_, _, matched| {
                rules.accepted.unite(&matched);
                matched
            });
        }
        self.decision.rules(rules.by_ref());
    }

    /// `meet`: what becomes of those that a rule matches.
    fn policy(
        &mut self,
        policy: PolicyRef<'a>,
        end: TierEnd,
        mut meet: impl FnMut(&mut Decision<ConnectionIndexes>, usize, ConnectionIndexes) -> ConnectionIndexes,
    ) {
        if self.decision.asked().is_empty() && !V::TRIES_ALL {
            return;
        }
        self.visitor.policy(policy);
        let mut hits = Vec::new();
        for (index, rule) in policy.rules(self.walk.direction).into_iter().enumerate() {
            let left = self.decision.asked();
            let is_tried = V::TRIES_ALL || !left.is_empty();
            let matched =
                if is_tried { self.visitor.rule(index, rule, left) } else { ConnectionIndexes::new() };
            hits.push(meet(&mut self.decision, index, matched));
        }
        let (audit, dropped_at_end) = (self.walk.audits(policy), ConnectionIndexes::new());
        self.walked.push(WalkedPolicy { policy, audit, hits, end, dropped_at_end });
    }
}

#[cfg(test)]
mod tests;
