//! The same limits for Calico's policies: those of one namespace together, and the cluster's together.

use std::sync::Arc;

use podgate_common::Direction;

use super::{Limited, RuleLists, close, fitted};
use crate::model::{CalicoPolicy, CalicoPolicyName, CalicoRule, Rule};

/// The policies of one namespace, or the cluster's, of which not all fits; each with what the object is
/// called, which is unique, as the names of policies in Calico's own store are not.
pub fn limited_of_calico<'a>(
    policies: impl IntoIterator<Item = (&'a CalicoPolicyName, &'a Arc<CalicoPolicy>)>,
) -> Vec<(&'a CalicoPolicyName, Limited<CalicoPolicy>)> {
    fitted(policies.into_iter().map(|(object, policy)| (policy, object)))
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
