//! New connections and dropped packets by what no rule can tell apart, as the programs count them.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuHashMap},
};
use podgate_common::{Tally, TallyKey};

use super::{maps, table::absent_is_fine};

/// The map of tallies. It outlives the agent.
#[expect(missing_debug_implementations, reason = "aya's hash maps have none")]
pub struct Tallies(PerCpuHashMap<MapData, TallyKey, Tally>);

/// A tally over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub packets: u64,
    /// What was told of last on the CPU with the latest of them.
    pub last: Tally,
}

impl Tallies {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        maps::take(ebpf, "TALLIES").map(Self)
    }

    /// All tallies.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(&self) -> Result<Vec<(TallyKey, Counted)>> {
        let entries = self.0.iter().map(|entry| {
            let (key, cpus) = entry.context("cannot read the tallies")?;
            let packets = cpus.iter().map(|tally| tally.packets).sum();
            // Ticks begin anew now and then: the latest epoch comes first.
            let last = cpus.iter().filter(|tally| tally.packets > 0).max_by_key(|it| (it.epoch, it.since));
            Ok((key, Counted { packets, last: last.copied().unwrap_or(Tally::EMPTY) }))
        });
        entries.collect()
    }

    /// Removes a tally whose veth has gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&mut self, key: &TallyKey) -> Result<()> {
        absent_is_fine(self.0.remove(key)).context("cannot remove a tally")
    }
}
