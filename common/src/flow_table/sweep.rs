//! Taking connections out of the table: those whose time is up, and those that an agent knows to be gone.
//!
//! Needs no lock: an entry is freed by one exchange of its tag, which fails when somebody has written to it
//! meanwhile.

use super::{FlowSet, HostAtomic, NEXT_VERSION, VERSION, WAYS, tag};
use crate::{Flow, FlowKey, Timeouts};

impl FlowSet {
    /// Forgets the connections whose time is up; how many. One that is used meanwhile stays.
    ///
    /// # Safety
    ///
    /// As for [`Self::remove`].
    pub unsafe fn sweep(set: *mut Self, now: u32, timeouts: &Timeouts) -> usize {
        // A packet that finds an entry in its last moment writes its time of use without the lock.
        let margin = 2 * timeouts.refresh;
        let is_over = |key: &FlowKey, flow: &Flow| {
            let idle = timeouts.idle(flow.last, now);
            idle.saturating_sub(margin) > timeouts.of(key.protocol(), flow.seen)
        };
        // SAFETY: the caller's.
        unsafe { Self::remove(set, is_over) }
    }

    /// Forgets the connections for which `gone` is true; how many. One that is written meanwhile is a new
    /// one, and stays.
    ///
    /// # Safety
    ///
    /// `set` is only written by these functions.
    pub unsafe fn remove(set: *mut Self, gone: impl Fn(&FlowKey, &Flow) -> bool) -> usize {
        let is_removed = |way: &u32| {
            // SAFETY: the caller's.
            unsafe {
                Self::read(set, *way).is_some_and(|(before, key, flow)| {
                    let free = before.wrapping_add(NEXT_VERSION) & VERSION;
                    gone(&key, &flow) && HostAtomic::replace(tag(set, *way), before, free)
                })
            }
        };
        (1..=WAYS).filter(is_removed).count()
    }
}
