//! What the rules of a tier decide, in bits: for all identities at once, and each list of steps once however
//! many rule sets share it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
#[derive(Clone)]
pub(super) struct Part(Rc<Decided>);

struct Decided {
    decision: RulesDecision<BitsByIdentity>,
    /// For each identity the one that stands for it; `None`: each stands for itself.
    first: Option<HashMap<usize, usize>>,
}

impl Part {
    pub(super) fn on(&self, identity: usize) -> RulesDecision<Option<&Bits>> {
        let Decided { decision: RulesDecision { accepted, denied, passed }, first } = &*self.0;
        let identity = first.as_ref().map_or(identity, |first| first[&identity]);
        let [accepted, denied, passed] = [accepted, denied, passed].map(|bits| bits.get(&identity));
        RulesDecision { accepted, denied, passed }
    }
}

/// Asks each list of steps once, however many rule sets share it.
pub(super) struct DecidedBy<'a> {
    matcher: &'a Matcher<'a>,
    known: HashMap<*const Step, Part>,
}

impl<'a> DecidedBy<'a> {
    pub(super) fn new(matcher: &'a Matcher<'a>) -> Self {
        Self { matcher, known: HashMap::new() }
    }

    pub(super) fn part(&mut self, part: &'a RulePart) -> Part {
        match part {
            RulePart::Steps(steps) => {
                let decided = self.known.entry(steps.list().as_ptr());
                let matcher = self.matcher;
                decided.or_insert_with(|| decided_by(steps.list(), matcher)).clone()
            }
            RulePart::AnyOf(clauses) => {
                let accepted = boxed(self.matcher.matches(clauses));
                let decision = RulesDecision { accepted, ..RulesDecision::default() };
                Part(Rc::new(Decided { decision, first: None }))
            }
        }
    }
}

/// A step costs what this list distinguishes, and not all that the policies of a node do: whoever writes many
/// rules must not pay with the time of others.
fn decided_by<'a>(steps: &'a [Step], matcher: &Matcher<'a>) -> Part {
    let atoms: BTreeSet<_> = steps.iter().flat_map(|step| step.clause.atoms()).collect();
    let (among, first) = matcher.among(&atoms);
    let mut walk = RulesWalk::default();
    for step in steps {
        walk.meet(step.action, boxed(among.matches([&step.clause])));
    }
    Part(Rc::new(Decided { decision: walk.decision(), first: Some(first) }))
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
