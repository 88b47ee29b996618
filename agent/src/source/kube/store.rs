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

#[derive(Debug, Default)]
pub(super) struct Store {
    decoder: Decoder,
    /// Shared with the picture that was given last: the next change copies it.
    cluster: Arc<Cluster>,
    faulty: BTreeMap<ObjectId, Faulty>,
    /// Lists that have not come to their end.
    lists: BTreeMap<Kind, List>,
    decoded: usize,
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
        let problems = self.faulty.values().flat_map(|faulty| &faulty.problems).cloned().collect();
        Picture { cluster: self.cluster.clone(), problems }
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
        let problems = faults.into_iter().map(|fault| Problem::of_fault(String::new(), fault)).collect();
        Told { id: object.id(kind), uid: object.uid(), object: decoded, problems }
    }
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
