//! The named ports of all pods, counted.

use std::sync::Arc;

use super::{
    Incremental,
    changes::SnapshotChanges,
    mentioned::{count, discount},
};
use crate::model::Pod;

impl Incremental {
    /// Out: whether a name stands for other ports than before somewhere.
    pub(super) fn count_named_ports(&mut self, changes: &SnapshotChanges<'_>) -> bool {
        let ports = |pod: Option<&Arc<Pod>>| match pod {
            Some(pod) if !pod.host_network => pod.ports.clone(),
            Some(_) | None => Arc::default(),
        };
        let mut renamed = false;
        for &(before, after) in changes.pods.values() {
            let (before, after) = (ports(before), ports(after));
            if before == after {
                continue;
            }
            for port in &*after {
                renamed |= count(Arc::make_mut(&mut self.named_ports), port);
            }
            for port in &*before {
                renamed |= discount(Arc::make_mut(&mut self.named_ports), port);
            }
        }
        renamed
    }
}
