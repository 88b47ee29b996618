//! The same limits for Calico's objects: those of one namespace together, and the cluster's together.

use std::sync::Arc;

use podgate_common::Direction;

use super::{Limited, MAX_NETWORKS, RuleLists, close, fitted};
use crate::model::{CalicoPolicy, CalicoRule, NetworkSet, NetworkSetName, Rule};

/// The policies of one namespace, or the cluster's, of which not all fits.
pub fn limited_of_calico<'a>(
    policies: impl IntoIterator<Item = &'a Arc<CalicoPolicy>>,
) -> Vec<Limited<CalicoPolicy>> {
    fitted(policies.into_iter().map(|policy| (policy, &policy.name)))
}

/// Of the network sets of one namespace, or the cluster's, those that do not fit. Small ones come first.
pub fn network_sets_over_limit<'a>(
    sets: impl IntoIterator<Item = (&'a NetworkSetName, &'a Arc<NetworkSet>)>,
) -> Vec<NetworkSetName> {
    let mut sets: Vec<_> = sets.into_iter().map(|(name, set)| (set.nets.len(), name)).collect();
    sets.sort_unstable();
    let mut taken = 0;
    let over = sets.into_iter().filter(|(nets, _)| {
        taken += nets;
        taken > MAX_NETWORKS
    });
    over.map(|(_, name)| name.clone()).collect()
}

/// What cannot be said fails closed, as what was not understood does.
impl RuleLists for CalicoPolicy {
    fn listed(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules(direction).unwrap_or_default().iter().map(|rule| &rule.matches)
    }

    fn close(&mut self, direction: Direction, index: usize) {
        let rules = match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        };
        if let Some(CalicoRule { action, matches }) = rules.as_mut().and_then(|rules| rules.get_mut(index)) {
            close(action, matches);
        }
    }
}
