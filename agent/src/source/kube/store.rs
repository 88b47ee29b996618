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
    lists: BTreeMap<Kind, Vec<Listed>>,
    decoded: usize,
}

/// One object of a list.
#[derive(Debug)]
struct Listed {
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
                self.lists.insert(kind, Vec::new());
                false
            }
            Event::InitApply(object) => {
                let listed = self.decode(kind, &object);
                self.lists.entry(kind).or_default().push(listed);
                false
            }
            Event::InitDone => {
                let list = self.lists.remove(&kind).unwrap_or_default();
                self.faulty.retain(|id, _| id.kind() != kind);
                kind.clear(Arc::make_mut(&mut self.cluster));
                for listed in list {
                    self.put(listed);
                }
                self.decoder.sweep();
                true
            }
            Event::Apply(object) => {
                let listed = self.decode(kind, &object);
                self.put(listed)
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

    fn decode(&mut self, kind: Kind, object: &Object) -> Listed {
        self.decoded += 1;
        if self.decoded.is_multiple_of(OBJECTS_PER_SWEEP) {
            self.decoder.sweep();
        }
        let (decoded, faults) = self.decoder.decode_as(kind, &object.value);
        let problems = faults.into_iter().map(|fault| Problem::of_fault(String::new(), fault)).collect();
        Listed { id: object.id(kind), uid: object.uid(), object: decoded, problems }
    }

    fn put(&mut self, Listed { id, uid, object, problems }: Listed) -> bool {
        let cluster = Arc::make_mut(&mut self.cluster);
        let Some(id) = id.or_else(|| object.as_ref().map(Decoded::id)) else { return false };
        let before = self.faulty.get(&id).map_or(&[][..], |faulty| &faulty.problems);
        let told_otherwise = before != problems;
        if problems.is_empty() {
            self.faulty.remove(&id);
        } else {
            self.faulty.insert(id.clone(), Faulty { uid, problems });
        }
        let changed = match object {
            Some(object) => object.put(cluster),
            None => id.remove(cluster),
        };
        changed || told_otherwise
    }
}

#[cfg(test)]
mod tests;
