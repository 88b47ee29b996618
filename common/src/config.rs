//! What is fixed when the programs are loaded, and the sizes of maps that do not depend on the cluster.

use crate::{Direction, Outcome, Timeouts};

/// The programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub timeouts: Timeouts,
    /// 1: live connections are judged again after each change.
    pub recheck: u32,
}

/// Veths of one node. Memory is taken as they come, but for 16 bytes each; a bridge has 1,024 ports at the most.
pub const MAX_ENDPOINTS: usize = 16_384;

/// Addresses of this node and its pods: a few for each veth.
pub const MAX_OWNERS: usize = 65_536;

/// Datagrams in fragments that are in flight at a time.
pub const MAX_FRAGMENTS: usize = 4_096;

/// Elements of the map of counters.
pub const COUNTERS: u32 = 2 * PER_DIRECTION;

const PER_DIRECTION: u32 = 32;

/// The counter of an outcome.
#[inline(always)]
pub const fn counter(direction: Direction, outcome: Outcome) -> u32 {
    direction as u32 * PER_DIRECTION + outcome as u32
}
