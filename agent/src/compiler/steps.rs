//! The rules of ClusterNetworkPolicies for one direction of a pod, in the order in which they are asked.
//!
//! A rule is peers *and* ports, and stays so: multiplied out, one at the limits of the API would be thousands of terms.
//! Many pods are evaluated by the same list, so it is shared, and knows its hash.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{Atom, PortRange, RuleSet};
use crate::model::Action;

/// One rule: what happens to what has any of the peers' properties and goes to any of the ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    pub action: Action,
    /// `None`: every address.
    pub peers: Option<BTreeSet<Arc<Atom>>>,
    /// `None`: everything, protocols without ports too.
    pub ports: Option<BTreeSet<StepPort>>,
}

/// Ports of a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepPort {
    pub range: PortRange,
    /// The address must have this property, too: the named port that the range stands for.
    pub named: Option<Arc<Atom>>,
}

/// A list of steps: the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steps {
    /// Of the list. Different lists are told apart by it without a walk over them.
    hash: u64,
    list: Arc<[Step]>,
}

impl Step {
    /// Whether any address and port can match.
    pub(super) fn can_match(&self) -> bool {
        let Self { action: _, peers, ports } = self;
        peers.as_ref().is_none_or(|peers| !peers.is_empty())
            && ports.as_ref().is_none_or(|ports| !ports.is_empty())
    }

    pub(super) fn atoms(&self) -> impl Iterator<Item = &Arc<Atom>> {
        let named = self.ports.iter().flatten().filter_map(|port| port.named.as_ref());
        self.peers.iter().flatten().chain(named)
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = PortRange> {
        self.ports.iter().flatten().map(|port| port.range)
    }
}

impl Steps {
    pub fn list(&self) -> &[Step] {
        &self.list
    }

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
    let lists = rule_sets.into_iter().flat_map(|rule_set| [&rule_set.admin, &rule_set.baseline]);
    lists.filter(move |steps| seen.insert(steps.list.as_ptr())).flat_map(|steps| steps.list())
}
