//! What ClusterNetworkPolicies say: tier by tier, the first rule that matches decides.

use podgate_common::Direction;

use super::{Case, ClusterPolicyTrace, ClusterRuleTrace, Connection, RuleTrace, VerdictReason, peers};
use crate::model::{Action, Pod, Tier};

/// The answer of one tier.
pub(super) struct TierResult {
    pub(super) traces: Vec<ClusterPolicyTrace>,
    /// For each case; `None`: the tier leaves it to the next one.
    pub(super) settled: Vec<Option<VerdictReason>>,
}

impl Connection<'_> {
    /// `is_open` says which of the cases this tier is asked about; the others are tried too, and not settled.
    pub(super) fn tier(
        &self,
        pod: &Pod,
        tier: Tier,
        direction: Direction,
        cases: &[Case],
        is_open: impl Fn(usize) -> bool,
    ) -> TierResult {
        let mut settled = vec![None; cases.len()];
        // A rule that passes ends the tier as well.
        let mut is_over: Vec<bool> = (0..cases.len()).map(|case| !is_open(case)).collect();
        let policies = self.cluster.cluster_policies_for(pod, tier, direction).into_iter();
        let traces = policies.map(|policy| {
            let mut decided = Vec::new();
            let rules = policy.rules(direction).iter().enumerate().map(|(index, rule)| {
                let mut trace = RuleTrace::of(index);
                let reason = match rule.action {
                    Action::Accept => Some(VerdictReason::ClusterPolicyAccepts),
                    Action::Deny => Some(VerdictReason::ClusterPolicyDenies),
                    Action::Pass => None,
                };
                for (at, case) in cases.iter().enumerate() {
                    let matches = trace.add(self.attempt(None, &rule.matches, direction, *case));
                    if matches && !is_over[at] {
                        is_over[at] = true;
                        settled[at] = reason;
                        if reason.is_some() && decided.last() != Some(&index) {
                            decided.push(index);
                        }
                    }
                }
                ClusterRuleTrace { action: rule.action, trace }
            });
            let rules: Vec<_> = rules.collect();
            ClusterPolicyTrace {
                kind: policy.name.kind,
                name: policy.name.name.clone(),
                tier,
                priority: policy.priority,
                selects: peers::selected_by_all(policy),
                matched: rules.iter().filter(|rule| rule.trace.matched).map(|rule| rule.trace.rule).collect(),
                decided,
                rules,
            }
        });
        let traces = traces.collect();
        TierResult { traces, settled }
    }
}
