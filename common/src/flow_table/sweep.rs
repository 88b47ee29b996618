//! Taking connections out of the table: those whose time is up, and those that an agent knows to be gone.
//!
//! Needs no lock: an entry is freed by one exchange of its tag, which fails when another has written to it
//! meanwhile.

use super::{Atomic, FlowShares, HostAtomic, NEXT_VERSION, SharedSet, VERSION, WAYS, WayNumber};
use crate::{Flow, FlowKey, Timeouts};

impl SharedSet {
    /// Forgets the connections whose time is up; how many. One that is used meanwhile stays.
    ///
    /// Of a full set, what has ended goes too. It would be the first to give way to a newcomer, but until
    /// then it counts in the share of its veth: one that opens many short connections beside others that fill
    /// the table would have the largest share, and find no place for new ones.
    pub fn sweep(self, now: u32, timeouts: &Timeouts, shares: &impl FlowShares) -> usize {
        // A packet that finds an entry in its last moment writes its time of use without the lock.
        let margin = 2 * timeouts.refresh;
        let is_full = self.count() == WAYS as usize;
        let is_over = |key: &FlowKey, flow: &Flow| {
            let idle = timeouts.idle(flow.last, now).saturating_sub(margin);
            let has_ended = is_full && idle > 0 && flow.seen.is_closed();
            has_ended || idle > timeouts.of(key.protocol(), flow.seen)
        };
        self.remove(is_over, shares)
    }

    /// Forgets the connections for which `gone` is true; how many. One that is written meanwhile is a new
    /// one, and stays.
    pub fn remove(self, gone: impl Fn(&FlowKey, &Flow) -> bool, shares: &impl FlowShares) -> usize {
        self.remove_as::<HostAtomic>(gone, shares)
    }

    pub(super) fn remove_as<A: Atomic>(
        self,
        gone: impl Fn(&FlowKey, &Flow) -> bool,
        shares: &impl FlowShares,
    ) -> usize {
        let is_removed = |way: &WayNumber| {
            self.read::<A>(*way).is_some_and(|(before, key, flow)| {
                let free = before.wrapping_add(NEXT_VERSION) & VERSION;
                let is_removed = gone(&key, &flow) && self.replace_tag(*way, before, free);
                if is_removed {
                    shares.subtract(flow.charged_to());
                }
                is_removed
            })
        };
        WayNumber::all().filter(is_removed).count()
    }
}
