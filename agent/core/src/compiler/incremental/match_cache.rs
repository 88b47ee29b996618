//! What an observer has found out about connections: each is asked once for each pod, direction, identity and
//! class, however many connections there are.
//!
//! In: questions with the versions of what their answers depend on, and answers. Out: answers of the same
//! version. The cache belongs to one observer, so no one waits for it, and it is not emptied by a change: an
//! old version is not asked for any more. How much is spent on answers, and how much of them is kept, is
//! bounded: it is traffic that asks.

use std::{collections::HashMap, sync::Arc};

use podgate_common::Direction;

use super::{answer_versions::Version, attribution::PolicyMatch};
use crate::{
    compiler::{Clause, Shared},
    model::{NamedPort, ObjectName, PolicyName},
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

/// What one observer has found out.
#[derive(Debug, Default)]
pub struct MatchCache {
    matches: HashMap<CachedQuestion, Arc<[PolicyMatch]>>,
    /// The policies and rules in them.
    kept: usize,
    /// Of which policies the clauses are.
    policies: Version,
    /// The rules of policies, as they are for pods with these named ports.
    clauses: HashMap<RulesOf, Arc<[Shared<Clause>]>>,
}

/// All that an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CachedQuestion {
    pub(super) version: Version,
    pub(super) pod: ObjectName,
    pub(super) direction: Direction,
    pub(super) end: QuestionEnd,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QuestionEnd {
    Address {
        identity: usize,
        /// Of names.
        names: Box<[usize]>,
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

impl MatchCache {
    pub(super) fn get(&self, question: &CachedQuestion) -> Option<&Arc<[PolicyMatch]>> {
        self.matches.get(question)
    }

    pub(super) fn put(&mut self, question: CachedQuestion, matches: Arc<[PolicyMatch]>) {
        if self.kept > MOST_KEPT {
            self.matches.clear();
            self.kept = 0;
        }
        self.kept += weight(&matches);
        self.matches.insert(question, matches);
    }

    /// The clauses of policies of one version; those of another are forgotten.
    pub(super) fn clauses(&mut self, policies: &Version) -> &mut HashMap<RulesOf, Arc<[Shared<Clause>]>> {
        if self.policies != *policies {
            self.policies = policies.clone();
            self.clauses.clear();
        }
        &mut self.clauses
    }
}

/// What it takes to keep an answer, and to count by it.
pub(super) fn weight(matches: &[PolicyMatch]) -> usize {
    1 + matches.iter().map(|matches| 1 + matches.matched.len()).sum::<usize>()
}
