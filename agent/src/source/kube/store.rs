//! What the watches have brought so far.

use std::{collections::BTreeMap, sync::Arc};

use kube::runtime::watcher::Event;

use super::{
    Picture, Problem,
    decode::{Decoded, Decoder, Kind, ObjectId},
    object::Object,
};
use crate::model::{Cluster, Name};

/// Names and label sets that nobody uses any more are looked for after so many objects.
const OBJECTS_PER_SWEEP: usize = 10_000;

/// The namespace whose uid names a cluster: every cluster has it, and it cannot be made anew.
const OF_THE_CLUSTER: &str = "kube-system";

#[derive(Debug, Default)]
pub(super) struct Store {
    decoder: Decoder,
    /// Shared with the picture that was given last: the next change copies it.
    cluster: Arc<Cluster>,
    faulty: BTreeMap<ObjectId, Faulty>,
    /// Lists that have not come to their end.
    lists: BTreeMap<Kind, List>,
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
struct List {
    cluster: Cluster,
    faulty: BTreeMap<ObjectId, Faulty>,
}

/// One object as it was told.
#[derive(Debug)]
struct Told {
    id: Option<ObjectId>,
    uid: Option<String>,
    object: Option<Decoded>,
    problems: Vec<Problem>,
}

/// An object that is not in order.
#[derive(Debug)]
struct Faulty {
    uid: Option<String>,
    problems: Vec<Problem>,
}

impl Store {
    pub(super) fn new(allow_empty: bool) -> Self {
        Self { allow_empty, ..Self::default() }
    }

    /// The server does not know a kind: there are no such policies. Out: as of [`Self::take`].
    pub(super) fn clear(&mut self, kind: Kind) -> bool {
        let lacked = self.lacking.remove(&kind).is_some();
        let held = self.cluster.cluster_policies.keys().any(|name| Kind::ClusterPolicy(name.kind) == kind);
        if held {
            self.faulty.retain(|id, _| id.kind() != kind);
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
    pub(super) fn take(&mut self, kind: Kind, event: Event<Object>) -> bool {
        match event {
            Event::Init => {
                self.lists.insert(kind, List::default());
                false
            }
            Event::InitApply(object) => {
                let told = self.decode(kind, &object);
                let list = self.lists.entry(kind).or_default();
                put(told, &mut list.cluster, &mut list.faulty);
                false
            }
            Event::InitDone => {
                let List { cluster, faulty } = self.lists.remove(&kind).unwrap_or_default();
                self.faulty.retain(|id, _| id.kind() != kind);
                self.faulty.extend(faulty);
                kind.replace(Arc::make_mut(&mut self.cluster), cluster);
                self.decoder.sweep();
                self.lacking.remove(&kind);
                true
            }
            Event::Apply(object) => {
                let told = self.decode(kind, &object);
                put(told, Arc::make_mut(&mut self.cluster), &mut self.faulty)
            }
            Event::Delete(object) => {
                let Some(id) = object.id(kind) else { return false };
                let had_problems = self.faulty.remove(&id).is_some();
                id.remove(Arc::make_mut(&mut self.cluster)) || had_problems
            }
        }
    }

    pub(super) fn picture(&self) -> Picture {
        let mut problems: Vec<_> =
            self.faulty.values().flat_map(|faulty| &faulty.problems).cloned().collect();
        let lacking = self.lacking.iter().map(|(kind, why)| of_server(&kind.to_string(), why));
        let lacking: Vec<_> = lacking.collect();
        let is_missing = self.cluster.namespaces.is_empty() && !self.allow_empty;
        let missing = is_missing
            .then(|| of_server("", "answers without any namespace (--allow-empty if that is meant)"));
        let missing: Vec<_> = missing.into_iter().collect();
        problems.extend(lacking.iter().chain(&missing).cloned());
        let cluster_id = self.cluster_id.clone();
        Picture { cluster: self.cluster.clone(), problems, missing, lacking, unread: Vec::new(), cluster_id }
    }

    /// The objects that are not in order, with their uids and what is wrong.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&ObjectId, &Option<String>, &[Problem])> {
        self.faulty.iter().map(|(id, Faulty { uid, problems })| (id, uid, problems.as_slice()))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.cluster.nodes.keys()
    }

    fn decode(&mut self, kind: Kind, object: &Object) -> Told {
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
        let problems = faults.into_iter().map(|fault| Problem::of_fault(String::new(), fault)).collect();
        Told { id: object.id(kind), uid: object.uid(), object: decoded, problems }
    }
}

/// What is wrong with what an API server says as a whole.
fn of_server(object: &str, message: &str) -> Problem {
    let (file, field) = ("API server".to_owned(), String::new());
    Problem { file, object: object.to_owned(), field, message: message.to_owned() }
}

/// Puts an object where it belongs. Out: whether that changed anything.
fn put(
    Told { id, uid, object, problems }: Told,
    cluster: &mut Cluster,
    faulty: &mut BTreeMap<ObjectId, Faulty>,
) -> bool {
    let Some(id) = id.or_else(|| object.as_ref().map(Decoded::id)) else { return false };
    let before = faulty.get(&id).map_or(&[][..], |faulty| &faulty.problems);
    let told_otherwise = before != problems;
    if problems.is_empty() {
        faulty.remove(&id);
    } else {
        faulty.insert(id.clone(), Faulty { uid, problems });
    }
    let changed = match object {
        Some(object) => object.put(cluster),
        None => id.remove(cluster),
    };
    changed || told_otherwise
}

#[cfg(test)]
mod tests;
