//! Which answers about connections of an earlier snapshot still hold in a later one.
//!
//! In: what each step of the compiler has looked at again. Out: versions, which go with a snapshot and never
//! change in it. A cache keeps them beside its answers: the same version, the same answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use imbl::OrdMap;

use crate::model::{ObjectName, Pod};

/// Equal to its copies alone, whichever compiler made it.
#[derive(Clone, Debug, Default)]
pub(super) struct Version(Arc<()>);

/// The versions of a snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerVersions {
    /// Of this step alone.
    step: Version,
    /// Of all policies, and of what names of ports stand for.
    policies: Version,
    /// Of the policies with a say for each subject, and of the numbers of identities and classes.
    pods: OrdMap<ObjectName, Version>,
}

/// What a step of the compiler did.
pub(super) struct StepChanges<'a> {
    pub(super) subjects: &'a BTreeMap<ObjectName, Arc<Pod>>,
    /// Of these the policies may say something else than before.
    pub(super) reconsidered: &'a BTreeSet<ObjectName>,
    /// A policy has changed, or a name stands for other ports.
    pub(super) policies: bool,
    /// The numbers of identities and classes mean something else than before.
    pub(super) reclassified: bool,
}

impl AnswerVersions {
    pub(super) fn advance(&mut self, changes: &StepChanges<'_>) {
        let StepChanges { subjects, reconsidered, policies, reclassified } = *changes;
        self.step = Version::default();
        if policies {
            self.policies = self.step.clone();
        }
        let renewed = |name: &ObjectName| (name.clone(), self.step.clone());
        if reclassified {
            self.pods = subjects.keys().map(renewed).collect();
            return;
        }
        let gone: Vec<_> = self.pods.keys().filter(|name| !subjects.contains_key(*name)).cloned().collect();
        for name in gone {
            self.pods.remove(&name);
        }
        self.pods.extend(reconsidered.iter().map(renewed));
    }

    /// Of answers about a pod. The compiler does not look at one that is no subject, such as one that has
    /// just gone: its answers hold for this snapshot alone.
    pub(super) fn of(&self, pod: &ObjectName) -> &Version {
        self.pods.get(pod).unwrap_or(&self.step)
    }

    /// Of what the rules of policies are made into.
    pub(super) const fn of_policies(&self) -> &Version {
        &self.policies
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
