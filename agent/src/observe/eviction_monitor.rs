//! Warns when a table of the programs is too small: what lives in it makes room for others.

use std::sync::Arc;

use anyhow::Result;
use podgate_common::{Eviction, NameCount};
use podgate_datapath::Counters;

#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct EvictionMonitor {
    counters: Arc<Counters>,
    /// Evicted connections at the last warning.
    connections: u64,
    /// Evicted addresses of names at the last warning.
    addresses: u64,
}

impl EvictionMonitor {
    pub fn new(counters: Arc<Counters>) -> Self {
        let mut monitor = Self { counters, connections: 0, addresses: 0 };
        (monitor.connections, monitor.addresses) =
            (monitor.evicted_connections(), monitor.evicted_addresses());
        monitor
    }

    pub(super) fn check(&mut self) {
        let evicted = self.evicted_connections();
        if evicted > self.connections {
            let connections = evicted - self.connections;
            tracing::warn!(
                connections,
                "live connections were replaced in the flow table by those of other pods: consider a larger --flows"
            );
            self.connections = evicted;
        }
        let evicted = self.evicted_addresses();
        if evicted > self.addresses {
            let addresses = evicted - self.addresses;
            tracing::warn!(
                addresses,
                "a pod has learnt more addresses of names than its table has room for: those that end first are \
                 closed until it looks them up again; `podgate names` shows whose table is full"
            );
            self.addresses = evicted;
        }
    }

    /// Those that were answered. Others come and go with every scan of ports.
    fn evicted_connections(&self) -> u64 {
        let is_meant = |of: &Eviction| *of == Eviction::Established;
        sum(self.counters.evictions(), is_meant).unwrap_or(self.connections)
    }

    fn evicted_addresses(&self) -> u64 {
        sum(self.counters.names(), |of| *of == NameCount::Evicted).unwrap_or(self.addresses)
    }
}

/// `None`: the kernel does not answer.
fn sum<T>(counts: Result<impl IntoIterator<Item = (T, u64)>>, is_meant: impl Fn(&T) -> bool) -> Option<u64> {
    let counts = counts.inspect_err(|error| tracing::warn!("{error:#}")).ok()?.into_iter();
    Some(counts.filter(|(of, _)| is_meant(of)).map(|(_, count)| count).sum())
}
