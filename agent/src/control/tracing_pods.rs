//! Pods whose packets are traced.
//!
//! In: what was handed over for a veth. Out: programs that trace in the place of the agent's own, until the
//! trace ends. Both are this thread's to do, as all that is at hooks.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use podgate_datapath::{Device, Pins, TraceReader};

use super::{Reconciler, device};

impl Reconciler {
    /// Puts programs that were handed over for a veth in the place of the agent's own.
    ///
    /// # Errors
    ///
    /// When they may not take it, or the kernel refuses: then the agent's own are there.
    pub(super) fn start_trace(&mut self, pins: &Pins, ifindex: u32) -> Result<TraceReader> {
        let (mut programs, reader) = self.datapath.take_tracing(pins, ifindex)?;
        let veth = self.endpoints.veths.get(&ifindex).context("the interface is gone")?;
        self.attacher.trace(&mut programs, &mut self.datapath, &device(veth), &veth.name)?;
        tracing::info!(interface = %veth.name, "programs that trace are attached");
        // No packet may go past them.
        self.look_for_obstacles();
        Ok(reader)
    }

    /// Puts the agent's own programs back where they are not, but at these veths.
    ///
    /// # Errors
    ///
    /// When the kernel refuses at one of them.
    pub(super) fn end_traces(&mut self, but: &BTreeSet<u32>) -> Result<()> {
        let traced: Vec<Device> = self.attacher.traced().copied().collect();
        for at in traced.into_iter().filter(|at| !but.contains(&at.ifindex)) {
            let Some(veth) = self.endpoints.veths.get(&at.ifindex).filter(|veth| device(veth) == at) else {
                // Its hooks are gone with it; the next pass forgets it.
                continue;
            };
            self.attacher.end_trace(&mut self.datapath, &at, &veth.name)?;
            tracing::info!(interface = %veth.name, "the agent's programs are attached again");
            self.look_for_obstacles();
        }
        Ok(())
    }
}
