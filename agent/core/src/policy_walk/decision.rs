//! What rules and tiers decide together about sets of connections: the first rule of a tier that matches
//! decides, the first tier that decides has the last word, and a tier may deny what none of its rules has
//! matched.
//!
//! In: what each rule matches, tier by tier. Out: what passes and what is dropped. Which policies are in
//! which tier is not known here.

use super::ConnectionIndexes;
use crate::model::Action;

/// What becomes of connections that no rule of a tier has matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierEnd {
    /// The next tier is asked.
    Pass,
    /// They are dropped, but for those with the pod's own node: NetworkPolicies have no say in these.
    Isolate,
    /// They are dropped.
    Deny,
}

/// What a list of rules decides. What is not in it no rule has matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesDecision<S> {
    /// Connections that pass.
    pub accepted: S,
    /// Connections that are dropped.
    pub denied: S,
    /// Connections about which the rest of the tier is not asked.
    pub passed: S,
}

/// A walk over a list of rules: the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct RulesWalk<S> {
    /// What some rule has matched.
    over: S,
    decision: RulesDecision<S>,
}

/// What the tiers of a list decide, the first to be asked first.
#[derive(Clone, Debug)]
pub struct Decision<S> {
    /// What some rule lets pass.
    pub accepted: S,
    /// What is dropped by a rule, or at the end of a tier that denies.
    pub denied: S,
    /// What is dropped at the end of a tier that isolates: with the own node, it passes.
    pub isolated: S,
    /// What no tier has decided: it passes.
    pub left: S,
    /// Of those, what the tier at hand is still asked about.
    in_tier: S,
}

/// A set of connections. Its default has none.
pub trait ConnectionSet: Default {
    /// Adds those of another set.
    fn unite(&mut self, more: &Self);

    /// Takes those of another set away.
    fn subtract(&mut self, less: &Self);
}

impl<S: ConnectionSet> RulesWalk<S> {
    /// The next rule matches these. Out: those that it is the first for.
    pub fn meet(&mut self, action: Action, mut matched: S) -> S {
        matched.subtract(&self.over);
        let decided = match action {
            Action::Accept => &mut self.decision.accepted,
            Action::Deny => &mut self.decision.denied,
            Action::Pass => &mut self.decision.passed,
            Action::Log => return matched,
        };
        decided.unite(&matched);
        self.over.unite(&matched);
        matched
    }

    /// After the last rule.
    pub fn decision(self) -> RulesDecision<S> {
        self.decision
    }
}

impl<S> RulesDecision<S> {
    /// The same, lent.
    pub const fn by_ref(&self) -> RulesDecision<Option<&S>> {
        let Self { accepted, denied, passed } = self;
        RulesDecision { accepted: Some(accepted), denied: Some(denied), passed: Some(passed) }
    }
}

impl<S: ConnectionSet + Clone> Decision<S> {
    /// Before the first tier is asked.
    pub fn of(all: S) -> Self {
        let (accepted, denied, isolated) = (S::default(), S::default(), S::default());
        Self { accepted, denied, isolated, in_tier: all.clone(), left: all }
    }

    /// What the rules that come next in the tier at hand are asked about.
    pub const fn asked(&self) -> &S {
        &self.in_tier
    }

    /// The next rules of the tier at hand decide this; `None`: nothing.
    pub fn rules(&mut self, decision: RulesDecision<Option<&S>>) {
        let RulesDecision { accepted, denied, passed } = decision;
        let decided = [Some(&mut self.accepted), Some(&mut self.denied), None];
        for (matched, decided) in [accepted, denied, passed].into_iter().zip(decided) {
            let Some(matched) = matched else { continue };
            let mut taken = self.in_tier.clone();
            self.in_tier.subtract(matched);
            if let Some(decided) = decided {
                taken.subtract(&self.in_tier);
                decided.unite(&taken);
                self.left.subtract(&taken);
            }
        }
    }

    /// After the last rule of a tier. Out: what its end drops.
    pub fn end_tier(&mut self, end: TierEnd) -> S {
        let rest = std::mem::take(&mut self.in_tier);
        let dropped = match end {
            TierEnd::Pass => None,
            TierEnd::Isolate => Some(&mut self.isolated),
            TierEnd::Deny => Some(&mut self.denied),
        };
        let dropped = dropped.map_or_else(S::default, |dropped| {
            dropped.unite(&rest);
            self.left.subtract(&rest);
            rest
        });
        self.in_tier = self.left.clone();
        dropped
    }

    /// What passes.
    #[must_use]
    pub fn allowed(&self) -> S {
        let mut allowed = self.accepted.clone();
        allowed.unite(&self.left);
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

    type Decided = RulesDecision<ConnectionIndexes>;

    fn rules(rules: Listed<'_>) -> (Decided, Vec<ConnectionIndexes>) {
        let mut walk = RulesWalk::default();
        let rules = rules.iter().map(|(action, matched)| (*action, matched.iter().copied().collect()));
        let hits = rules.map(|(action, matched)| walk.meet(action, matched)).collect();
        (walk.decision(), hits)
    }

    type Listed<'a> = &'a [(Action, &'a [usize])];

    fn tiers(all: &[usize], tiers: &[(Listed<'_>, TierEnd)]) -> Decision<ConnectionIndexes> {
        let mut decision = Decision::of(all.iter().copied().collect());
        for (of_tier, end) in tiers {
            decision.rules(rules(of_tier).0.by_ref());
            decision.end_tier(*end);
        }
        decision
    }

    #[test]
    fn the_first_rule_of_a_tier_that_matches_decides_and_one_that_passes_ends_the_tier() {
        let listed: [(_, &[_]); 3] =
            [(Action::Pass, &[1]), (Action::Accept, &[1, 2]), (Action::Deny, &[1, 2, 3])];
        let (decision, hits) = rules(&listed);
        let expected = Decided { accepted: [2].into(), denied: [3].into(), passed: [1].into() };
        assert_eq!(decision, expected);
        assert_eq!(hits, [[1].into(), [2].into(), [3].into()]);
    }

    #[test]
    fn a_later_tier_decides_what_an_earlier_one_has_left() {
        let admin: Listed<'_> = &[(Action::Accept, &[1]), (Action::Deny, &[2]), (Action::Pass, &[3])];
        let baseline: Listed<'_> = &[(Action::Deny, &[1, 3]), (Action::Accept, &[2, 4])];
        let decision = tiers(&[1, 2, 3, 4, 5], &[(admin, TierEnd::Pass), (baseline, TierEnd::Pass)]);
        assert_eq!((decision.accepted, decision.denied), ([1, 4].into(), [2, 3].into()));
        assert_eq!((decision.isolated, decision.left), ([].into(), [5].into()));
    }

    #[test]
    fn the_end_of_a_tier_drops_what_none_of_its_rules_has_matched_and_nothing_that_passed() {
        let first: Listed<'_> = &[(Action::Accept, &[1]), (Action::Pass, &[2, 3])];
        let second: Listed<'_> = &[(Action::Accept, &[2, 4])];
        let both = |end| tiers(&[1, 2, 3, 4], &[(first, TierEnd::Deny), (second, end)]);
        let decision = both(TierEnd::Isolate);
        assert_eq!((&decision.accepted, &decision.denied), (&[1, 2].into(), &[4].into()));
        assert_eq!((&decision.isolated, decision.allowed()), (&[3].into(), [1, 2].into()));
        let decision = both(TierEnd::Pass);
        assert_eq!((decision.isolated.len(), decision.allowed()), (0, [1, 2, 3].into()));
    }
}
