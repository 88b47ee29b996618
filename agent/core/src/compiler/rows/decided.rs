//! What the rules of a tier decide, in bits: for all identities at once, and each list of steps once however
//! many rule sets share it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use podgate_common::Row;

use super::{Bits, BitsByIdentity, Matcher, combine, is_set, unite};
use crate::{
    compiler::{Atom, Clause, RulePart, Shared, Step},
    policy_walk::{ConnectionSet, Decision, RulesDecision, RulesWalk, TierEnd},
};

/// What a part of a tier decides, for all identities.
#[derive(Clone)]
pub(super) struct Part(Rc<Decided>);

struct Decided {
    /// By group: the part distinguishes no identities of the same group.
    decision: RulesDecision<BitsByIdentity>,
    /// The group of each identity that has a property that the part mentions.
    groups: HashMap<usize, usize>,
}

impl Part {
    /// Its cost depends on what this part distinguishes, not on all policies of the node: an author of many
    /// rules must not slow down the rule sets of others.
    fn of<'a, 'c>(
        clauses: impl Iterator<Item = &'c Shared<Clause>>,
        matcher: &Matcher<'a>,
        decide: impl FnOnce(&Matcher<'a>) -> RulesDecision<BitsByIdentity>,
    ) -> Self
    where
        'c: 'a,
    {
        let is_held = |atom: &&'a Shared<Atom>| !matcher.holders(atom).is_empty();
        let atoms: BTreeSet<&'a Shared<Atom>> =
            clauses.flat_map(|clause| clause.atoms()).filter(is_held).collect();
        let (among, groups) = matcher.among(&atoms);
        Self(Rc::new(Decided { decision: decide(&among), groups }))
    }

    fn group(&self, identity: usize) -> usize {
        self.0.groups.get(&identity).copied().unwrap_or(Matcher::OTHERS)
    }

    fn on(&self, group: usize) -> RulesDecision<Option<&Bits>> {
        let RulesDecision { accepted, denied, passed } = &self.0.decision;
        let [accepted, denied, passed] = [accepted, denied, passed].map(|bits| bits.get(&group));
        RulesDecision { accepted, denied, passed }
    }
}

/// What the parts of each tier of a rule set decide, and how the tier ends.
pub(super) struct DecidedTiers(pub(super) Vec<(Vec<Part>, TierEnd)>);

/// The verdict of the tiers on an identity. `None`: at no port.
pub(super) struct TiersVerdict {
    pub(super) allowed: Option<Arc<[Row]>>,
    /// On addresses of the pod's own node.
    pub(super) denied: Option<Arc<[Row]>>,
}

impl DecidedTiers {
    /// The identities that have properties that some part mentions.
    pub(super) fn holders(&self) -> BTreeSet<usize> {
        self.parts().flat_map(|part| part.0.groups.keys()).copied().collect()
    }

    /// The groups of an identity, by part. Identities with the same groups have the same verdict.
    pub(super) fn groups_of(&self, identity: usize) -> Vec<usize> {
        self.parts().map(|part| part.group(identity)).collect()
    }

    /// Those of an identity without such properties.
    pub(super) fn groups_of_others(&self) -> Vec<usize> {
        self.parts().map(|_| Matcher::OTHERS).collect()
    }

    /// `all`: every class.
    pub(super) fn verdict(&self, groups: &[usize], all: &Bits) -> TiersVerdict {
        let mut decision = Decision::of(all.clone());
        let mut groups = groups.iter();
        for (parts, end) in &self.0 {
            parts.iter().zip(&mut groups).for_each(|(part, group)| decision.rules(part.on(*group)));
            decision.end_tier(*end);
        }
        let bits = |bits: Bits| is_set(&bits).then(|| bits.into());
        TiersVerdict { allowed: bits(decision.allowed()), denied: bits(decision.denied) }
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().flat_map(|(parts, _)| parts)
    }
}

impl TiersVerdict {
    pub(super) const fn is_nothing(&self) -> bool {
        self.allowed.is_none() && self.denied.is_none()
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
        let matcher = self.matcher;
        match part {
            RulePart::Steps(steps) => {
                let steps = steps.list();
                let decided = self.known.entry(steps.as_ptr());
                decided.or_insert_with(|| decided_by(steps, matcher)).clone()
            }
            RulePart::AnyOf(clauses) => Part::of(clauses.iter(), matcher, |among| {
                let accepted = boxed(among.matches(clauses));
                RulesDecision { accepted, ..RulesDecision::default() }
            }),
        }
    }
}

fn decided_by<'a>(steps: &'a [Step], matcher: &Matcher<'a>) -> Part {
    Part::of(steps.iter().map(|step| &step.clause), matcher, |among| {
        let mut walk = RulesWalk::default();
        for step in steps {
            walk.meet(step.action, boxed(among.matches([&step.clause])));
        }
        walk.decision()
    })
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
