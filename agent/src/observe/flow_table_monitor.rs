//! Warns when the flow table is too small.

use std::sync::Arc;

use podgate_common::Eviction;
use podgate_datapath::Counters;

#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct FlowTableMonitor {
    counters: Arc<Counters>,
    /// Evicted connections at the last warning.
    reported: u64,
}

impl FlowTableMonitor {
    pub fn new(counters: Arc<Counters>) -> Self {
        let mut monitor = Self { counters, reported: 0 };
        monitor.reported = monitor.evicted();
        monitor
    }

    pub(super) fn check(&mut self) {
        let evicted = self.evicted();
        if evicted > self.reported {
            let connections = evicted - self.reported;
            tracing::warn!(
                connections,
                "live connections were replaced in the flow table by those of other pods: consider a larger --flows"
            );
            self.reported = evicted;
        }
    }

    /// Those that were answered. Others come and go with every scan of ports.
    fn evicted(&self) -> u64 {
        let read = self.counters.evictions().inspect_err(|error| tracing::warn!("{error:#}"));
        read.map_or(self.reported, |evictions| {
            evictions.iter().filter(|(of, _)| *of == Eviction::Established).map(|(_, count)| count).sum()
        })
    }
}
