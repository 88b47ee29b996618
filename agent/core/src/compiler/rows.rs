//! Verdict rows: for each rule set and identity, one bit for each port class.

mod class_bits;
mod decided;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use podgate_common::{BITS_PER_ROW, Row};

use class_bits::ClassBits;
use decided::{DecidedBy, DecidedTiers, Part, TiersVerdict};

use super::{Atom, Classes, Clause, Condition, RulePart, RuleSet, Shared, Signature, TierRules};
use crate::policy_walk::{ConnectionSet, TierEnd};

/// Rows by (rule set, identity); block `i` of 256 classes is element `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// What is allowed. What is missing allows nothing.
    pub allowed: OrdMap<(usize, usize), Arc<[Row]>>,
    /// What a rule set that is not in `covering_own_node` denies on addresses of the pod's own node, which
    /// NetworkPolicies leave open. A row that is missing denies nothing.
    pub denied_on_own_node: OrdMap<(usize, usize), Arc<[Row]>>,
    /// The rule sets whose rows in `allowed` hold for addresses of the pod's own node, too: see
    /// [`RuleSet::covers_own_node`].
    pub covering_own_node: OrdSet<usize>,
}

impl Rows {
    /// What a rule set allows an identity, for one block of classes. `None`: nothing.
    pub fn row(&self, rule_set: usize, identity: usize, block: usize) -> Option<Row> {
        self.allowed.get(&(rule_set, identity))?.get(block).copied()
    }

    /// What a rule set that does not cover the pod's own node denies there.
    pub fn own_node_row(&self, rule_set: usize, identity: usize, block: usize) -> Option<Row> {
        self.denied_on_own_node.get(&(rule_set, identity))?.get(block).copied()
    }

    /// Whether a rule set allows an identity at ports of a class.
    pub(super) fn allows(&self, rule_set: usize, identity: usize, class: usize) -> bool {
        self.allowed.get(&(rule_set, identity)).is_some_and(|row| is_in(row, class))
    }

    /// Whether it denies them where the address is the pod's own node's.
    pub(super) fn denies_own_node(&self, rule_set: usize, identity: usize, class: usize) -> bool {
        match self.covering_own_node.contains(&rule_set) {
            true => !self.allows(rule_set, identity, class),
            false => {
                let denied = self.denied_on_own_node.get(&(rule_set, identity));
                denied.is_some_and(|row| is_in(row, class))
            }
        }
    }

    /// Gives identities without any property that a rule set mentions the row of the identity without
    /// properties.
    pub(super) fn copy_default_row(&mut self, rule_set: usize, identities: &BTreeSet<usize>) {
        for rows in [&mut self.allowed, &mut self.denied_on_own_node] {
            if let Some(row) = rows.get(&(rule_set, 0)).cloned() {
                rows.extend(identities.iter().map(|identity| ((rule_set, *identity), row.clone())));
            }
        }
    }

    /// Writes rows for other classes, each of which is given with one of before that some of its ports had.
    /// Holds for rule sets that tell nothing apart that one of both does not.
    pub(super) fn reclassify(&mut self, origins: &[usize]) {
        let blocks = origins.len().div_ceil(usize::from(BITS_PER_ROW));
        // Many share theirs. All were there before, so that no two of them are known by one place in memory.
        let mut known: HashMap<*const Row, Arc<[Row]>> = HashMap::new();
        let mut rewrite = |before: &Arc<[Row]>| {
            let now = known.entry(before.as_ptr()).or_insert_with(|| {
                let mut now = vec![Row::default(); blocks];
                for (class, origin) in origins.iter().enumerate() {
                    if is_in(before, *origin) {
                        set(&mut now, class);
                    }
                }
                now.into()
            });
            now.clone()
        };
        for rows in [&mut self.allowed, &mut self.denied_on_own_node] {
            *rows = rows.iter().map(|(at, before)| (*at, rewrite(before))).collect();
        }
    }
}

/// Contents with their indexes.
pub(crate) fn numbered<T>(contents: &OrdMap<usize, Arc<T>>) -> impl Iterator<Item = (usize, &T)> {
    contents.iter().map(|(index, content)| (*index, &**content))
}

/// The verdicts of rule sets on identities, which are given by their signatures, in the order of their
/// indexes.
///
/// Rule sets in `closed` allow nothing, and deny on the own node whatever they might.
pub fn compile<'a>(
    rule_sets: impl IntoIterator<Item = (usize, &'a RuleSet)>,
    identities: impl IntoIterator<Item = (usize, &'a Signature)>,
    classes: &Classes,
    closed: &BTreeSet<usize>,
) -> Rows {
    let rule_sets: Vec<(usize, &RuleSet)> = rule_sets.into_iter().collect();
    let open: Vec<_> = rule_sets.iter().filter(|(place, _)| !closed.contains(place)).copied().collect();
    let matcher = Matcher::new(&open, identities, classes);
    let mut rows = Rows::default();
    let mut decided = DecidedBy::new(&matcher);
    for (place, rule_set) in rule_sets {
        let at_place = |(identity, bits): (usize, Arc<[Row]>)| ((place, identity), bits);
        let covers_own_node = rule_set.covers_own_node();
        if covers_own_node {
            rows.covering_own_node.insert(place);
        }
        if closed.contains(&place) {
            if !covers_own_node && rule_set.may_deny_own_node() {
                let all: Arc<[Row]> = matcher.classes.all.clone().into();
                let all = matcher.all.iter().map(|identity| at_place((*identity, all.clone())));
                rows.denied_on_own_node.extend(all);
            }
            continue;
        }
        if let [TierRules { parts, end: TierEnd::Isolate }] = &rule_set.tiers[..]
            && let [RulePart::AnyOf(clauses)] = &parts[..]
        {
            rows.allowed.extend(matcher.matches(clauses).into_iter().map(at_place));
            continue;
        }
        if rule_set.tiers.is_empty() {
            continue;
        }
        let tiers = rule_set.tiers.iter().map(|TierRules { parts, end }| {
            let parts: Vec<Part> = parts.iter().map(|part| decided.part(part)).collect();
            (parts, *end)
        });
        let tiers = DecidedTiers(tiers.collect());
        let mut put = |identity, TiersVerdict { allowed, denied }: &TiersVerdict| {
            rows.allowed.extend(allowed.clone().map(|bits| at_place((identity, bits))));
            rows.denied_on_own_node.extend(denied.clone().map(|bits| at_place((identity, bits))));
        };
        let verdict = |groups: &[usize]| {
            let TiersVerdict { allowed, denied } = tiers.verdict(groups, &matcher.classes.all);
            TiersVerdict { allowed, denied: denied.filter(|_| !covers_own_node) }
        };
        let holders = tiers.holders();
        let mut known: HashMap<Vec<usize>, TiersVerdict> = HashMap::new();
        for &identity in &holders {
            let groups = tiers.groups_of(identity);
            put(identity, known.entry(groups).or_insert_with_key(|groups| verdict(groups)));
        }
        // Nearly all identities have no property that these rules mention.
        let of_others = verdict(&tiers.groups_of_others());
        if !of_others.is_nothing() {
            let others = matcher.all.iter().filter(|identity| !holders.contains(identity));
            others.for_each(|identity| put(*identity, &of_others));
        }
    }
    rows
}

/// Bits of one identity, by class.
type Bits = Box<[Row]>;

/// Bits of some identities; those of the others are not set.
type BitsByIdentity = BTreeMap<usize, Bits>;

/// Finds what clauses match.
struct Matcher<'a> {
    classes: Rc<ClassBits>,
    /// The identities that have a property, ascending.
    holders: HashMap<&'a Shared<Atom>, Vec<usize>>,
    all: Vec<usize>,
}

impl<'a> Matcher<'a> {
    fn new(
        rule_sets: &[(usize, &'a RuleSet)],
        identities: impl IntoIterator<Item = (usize, &'a Signature)>,
        classes: &Classes,
    ) -> Self {
        let clauses: HashSet<&Shared<Clause>> =
            rule_sets.iter().flat_map(|(_, rule_set)| rule_set.clauses()).collect();
        let matches: BTreeSet<&Shared<Atom>> = clauses.iter().flat_map(|clause| clause.atoms()).collect();
        let mut holders: HashMap<&Shared<Atom>, Vec<usize>> = HashMap::new();
        let mut all = Vec::new();
        for (identity, signature) in identities {
            all.push(identity);
            let mut hold = |atom: &'a Shared<Atom>| holders.entry(atom).or_default().push(identity);
            // Other rule sets may ask for far more properties than these do, or than the address has.
            if matches.len() < signature.len() {
                matches.iter().filter(|atom| signature.contains(**atom)).for_each(|atom| hold(atom));
            } else {
                signature.iter().filter(|atom| matches.contains(atom)).for_each(&mut hold);
            }
        }
        let sets = clauses.iter().flat_map(|clause| clause.port_sets());
        Self { classes: Rc::new(ClassBits::new(classes, sets)), holders, all }
    }

    /// Groups the identities by which of these properties they have, and gives the group of each identity
    /// that has any. All others are the group [`Matcher::OTHERS`].
    fn among(&self, atoms: &BTreeSet<&'a Shared<Atom>>) -> (Self, HashMap<usize, usize>) {
        let mut held: HashMap<usize, Vec<usize>> = HashMap::new();
        for (place, atom) in atoms.iter().enumerate() {
            self.holders(atom).iter().for_each(|identity| held.entry(*identity).or_default().push(place));
        }
        let mut holders: Vec<Vec<usize>> = vec![Vec::new(); atoms.len()];
        let mut groups: HashMap<Vec<usize>, usize> = HashMap::from([(Vec::new(), Self::OTHERS)]);
        let group = |(identity, places): (usize, Vec<usize>)| {
            let next = groups.len();
            let group = *groups.entry(places).or_insert_with_key(|places| {
                places.iter().for_each(|place| holders[*place].push(next));
                next
            });
            (identity, group)
        };
        let group_of: HashMap<usize, usize> = held.into_iter().map(group).collect();
        let all = (0..groups.len()).collect();
        let holders = atoms.iter().copied().zip(holders).collect();
        (Self { classes: self.classes.clone(), holders, all }, group_of)
    }

    /// The group of identities that have none of some properties.
    const OTHERS: usize = 0;

    /// What any of the clauses matches. Identities to which the same ones apply share their bits: what this
    /// costs is what the clauses say, and not peers times ports.
    fn matches<'c>(
        &self,
        clauses: impl IntoIterator<Item = &'c Shared<Clause>>,
    ) -> BTreeMap<usize, Arc<[Row]>> {
        let mut of_everyone = self.classes.none();
        let mut bits: Vec<Cow<'_, [Row]>> = Vec::new();
        // Which of the bits apply to an identity.
        let mut applying: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for clause in clauses {
            if clause.is_narrowed() {
                for (identities, matched) in self.narrowed(clause) {
                    for identity in identities {
                        applying.entry(identity).or_default().push(bits.len());
                    }
                    bits.push(Cow::Owned(matched.into_vec()));
                }
                continue;
            }
            let Clause { peers, ports, conditions: _, except_ports: _ } = &**clause;
            let numbers = match ports {
                None => Some(&*self.classes.all),
                Some(ports) => Some(self.classes.of(&ports.numbers)).filter(|bits| !bits.is_empty()),
            };
            let peers = peers.as_ref().map(|atoms| self.holders_of_any(atoms));
            if let Some(numbers) = numbers {
                match &peers {
                    None => unite(&mut of_everyone, numbers),
                    Some(peers) => {
                        for identity in peers {
                            applying.entry(*identity).or_default().push(bits.len());
                        }
                        bits.push(Cow::Borrowed(numbers));
                    }
                }
            }
            for (named, number) in ports.iter().flat_map(|ports| &ports.named) {
                let holders = self.holders(named).iter();
                for identity in holders.filter(|at| peers.as_ref().is_none_or(|peers| peers.contains(*at))) {
                    applying.entry(*identity).or_default().push(bits.len());
                }
                bits.push(Cow::Borrowed(self.classes.of(number)));
            }
        }
        let mut matches = BTreeMap::new();
        if is_set(&of_everyone) {
            let everyone: Arc<[Row]> = of_everyone.clone().into();
            matches.extend(self.all.iter().map(|identity| (*identity, everyone.clone())));
        }
        let mut known: HashMap<Vec<usize>, Arc<[Row]>> = HashMap::new();
        for (identity, applying) in applying {
            let united = known.entry(applying).or_insert_with_key(|applying| {
                let mut united = of_everyone.clone();
                applying.iter().for_each(|part| unite(&mut united, &bits[*part]));
                united.into()
            });
            matches.insert(identity, united.clone());
        }
        matches
    }

    /// What a clause with conditions, or with ports that do not match, matches of which identities.
    fn narrowed(&self, clause: &Clause) -> Vec<(BTreeSet<usize>, Bits)> {
        let Clause { peers, ports, conditions, except_ports } = clause;
        let mut identities = match peers {
            None => self.all.iter().copied().collect(),
            Some(atoms) => self.holders_of_any(atoms),
        };
        for condition in conditions {
            match condition {
                Condition::AnyOf(atoms) => {
                    let holders = self.holders_of_any(atoms);
                    identities.retain(|identity| holders.contains(identity));
                }
                Condition::NoneOf(atoms) => {
                    let holders = self.holders_of_any(atoms);
                    identities.retain(|identity| !holders.contains(identity));
                }
            }
        }
        let mut matched: Vec<(BTreeSet<usize>, Bits)> = Vec::new();
        match ports {
            None => matched.push((identities, self.classes.all.clone())),
            Some(ports) => {
                for (named, number) in &ports.named {
                    let holders = self.holders(named).iter().copied();
                    let holders = holders.filter(|identity| identities.contains(identity)).collect();
                    matched.push((holders, self.classes.of(number).into()));
                }
                matched.push((identities, self.classes.of(&ports.numbers).into()));
            }
        }
        if let Some(except) = except_ports {
            let numbers: Bits = self.classes.of(&except.numbers).into();
            matched.iter_mut().for_each(|(_, bits)| bits.subtract(&numbers));
            for (named, number) in &except.named {
                let (holders, number): (_, Bits) = (self.holders(named), self.classes.of(number).into());
                let parts = matched.iter_mut().filter_map(|(identities, bits)| {
                    let having: BTreeSet<usize> =
                        holders.iter().filter(|identity| identities.remove(identity)).copied().collect();
                    let mut rest = bits.clone();
                    rest.subtract(&number);
                    (!having.is_empty()).then_some((having, rest))
                });
                let parts: Vec<_> = parts.collect();
                matched.extend(parts);
            }
        }
        matched
    }

    fn holders_of_any(&self, atoms: &BTreeSet<Shared<Atom>>) -> BTreeSet<usize> {
        atoms.iter().flat_map(|atom| self.holders(atom)).copied().collect()
    }

    fn holders(&self, atom: &Shared<Atom>) -> &[usize] {
        self.holders.get(atom).map_or(&[], Vec::as_slice)
    }
}

fn set(bits: &mut [Row], class: usize) {
    let per_row = usize::from(BITS_PER_ROW);
    let (block, bit) = (class / per_row, class % per_row);
    bits[block].0[bit / 64] |= 1 << (bit % 64);
}

fn is_in(bits: &[Row], class: usize) -> bool {
    let per_row = usize::from(BITS_PER_ROW);
    let (block, bit) = (class / per_row, class % per_row);
    bits.get(block).is_some_and(|row| row.0[bit / 64] >> (bit % 64) & 1 != 0)
}

fn is_set(bits: &[Row]) -> bool {
    bits.iter().any(|row| *row != Row::default())
}

fn unite(row: &mut [Row], bits: &[Row]) {
    combine(row, bits, |word, more| word | more);
}

fn combine(row: &mut [Row], bits: &[Row], of: impl Fn(u64, u64) -> u64) {
    for (row, bits) in row.iter_mut().zip(bits) {
        for (word, other) in row.0.iter_mut().zip(bits.0) {
            *word = of(*word, other);
        }
    }
}
