//! What each veth may take of what all share: flow counters, events, and datagrams in fragments. Of the flow
//! table, see [`crate::FlowShares`].
//!
//! The veth is the one that sent a packet, where that is a pod's, else the one that receives it
//! ([`Scratch::charged_to`]): so whoever scans or floods uses up its own share, and what others do is still
//! seen.
//!
//! [`Scratch::charged_to`]: crate::Scratch::charged_to

use crate::packet::forget;

/// Value of the map of shares, by ifindex. Several processors write to it: limits are held nearly.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Flow counters that were made. The agent corrects it when it removes some.
    pub flow_counters: u32,
    pub events: Rate,
    pub fragments: Rate,
}

/// How often something was done in this second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Since when it is counted, in ticks.
    since: u32,
    count: u32,
}

impl Share {
    pub const EMPTY: Self = Self { flow_counters: 0, events: Rate::NONE, fragments: Rate::NONE };

    /// Flow counters of one veth at the most. What is beyond is counted, too, but distinguished no further
    /// than by direction and outcome.
    pub const FLOW_COUNTERS: u32 = 512;

    /// Events each second.
    pub const EVENTS: u32 = 256;
    /// While the ring is half full: its reader is slow, and what is left is for those who have reported
    /// little.
    pub const EVENTS_WHILE_CROWDED: u32 = 8;

    /// Of dropped packets that are like many others, which others have sent: so many are reported
    /// nevertheless.
    pub const EVENTS_OF_QUIET: u32 = 8;

    /// Datagrams in fragments that begin each second. Twice as many as 4 KiB ones fill a link of a quarter of
    /// a Gbit/s.
    pub const FRAGMENTS: u32 = 16_384;
}

impl Rate {
    pub(crate) const NONE: Self = Self { since: 0, count: 0 };

    /// Counts once more if that is not more than so many a second; whether it did.
    #[inline(always)]
    pub fn take(&mut self, most: u32, now: u32, second: u32) -> bool {
        if now.wrapping_sub(self.since) >= second {
            self.since = now;
            self.count = 0;
        }
        let is_left = forget(&self.count) < most;
        if is_left {
            self.count += 1;
        }
        is_left
    }

    /// Counts once more; how often it was in this second.
    #[inline(always)]
    pub fn count(&mut self, now: u32, second: u32) -> u32 {
        if now.wrapping_sub(self.since) >= second {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        // Neither compiler nor verifier knows afterwards which way it went.
        forget(&self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_each_second_again() {
        const SECOND: u32 = 15;
        let mut rate = Rate::NONE;
        // Across the end of what the clock counts.
        for second in 0..4 {
            let now = u32::MAX.wrapping_add((second - 2) * SECOND);
            let taken = (0..100).filter(|_| rate.count(now, SECOND) <= 7).count();
            assert_eq!(taken, 7);
            let later = now.wrapping_add(SECOND - 1);
            assert_eq!((rate.count(now, SECOND), rate.count(later, SECOND)), (101, 102));
            assert_eq!([102, 103, 103].map(|most| rate.take(most, later, SECOND)), [false, true, false]);
        }
    }
}
