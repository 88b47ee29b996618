//! Writing to a set: under its lock, one way at a time.

use core::ptr::{read_volatile, write_volatile};

use super::{
    Atomic, BUSY, Entry, FlowSet, HASH, Holder, Lookup, NEXT_VERSION, USED, VERSION, WAYS, entry, holds,
    last, tag,
};
use crate::{Flow, FlowKey, Seen, Timeouts, address::pair};

/// What entering a connection did to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing, or it took the place of one that was over.
    Alone,
    /// One that lived had to go.
    Instead {
        /// It was answered.
        established: bool,
        /// It was in the share of the same veth ([`Flow::charged_to`]).
        same_pod: bool,
    },
    /// It was not entered: another veth's connection has its place.
    Refused,
}

/// How fast the newcomer's veth opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// In the last [`Self::SECONDS`].
    pub opened: u32,
    pub sets: u32,
}

impl Pace {
    pub const SECONDS: u32 = 64;

    /// Of a connection that counts as the only one.
    const SLOW: Self = Self { opened: 0, sets: 0 };

    /// More than one connection for 64 sets of the table. Until then it comes to few that are full of others'
    /// connections.
    #[inline(always)]
    const fn is_fast(self) -> bool {
        self.opened > self.sets / 64
    }
}

/// Ways, of those of a set.
const MOST_OF_A_SET: u32 = 5;

/// How often a writer tries to get the lock: some microseconds.
const TRIES: u32 = 64;

impl FlowSet {
    /// Enters a connection, or puts another entry in the place of its one. `None`: somebody else writes to
    /// the set.
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
        pace: Pace,
    ) -> Option<Entered> {
        // SAFETY: the caller's.
        unsafe {
            if !Self::lock::<A>(set, holder) {
                return None;
            }
            Some(Self::put_locked::<A>(set, lookup, flow, timeouts, holder, pace))
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
            Some(Self::put_locked::<A>(set, lookup, &flow(known), timeouts, holder, Pace::SLOW))
        }
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
        pace: Pace,
    ) -> Entered {
        // SAFETY: the caller's.
        unsafe {
            let choice = Self::choose(set, lookup, flow, timeouts, pace);
            let way = choice & WAYS;
            if way == 0 {
                Self::unlock::<A>(set);
                return Entered::Refused;
            }
            let gone = entry(set, way);
            let (seen, charged) = (read_volatile(&raw const (*gone).seen), charge_of(gone));
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
            write_volatile(&raw mut (*entry).ingress_ifindex, flow.ingress_ifindex);
            write_volatile(&raw mut (*entry).client_revision, flow.client_revision);
            write_volatile(&raw mut (*entry).server_revision, flow.server_revision);
            write_volatile(&raw mut (*entry).seen, flow.seen);
            write_volatile(last(set, way), flow.last);
            A::exchange(lock(set), pair(holder as u32, 0));
            write_volatile(tag, lookup.tag | version);
            Self::unlock::<A>(set);
            if choice >> RANK > rank::LIVE {
                return Entered::Alone;
            }
            Entered::Instead { established: seen.has(Seen::REPLY), same_pod: charged == flow.charged_to() }
        }
    }

    /// The way to write to: the connection's own one, else a free one, else that of the entry that is worth
    /// least; 0: none. Rank, order within the rank and way in one number.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    #[inline(always)]
    unsafe fn choose(set: *mut Self, lookup: &Lookup, flow: &Flow, timeouts: &Timeouts, pace: Pace) -> u32 {
        let wanted = lookup.tag;
        // SAFETY: the caller's.
        unsafe {
            let choice = &raw mut (*set).lock.choice;
            write_volatile(choice, 0);
            for way in 1..=WAYS {
                let tag = read_volatile(tag(set, way));
                if (tag ^ wanted) & (HASH | USED) == 0 {
                    write_volatile(choice, (rank::OWN << RANK) | way);
                    break;
                }
                if tag & USED == 0 && (way == lookup.preferred || read_volatile(choice) == 0) {
                    write_volatile(choice, (rank::FREE << RANK) | way);
                }
            }
            // Read again: had it to be remembered, the verifier would walk on once for each way.
            match read_volatile(choice) >> RANK {
                0 => Self::choose_least(set, flow, timeouts, pace.is_fast()),
                rank::OWN => Self::choose_alike(set, lookup, flow, timeouts),
                _ => {}
            }
            read_volatile(choice)
        }
    }

    /// Of the way with the tag that the connection would have. Of two ways with one tag readers would not
    /// know which, so it must be this one, or none while it is a live connection of another veth's.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    #[inline(always)]
    unsafe fn choose_alike(set: *mut Self, lookup: &Lookup, flow: &Flow, timeouts: &Timeouts) {
        // SAFETY: the caller's.
        unsafe {
            let choice = &raw mut (*set).lock.choice;
            let way = read_volatile(choice) & WAYS;
            let entry = entry(set, way);
            if holds(entry, &lookup.key) {
                return;
            }
            let seen = read_volatile(&raw const (*entry).seen);
            let idle = timeouts.idle(read_volatile(last(set, way)), flow.last);
            let instead = if idle > timeouts.of(read_volatile(&raw const (*entry).key).protocol(), seen) {
                (rank::EXPIRED << RANK) | way
            } else if charge_of(entry) == flow.charged_to() {
                (rank::LIVE << RANK) | way
            } else {
                0
            };
            write_volatile(choice, instead);
        }
    }

    /// Of a full set. What is over goes first. Among live connections each veth has a share of the set: a
    /// newcomer takes the place of one of its own veth's, or of a veth's that has two more of them than its
    /// own, so that taking turns never takes from who has fewer. Within that, what was never answered goes
    /// before what was.
    ///
    /// A veth that has none yet may find each of the others with one: then, of these, one that was never
    /// answered, else the one that was idle for longest. One that opens many connections takes only from who
    /// has most of the set, and may find no place: sooner or later it comes to every set that happens to be
    /// full of others' connections.
    ///
    /// A function of its own in the kernel too, for its stack.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    #[inline(never)]
    unsafe fn choose_least(set: *mut Self, flow: &Flow, timeouts: &Timeouts, is_fast: bool) {
        let own = flow.charged_to();
        // SAFETY: the caller's.
        unsafe {
            let choice = &raw mut (*set).lock.choice;
            let own_count = Self::ways_of(set, own);
            let least = if is_fast { (own_count + 2).max(MOST_OF_A_SET) } else { own_count + 2 };
            for way in 1..=WAYS {
                let entry = entry(set, way);
                let idle = timeouts.idle(read_volatile(last(set, way)), flow.last);
                let seen = read_volatile(&raw const (*entry).seen);
                let veth = charge_of(entry);
                let count = Self::ways_of(set, veth);
                let established = seen.has(Seen::REPLY);
                let (rank, order) =
                    if idle > timeouts.of(read_volatile(&raw const (*entry).key).protocol(), seen) {
                        (rank::EXPIRED, 0)
                    } else if seen.is_closed() {
                        (rank::CLOSED, if veth == own { WAYS } else { count - 1 })
                    } else if veth != own && count < least {
                        if is_fast {
                            continue;
                        }
                        (rank::LAST, u32::from(!established))
                    } else if established {
                        (rank::LIVE_ESTABLISHED, count)
                    } else {
                        (rank::LIVE, count)
                    };
                let age = (idle >> AGE_UNIT) & AGE_MASK;
                let worth = (rank << RANK) | (order << ORDER) | (age << AGE) | way;
                if worth > read_volatile(choice) {
                    write_volatile(choice, worth);
                }
            }
        }
    }
}

impl FlowSet {
    /// How many ways of a full set are in a veth's share.
    ///
    /// # Safety
    ///
    /// `set` is a set.
    #[inline(never)]
    unsafe fn ways_of(set: *mut Self, veth: u32) -> u32 {
        // SAFETY: the caller's.
        (1..=WAYS).map(|way| is_same(veth, unsafe { charge_of(entry(set, way)) })).sum()
    }
}

/// Which entry goes first: the highest rank.
mod rank {
    pub(super) const OWN: u32 = 7;
    pub(super) const FREE: u32 = 6;
    pub(super) const EXPIRED: u32 = 5;
    pub(super) const CLOSED: u32 = 4;
    /// From here on, a connection that lives had to go; this one was never answered.
    pub(super) const LIVE: u32 = 3;
    pub(super) const LIVE_ESTABLISHED: u32 = 2;
    /// Of a veth that has no more than its share.
    pub(super) const LAST: u32 = 1;
}

/// A choice: the rank in the upper bits, then the order within it, then the age in units of 8 ticks, then the
/// way.
const RANK: u32 = 29;
const ORDER: u32 = 26;
const AGE: u32 = 3;
/// The longest time-out has room: what is older has expired, and its age does not matter.
const AGE_UNIT: u32 = 3;
const AGE_MASK: u32 = (1 << (ORDER - AGE)) - 1;

/// In whose share an entry is.
///
/// # Safety
///
/// `entry` is an entry.
#[inline(always)]
pub(super) unsafe fn charge_of(entry: *const Entry) -> u32 {
    // SAFETY: the caller's.
    let (client_if, server_if) = unsafe {
        (read_volatile(&raw const (*entry).client_if), read_volatile(&raw const (*entry).server_if))
    };
    // `charged_to`, without a jump: the verifier would walk on once for each.
    client_if | server_if & is_same(client_if, 0).wrapping_neg()
}

/// 1 if they are the same, else 0. Without a jump, too.
#[inline(always)]
const fn is_same(one: u32, other: u32) -> u32 {
    (((one ^ other) as u64).wrapping_sub(1) >> 63) as u32
}

/// # Safety
///
/// `set` is a set.
#[inline(always)]
unsafe fn lock(set: *mut FlowSet) -> *mut u64 {
    // SAFETY: the caller's; aligned to 8 bytes.
    unsafe { (&raw mut (*set).lock).cast() }
}
