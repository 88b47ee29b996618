//! The newest picture of each source, between the thread that watches them and the one that enforces them.
//!
//! In: pictures, one by one, while a pass runs. Out: the newest of each, so that many changes cost one pass.
//! Neither side waits for the other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use podgate_datapath::network::Network;
use tokio::sync::Notify;

use crate::{
    endpoints::cni::CniResults,
    source::{ClusterSnapshot, Update},
};

/// Shared by both threads.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    newest: Mutex<InputChanges>,
    notify: Notify,
}

/// What has changed since the last look; `None`: nothing.
#[derive(Debug, Default)]
pub(super) struct InputChanges {
    pub(super) picture: Option<ClusterSnapshot>,
    /// When a source learned of the oldest change in the picture that no look has seen yet.
    pub(super) learned: Option<Instant>,
    pub(super) network: Option<Arc<Network>>,
    pub(super) cni: Option<Arc<CniResults>>,
    pub(super) cni_pods: Option<Arc<CniResults>>,
}

impl Inputs {
    pub(crate) fn update(&self, Update { picture, learned }: Update) {
        let mut newest = self.lock();
        newest.picture = Some(picture);
        newest.learned.get_or_insert(learned);
        self.notify.notify_one();
    }

    pub(crate) fn network(&self, network: Arc<Network>) {
        self.lock().network = Some(network);
        self.notify.notify_one();
    }

    pub(crate) fn cni(&self, cni: Arc<CniResults>) {
        self.lock().cni = Some(cni);
        self.notify.notify_one();
    }

    /// What podgate's own CNI plugin has left.
    pub(crate) fn cni_pods(&self, pods: Arc<CniResults>) {
        self.lock().cni_pods = Some(pods);
        self.notify.notify_one();
    }

    /// Waits for a change. None is lost when the wait is given up.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> InputChanges {
        std::mem::take(&mut *self.lock())
    }

    /// A panic while it is locked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, InputChanges> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_during_a_pass_are_one_change_as_old_as_the_first() {
        let inputs = Inputs::default();
        let first = Instant::now();
        for learned in [first, first + std::time::Duration::from_secs(1)] {
            inputs.update(Update { picture: ClusterSnapshot::default(), learned });
        }
        inputs.network(Arc::default());
        inputs.changed().await;
        let InputChanges { picture, learned, network, cni, cni_pods: _ } = inputs.take();
        assert!(picture.is_some() && network.is_some() && cni.is_none());
        assert_eq!(learned, Some(first));
        assert!(inputs.take().picture.is_none(), "each change is taken once");
    }
}
