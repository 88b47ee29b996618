//! What policies have done, counted now and then and when somebody asks.
//!
//! In: flow counters, snapshots. Out: reports. Whoever asks waits a moment for the newest, then takes what
//! there is.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use podgate_common::Direction;
use podgate_core::compiler::{ConnectionQuery, MatchCache, WorkLimit};
use podgate_datapath::{FlowCounterReader, TickClock};
use tokio::{
    sync::{mpsc, watch},
    time::{self, interval},
};

use super::{
    EvictionMonitor, NamesOfAddress,
    hits::{CounterClock, HitCounts, HitReport},
};
use crate::snapshot::Snapshot;

/// How often policies are credited with what was counted.
const COUNTING: Duration = Duration::from_secs(5);

/// How often it is checked whether the flow table is too small.
const FLOW_TABLE: Duration = Duration::from_secs(10);

/// What finding out about connections may take each time that they are counted: some 10 ms.
const WORK: usize = 200_000;

/// How long somebody who asks waits for a count.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts for ever.
#[expect(missing_debug_implementations, reason = "aya's hash maps have none")]
pub struct HitCounting {
    hits: HitCounts,
    matches: MatchCache,
    flow_counters: FlowCounterReader,
    clock: TickClock,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Sender<Arc<HitReport>>,
    asked: mpsc::Receiver<()>,
    names: NamesOfAddress,
}

/// The reports of that.
#[derive(Clone, Debug)]
pub struct HitView {
    reports: watch::Receiver<Arc<HitReport>>,
    /// Asks for a count now. It has room for one: who finds it full is served by the same count.
    ask: mpsc::Sender<()>,
}

impl HitCounting {
    /// `began`: since when the kernel's flow counters count.
    pub fn new(
        began: SystemTime,
        flow_counters: FlowCounterReader,
        clock: TickClock,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        names: NamesOfAddress,
    ) -> (Self, HitView) {
        let (reports, seen) = watch::channel(Arc::default());
        let (ask, asked) = mpsc::channel(1);
        let hits = HitCounts::new(began);
        let matches = MatchCache::default();
        let counting = Self { hits, matches, flow_counters, clock, snapshots, reports, asked, names };
        (counting, HitView::new(seen, ask))
    }

    /// Counts for ever; warns of a flow table that is too small.
    pub async fn run(mut self, mut monitor: EvictionMonitor) -> Result<()> {
        let mut flow_table = interval(FLOW_TABLE);
        let mut count = interval(COUNTING);
        loop {
            tokio::select! {
                _ = flow_table.tick() => {
                    monitor.check();
                    continue;
                }
                _ = count.tick() => {}
                Some(()) = self.asked.recv() => {}
            }
            let report = self.count();
            self.reports.send_replace(report);
        }
    }

    fn count(&mut self) -> Arc<HitReport> {
        let snapshot = self.snapshots.borrow().clone();
        let counted = self.try_to_count(&snapshot).inspect_err(|error| tracing::warn!("{error:#}"));
        Arc::new(counted.unwrap_or_default())
    }

    /// Credits what the kernel has counted to policies and pods.
    fn try_to_count(&mut self, snapshot: &Snapshot) -> Result<HitReport> {
        let Some(context) = snapshot.contexts.newest() else { return Ok(HitReport::default()) };
        let now = SystemTime::now();
        let jiffies_per_second = self.clock.jiffies_per_second;
        let clock = CounterClock { now, ticks: self.clock.now()?, jiffies_per_second };
        let mut work = WorkLimit::of(WORK);
        let names = |ifindex, peer| self.names.find(context, ifindex, Direction::Egress, peer).names;
        let ask = |query: &ConnectionQuery<'_>| {
            context.policy_snapshot.matches(query, &mut self.matches, &mut work)
        };
        self.hits.collect(&self.flow_counters, &context.pods, &snapshot.cluster, clock, names, ask)?;
        Ok(self.hits.report(&snapshot.cluster, context.pods.values(), now))
    }
}

impl HitView {
    pub const fn new(reports: watch::Receiver<Arc<HitReport>>, ask: mpsc::Sender<()>) -> Self {
        Self { reports, ask }
    }

    /// As they were counted last.
    pub fn last(&self) -> Arc<HitReport> {
        self.reports.borrow().clone()
    }

    /// Counted now, unless that takes too long.
    pub async fn newest(&self) -> Arc<HitReport> {
        let mut reports = self.reports.clone();
        reports.mark_unchanged();
        // Full: a count is on its way. Closed: the agent ends.
        let _ = self.ask.try_send(());
        let _ = time::timeout(PATIENCE, reports.changed()).await;
        self.last()
    }
}
