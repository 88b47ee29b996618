//! Patterns of rules as the walk has them, a tree, and as they read.

use std::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::{LabelKey, NameId, NameNode};

/// The labels of a name, the leftmost first, in lower case.
pub(super) type Name = Vec<Vec<u8>>;

/// `example.com`, or with a wildcard all names below it.
pub(super) struct Pattern {
    pub(super) is_wildcard: bool,
    pub(super) name: Name,
}

pub(super) struct Patterns {
    pub(super) list: Vec<Pattern>,
    /// The tree, as the walk asks for it.
    pub(super) nodes: BTreeMap<LabelKey, u32>,
    /// The node of each name that ends like a pattern.
    pub(super) numbers: BTreeMap<Name, u32>,
    /// Nodes, and how many labels are left, where some pattern matches.
    pub(super) matched: BTreeSet<(u32, u32)>,
}

pub(super) fn name(text: &str) -> Name {
    let text: String = text.to_ascii_lowercase();
    text.split('.').filter(|label| !label.is_empty()).map(|label| label.as_bytes().to_vec()).collect()
}

impl Patterns {
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let list = texts.into_iter().map(|text| match text.strip_prefix("*.") {
            Some(base) => Pattern { is_wildcard: true, name: name(base) },
            None => Pattern { is_wildcard: false, name: name(text) },
        });
        let mut patterns = Self {
            list: list.collect(),
            nodes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            matched: BTreeSet::new(),
        };
        for Pattern { name, .. } in &patterns.list {
            let mut parent = 0;
            for at in (0..name.len()).rev() {
                let next = u32::try_from(patterns.nodes.len() + 1).expect("few");
                let key = LabelKey::new(parent, &name[at]).expect("a label");
                parent = *patterns.nodes.entry(key).or_insert(next);
                patterns.numbers.insert(name[at..].to_vec(), parent);
            }
        }
        for (suffix, node) in &patterns.numbers {
            for left in 0..3 {
                let mut one = suffix.clone();
                (0..left).for_each(|_| one.insert(0, b"\xff no pattern's".to_vec()));
                if patterns.list.iter().any(|pattern| pattern.matches(&one)) {
                    let left = u32::try_from(left).expect("small");
                    patterns.matched.insert((*node, left));
                }
            }
        }
        patterns
    }

    /// The number of a name that some pattern matches.
    pub(super) fn number(&self, name: &[Vec<u8>]) -> Option<NameId> {
        if !self.list.iter().any(|pattern| pattern.matches(name)) {
            return None;
        }
        let (left, node) =
            (0..name.len()).find_map(|at| Some((at, *self.numbers.get(&name[at..])?))).expect("one matches");
        Some(NameId::new(NameNode::new(node, [true; 3]), left.try_into().expect("labels")))
    }
}

impl Pattern {
    fn matches(&self, name: &[Vec<u8>]) -> bool {
        match self.is_wildcard {
            true => name.len() > self.name.len() && name.ends_with(&self.name),
            false => name == self.name,
        }
    }
}
