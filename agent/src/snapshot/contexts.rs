//! What evaluated packets in the last revisions: a report of a packet may come after the next change.

use std::{collections::BTreeMap, sync::Arc};

use podgate_core::{compiler::PolicySnapshot, model::Pod};

/// An event comes within milliseconds of the change after which it was evaluated.
const KEPT: usize = 32;

/// What evaluated packets in a revision.
#[derive(Clone, Debug)]
pub struct Context {
    pub revision: u32,
    pub policy_snapshot: PolicySnapshot,
    /// The pods behind veths, by ifindex.
    pub pods: Arc<BTreeMap<u32, Arc<Pod>>>,
    /// By ifindex, the tables of what pods have learnt of names.
    pub name_tables: Arc<BTreeMap<u32, u32>>,
}

/// Those of the last revisions, the oldest first. A copy costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Contexts(Arc<[Arc<Context>]>);

impl Contexts {
    /// These, and that from now on packets are evaluated so.
    #[must_use]
    pub fn with(&self, context: Context) -> Self {
        let before = self.0.iter().filter(|known| known.revision != context.revision);
        let mut contexts: Vec<_> = before.cloned().collect();
        contexts.push(Arc::new(context));
        contexts.drain(..contexts.len().saturating_sub(KEPT));
        Self(contexts.into())
    }

    /// What evaluates packets now; `None`: nothing is enforced yet.
    pub fn newest(&self) -> Option<&Arc<Context>> {
        self.0.last()
    }

    /// What may have evaluated a packet of this revision. A pod is switched to new policies a moment before
    /// the revision is raised, and a program that had begun before may end after it.
    pub fn near(&self, revision: u32) -> Vec<&Context> {
        let place = self.0.iter().rposition(|context| context.revision <= revision).unwrap_or(0);
        let near = [Some(place), place.checked_add(1), place.checked_sub(1)];
        near.into_iter().flatten().filter_map(|place| self.0.get(place)).map(|context| &**context).collect()
    }
}

#[cfg(test)]
mod tests {
    use podgate_core::compiler::Incremental;

    use super::*;

    #[test]
    fn the_last_revisions_are_kept_and_each_once() {
        let context = |revision| Context {
            revision,
            policy_snapshot: Incremental::default().policy_snapshot(),
            pods: Arc::default(),
            name_tables: Arc::default(),
        };
        let contexts = (1..=40).fold(Contexts::default(), |known, revision| known.with(context(revision)));
        let contexts = contexts.with(context(40));
        let near = |revision| contexts.near(revision).iter().map(|near| near.revision).collect::<Vec<_>>();
        assert_eq!(contexts.newest().map(|newest| newest.revision), Some(40));
        assert_eq!(near(40), [40, 39]);
        assert_eq!(near(20), [20, 21, 19], "its own first, then the next one");
        assert_eq!(near(3), [9, 10], "the oldest stand in for those that were forgotten");
        assert!(Contexts::default().near(1).is_empty());
    }
}
