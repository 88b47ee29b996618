//! The ids that the kernel sees. One content has one id while any packet may see it, and an id never changes
//! content.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use podgate_common::{ClassId, IdentityId, PolicyId, ServiceId};
use podgate_core::compiler::{Backend, CompiledTables, PortSignature, RuleSet, Signature};

/// Ids by content.
#[derive(Debug, Default)]
pub(super) struct Ids {
    policies: IdPool<Arc<RuleSet>>,
    identities: IdPool<Arc<Signature>>,
    classes: IdPool<PortSignature>,
    /// What is behind a service, in ids: what they stand for cannot change while the service has its own.
    services: IdPool<BTreeSet<Backend>>,
}

/// The ids of tables, by their indexes.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) policies: BTreeMap<usize, PolicyId>,
    pub(super) identities: BTreeMap<usize, IdentityId>,
    pub(super) classes: Vec<ClassId>,
    pub(super) services: BTreeMap<usize, ServiceId>,
}

impl Default for Assigned {
    /// What every table has.
    fn default() -> Self {
        Self {
            policies: BTreeMap::from([(0, PolicyId(0))]),
            identities: BTreeMap::from([(0, IdentityId(0))]),
            classes: Vec::new(),
            services: BTreeMap::from([(0, ServiceId(0))]),
        }
    }
}

impl Ids {
    /// Finds or makes the ids of what is in `tables` and was not in `before`, which was assigned already.
    pub(super) fn assign(
        &mut self,
        tables: &CompiledTables,
        before: &CompiledTables,
        assigned: &mut Assigned,
    ) {
        for (index, rule_set) in added(&before.rule_sets, &tables.rule_sets) {
            let number = self.policies.id(index, rule_set);
            assigned.policies.insert(index, PolicyId::new(number, rule_set.covers_own_node()));
        }
        for (index, signature) in added(&before.identities.signatures, &tables.identities.signatures) {
            assigned.identities.insert(index, IdentityId(self.identities.id(index, signature)));
        }
        if assigned.classes.is_empty() || !Arc::ptr_eq(&before.classes, &tables.classes) {
            let signatures = tables.classes.signatures.iter().enumerate();
            let ids = signatures.map(|(index, signature)| self.classes.id(index, signature));
            // Those of publications that failed are still there, too: see `Ids::have_room`.
            assigned.classes = ids.map(|id| ClassId(u16::try_from(id).unwrap_or(0))).collect();
        }
        for (index, backends) in added(&before.services.backends, &tables.services.backends) {
            // The same content may be written by other indexes of classes: its id stays.
            let id = self.services.id(index, &assigned.in_ids(backends));
            assigned.services.insert(index, ServiceId(id));
        }
    }

    /// Identities that addresses in the kernel may have, but none in these tables has.
    pub(super) fn leaving(&self, tables: &CompiledTables) -> Vec<(Arc<Signature>, IdentityId)> {
        let staying: HashSet<&Arc<Signature>> = tables.identities.signatures.values().collect();
        let leaving = self.identities.ids.iter().filter(|(signature, _)| !staying.contains(signature));
        leaving.map(|(signature, id)| (signature.clone(), IdentityId(*id))).collect()
    }

    /// Whether each class has an id. If not, the tables must be written again, in another slot.
    pub(super) const fn have_room(&self) -> bool {
        self.classes.next <= 1 << u16::BITS
    }

    /// Whether [`Ids::free`] would free any.
    pub(super) fn has_idle(&self, tables: &CompiledTables) -> bool {
        // Each index has an id of its own, and index 0 has none that is counted.
        let classes = tables.classes.signatures.len();
        self.policies.ids.len() + 1 > tables.rule_sets.len()
            || self.identities.ids.len() + 1 > tables.identities.signatures.len()
            || self.classes.ids.len() + 1 > classes
            || self.services.ids.len() + 1 > tables.services.backends.len()
    }

    /// Frees the ids of what was in `before` and is not in `tables`, which are of one series and have the
    /// same classes. To be called when no packet can see them any more.
    pub(super) fn free(&mut self, tables: &CompiledTables, before: &CompiledTables, assigned: &mut Assigned) {
        for (index, backends) in added(&tables.services.backends, &before.services.backends) {
            assigned.services.remove(&index);
            self.services.free(&assigned.in_ids(backends));
        }
        for (index, rule_set) in added(&tables.rule_sets, &before.rule_sets) {
            assigned.policies.remove(&index);
            self.policies.free(rule_set);
        }
        for (index, signature) in added(&tables.identities.signatures, &before.identities.signatures) {
            assigned.identities.remove(&index);
            self.identities.free(signature);
        }
    }

    /// Frees all ids but those of these tables.
    pub(super) fn keep(&mut self, tables: &CompiledTables, assigned: &mut Assigned) {
        let backends: Vec<_> =
            tables.services.backends.values().map(|backends| assigned.in_ids(backends)).collect();
        self.services.keep(&backends.iter().collect());
        self.policies.keep(&tables.rule_sets.values().collect());
        self.identities.keep(&tables.identities.signatures.values().collect());
        self.classes.keep(&tables.classes.signatures.iter().collect());
        assigned.services.retain(|index, _| tables.services.backends.contains_key(index));
        assigned.policies.retain(|index, _| tables.rule_sets.contains_key(index));
        assigned.identities.retain(|index, _| tables.identities.signatures.contains_key(index));
    }
}

impl Assigned {
    /// What is behind a service, in these ids.
    fn in_ids(&self, backends: &BTreeSet<Backend>) -> BTreeSet<Backend> {
        let identity = |index: usize| self.identities[&index].0 as usize;
        let class = |index: usize| usize::from(self.classes[index].0);
        let in_ids = |backend: &Backend| match *backend {
            Backend::Node { identity: of, class: at } => {
                Backend::Node { identity: identity(of), class: class(at) }
            }
            Backend::Local { identity: of, class: at, egress } => Backend::Local {
                identity: identity(of),
                class: class(at),
                egress: egress.map(|rule_set| self.policies[&rule_set].number() as usize),
            },
            Backend::Elsewhere { identity: of, class: at } => {
                Backend::Elsewhere { identity: identity(of), class: class(at) }
            }
            Backend::Untranslated | Backend::Unlisted => *backend,
        };
        backends.iter().map(in_ids).collect()
    }
}

/// What the second has and the first has not.
fn added<'a, T: PartialEq>(
    first: &'a OrdMap<usize, T>,
    second: &'a OrdMap<usize, T>,
) -> impl Iterator<Item = (usize, &'a T)> {
    first.diff(second).filter_map(|difference| match difference {
        DiffItem::Add(index, content) => Some((*index, content)),
        DiffItem::Update { new: (index, content), .. } => Some((*index, content)),
        DiffItem::Remove(..) => None,
    })
}

/// Gives the lowest free id to each new content; 0 is for what has index 0.
#[derive(Debug)]
struct IdPool<T> {
    ids: HashMap<T, u32>,
    /// Ids below `next` that are in no use.
    free: BTreeSet<u32>,
    next: u32,
}

impl<T> Default for IdPool<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), free: BTreeSet::new(), next: 1 }
    }
}

impl<T: Clone + Eq + Hash> IdPool<T> {
    fn id(&mut self, index: usize, content: &T) -> u32 {
        if index == 0 {
            return 0;
        }
        if let Some(&id) = self.ids.get(content) {
            return id;
        }
        let id = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.ids.insert(content.clone(), id);
        id
    }

    fn free(&mut self, content: &T) {
        self.free.extend(self.ids.remove(content));
    }

    fn keep(&mut self, contents: &HashSet<&T>) {
        let Self { ids, free, .. } = self;
        ids.retain(|content, id| contents.contains(content) || !free.insert(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_content_and_is_given_again_only_when_freed() {
        let mut interner = IdPool::default();
        let ids = |interner: &mut IdPool<&'static str>, contents: &[&'static str]| -> Vec<u32> {
            contents.iter().enumerate().map(|(index, content)| interner.id(index, content)).collect()
        };
        assert_eq!(ids(&mut interner, &["", "a", "b"]), [0, 1, 2]);
        assert_eq!(ids(&mut interner, &["", "b", "c"]), [0, 2, 3]);
        interner.keep(&HashSet::from([&"b", &"c"]));
        assert_eq!(ids(&mut interner, &["", "d", "c", "e"]), [0, 1, 3, 4]);
        interner.free(&"c");
        assert_eq!(ids(&mut interner, &["", "f", "d"]), [0, 3, 1]);
    }
}
