//! Rules of a tier for one direction of a pod, in the order in which they are asked.
//!
//! Many pods are evaluated by the same list, so it is shared, and knows its hash.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{Clause, RuleSet, Shared};
use crate::model::Action;

/// One rule: what happens to what matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// What happens to a connection that matches.
    pub action: Action,
    /// What matches.
    pub clause: Shared<Clause>,
}

impl Step {
    /// Whether it decides anything of any connection.
    pub(super) fn can_decide(&self) -> bool {
        let decides = match self.action {
            Action::Accept | Action::Deny | Action::Pass => true,
            Action::Log => false,
        };
        decides && self.clause.can_match()
    }
}

/// A list of steps: the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steps {
    /// Of the list. Different lists are distinguished by it without a walk over them.
    hash: u64,
    list: Arc<[Step]>,
}

impl Steps {
    /// The steps, in the order in which they are asked.
    pub fn list(&self) -> &[Step] {
        &self.list
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromIterator<Step> for Steps {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        let list: Arc<[Step]> = steps.into_iter().collect();
        // Its keys are fixed: the same list has the same hash each time.
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        Self { hash: hasher.finish(), list }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl Hash for Steps {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// All steps of all rule sets; those of a list that several share come once.
pub(super) fn distinct<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>>,
) -> impl Iterator<Item = &'a Step> {
    let mut seen = HashSet::new();
    let lists = rule_sets.into_iter().flat_map(|rule_set| rule_set.steps());
    lists.filter(move |steps| seen.insert(steps.list.as_ptr())).flat_map(|steps| steps.list())
}
