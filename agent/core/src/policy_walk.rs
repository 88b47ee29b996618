//! Which policies are asked about the connections of a pod, in which order, and what they decide together:
//! for the compiler, for `explain` and for the attribution of what has happened.
//!
//! In: a cluster; who walks says which connections each rule matches. Out: the policies with a say, and what
//! each rule, each tier and all of them together decide. What a rule matches is not known here.

mod decision;
mod ordered;

use std::collections::BTreeSet;

pub use decision::{ConnectionSet, Decision, RulesDecision, RulesWalk, TierEnd};
pub use ordered::OrderedPolicies;
use podgate_common::Direction;

use crate::model::{Action, PolicyName, PolicyRef, Rule};

/// The policies with a say in the connections of one pod in one direction, in the order in which they are
/// asked.
#[derive(Clone, Debug)]
pub struct PolicyWalk<'a> {
    direction: Direction,
    whole_namespace_audits: bool,
    tiers: Vec<WalkTier<'a>>,
    /// Those among them that are enforced now, but whose place a staged policy takes.
    replaced: Vec<PolicyName>,
    /// Traffic that no tier decides is dropped: so it is for a host endpoint without a profile that allows
    /// it.
    denies_undecided: bool,
}

/// The policies of a tier with a say: there is one at least.
#[derive(Clone, Debug)]
pub struct WalkTier<'a> {
    name: &'a str,
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
    /// Its tier.
    pub tier: &'a str,
    /// How its tier ends.
    pub end: TierEnd,
    /// What the end of its tier drops.
    pub dropped_at_end: ConnectionIndexes,
}

impl<'a> PolicyWalk<'a> {
    /// Those that are not in audit mode.
    #[must_use]
    pub fn enforced(&self) -> Self {
        self.only(|policy| !self.audits(policy))
    }

    /// Those that had a say were those in audit mode enforced: without the ones whose places these take.
    #[must_use]
    pub fn as_if_enforced(&self) -> Self {
        if self.replaced.is_empty() {
            return self.clone();
        }
        self.only(|policy| !self.replaced.contains(&policy.name()))
    }

    fn only(&self, is_asked: impl Fn(PolicyRef<'a>) -> bool) -> Self {
        let tiers = self.tiers.iter().map(|tier| {
            let policies = tier.policies.iter().copied().filter(|policy| is_asked(*policy));
            WalkTier { policies: policies.collect(), ..*tier }
        });
        let tiers = tiers.filter(|tier| !tier.policies.is_empty()).collect();
        Self { tiers, replaced: self.replaced.clone(), ..*self }
    }

    /// Whether any of them is in audit mode, or any would go.
    pub fn has_audit(&self) -> bool {
        !self.replaced.is_empty() || self.policies().any(|policy| self.audits(policy))
    }

    /// Whether one of them is in audit mode: it only reports what it would deny.
    pub fn audits(&self, policy: PolicyRef<'_>) -> bool {
        match policy {
            PolicyRef::Namespaced(policy) => self.whole_namespace_audits || policy.audit,
            PolicyRef::Cluster(policy) => policy.audit,
            PolicyRef::Calico(policy) => policy.audit,
        }
    }

    /// All of them, in their order.
    pub fn policies(&self) -> impl Iterator<Item = PolicyRef<'a>> {
        self.tiers.iter().flat_map(|tier| tier.policies.iter().copied())
    }

    /// Whether traffic that no rule matches may be denied.
    pub fn isolates(&self) -> bool {
        self.denies_undecided || self.tiers.iter().any(|tier| tier.end() != TierEnd::Pass)
    }

    /// The verdict on traffic that no tier decides.
    pub const fn end(&self) -> TierEnd {
        if self.denies_undecided { TierEnd::Deny } else { TierEnd::Pass }
    }

    /// The tiers that may decide: none comes after one that leaves nothing. "NetworkPolicy always makes a
    /// final decision for selected pods": on all but what their own node may do.
    pub fn deciding(&self) -> &[WalkTier<'a>] {
        let last = self.tiers.iter().position(|tier| tier.leaves_nothing(self.direction));
        last.map_or(&self.tiers, |last| &self.tiers[..=last])
    }

    /// Asks all of them about connections.
    pub fn walk(&self, connections: ConnectionIndexes, visitor: &mut impl PolicyVisitor<'a>) -> Walked<'a> {
        let decision = Decision::of(connections);
        let mut progress = WalkProgress { walk: self, visitor, decision, walked: Vec::new() };
        self.tiers.iter().for_each(|tier| progress.tier(tier));
        progress.decision.end_tier(self.end());
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

    /// Whether no later tier is asked about anything.
    fn leaves_nothing(&self, direction: Direction) -> bool {
        let may_pass = |policy: &PolicyRef<'_>| policy.actions(direction).contains(&Action::Pass);
        match self.end() {
            TierEnd::Pass => false,
            TierEnd::Isolate => true,
            TierEnd::Deny => !self.policies.iter().any(may_pass),
        }
    }

    /// What it is called.
    pub const fn name(&self) -> &'a str {
        self.name
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
fn is_of_any(policy: &PolicyRef<'_>) -> bool {
    match policy {
        PolicyRef::Namespaced(_) => true,
        PolicyRef::Cluster(_) => false,
        PolicyRef::Calico(policy) => policy.name.kind.is_of_kubernetes(),
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
                PolicyGroup::InOrder(policies) => self.in_order(policies, tier),
                PolicyGroup::AnyOf(policies) => self.any_of(policies, tier),
            }
        }
        let dropped = self.decision.end_tier(end);
        self.walked[first..].iter_mut().for_each(|policy| policy.dropped_at_end.clone_from(&dropped));
    }

    fn in_order(&mut self, policies: &[PolicyRef<'a>], tier: &WalkTier<'a>) {
        for policy in policies {
            let actions = policy.actions(self.walk.direction);
            self.policy(*policy, tier, |decision, index, matched| {
                let mut rule = RulesWalk::default();
                let hit = rule.meet(actions[index], matched);
                decision.rules(rule.decision().by_ref());
                hit
            });
        }
    }

    /// What several of their rules match is a hit of each.
    fn any_of(&mut self, policies: &[PolicyRef<'a>], tier: &WalkTier<'a>) {
        let mut rules = RulesDecision::<ConnectionIndexes>::default();
        for policy in policies {
            self.policy(*policy, tier, |_, _, matched| {
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
        tier: &WalkTier<'a>,
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
        let (tier, end) = (tier.name, tier.end());
        self.walked.push(WalkedPolicy { policy, audit, hits, tier, end, dropped_at_end });
    }
}

#[cfg(test)]
mod tests;
