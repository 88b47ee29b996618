//! Which objects the policies of a cluster are: what tells a version of a policy from the one before.
//!
//! In: metadata of policies, as an API server sends it. Out: a list that a snapshot shares, of policies
//! alone. Manifests have no versions: their list is empty.

use std::{sync::Arc, time::Instant};

use imbl::{OrdMap, ordmap::DiffItem};
use podgate_core::model::PolicyName;

use super::decode::{Kind, ObjectId};

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    pub policy: PolicyName,
    pub uid: Option<Box<str>>,
    pub resource_version: Option<Box<str>>,
    pub generation: Option<i64>,
    /// When its source heard of this version.
    pub learned: Instant,
}

/// By name. Clones share what is alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyObjects(OrdMap<ObjectId, Arc<PolicyObject>>);

/// What one list says otherwise than another.
#[derive(Debug)]
pub(crate) enum PolicyObjectChange {
    Put(Arc<PolicyObject>),
    Removed(PolicyName),
}

impl PolicyObjects {
    /// Out: whether this version is new. One that is heard of again is as old as it was.
    pub(crate) fn insert(&mut self, id: ObjectId, object: PolicyObject) -> bool {
        if self.0.get(&id).is_some_and(|known| known.is_same(&object)) {
            return false;
        }
        self.0.insert(id, Arc::new(object));
        true
    }

    pub(crate) fn remove(&mut self, id: &ObjectId) -> bool {
        self.0.remove(id).is_some()
    }

    /// Takes the objects of a kind from a list that is complete.
    pub(crate) fn replace(&mut self, kind: Kind, now: Self) {
        let gone: Vec<ObjectId> =
            self.0.keys().filter(|id| id.kind() == kind && !now.0.contains_key(*id)).cloned().collect();
        for id in &gone {
            self.0.remove(id);
        }
        for (id, object) in now.0 {
            self.insert(id, PolicyObject::clone(&object));
        }
    }

    pub(crate) fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = PolicyObjectChange> + use<'a> {
        self.0.diff(&now.0).map(|difference| match difference {
            DiffItem::Add(_, object) | DiffItem::Update { new: (_, object), .. } => {
                PolicyObjectChange::Put(object.clone())
            }
            DiffItem::Remove(_, object) => PolicyObjectChange::Removed(object.policy.clone()),
        })
    }
}

#[cfg(test)]
impl PolicyObjects {
    pub(crate) fn insert_policy(&mut self, name: podgate_core::model::ObjectName, object: PolicyObject) {
        self.insert(ObjectId::of_namespace(Kind::NetworkPolicy, name), object);
    }
}

impl PolicyObject {
    fn is_same(&self, other: &Self) -> bool {
        let Self { policy, uid, resource_version, generation, learned: _ } = self;
        (policy, uid, resource_version, generation)
            == (&other.policy, &other.uid, &other.resource_version, &other.generation)
    }
}
