//! Contents and their indexes: one content has one index, and no index is ever given to another content.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use imbl::OrdMap;

/// Index 0 is the default content, and stays.
#[derive(Debug)]
pub(super) struct Numbering<T> {
    contents: OrdMap<usize, Arc<T>>,
    indexes: HashMap<Arc<T>, usize>,
    next: usize,
}

impl<T: Default + Eq + Hash> Default for Numbering<T> {
    fn default() -> Self {
        let nothing: Arc<T> = Arc::default();
        Self { contents: OrdMap::unit(0, nothing.clone()), indexes: HashMap::from([(nothing, 0)]), next: 1 }
    }
}

impl<T: Default + Eq + Hash> Numbering<T> {
    pub(super) const fn contents(&self) -> &OrdMap<usize, Arc<T>> {
        &self.contents
    }

    pub(super) fn number(&mut self, content: &Arc<T>) -> usize {
        if let Some(&index) = self.indexes.get(content) {
            return index;
        }
        let index = self.next;
        self.next += 1;
        self.contents.insert(index, content.clone());
        self.indexes.insert(content.clone(), index);
        index
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(content) = self.contents.remove(&index)
            && self.indexes.get(&content) == Some(&index)
        {
            self.indexes.remove(&content);
        }
    }

    /// Writes contents in another way, which says the same of each. `None`: it cannot be said any more, so
    /// nothing new is taken for it.
    pub(super) fn rewrite(&mut self, other: impl Fn(&T) -> Option<T>) {
        self.indexes.clear();
        for (index, content) in self.contents.clone() {
            if let Some(content) = other(&content) {
                let content = Arc::new(content);
                self.contents.insert(index, content.clone());
                self.indexes.insert(content, index);
            }
        }
    }

    /// Forgets everything but which indexes were given.
    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

/// Removes what is keyed by an index and another one.
pub(super) fn remove_range<V: Clone>(map: &mut OrdMap<(usize, usize), V>, index: usize) {
    let doomed: Vec<_> = map.range((index, 0)..(index + 1, 0)).map(|(key, _)| *key).collect();
    for key in doomed {
        map.remove(&key);
    }
}
