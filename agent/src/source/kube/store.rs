//! What the watches have brought so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use kube::runtime::watcher::Event;
use podgate_core::model::{Cluster, Name, PolicyName};

use super::{
    ClusterSnapshot, PolicyObject, PolicyObjects, ValidationError,
    decode::{Decoded, Decoder, Kind, ObjectId},
    limited::Limits,
    object::ApiObject,
};

/// Names and label sets that no one uses any more are looked for after so many objects.
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
    /// Kinds of Calico's that this agent has not been granted.
    forbidden: BTreeSet<Kind>,
    /// A server without any namespace is meant.
    allow_empty: bool,
    limits: Limits,
    /// Of policies and Services: Events name them.
    uids: BTreeMap<ObjectId, String>,
    policies: PolicyObjects,
}

/// What a list has brought so far, in the form in which it will be kept: nothing of it is there twice.
#[derive(Debug, Default)]
struct PendingList {
    cluster: Cluster,
    invalid: BTreeMap<ObjectId, InvalidObject>,
    uids: BTreeMap<ObjectId, String>,
    policies: PolicyObjects,
}

/// One object as it came.
#[derive(Debug)]
struct DecodedObject {
    id: Option<ObjectId>,
    uid: Option<String>,
    object: Option<Decoded>,
    /// Of a policy.
    version: Option<PolicyObject>,
    problems: Vec<ValidationError>,
}

/// What is wrong with an object.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) uid: Option<String>,
    pub(super) problems: Vec<ValidationError>,
    /// Some of it says more than there is room for.
    pub(super) is_over_limit: bool,
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
        let lacked = self.lacking.remove(&kind).is_some() | self.forbidden.remove(&kind);
        let held = kind.is_in(&self.cluster);
        if held {
            self.invalid.retain(|id, _| id.kind() != kind);
            self.policies.replace(kind, PolicyObjects::default());
            kind.replace(Arc::make_mut(&mut self.cluster), Cluster::default());
        }
        lacked || held
    }

    /// The objects of a kind cannot be read; those that were read stay. Out: as of [`Self::take`].
    pub(super) fn lacks(&mut self, kind: Kind, why: &str) -> bool {
        let before = self.lacking.insert(kind, why.to_owned());
        before.as_deref() != Some(why)
    }

    /// This agent may not read the objects of a kind of Calico's; those that were read stay. Out: as of
    /// [`Self::take`].
    ///
    /// They are not lacking: an agent whose ClusterRole is older than itself would enforce no change of
    /// anything else, on account of objects that the agent before it never read.
    pub(super) fn is_forbidden(&mut self, kind: Kind) -> bool {
        self.forbidden.insert(kind)
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
                note_uid(&reported, &mut list.uids);
                note_version(&reported, &mut list.policies);
                put(reported, &mut list.cluster, &mut list.invalid);
                false
            }
            Event::InitDone => {
                let PendingList { cluster, invalid, uids, policies } =
                    self.lists.remove(&kind).unwrap_or_default();
                self.invalid.retain(|id, _| id.kind() != kind);
                self.invalid.extend(invalid);
                self.uids.retain(|id, _| id.kind() != kind);
                self.uids.extend(uids);
                self.policies.replace(kind, policies);
                kind.replace(Arc::make_mut(&mut self.cluster), cluster);
                self.decoder.sweep();
                self.lacking.remove(&kind);
                self.forbidden.remove(&kind);
                true
            }
            Event::Apply(object) => {
                let reported = self.decode(kind, &object);
                note_uid(&reported, &mut self.uids);
                // Who waits for a version waits for it too when no verdict depends on what it changed.
                let is_new = note_version(&reported, &mut self.policies);
                put(reported, Arc::make_mut(&mut self.cluster), &mut self.invalid) || is_new
            }
            Event::Delete(object) => {
                let Some(id) = object.id(kind) else { return false };
                let had_problems = self.invalid.remove(&id).is_some();
                self.uids.remove(&id);
                self.policies.remove(&id);
                id.remove(Arc::make_mut(&mut self.cluster)) || had_problems
            }
        }
    }

    pub(super) fn picture(&mut self) -> ClusterSnapshot {
        let mut cluster = self.cluster.clone();
        self.limits.apply(&mut cluster);
        let mut problems: Vec<_> =
            self.invalid.values().flat_map(|invalid| &invalid.problems).cloned().collect();
        let lacking = self.lacking.iter().map(|(kind, why)| of_server(&kind.to_string(), why));
        let lacking: Vec<_> = lacking.collect();
        let is_missing = self.cluster.namespaces.is_empty() && !self.allow_empty;
        let missing = is_missing
            .then(|| of_server("", "answers without any namespace (--allow-empty if that is meant)"));
        let missing: Vec<_> = missing.into_iter().collect();
        problems.extend(lacking.iter().chain(&missing).cloned());
        let policies = || self.forbidden.iter().filter(|kind| kind.info().is_policy);
        let of_calico = policies().any(|kind| kind.is_of_calico()).then(|| "Calico's policies".to_owned());
        let of_cloud = policies().filter(|kind| kind.is_of_cloud()).map(|kind| kind.name_of_watch());
        problems.extend(of_calico.into_iter().chain(of_cloud).map(|object| {
            of_server(
                &object,
                "are not enforced: the ClusterRole of this agent does not grant them, \
                       apply that of this version (deploy/base/cluster-role.yaml)",
            )
        }));
        let cluster_id = self.cluster_id.clone();
        problems.extend(self.limits.problems().map(|(_, problem)| problem.clone()));
        ClusterSnapshot {
            cluster,
            problems,
            missing,
            lacking,
            unread: Vec::new(),
            cluster_id,
            policy_objects: self.policies.clone(),
        }
    }

    /// The objects that are not in order, or that did not fit into the last picture.
    pub(super) fn problems(&self) -> BTreeMap<ObjectId, Noted> {
        let invalid = self.invalid.iter();
        let mut noted: BTreeMap<_, _> = invalid
            .map(|(id, InvalidObject { uid, problems })| {
                (id.clone(), Noted { uid: uid.clone(), problems: problems.clone(), is_over_limit: false })
            })
            .collect();
        for (id, problem) in self.limits.problems() {
            let uid = self.uids.get(&id).cloned();
            let noted =
                noted.entry(id).or_insert_with(|| Noted { uid, problems: Vec::new(), is_over_limit: true });
            noted.is_over_limit = true;
            noted.problems.push(problem.clone());
        }
        noted
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
        let version = decoded.as_ref().and_then(|decoded| version(decoded, object));
        DecodedObject { id: object.id(kind), uid: object.uid(), object: decoded, version, problems }
    }
}

/// What is wrong with what an API server says as a whole.
fn of_server(object: &str, message: &str) -> ValidationError {
    let (file, field) = ("API server".to_owned(), String::new());
    ValidationError { file, object: object.to_owned(), field, message: message.to_owned() }
}

fn note_uid(DecodedObject { id, uid, .. }: &DecodedObject, uids: &mut BTreeMap<ObjectId, String>) {
    if let (Some(id), Some(uid)) = (id, uid)
        && (id.kind().info().is_policy || id.kind() == Kind::Service)
    {
        uids.insert(id.clone(), uid.clone());
    }
}

/// Out: whether it is another version than the one that was known.
fn note_version(DecodedObject { object, version, .. }: &DecodedObject, policies: &mut PolicyObjects) -> bool {
    match (object, version) {
        (Some(object), Some(version)) => policies.insert(object.id(), version.clone()),
        (Some(_) | None, _) => false,
    }
}

/// `None`: it is no policy.
fn version(decoded: &Decoded, object: &ApiObject) -> Option<PolicyObject> {
    let policy = match decoded {
        Decoded::Policy(policy) => PolicyName::Namespaced(policy.name.clone()),
        Decoded::ClusterPolicy(policy) => PolicyName::Cluster(policy.name.clone()),
        Decoded::Namespace(..)
        | Decoded::Node(..)
        | Decoded::Pod(_)
        | Decoded::FinishedPod(_)
        | Decoded::Service(_)
        | Decoded::UnservedService(_)
        | Decoded::Slice(_)
        | Decoded::UnservedSlice(_)
        | Decoded::ServiceAccount(..)
        | Decoded::Tier(..)
        | Decoded::NetworkSet(..)
        | Decoded::HostEndpoint(..)
        // Of one in two stores two objects are known.
        | Decoded::CalicoPolicy(..)
        | Decoded::Removed(_) => return None,
    };
    let (resource_version, generation) = object.revision();
    Some(PolicyObject {
        policy,
        uid: object.uid().map(String::into_boxed_str),
        resource_version: resource_version.map(Into::into),
        generation,
        learned: Instant::now(),
    })
}

/// Puts an object where it belongs. Out: whether that changed anything.
fn put(
    DecodedObject { id, uid, object, version: _, problems }: DecodedObject,
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
