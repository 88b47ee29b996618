//! New connections and dropped packets by what no rule can tell apart, as the programs count them, and each veth's share.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuHashMap},
};
use podgate_common::{Share, Tally, TallyKey};

use super::{maps, table::absent_is_fine};

/// The map of tallies, and that of shares. They outlive the agent.
#[expect(missing_debug_implementations, reason = "aya's hash maps have none")]
pub struct Tallies {
    tallies: PerCpuHashMap<MapData, TallyKey, Tally>,
    shares: HashMap<MapData, u32, Share>,
}

/// A tally over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub packets: u64,
    /// What was told of last on the CPU with the latest of them.
    pub last: Tally,
}

impl Tallies {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self { tallies: maps::take(ebpf, "TALLIES")?, shares: maps::take(ebpf, "SHARES")? })
    }

    /// All tallies.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(&self) -> Result<Vec<(TallyKey, Counted)>> {
        let entries = self.tallies.iter().map(|entry| {
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
        absent_is_fine(self.tallies.remove(key)).context("cannot remove a tally")
    }

    /// What each veth has taken.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn shares(&self) -> Result<BTreeMap<u32, Share>> {
        self.shares.iter().collect::<Result<_, _>>().context("cannot read the shares")
    }

    /// Gives the tallies that were removed back to the shares that they were in, and removes the shares of veths that have
    /// gone.
    ///
    /// The programs go on: of what they make meanwhile, some may not be in the share until the next time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn correct_shares(&mut self) -> Result<()> {
        let mut taken = BTreeMap::<u32, u32>::new();
        for entry in self.tallies.iter() {
            let (_, cpus) = entry.context("cannot read the tallies")?;
            if let Some(tally) = cpus.iter().find(|tally| tally.is_charged != 0) {
                *taken.entry(tally.charged_to).or_default() += 1;
            }
        }
        for (veth, share) in self.shares()? {
            let tallies = taken.get(&veth).copied().unwrap_or(0);
            if tallies == 0 && !is_there(veth) {
                absent_is_fine(self.shares.remove(&veth)).context("cannot remove a share")?;
            } else if tallies < share.tallies {
                self.shares.insert(veth, Share { tallies, ..share }, 0).context("cannot correct a share")?;
            }
        }
        Ok(())
    }
}

/// Whether the node has a device of this index.
fn is_there(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: room for a name.
    !unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null()
}
