//! What rules, tiers and policies decide together about sets of connections: the first rule of a tier that
//! matches decides, the first tier that decides has the last word, and what NetworkPolicies isolate needs a
//! rule that allows it.

use super::ConnectionIndexes;
use crate::model::Action;

/// What policies decide about connections.
#[derive(Clone, Debug)]
pub struct Decision<S> {
    /// What cluster-wide policies decide.
    pub of_tiers: TierDecision<S>,
    /// What NetworkPolicies allow; `None`: none isolates the pod.
    pub allowed_by_policies: Option<S>,
}

/// What cluster-wide policies decide. What is neither accepted nor denied they leave to others.
#[derive(Clone, Debug, Default)]
pub struct TierDecision<S> {
    /// Connections that pass.
    pub accepted: S,
    /// Connections that are dropped.
    pub denied: S,
}

/// A walk over the rules of one tier: the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct TierWalk<S> {
    /// What some rule has matched.
    over: S,
    decision: TierDecision<S>,
}

/// A set of connections. Its default has none.
pub trait ConnectionSet: Default {
    /// Adds those of another set.
    fn unite(&mut self, more: &Self);

    /// Takes those of another set away.
    fn subtract(&mut self, less: &Self);
}

impl<S: ConnectionSet> TierWalk<S> {
    /// The next rule matches these. Out: those that it is the first for.
    pub fn meet(&mut self, action: Action, mut matched: S) -> S {
        matched.subtract(&self.over);
        self.over.unite(&matched);
        match action {
            Action::Accept => self.decision.accepted.unite(&matched),
            Action::Deny => self.decision.denied.unite(&matched),
            // The rest of the tier is not asked.
            Action::Pass => {}
        }
        matched
    }

    /// After the last rule.
    pub fn decision(self) -> TierDecision<S> {
        self.decision
    }
}

impl<S: ConnectionSet> TierDecision<S> {
    /// Together with that of a tier which is asked later.
    #[must_use]
    pub fn then(mut self, mut next: Self) -> Self {
        next.accepted.subtract(&self.denied);
        next.denied.subtract(&self.accepted);
        self.accepted.unite(&next.accepted);
        self.denied.unite(&next.denied);
        self
    }
}

impl<S: ConnectionSet + Clone> Decision<S> {
    /// Those of all connections that pass.
    #[must_use]
    pub fn allowed(&self, all: &S) -> S {
        let mut allowed = match &self.allowed_by_policies {
            Some(allowed) => {
                let mut allowed = allowed.clone();
                allowed.unite(&self.of_tiers.accepted);
                allowed
            }
            None => all.clone(),
        };
        allowed.subtract(&self.of_tiers.denied);
        allowed
    }
}

impl ConnectionSet for ConnectionIndexes {
    fn unite(&mut self, more: &Self) {
        self.extend(more);
    }

    fn subtract(&mut self, less: &Self) {
        self.retain(|connection| !less.contains(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(rules: &[(Action, &[usize])]) -> (TierDecision<ConnectionIndexes>, Vec<ConnectionIndexes>) {
        let mut tier = TierWalk::default();
        let rules = rules.iter().map(|(action, matched)| (*action, matched.iter().copied().collect()));
        let hits = rules.map(|(action, matched)| tier.meet(action, matched)).collect();
        (tier.decision(), hits)
    }

    #[test]
    fn the_first_rule_of_a_tier_that_matches_decides_and_one_that_passes_ends_the_tier() {
        let rules: [(_, &[_]); 3] =
            [(Action::Pass, &[1]), (Action::Accept, &[1, 2]), (Action::Deny, &[1, 2, 3])];
        let (TierDecision { accepted, denied }, hits) = tier(&rules);
        assert_eq!((accepted, denied), ([2].into(), [3].into()));
        assert_eq!(hits, [[1].into(), [2].into(), [3].into()]);
    }

    #[test]
    fn a_later_tier_decides_what_an_earlier_one_has_left() {
        let (admin, _) = tier(&[(Action::Accept, &[1]), (Action::Deny, &[2]), (Action::Pass, &[3])]);
        let (baseline, _) = tier(&[(Action::Deny, &[1, 3]), (Action::Accept, &[2, 4])]);
        let TierDecision { accepted, denied } = admin.then(baseline);
        assert_eq!((accepted, denied), ([1, 4].into(), [2, 3].into()));
    }

    #[test]
    fn what_policies_isolate_needs_a_rule_and_all_else_passes_unless_a_tier_denies_it() {
        let all: ConnectionIndexes = (1..=4).collect();
        let (of_tiers, _) = tier(&[(Action::Accept, &[1]), (Action::Deny, &[2])]);
        let allowed = |allowed_by_policies: Option<ConnectionIndexes>| {
            Decision { of_tiers: of_tiers.clone(), allowed_by_policies }.allowed(&all)
        };
        assert_eq!(allowed(None), [1, 3, 4].into());
        assert_eq!(allowed(Some([2, 3].into())), [1, 3].into());
        assert_eq!(allowed(Some([].into())), [1].into());
    }
}
