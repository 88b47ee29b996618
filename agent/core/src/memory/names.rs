//! Names in user space: the tree of the names that rules have, and what replies say of them.

use std::collections::{BTreeMap, BTreeSet};

use podgate_common::{
    Address, LabelKey, Learnt, NAMES_OF_ADDRESS, NameId, NameNode, NameTables, PolicyId, Row, Strata, Stratum,
};

use super::Memory;
use crate::compiler::{NamePlace, NameStratum};

/// The tree of names, with numbers of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    numbers: BTreeMap<Vec<Box<[u8]>>, u32>,
    nodes: BTreeMap<LabelKey, NameNode>,
    places: BTreeMap<Address, NamePlace>,
}

impl Tree {
    pub(super) fn new(places: &BTreeSet<NamePlace>) -> Self {
        let suffixes = places.iter().flat_map(|(name, _)| (0..name.len()).map(|at| name[at..].to_vec()));
        // Shorter ones come first.
        let mut suffixes: Vec<Vec<Box<[u8]>>> = suffixes.collect::<BTreeSet<_>>().into_iter().collect();
        suffixes.sort_by_key(Vec::len);
        let numbers: BTreeMap<_, u32> = suffixes.into_iter().zip(1..).collect();
        let mut tree = Self { nodes: BTreeMap::new(), places: BTreeMap::new(), numbers };
        for (suffix, number) in &tree.numbers {
            let matches = |left| places.contains(&(suffix.clone(), left));
            let parent = tree.numbers.get(&suffix[1..]).copied().unwrap_or(0);
            let key = LabelKey::new(parent, &suffix[0]).expect("labels of patterns have 1 to 63 bytes");
            tree.nodes.insert(key, NameNode::new(*number, [0, 1, 2].map(matches)));
        }
        let keys = places.iter().map(|(suffix, left)| {
            let node = NameNode::new(tree.numbers[suffix], [true; 3]);
            (NameId::new(node, *left).as_key(), (suffix.clone(), *left))
        });
        tree.places = keys.collect();
        tree
    }

    pub(super) fn id(&self, (suffix, left): &NamePlace) -> Option<NameId> {
        let node = NameNode::new(*self.numbers.get(suffix)?, [true; 3]);
        Some(NameId::new(node, *left))
    }

    /// The name that stands under a key among addresses.
    pub(super) fn place(&self, key: &Address) -> Option<&NamePlace> {
        self.places.get(key)
    }
}

impl NameTables for Memory<'_> {
    fn node(&self, key: &LabelKey) -> NameNode {
        self.names.nodes.get(key).copied().unwrap_or(NameNode::ROOT)
    }

    /// For good: nothing ends here.
    fn learn(&self, table: u32, address: &Address, name: NameId, _: u32) -> Option<Learnt> {
        let mut learnt = self.learnt.borrow_mut();
        let names = learnt.entry((table, *address)).or_default();
        if names.contains(&name) {
            return Some(Learnt::Longer);
        }
        assert!(names.len() < NAMES_OF_ADDRESS, "tests have few names");
        names.push(name);
        Some(Learnt::New)
    }
}

/// The parts of a rule set as the row that they stand in.
pub(super) fn strata_row(parts: &[NameStratum], policy_id: impl Fn(usize) -> PolicyId) -> Row {
    let mut strata = Strata::default();
    for (place, part) in strata.0.iter_mut().zip(parts) {
        *place = Stratum { names: policy_id(part.names), open: policy_id(part.open) };
    }
    strata.row()
}
