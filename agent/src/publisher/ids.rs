//! The ids that the kernel sees. One content has one id while any packet may see it, and an id never changes content.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use podgate_common::{ClassId, IdentityId, PolicyId, ServiceId};

use crate::compiler::{Backend, PortRange, RuleSet, Signature, Tables};

/// Ids by content.
#[derive(Debug, Default)]
pub(super) struct Ids {
    policies: Interner<Arc<RuleSet>>,
    identities: Interner<Signature>,
    classes: Interner<BTreeSet<PortRange>>,
    /// What is behind a service, in ids: what they stand for cannot change while the service has its own.
    services: Interner<BTreeSet<Backend>>,
}

/// The ids of one compilation, by its indexes.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) policies: Vec<PolicyId>,
    pub(super) identities: Vec<IdentityId>,
    pub(super) classes: Vec<ClassId>,
    pub(super) services: Vec<ServiceId>,
}

impl Ids {
    /// Finds or makes the ids of all contents. Index 0 of each kind is id 0.
    pub(super) fn assign(&mut self, tables: &Tables) -> Assigned {
        let mut assigned = Assigned {
            policies: self.policies.assign(&tables.rule_sets).map(PolicyId).collect(),
            identities: self.identities.assign(&tables.identities.signatures).map(IdentityId).collect(),
            classes: self
                .classes
                .assign(&tables.classes.signatures)
                .map(|id| {
                    ClassId(u16::try_from(id).expect("the compiler leaves room for two sets of classes"))
                })
                .collect(),
            services: Vec::new(),
        };
        assigned.services = self.services.assign(&assigned.behind(tables)).map(ServiceId).collect();
        assigned
    }

    /// Identities that addresses in the kernel may have, but none in these tables has.
    pub(super) fn leaving(&self, tables: &Tables) -> (Vec<Signature>, Vec<IdentityId>) {
        let staying: HashSet<&Signature> = tables.identities.signatures.iter().collect();
        let leaving = self.identities.ids.iter().filter(|(signature, _)| !staying.contains(signature));
        leaving.map(|(signature, id)| (signature.clone(), IdentityId(*id))).unzip()
    }

    /// Frees the ids of contents that are not in `tables`. To be called when no packet can see them any more.
    pub(super) fn keep(&mut self, tables: &Tables, assigned: &Assigned) {
        self.services.keep(&assigned.behind(tables));
        self.policies.keep(&tables.rule_sets);
        self.identities.keep(&tables.identities.signatures);
        self.classes.keep(&tables.classes.signatures);
    }
}

impl Assigned {
    /// What is behind the services, in these ids.
    fn behind(&self, tables: &Tables) -> Vec<BTreeSet<Backend>> {
        let identity = |index: usize| self.identities[index].0 as usize;
        let class = |index: usize| usize::from(self.classes[index].0);
        let in_ids = |backend: &Backend| match *backend {
            Backend::Node { identity: of, class: at } => {
                Backend::Node { identity: identity(of), class: class(at) }
            }
            Backend::Local { identity: of, class: at, egress } => Backend::Local {
                identity: identity(of),
                class: class(at),
                egress: self.policies[egress].0 as usize,
            },
            Backend::Elsewhere { identity: of, class: at } => {
                Backend::Elsewhere { identity: identity(of), class: class(at) }
            }
        };
        tables.services.behind.iter().map(|behind| behind.iter().map(in_ids).collect()).collect()
    }
}

/// Gives the lowest free id to each new content; 0 is for element 0 of every list.
#[derive(Debug)]
struct Interner<T> {
    ids: HashMap<T, u32>,
    used: BTreeSet<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), used: BTreeSet::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    fn assign<'a>(&'a mut self, contents: &'a [T]) -> impl Iterator<Item = u32> + 'a {
        // Ids below this are in use: the search for a free one never goes over them twice.
        let mut next = 1;
        contents.iter().enumerate().map(move |(index, content)| {
            if index == 0 {
                return 0;
            }
            if let Some(&id) = self.ids.get(content) {
                return id;
            }
            while self.used.contains(&next) {
                next += 1;
            }
            self.used.insert(next);
            self.ids.insert(content.clone(), next);
            next
        })
    }

    fn keep(&mut self, contents: &[T]) {
        let kept: HashSet<&T> = contents.iter().skip(1).collect();
        self.ids.retain(|content, id| {
            let keep = kept.contains(content);
            if !keep {
                self.used.remove(id);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_content_and_is_given_again_only_when_freed() {
        let mut interner = Interner::default();
        let ids = |interner: &mut Interner<&'static str>, contents: &[&'static str]| -> Vec<u32> {
            interner.assign(contents).collect()
        };
        assert_eq!(ids(&mut interner, &["", "a", "b"]), [0, 1, 2]);
        assert_eq!(ids(&mut interner, &["", "b", "c"]), [0, 2, 3]);
        interner.keep(&["", "b", "c"]);
        assert_eq!(ids(&mut interner, &["", "d", "c", "e"]), [0, 1, 3, 4]);
    }
}
