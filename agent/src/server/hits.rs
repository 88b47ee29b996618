//! What policies have done, for those who ask.
//!
//! The agent's loop counts now and then, and when it is asked to. Whoever asks waits a moment for the newest,
//! then takes what there is.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time,
};

use crate::api::{Drops, PolicyReport};

/// An agent that is busy compiling counts later.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitReport {
    pub policies: PolicyReport,
    pub drops: Drops,
}

/// The reports of the agent's loop.
#[derive(Clone, Debug)]
pub struct HitView {
    reports: watch::Receiver<Arc<HitReport>>,
    /// The loop counts when it hears from it. It has room for one: who finds it full is served by the same
    /// count.
    ask: mpsc::Sender<()>,
}

impl HitView {
    pub const fn new(reports: watch::Receiver<Arc<HitReport>>, ask: mpsc::Sender<()>) -> Self {
        Self { reports, ask }
    }

    /// As they were counted last.
    pub(super) fn last(&self) -> Arc<HitReport> {
        self.reports.borrow().clone()
    }

    /// Counted now, unless the agent is busy.
    pub(super) async fn newest(&self) -> Arc<HitReport> {
        let mut reports = self.reports.clone();
        reports.mark_unchanged();
        // Full: a count is on its way. Closed: the agent ends.
        let _ = self.ask.try_send(());
        let _ = time::timeout(PATIENCE, reports.changed()).await;
        self.last()
    }
}
