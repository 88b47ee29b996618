//! Writing to a set: under its lock, one way at a time.

use core::ptr::{read_volatile, write_volatile};

#[cfg(any(test, feature = "user"))]
use super::HostAtomic;
use super::{
    Atomic, BUSY, FlowSet, HASH, Holder, Lookup, NEXT_VERSION, USED, VERSION, WAYS, entry, holds, last, tag,
};
use crate::{Flow, FlowKey, Seen, Timeouts, address::pair};

/// What entering a connection did to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing.
    Alone,
    /// One that was never answered had to go.
    InsteadOfHalfOpen,
    /// One that was answered had to go.
    InsteadOfEstablished,
}

/// How often a writer tries to get the lock: some microseconds.
const TRIES: u32 = 64;

impl FlowSet {
    /// Enters a connection, or puts another entry in the place of its one. `None`: somebody else writes to the set.
    ///
    /// # Safety
    ///
    /// As for [`Self::find`].
    #[inline(always)]
    pub unsafe fn put<A: Atomic>(
        set: *mut Self,
        lookup: &Lookup,
        flow: &Flow,
        timeouts: &Timeouts,
        holder: Holder,
    ) -> Option<Entered> {
        // SAFETY: the caller's.
        unsafe {
            if !Self::lock::<A>(set, holder) {
                return None;
            }
            Some(Self::put_locked::<A>(set, lookup, flow, timeouts, holder))
        }
    }

    /// As [`Self::put`], for an entry that depends on the one that is there.
    ///
    /// # Safety
    ///
    /// As for [`Self::find`].
    pub unsafe fn update<A: Atomic>(
        set: *mut Self,
        lookup: &mut Lookup,
        timeouts: &Timeouts,
        holder: Holder,
        flow: impl FnOnce(Option<Flow>) -> Flow,
    ) -> Option<Entered> {
        // SAFETY: the caller's.
        unsafe {
            if !Self::lock::<A>(set, holder) {
                return None;
            }
            let known = Self::find(set, lookup).then_some(lookup.flow);
            Some(Self::put_locked::<A>(set, lookup, &flow(known), timeouts, holder))
        }
    }

    /// Forgets the connections for which `gone` is true; how many. One that is written meanwhile is a new one, and stays.
    ///
    /// # Safety
    ///
    /// `set` is only written by these functions.
    #[cfg(any(test, feature = "user"))]
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

    /// Takes the lock away from an agent that died with it.
    ///
    /// # Safety
    ///
    /// No agent but the caller's lives.
    pub unsafe fn free<A: Atomic>(set: *mut Self) {
        // SAFETY: the caller's.
        unsafe {
            if read_volatile(&raw const (*set).lock.holder) == Holder::Agent as u32 {
                for way in 1..=WAYS {
                    let tag = tag(set, way);
                    if read_volatile(tag) & BUSY != 0 {
                        // Half an entry.
                        write_volatile(tag, read_volatile(tag).wrapping_add(NEXT_VERSION) & VERSION);
                    }
                }
                Self::unlock::<A>(set);
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Self::find`].
    #[inline(always)]
    unsafe fn lock<A: Atomic>(set: *mut Self, holder: Holder) -> bool {
        for _ in 0..TRIES {
            // SAFETY: the caller's.
            if unsafe { A::compare_exchange(lock(set), 0, pair(holder as u32, 0)) } == 0 {
                return true;
            }
        }
        false
    }

    /// # Safety
    ///
    /// The caller holds the lock.
    #[inline(always)]
    unsafe fn unlock<A: Atomic>(set: *mut Self) {
        // SAFETY: the caller's.
        unsafe { A::exchange(lock(set), 0) };
    }

    /// # Safety
    ///
    /// The caller holds the lock as `holder`.
    #[inline(always)]
    unsafe fn put_locked<A: Atomic>(
        set: *mut Self,
        lookup: &Lookup,
        flow: &Flow,
        timeouts: &Timeouts,
        holder: Holder,
    ) -> Entered {
        // SAFETY: the caller's.
        unsafe {
            let choice = Self::choose(set, lookup, flow.last, timeouts);
            let way = choice & WAYS;
            let tag = tag(set, way);
            let version = read_volatile(tag).wrapping_add(NEXT_VERSION) & VERSION;
            write_volatile(tag, lookup.tag | BUSY | version);
            A::exchange(lock(set), pair(holder as u32, 0));
            let entry = entry(set, way);
            let (from, to) = ((&raw const lookup.key).cast::<u64>(), entry.cast::<u64>());
            for word in 0..size_of::<FlowKey>() / 8 {
                write_volatile(to.add(word), from.add(word).read());
            }
            write_volatile(&raw mut (*entry).client_if, flow.client_if);
            write_volatile(&raw mut (*entry).server_if, flow.server_if);
            write_volatile(&raw mut (*entry).via, flow.via);
            write_volatile(&raw mut (*entry).client_epoch, flow.client_epoch);
            write_volatile(&raw mut (*entry).server_epoch, flow.server_epoch);
            write_volatile(&raw mut (*entry).seen, flow.seen);
            write_volatile(last(set, way), flow.last);
            A::exchange(lock(set), pair(holder as u32, 0));
            write_volatile(tag, lookup.tag | version);
            Self::unlock::<A>(set);
            match choice >> RANK {
                rank::HALF_OPEN => Entered::InsteadOfHalfOpen,
                rank::ESTABLISHED | rank::ALIKE => Entered::InsteadOfEstablished,
                _ => Entered::Alone,
            }
        }
    }

    /// The way to write to: the connection's own one, else a free one, else the one that is worth least. Rank, age and way
    /// in one number.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    #[inline(always)]
    unsafe fn choose(set: *mut Self, lookup: &Lookup, now: u32, timeouts: &Timeouts) -> u32 {
        let wanted = lookup.tag;
        // SAFETY: the caller's.
        unsafe {
            let choice = &raw mut (*set).lock.choice;
            write_volatile(choice, 0);
            for way in 1..=WAYS {
                let tag = read_volatile(tag(set, way));
                if (tag ^ wanted) & (HASH | USED) == 0 {
                    // Of two ways with one tag readers would not know which: another connection's goes.
                    let own = holds(entry(set, way), &lookup.key);
                    write_volatile(choice, (if own { rank::OWN } else { rank::ALIKE } << RANK) | way);
                    break;
                }
                if tag & USED == 0 && (way == lookup.preferred || read_volatile(choice) == 0) {
                    write_volatile(choice, (rank::FREE << RANK) | way);
                }
            }
            if read_volatile(choice) == 0 {
                for way in 1..=WAYS {
                    let entry = entry(set, way);
                    let age = now.wrapping_sub(read_volatile(last(set, way)));
                    let seen = read_volatile(&raw const (*entry).seen);
                    let rank = if age > timeouts.of(read_volatile(&raw const (*entry).key).protocol(), seen) {
                        rank::EXPIRED
                    } else if seen.has(Seen::REPLY) {
                        rank::ESTABLISHED
                    } else {
                        rank::HALF_OPEN
                    };
                    let worth = (rank << RANK) | ((age >> AGE_UNIT) << AGE) | way;
                    if worth > read_volatile(choice) {
                        write_volatile(choice, worth);
                    }
                }
            }
            read_volatile(choice)
        }
    }
}

/// Which entry goes first: the highest rank. Those that live and were answered are the last ones.
mod rank {
    pub(super) const OWN: u32 = 7;
    pub(super) const ALIKE: u32 = 6;
    pub(super) const FREE: u32 = 5;
    pub(super) const EXPIRED: u32 = 3;
    pub(super) const HALF_OPEN: u32 = 2;
    pub(super) const ESTABLISHED: u32 = 1;
}

/// A choice: the rank in the upper bits, then the age in units of 64 ticks, then the way.
const RANK: u32 = 29;
const AGE: u32 = 3;
const AGE_UNIT: u32 = 6;

/// # Safety
///
/// `set` is a set.
#[inline(always)]
unsafe fn lock(set: *mut FlowSet) -> *mut u64 {
    // SAFETY: the caller's; aligned to 8 bytes.
    unsafe { (&raw mut (*set).lock).cast() }
}
