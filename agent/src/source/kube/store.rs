//! What the watches have brought so far.

use std::{collections::BTreeMap, sync::Arc};

use kube::runtime::watcher::Event;

use super::{
    ClusterSnapshot, ValidationError,
    decode::{Decoded, Decoder, Kind, ObjectId},
    object::ApiObject,
};
use crate::model::{Cluster, Name};

/// Names and label sets that nobody uses any more are looked for after so many objects.
const OBJECTS_PER_SWEEP: usize = 10_000;

/// The namespace whose uid names a cluster: every cluster has it, and it cannot be replaced by a new one.
const OF_THE_CLUSTER: &str = "kube-system";

#[derive(Debug, Default)]
pub(super) struct ObjectStore {
    decoder: Decoder,
    /// Shared with the picture that was given last: the next change copies it.
    cluster: Arc<Cluster>,
    invalid: BTreeMap<ObjectId, InvalidObject>,
    /// Lists that have not come to their end.
    lists: BTreeMap<Kind, PendingList>,
    decoded: usize,
    /// The uid of `kube-system`.
    cluster_id: Option<String>,
    /// Kinds whose objects cannot be read, and why.
    lacking: BTreeMap<Kind, String>,
    /// A server without any namespace is meant.
    allow_empty: bool,
}

/// What a list has brought so far, in the form in which it will be kept: nothing of it is there twice.
#[derive(Debug, Default)]
struct PendingList {
    cluster: Cluster,
    invalid: BTreeMap<ObjectId, InvalidObject>,
}

/// One object as it was told.
#[derive(Debug)]
struct DecodedObject {
    id: Option<ObjectId>,
    uid: Option<String>,
    object: Option<Decoded>,
    problems: Vec<ValidationError>,
}

/// An object that is not in order.
#[derive(Debug)]
struct InvalidObject {
    uid: Option<String>,
    problems: Vec<ValidationError>,
}

impl ObjectStore {
    pub(super) fn new(allow_empty: bool) -> Self {
        Self { allow_empty, ..Self::default() }
    }

    /// The server does not know a kind: there are no such policies. Out: as of [`Self::take`].
    pub(super) fn clear(&mut self, kind: Kind) -> bool {
        let lacked = self.lacking.remove(&kind).is_some();
        let held = self.cluster.cluster_policies.keys().any(|name| Kind::ClusterPolicy(name.kind) == kind);
        if held {
            self.invalid.retain(|id, _| id.kind() != kind);
            kind.replace(Arc::make_mut(&mut self.cluster), Cluster::default());
        }
        lacked || held
    }

    /// The objects of a kind cannot be read; those that were read stay. Out: as of [`Self::take`].
    pub(super) fn lacks(&mut self, kind: Kind, why: &str) -> bool {
        let before = self.lacking.insert(kind, why.to_owned());
        before.as_deref() != Some(why)
    }

    /// Takes an event of a watch. Out: whether a picture would differ from the one before.
    pub(super) fn take(&mut self, kind: Kind, event: Event<ApiObject>) -> bool {
        match event {
            Event::Init => {
                self.lists.insert(kind, PendingList::default());
                false
            }
            Event::InitApply(object) => {
                let reported = self.decode(kind, &object);
                let list = self.lists.entry(kind).or_default();
                put(reported, &mut list.cluster, &mut list.invalid);
                false
            }
            Event::InitDone => {
                let PendingList { cluster, invalid } = self.lists.remove(&kind).unwrap_or_default();
                self.invalid.retain(|id, _| id.kind() != kind);
                self.invalid.extend(invalid);
                kind.replace(Arc::make_mut(&mut self.cluster), cluster);
                self.decoder.sweep();
                self.lacking.remove(&kind);
                true
            }
            Event::Apply(object) => {
                let reported = self.decode(kind, &object);
                put(reported, Arc::make_mut(&mut self.cluster), &mut self.invalid)
            }
            Event::Delete(object) => {
                let Some(id) = object.id(kind) else { return false };
                let had_problems = self.invalid.remove(&id).is_some();
                id.remove(Arc::make_mut(&mut self.cluster)) || had_problems
            }
        }
    }

    pub(super) fn picture(&self) -> ClusterSnapshot {
        let mut problems: Vec<_> =
            self.invalid.values().flat_map(|invalid| &invalid.problems).cloned().collect();
        let lacking = self.lacking.iter().map(|(kind, why)| of_server(&kind.to_string(), why));
        let lacking: Vec<_> = lacking.collect();
        let is_missing = self.cluster.namespaces.is_empty() && !self.allow_empty;
        let missing = is_missing
            .then(|| of_server("", "answers without any namespace (--allow-empty if that is meant)"));
        let missing: Vec<_> = missing.into_iter().collect();
        problems.extend(lacking.iter().chain(&missing).cloned());
        let cluster_id = self.cluster_id.clone();
        ClusterSnapshot {
            cluster: self.cluster.clone(),
            problems,
            missing,
            lacking,
            unread: Vec::new(),
            cluster_id,
        }
    }

    /// The objects that are not in order, with their uids and what is wrong.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&ObjectId, &Option<String>, &[ValidationError])> {
        self.invalid.iter().map(|(id, InvalidObject { uid, problems })| (id, uid, problems.as_slice()))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.cluster.nodes.keys()
    }

    fn decode(&mut self, kind: Kind, object: &ApiObject) -> DecodedObject {
        self.decoded += 1;
        if self.decoded.is_multiple_of(OBJECTS_PER_SWEEP) {
            self.decoder.sweep();
        }
        let (decoded, faults) = self.decoder.decode_as(kind, &object.value);
        if let Some(Decoded::Namespace(name, _)) = &decoded
            && **name == *OF_THE_CLUSTER
        {
            self.cluster_id = object.uid();
        }
        let problems =
            faults.into_iter().map(|fault| ValidationError::of_fault(String::new(), fault)).collect();
        DecodedObject { id: object.id(kind), uid: object.uid(), object: decoded, problems }
    }
}

/// What is wrong with what an API server says as a whole.
fn of_server(object: &str, message: &str) -> ValidationError {
    let (file, field) = ("API server".to_owned(), String::new());
    ValidationError { file, object: object.to_owned(), field, message: message.to_owned() }
}

/// Puts an object where it belongs. Out: whether that changed anything.
fn put(
    DecodedObject { id, uid, object, problems }: DecodedObject,
    cluster: &mut Cluster,
    invalid: &mut BTreeMap<ObjectId, InvalidObject>,
) -> bool {
    let Some(id) = id.or_else(|| object.as_ref().map(Decoded::id)) else { return false };
    let before = invalid.get(&id).map_or(&[][..], |invalid| &invalid.problems);
    let told_otherwise = before != problems;
    if problems.is_empty() {
        invalid.remove(&id);
    } else {
        invalid.insert(id.clone(), InvalidObject { uid, problems });
    }
    let changed = match object {
        Some(object) => object.put(cluster),
        None => id.remove(cluster),
    };
    changed || told_otherwise
}

#[cfg(test)]
mod tests;
