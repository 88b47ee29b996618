//! Verdict rows: for each rule set and identity, one bit for each port class.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{BITS_PER_ROW, Row};

use super::{Atom, Classes, PortRange, RuleSet, Signature, Step, StepPort, Steps, Term};
use crate::model::Action;

/// Rows by (rule set, identity); block `i` of 256 classes is element `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// What is allowed. What is missing allows nothing.
    pub allowed: OrdMap<(usize, usize), Arc<[Row]>>,
    /// What is denied on addresses of the pod's own node, where no NetworkPolicy applies. What is missing denies nothing.
    pub denied_on_own_node: OrdMap<(usize, usize), Arc<[Row]>>,
}

impl Rows {
    pub fn row(&self, rule_set: usize, identity: usize, block: usize) -> Option<Row> {
        self.allowed.get(&(rule_set, identity))?.get(block).copied()
    }

    pub fn own_node_row(&self, rule_set: usize, identity: usize, block: usize) -> Option<Row> {
        self.denied_on_own_node.get(&(rule_set, identity))?.get(block).copied()
    }
}

/// Contents with their indexes.
pub(crate) fn numbered<T>(contents: &OrdMap<usize, Arc<T>>) -> impl Iterator<Item = (usize, &T)> {
    contents.iter().map(|(index, content)| (*index, &**content))
}

/// The verdicts of rule sets on identities, which are given by their signatures, in the order of their indexes.
pub(crate) fn compile<'a>(
    rule_sets: impl IntoIterator<Item = (usize, &'a RuleSet)>,
    identities: impl IntoIterator<Item = (usize, &'a Signature)>,
    classes: &Classes,
) -> Rows {
    let matcher = Matcher::new(identities, classes);
    let mut rows = Rows::default();
    let mut decided = DecidedBy { matcher: &matcher, known: HashMap::new() };
    for (place, rule_set) in rule_sets {
        let RuleSet { admin, policies, baseline } = rule_set;
        let at_place = |(identity, bits): (usize, Box<[Row]>)| ((place, identity), Arc::from(bits));
        let isolated = policies.as_ref().map(|terms| matcher.matches(terms));
        if admin.is_empty() && baseline.is_empty() {
            rows.allowed.extend(isolated.unwrap_or_default().into_iter().map(at_place));
            continue;
        }
        let [admin, baseline] = [admin, baseline].map(|steps| decided.by(steps));
        for &identity in &matcher.all {
            let accepted = matcher.bits_of(&admin.accepted, identity);
            let mut denied = matcher.bits_of(&admin.denied, identity);
            if policies.is_none() {
                // What Admin has accepted is settled.
                let mut by_baseline = matcher.bits_of(&baseline.denied, identity);
                remove(&mut by_baseline, &accepted);
                unite(&mut denied, &by_baseline);
            }
            // Nothing else is denied, unless a NetworkPolicy isolates the pod.
            let mut allowed = match &isolated {
                None => matcher.classes.all.clone(),
                Some(isolated) => {
                    let mut allowed = matcher.bits_of(isolated, identity);
                    unite(&mut allowed, &accepted);
                    allowed
                }
            };
            remove(&mut allowed, &denied);
            rows.allowed.extend(is_set(&allowed).then_some(at_place((identity, allowed))));
            rows.denied_on_own_node.extend(is_set(&denied).then_some(at_place((identity, denied))));
        }
    }
    rows
}

/// Bits of some identities; those of the others are not set.
type BitsByIdentity = BTreeMap<usize, Box<[Row]>>;

/// What one tier decides. What it passes, or does not speak of, is in neither.
#[derive(Default)]
struct Decided {
    accepted: BitsByIdentity,
    denied: BitsByIdentity,
}

/// Asks each list of steps once, however many rule sets share it.
struct DecidedBy<'a> {
    matcher: &'a Matcher<'a>,
    known: HashMap<*const Step, Rc<Decided>>,
}

impl DecidedBy<'_> {
    fn by(&mut self, steps: &Steps) -> Rc<Decided> {
        let decided = self.known.entry(steps.list().as_ptr());
        decided.or_insert_with(|| Rc::new(Decided::by(steps.list(), self.matcher))).clone()
    }
}

impl Decided {
    fn by(steps: &[Step], matcher: &Matcher<'_>) -> Self {
        let mut decided = Self::default();
        let mut over = BitsByIdentity::new();
        for step in steps {
            for (identity, mut bits) in matcher.matches_step(step) {
                let over = over.entry(identity).or_insert_with(|| matcher.classes.none());
                remove(&mut bits, over);
                unite(over, &bits);
                let of_action = match step.action {
                    Action::Accept => &mut decided.accepted,
                    Action::Deny => &mut decided.denied,
                    Action::Pass => continue,
                };
                unite(of_action.entry(identity).or_insert_with(|| matcher.classes.none()), &bits);
            }
        }
        decided
    }
}

/// Finds what terms match.
struct Matcher<'a> {
    classes: ClassBits,
    /// The identities that have a property, ascending.
    holders: HashMap<&'a Atom, Vec<usize>>,
    all: Vec<usize>,
}

impl<'a> Matcher<'a> {
    fn new(identities: impl IntoIterator<Item = (usize, &'a Signature)>, classes: &Classes) -> Self {
        let mut holders: HashMap<&Atom, Vec<usize>> = HashMap::new();
        let mut all = Vec::new();
        for (identity, signature) in identities {
            all.push(identity);
            for atom in signature {
                holders.entry(atom).or_default().push(identity);
            }
        }
        let blocks = classes.signatures.len().div_ceil(usize::from(BITS_PER_ROW));
        Self { classes: ClassBits::new(classes, blocks), holders, all }
    }

    fn matches(&self, terms: &BTreeSet<Term>) -> BitsByIdentity {
        let mut matches = BitsByIdentity::new();
        // Terms are ordered by their atoms: those of one peer stand together and differ in their ports alone.
        let terms: Vec<&Term> = terms.iter().collect();
        for terms in terms.chunk_by(|one, other| one.atoms == other.atoms) {
            let mut bits = self.classes.none();
            for term in terms {
                unite(&mut bits, self.classes.of(term.ports));
            }
            // Who holds all of the atoms.
            let mut held: Vec<&[usize]> = terms[0].atoms.iter().map(|atom| self.holders(atom)).collect();
            held.sort_by_key(|held| held.len());
            let (candidates, others) =
                held.split_first().map_or((&self.all[..], &[][..]), |(first, others)| (*first, others));
            for identity in candidates {
                if others.iter().all(|held| held.binary_search(identity).is_ok()) {
                    unite(matches.entry(*identity).or_insert_with(|| self.classes.none()), &bits);
                }
            }
        }
        matches
    }

    fn matches_step(&self, Step { action: _, peers, ports }: &Step) -> BitsByIdentity {
        let peers: BTreeSet<usize> = match peers {
            None => self.all.iter().copied().collect(),
            Some(atoms) => atoms.iter().flat_map(|atom| self.holders(atom)).copied().collect(),
        };
        let Some(ports) = ports else {
            return peers.into_iter().map(|identity| (identity, self.classes.all.clone())).collect();
        };
        let mut of_all = self.classes.none();
        for port in ports.iter().filter(|port| port.named.is_none()) {
            unite(&mut of_all, self.classes.of(Some(port.range)));
        }
        let mut matches = BitsByIdentity::new();
        if is_set(&of_all) {
            matches.extend(peers.iter().map(|identity| (*identity, of_all.clone())));
        }
        for StepPort { range, named } in ports {
            let holders = named.iter().flat_map(|atom| self.holders(atom));
            for identity in holders.filter(|identity| peers.contains(identity)) {
                let bits = matches.entry(*identity).or_insert_with(|| self.classes.none());
                unite(bits, self.classes.of(Some(*range)));
            }
        }
        matches
    }

    fn holders(&self, atom: &Atom) -> &[usize] {
        self.holders.get(atom).map_or(&[], Vec::as_slice)
    }

    fn bits_of(&self, bits: &BitsByIdentity, identity: usize) -> Box<[Row]> {
        bits.get(&identity).cloned().unwrap_or_else(|| self.classes.none())
    }
}

/// The classes that each range of ports consists of, as bits.
struct ClassBits {
    all: Box<[Row]>,
    by_range: HashMap<PortRange, Box<[Row]>>,
}

impl ClassBits {
    fn new(classes: &Classes, blocks: usize) -> Self {
        let mut all = vec![Row::default(); blocks].into_boxed_slice();
        let mut by_range: HashMap<PortRange, Box<[Row]>> = HashMap::new();
        for (class, signature) in classes.signatures.iter().enumerate() {
            set(&mut all, class);
            for range in signature {
                let bits = by_range.entry(*range);
                set(bits.or_insert_with(|| vec![Row::default(); blocks].into_boxed_slice()), class);
            }
        }
        Self { all, by_range }
    }

    fn of(&self, ports: Option<PortRange>) -> &[Row] {
        match ports {
            None => &self.all,
            // A range without a class cannot be: classes are made from the ranges of these rule sets.
            Some(range) => self.by_range.get(&range).map_or(&[], |bits| &bits[..]),
        }
    }

    fn none(&self) -> Box<[Row]> {
        vec![Row::default(); self.all.len()].into_boxed_slice()
    }
}

fn set(bits: &mut [Row], class: usize) {
    let per_row = usize::from(BITS_PER_ROW);
    let (block, bit) = (class / per_row, class % per_row);
    bits[block].0[bit / 64] |= 1 << (bit % 64);
}

fn is_set(bits: &[Row]) -> bool {
    bits.iter().any(|row| *row != Row::default())
}

fn unite(row: &mut [Row], bits: &[Row]) {
    combine(row, bits, |word, more| word | more);
}

fn remove(row: &mut [Row], bits: &[Row]) {
    combine(row, bits, |word, less| word & !less);
}

fn combine(row: &mut [Row], bits: &[Row], of: impl Fn(u64, u64) -> u64) {
    for (row, bits) in row.iter_mut().zip(bits) {
        for (word, other) in row.0.iter_mut().zip(bits.0) {
            *word = of(*word, other);
        }
    }
}
