//! What the rules of a tier decide, in bits: for all identities at once, and each list of steps once however
//! many rule sets share it.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
};

use podgate_common::Row;

use super::{Bits, BitsByIdentity, Matcher, combine, unite};
use crate::{
    compiler::{RulePart, Step},
    policy_walk::{ConnectionSet, RulesDecision, RulesWalk},
};

/// What a part of a tier decides, for all identities.
pub(super) struct Part(Rc<RulesDecision<BitsByIdentity>>);

impl Part {
    pub(super) fn on(&self, identity: usize) -> RulesDecision<Option<&Bits>> {
        let RulesDecision { accepted, denied, passed } = &*self.0;
        let [accepted, denied, passed] = [accepted, denied, passed].map(|bits| bits.get(&identity));
        RulesDecision { accepted, denied, passed }
    }
}

/// Asks each list of steps once, however many rule sets share it.
pub(super) struct DecidedBy<'a> {
    matcher: &'a Matcher<'a>,
    known: HashMap<*const Step, Rc<RulesDecision<BitsByIdentity>>>,
}

impl<'a> DecidedBy<'a> {
    pub(super) fn new(matcher: &'a Matcher<'a>) -> Self {
        Self { matcher, known: HashMap::new() }
    }

    pub(super) fn part(&mut self, part: &RulePart) -> Part {
        match part {
            RulePart::Steps(steps) => {
                let decided = self.known.entry(steps.list().as_ptr());
                Part(decided.or_insert_with(|| Rc::new(decided_by(steps.list(), self.matcher))).clone())
            }
            RulePart::AnyOf(clauses) => {
                let accepted = boxed(self.matcher.matches(clauses));
                Part(Rc::new(RulesDecision { accepted, ..RulesDecision::default() }))
            }
        }
    }
}

fn decided_by(steps: &[Step], matcher: &Matcher<'_>) -> RulesDecision<BitsByIdentity> {
    let mut walk = RulesWalk::default();
    for step in steps {
        walk.meet(step.action, boxed(matcher.matches([&step.clause])));
    }
    walk.decision()
}

fn boxed(bits: BTreeMap<usize, Arc<[Row]>>) -> BitsByIdentity {
    bits.into_iter().map(|(identity, bits)| (identity, bits[..].into())).collect()
}

impl ConnectionSet for BitsByIdentity {
    fn unite(&mut self, more: &Self) {
        for (identity, bits) in more {
            self.entry(*identity).or_default().unite(bits);
        }
    }

    fn subtract(&mut self, less: &Self) {
        for (identity, bits) in self {
            if let Some(less) = less.get(identity) {
                bits.subtract(less);
            }
        }
    }
}

impl ConnectionSet for Box<[Row]> {
    fn unite(&mut self, more: &Self) {
        if self.is_empty() {
            self.clone_from(more);
        } else {
            unite(self, more);
        }
    }

    fn subtract(&mut self, less: &Self) {
        combine(self, less, |word, less| word & !less);
    }
}
