//! New connections and dropped packets by what no rule can distinguish, as the programs count them, and each
//! veth's share. Who reads them has another handle than who removes them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuHashMap},
};
use podgate_common::{FlowCounter, FlowCounterKey, Share};

use super::{maps, table::absent_is_fine};

/// Reads the map of flow counters, and that of shares. They outlive the agent.
#[expect(missing_debug_implementations, reason = "aya's hash maps have none")]
pub struct FlowCounterReader {
    flow_counters: PerCpuHashMap<MapData, FlowCounterKey, FlowCounter>,
    shares: HashMap<MapData, u32, Share>,
}

/// Removes from both maps what is in no use any more.
#[expect(missing_debug_implementations, reason = "aya's hash maps have none")]
pub struct FlowCounterWriter {
    flow_counters: PerCpuHashMap<MapData, FlowCounterKey, FlowCounter>,
    shares: HashMap<MapData, u32, Share>,
}

/// A flow counter over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterSum {
    /// Packets that were counted.
    pub packets: u64,
    /// What was reported last on the CPU with the latest of them.
    pub last: FlowCounter,
}

impl FlowCounterReader {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self { flow_counters: maps::share(ebpf, "FLOW_COUNTERS")?, shares: maps::share(ebpf, "SHARES")? })
    }

    /// All flow counters.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(&self) -> Result<Vec<(FlowCounterKey, CounterSum)>> {
        let entries = self.flow_counters.iter().map(|entry| {
            let (key, cpus) = entry.context("cannot read the flow counters")?;
            let packets = cpus.iter().map(|flow_counter| flow_counter.packets).sum();
            // Ticks begin again now and then: the latest revision comes first.
            let last = cpus
                .iter()
                .filter(|flow_counter| flow_counter.packets > 0)
                .max_by_key(|it| (it.revision, it.since));
            Ok((key, CounterSum { packets, last: last.copied().unwrap_or(FlowCounter::EMPTY) }))
        });
        entries.collect()
    }

    /// What each veth has taken.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn shares(&self) -> Result<BTreeMap<u32, Share>> {
        shares(&self.shares)
    }
}

impl FlowCounterWriter {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self { flow_counters: maps::take(ebpf, "FLOW_COUNTERS")?, shares: maps::take(ebpf, "SHARES")? })
    }

    /// Removes the flow counters of veths (by ifindex) that are gone, gives them back to the shares that they
    /// were in, and removes the shares of devices that the node has not.
    ///
    /// The programs go on: of what they make meanwhile, some may not be in the share until the next time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_gone(&mut self, mut is_gone: impl FnMut(u32) -> bool) -> Result<()> {
        let mut taken = BTreeMap::<u32, u32>::new();
        let mut removed = Vec::new();
        for entry in self.flow_counters.iter() {
            let (key, cpus) = entry.context("cannot read the flow counters")?;
            if is_gone(key.ifindex) {
                removed.push(key);
            } else if let Some(flow_counter) = cpus.iter().find(|flow_counter| flow_counter.charged_to != 0) {
                *taken.entry(flow_counter.charged_to).or_default() += 1;
            }
        }
        for key in removed {
            absent_is_fine(self.flow_counters.remove(&key)).context("cannot remove a flow counter")?;
        }
        for (veth, share) in shares(&self.shares)? {
            let flow_counters = taken.get(&veth).copied().unwrap_or(0);
            if flow_counters == 0 && !is_there(veth) {
                absent_is_fine(self.shares.remove(&veth)).context("cannot remove a share")?;
            } else if flow_counters < share.flow_counters {
                self.shares
                    .insert(veth, Share { flow_counters, ..share }, 0)
                    .context("cannot correct a share")?;
            }
        }
        Ok(())
    }
}

fn shares(shares: &HashMap<MapData, u32, Share>) -> Result<BTreeMap<u32, Share>> {
    shares.iter().collect::<Result<_, _>>().context("cannot read the shares")
}

/// Whether the node has a device of this index.
fn is_there(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: room for a name.
    !unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null()
}
