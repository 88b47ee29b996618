//! The same limits for Calico's policies: those of one namespace together, and the cluster's together.

use std::{collections::BTreeSet, sync::Arc};

use podgate_common::Direction;

use super::{Limit, Limited, RuleLists, close, fitted};
use crate::model::{CalicoPolicy, CalicoPolicyName, CalicoRule, ObjectName, Rule};

/// The policies of one namespace, or the cluster's, of which not all fits; each with what the object is
/// called, which is unique, as the names of policies in Calico's own store are not.
pub fn limited_of_calico<'a>(
    policies: impl IntoIterator<Item = (&'a CalicoPolicyName, &'a Arc<CalicoPolicy>)>,
) -> Vec<(&'a CalicoPolicyName, Limited<CalicoPolicy>)> {
    fitted(policies.into_iter().map(|(object, policy)| (policy, object)))
}

/// The policy with rules that fail closed in the place of those that name one of these Services. `None`: it
/// has no such rule.
pub fn without_services(
    policy: &CalicoPolicy,
    services: &BTreeSet<&ObjectName>,
) -> Option<Limited<CalicoPolicy>> {
    let naming: Vec<(Direction, usize)> = Direction::ALL
        .into_iter()
        .flat_map(|direction| {
            policy.listed(direction).enumerate().map(move |(at, rule)| (direction, at, rule))
        })
        .filter(|(.., rule)| rule.service().is_some_and(|service| services.contains(service)))
        .map(|(direction, at, _)| (direction, at))
        .collect();
    let first = *naming.iter().min()?;
    let mut closed = policy.clone();
    naming.iter().for_each(|(direction, at)| closed.close(*direction, *at));
    Some(Limited { policy: Arc::new(closed), first, limit: Limit::Endpoints, rules: naming.len() })
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
