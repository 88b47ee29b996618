//! Verdict rows: for each rule set and identity, one bit for each port class.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use podgate_common::{BITS_PER_ROW, Row};

use super::{Atom, Classes, PortRange, RuleSet, Signature, Term};

/// Rows by (rule set, identity); block `i` of 256 classes is element `i`. What is missing allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(pub BTreeMap<(usize, usize), Box<[Row]>>);

impl Rows {
    pub fn row(&self, rule_set: usize, identity: usize, block: usize) -> Option<Row> {
        self.0.get(&(rule_set, identity))?.get(block).copied()
    }
}

/// The verdicts of rule sets on identities, which are given by their signatures.
pub(crate) fn compile(rule_sets: &[Arc<RuleSet>], identities: &[Signature], classes: &Classes) -> Rows {
    let blocks = classes.signatures.len().div_ceil(usize::from(BITS_PER_ROW));
    let class_bits = ClassBits::new(classes, blocks);
    let mut holders: HashMap<&Atom, Vec<usize>> = HashMap::new();
    for (identity, signature) in identities.iter().enumerate() {
        for atom in signature {
            holders.entry(atom).or_default().push(identity);
        }
    }
    let all: Vec<usize> = (0..identities.len()).collect();
    let mut rows = BTreeMap::new();
    for (place, rule_set) in rule_sets.iter().enumerate() {
        let mut of_rule_set: BTreeMap<usize, Box<[Row]>> = BTreeMap::new();
        // Terms are ordered by their atoms: those of one peer stand together and differ in their ports alone.
        let terms: Vec<&Term> = rule_set.terms.iter().collect();
        for terms in terms.chunk_by(|one, other| one.atoms == other.atoms) {
            let mut bits = vec![Row::default(); blocks].into_boxed_slice();
            for term in terms {
                unite(&mut bits, class_bits.of(term.ports));
            }
            // Who holds all of the atoms; the lists of holders ascend.
            let mut held: Vec<&[usize]> = terms[0]
                .atoms
                .iter()
                .map(|atom| holders.get(&**atom).map_or(&[][..], Vec::as_slice))
                .collect();
            held.sort_by_key(|held| held.len());
            let (candidates, others) =
                held.split_first().map_or((&all[..], &[][..]), |(first, others)| (*first, others));
            for identity in candidates {
                if others.iter().all(|held| held.binary_search(identity).is_ok()) {
                    let row = of_rule_set
                        .entry(*identity)
                        .or_insert_with(|| vec![Row::default(); blocks].into_boxed_slice());
                    unite(row, &bits);
                }
            }
        }
        rows.extend(of_rule_set.into_iter().map(|(identity, row)| ((place, identity), row)));
    }
    Rows(rows)
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
            allow(&mut all, class);
            for range in signature {
                let bits = by_range.entry(*range);
                allow(bits.or_insert_with(|| vec![Row::default(); blocks].into_boxed_slice()), class);
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
}

fn allow(bits: &mut [Row], class: usize) {
    let per_row = usize::from(BITS_PER_ROW);
    let (block, bit) = (class / per_row, class % per_row);
    bits[block].0[bit / 64] |= 1 << (bit % 64);
}

fn unite(row: &mut [Row], bits: &[Row]) {
    for (row, bits) in row.iter_mut().zip(bits) {
        for (word, more) in row.0.iter_mut().zip(bits.0) {
            *word |= more;
        }
    }
}
