//! What was found out about connections: it is asked once for each pod, direction, identity and class,
//! however many connections there are.
//!
//! In: questions, and what a step of the compiler looked at again. Out: answers, which hold for as long as
//! the same policies have a say. How much is spent on answers, and how much of them is kept, is bounded: it
//! is traffic that asks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use podgate_common::Direction;

use super::attribution::{PolicyMatch, PolicyName};
use crate::{
    compiler::{Clause, Shared},
    model::{NamedPort, ObjectName},
};

/// Policies and rules in all answers that are kept: some MB at most.
const MOST_KEPT: usize = 100_000;

/// How much may still be spent on answers: the rules and peers to look at. A unit takes some 50 ns.
#[derive(Debug)]
pub struct WorkLimit(usize);

impl WorkLimit {
    /// So many comparisons.
    pub const fn of(units: usize) -> Self {
        Self(units)
    }

    /// Whether any comparison is left.
    pub const fn is_left(&self) -> bool {
        self.0 > 0
    }

    pub(super) const fn spend(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units);
    }
}

/// Copies share what is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
pub(super) struct Answers {
    matches: HashMap<KnownQuestion, Arc<[PolicyMatch]>>,
    kept: usize,
    /// The rules of policies, as they are for pods with these named ports.
    pub(super) clauses: HashMap<RulesOf, Arc<[Shared<Clause>]>>,
}

/// All that an answer depends on while the same policies have a say for the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KnownQuestion {
    pub(super) pod: ObjectName,
    pub(super) direction: Direction,
    pub(super) end: QuestionEnd,
}

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum QuestionEnd {
    Address {
        identity: usize,
        class: usize,
    },
    /// What stands behind a service; `None`: nothing.
    Service(Option<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RulesOf {
    pub(super) policy: PolicyName,
    pub(super) direction: Direction,
    pub(super) own_ports: Arc<[NamedPort]>,
}

impl Known {
    /// Forgets what may be answered otherwise now. Who holds a copy goes on with what was known.
    pub(super) fn follow(&mut self, reconsidered: &BTreeSet<ObjectName>, reclassified: bool) {
        if reclassified {
            *self = Self::default();
        } else if !reconsidered.is_empty() {
            let still = {
                let answers = self.lock();
                let still =
                    answers.matches.iter().filter(|(question, _)| !reconsidered.contains(&question.pod));
                still
                    .map(|(question, matches)| (question.clone(), matches.clone()))
                    .collect::<HashMap<_, _>>()
            };
            let kept = still.values().map(|matches| weight(matches)).sum();
            *self = Self(Arc::new(Mutex::new(Answers { matches: still, kept, clauses: HashMap::new() })));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Answers> {
        // What is there is whole: answers are put when they are complete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    pub(super) fn get(&self, question: &KnownQuestion) -> Option<&Arc<[PolicyMatch]>> {
        self.matches.get(question)
    }

    pub(super) fn put(&mut self, question: KnownQuestion, matches: Arc<[PolicyMatch]>) {
        if self.kept > MOST_KEPT {
            self.matches.clear();
            self.kept = 0;
        }
        self.kept += weight(&matches);
        self.matches.insert(question, matches);
    }
}

/// What it takes to keep an answer, and to count by it.
pub(super) fn weight(matches: &[PolicyMatch]) -> usize {
    1 + matches.iter().map(|matches| 1 + matches.matched.len()).sum::<usize>()
}
