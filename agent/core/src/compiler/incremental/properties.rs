//! What rules say of pods: the properties of each, and the pods that have any.

use std::{collections::HashMap, sync::Arc};

use crate::{
    compiler::{
        Signature,
        atoms::{PodAtoms, PodKey},
    },
    model::{Cluster, Name, ObjectName, Pod},
};

/// The properties of pods: replicas share their label set, so most are answered from what is known.
pub(super) struct Properties<'p, 'c> {
    atoms: &'p PodAtoms,
    cluster: &'c Cluster,
    known: HashMap<PodKey<'c>, Option<Arc<Signature>>>,
}

impl<'p, 'c> Properties<'p, 'c> {
    pub(super) fn new(atoms: &'p PodAtoms, cluster: &'c Cluster) -> Self {
        Self { atoms, cluster, known: HashMap::new() }
    }

    /// `None`: no rule mentions the pod.
    pub(super) fn of(&mut self, pod: &'c Arc<Pod>) -> Option<Arc<Signature>> {
        if pod.host_network || pod.addresses.is_empty() {
            return None;
        }
        let known = self.known.entry(PodKey::of(pod)).or_insert_with(|| {
            Some(self.atoms.of(pod, self.cluster)).filter(|properties| !properties.is_empty()).map(Arc::new)
        });
        known.clone()
    }
}

/// The pods of one namespace.
pub(super) fn pods_in<'a>(cluster: &'a Cluster, namespace: &Name) -> impl Iterator<Item = &'a Arc<Pod>> {
    let first = ObjectName::new(namespace.clone(), "");
    cluster.pods.range(first..after(namespace)).map(|(_, pod)| pod)
}

/// What comes after all names of a namespace, and before those of any other that comes later.
fn after(namespace: &Name) -> ObjectName {
    ObjectName::new(format!("{namespace}\0"), "")
}

impl PodAtoms {
    /// The pods and host endpoints that have any of these properties.
    pub(super) fn mentioned<'c>(&self, cluster: &'c Cluster) -> impl Iterator<Item = &'c Arc<Pod>> {
        let first = cluster.pods.keys().next().map(|name| &name.namespace);
        let namespaces = std::iter::successors(first, |namespace| {
            cluster.pods.range(after(namespace)..).next().map(|(name, _)| &name.namespace)
        });
        let mut properties = Properties::new(self, cluster);
        namespaces
            .filter(|namespace| self.may_mention(namespace, cluster))
            .flat_map(|namespace| pods_in(cluster, namespace))
            .chain(cluster.calico.host_subjects())
            .filter(move |pod| properties.of(pod).is_some())
    }
}
