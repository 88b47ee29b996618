//! The flow table as the agent uses it. The programs write to it all the time.

use anyhow::{Context as _, Result, bail};
use aya::maps::MapError;
use aya_obj::generated::{BPF_ANY, BPF_NOEXIST};
use podgate_common::{Flow, FlowKey};

use super::Maps;

/// How often an entry may come in between that the programs make of the same connection.
const ATTEMPTS: usize = 8;

impl Maps {
    /// Enters a connection; `entry` gets what the table has of it.
    ///
    /// A packet that a program judges between the look and the write may lose what it left there: marks of what was seen
    /// and the time of last use, which the next packets write again.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer or has no room.
    pub fn enter_flow(&mut self, key: &FlowKey, entry: impl Fn(Option<Flow>) -> Flow) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let known = match self.flows.get(key, 0) {
                Ok(flow) => Some(flow),
                Err(MapError::KeyNotFound) => None,
                Err(error) => return Err(error).context("cannot look a flow up"),
            };
            // Should one have been made meanwhile, it must be looked at.
            let flags = if known.is_some() { BPF_ANY } else { BPF_NOEXIST };
            match self.flows.insert(key, entry(known), flags.into()) {
                Ok(()) => return Ok(()),
                Err(error) if known.is_none() && is_known(&error) => {}
                Err(error) => return Err(error).context("cannot enter a flow"),
            }
        }
        bail!("cannot enter a flow: it was made and removed in between {ATTEMPTS} times")
    }
}

fn is_known(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST))
}
