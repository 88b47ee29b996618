//! What no one needs any more in the tables that the programs fill: connections whose time is up, and flow
//! counters of veths that have gone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use podgate_common::HostKey;

use super::Reconciler;

/// How long the flow counters of a veth that has gone are kept for those who read them: three times as long
/// as they wait between two looks.
const KEPT: Duration = Duration::from_secs(15);

/// Veths that have flow counters and no endpoint.
#[derive(Debug, Default)]
pub(super) struct GoneVeths {
    /// By ifindex: since when that is known, as of the look before.
    known: BTreeMap<u32, Instant>,
    /// As of this look.
    seen: BTreeMap<u32, Instant>,
}

impl GoneVeths {
    fn begin_look(&mut self) {
        self.known = std::mem::take(&mut self.seen);
    }

    /// Whether this one has been gone for so long that no one reads its flow counters any more.
    fn is_over(&mut self, ifindex: u32, now: Instant) -> bool {
        let since = self.known.get(&ifindex).copied().unwrap_or(now);
        self.seen.insert(ifindex, since);
        now.saturating_duration_since(since) >= KEPT
    }
}

impl Reconciler {
    /// Removes the flow counters of veths that have gone a while ago. Which have is known once a pass has
    /// succeeded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_gone(&mut self) -> Result<()> {
        if self.looked_at.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let Self { endpoints, hosts, gone, datapath, .. } = self;
        gone.begin_look();
        datapath.flow_counters.remove_gone(|key| {
            let is_there = match HostKey::is_host(key) {
                true => hosts.devices.contains_key(&HostKey(key).ifindex()),
                false => endpoints.veths.contains_key(&key),
            };
            !is_there && gone.is_over(key, now)
        })
    }

    /// Removes connections whose time is up from a part of the flow table; the next call goes on behind it.
    /// They take up room, and one that no one removes for years would look young again.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn sweep(&mut self) -> Result<usize> {
        let now = self.datapath.clock.now()?;
        let (next, removed) = self.datapath.maps.flows.sweep(self.swept, now)?;
        self.swept = next;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_counters_go_when_their_veth_has_been_gone_at_each_look_for_long_enough() {
        let start = Instant::now();
        let mut gone = GoneVeths::default();
        // At these seconds, whether veths 1 and 2 have gone, and whether their flow counters go.
        for (second, looks) in [
            (0, [Some(false), Some(false)]),
            (10, [Some(false), None]),
            (14, [Some(false), Some(false)]),
            (15, [Some(true), Some(false)]),
            (28, [None, Some(false)]),
            (29, [None, Some(true)]),
        ] {
            gone.begin_look();
            for (ifindex, goes) in (1..).zip(looks) {
                let found = goes.map(|_| gone.is_over(ifindex, start + Duration::from_secs(second)));
                assert_eq!(found, goes, "veth {ifindex} after {second} s");
            }
        }
        assert_eq!(gone.known.len() + gone.seen.len(), 2, "of veths without flow counters nothing is kept");
    }
}
