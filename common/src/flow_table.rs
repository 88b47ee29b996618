//! The flow table: connections in sets of seven, one set to an element of an array.
//!
//! A look-up costs no call of a helper and two cache lines, which are asked for at once: the set's first one
//! has the tags of its seven ways and their times, and each way has a line of its own. A connection belongs
//! to one set, by a seeded hash of its key, which also says in which way it is looked for first. When the set
//! is full the entry goes that is worth least. So entering never fails for want of room, and one full set
//! says nothing of the others.
//!
//! # Who may do what at the same time
//!
//! A set has one writer at a time, who holds its lock: a program on some CPU, or the agent by way of a shared
//! mapping. Writers wait for each other, not for long; a program that waits in vain does not enter its
//! connection, and the packet is evaluated as one for which there is no room.
//!
//! A connection is removed without the lock: by a tag that says free, in the place of the one that was read.
//! The agent, whom the scheduler may stop at any time, so holds no lock while programs wait, but where it
//! enters connections that are older than itself.
//!
//! Readers take no lock. A way's tag says whose it is (24 bits of the hash), that it is being written, and
//! how often it was (6 bits). A writer marks the tag, writes the entry, then gives the way a tag that it has
//! not had before; a reader takes what it has read only when the tag was the same before and after. Where
//! both write (a tag of the same connection that is being written) the reader waits for some rounds.
//!
//! Two words of an entry change without the lock: the time of last use, and the marks of what was seen, which
//! are only ever added. Should the way be given to another connection in that moment, the new one has another
//! one's mark at most: neither word decides whether a packet passes while the entry lives, and no mark makes
//! it live longer than a connection that answers.
//!
//! Writers order their writes by full barriers. Readers rely on loads that are not reordered (x86). Where
//! they are (arm64), a reader can see one word of the way's next entry together with this key: entries name
//! the veths at which they count, so that such a packet finds no entry, or one of the same two ends.

mod atomic;
mod lookup;
#[cfg(any(test, feature = "user"))]
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
};

pub use atomic::Atomic;
#[cfg(any(test, feature = "user"))]
pub use atomic::HostAtomic;
pub use lookup::{Lookup, Spot};
pub use write::{Entered, Pace};

use crate::{Flow, FlowKey, FlowSummary, Seen, address::pair};

/// Connections in one set. Ways are counted from 1, so that this is the mask of their numbers too.
pub const WAYS: u32 = 7;

/// Makes the hash of each table another one, so that no one can choose connections that share a set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowSeed(pub [u32; KEY_WORDS]);

const KEY_WORDS: usize = size_of::<FlowKey>() / 4;

/// The words of a seed, wherever they stand.
pub trait Seed {
    /// One of those that [`FlowSeed`] has.
    fn word(&self, at: usize) -> u64;
}

impl Seed for FlowSeed {
    fn word(&self, at: usize) -> u64 {
        self.0[at].into()
    }
}

/// One element of the array.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct FlowSet {
    lock: Lock,
    tags: [u32; WAYS as usize],
    /// `Flow::last` of each way.
    last: [u32; WAYS as usize],
    entries: [Entry; WAYS as usize],
}

/// Compared and exchanged as one word.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct Lock {
    /// A [`Holder`], or 0.
    holder: u32,
    /// What the holder has chosen so far. It stands here because of a map's memory the verifier remembers
    /// nothing.
    choice: u32,
}

/// A connection, all but the time of its last use.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FlowKey,
    client_if: u32,
    server_if: u32,
    ingress_ifindex: u32,
    client_revision: u32,
    server_revision: u32,
    seen: Seen,
}

/// What is copied of an entry: the words from `client_if` to `seen`, which begin a [`Flow`] too.
const FLOW_WORDS: usize = 3;

const _: () = {
    assert!(size_of::<FlowSet>() == 512 && size_of::<Entry>() == LINE && size_of::<Lock>() == 8);
    assert!(offset_of!(FlowSet, entries) == LINE && size_of::<FlowKey>() == 40);
    assert!(offset_of!(Entry, seen) == offset_of!(Entry, client_if) + offset_of!(Flow, seen));
    assert!(offset_of!(Flow, last) == 8 * FLOW_WORDS);
};

const LINE: usize = 64;

/// How far a reader looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At the way where the connection is looked for first.
    First,
    Everywhere,
}

/// The two words of an entry that change while no one holds the lock.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    last: *mut u32,
    /// The second half of an aligned pair of words.
    seen: *mut u64,
}

impl Found {
    /// Of a way.
    ///
    /// # Safety
    ///
    /// The set is there, and has this way.
    #[inline(always)]
    unsafe fn of(set: *mut FlowSet, way: u32) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let seen = (&raw mut (*entry(set, way)).server_revision).cast();
            Self { last: last(set, way), seen }
        }
    }

    /// Writes when it was used last, whether or not the way is still that connection's.
    ///
    /// # Safety
    ///
    /// The set that it was found in is there.
    #[inline(always)]
    pub unsafe fn touch(self, now: u32) {
        // SAFETY: the caller's.
        unsafe { write_volatile(self.last, now) };
    }

    /// Adds marks, as above.
    ///
    /// # Safety
    ///
    /// As above.
    #[inline(always)]
    pub unsafe fn mark<A: Atomic>(self, seen: Seen) {
        // What decides whether a packet passes is written with the entry alone.
        // SAFETY: the caller's.
        unsafe { A::or(self.seen, pair(0, seen.without(Seen::ROUTED).0)) };
    }
}

/// Who writes to a set.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Program = 1,
    /// One that died holds on: its successor frees what it held ([`FlowSet::free`]).
    Agent = 2,
}

/// A way's tag: part of the hash, number of writes, and two marks. One without marks belongs to no one.
///
/// The version stands lowest: two tags that differ in no other part differ by less than what comes next.
const HASH: u32 = !0xff;
const USED: u32 = 1 << 7;
const BUSY: u32 = 1 << 6;
const VERSION: u32 = BUSY - 1;
const NEXT_VERSION: u32 = 1;

/// How often a reader looks whether an entry is still being written, and how often it reads one.
const LOOKS: u32 = 32;
const READS: u32 = 2;

impl FlowSet {
    pub const EMPTY: Self = Self {
        lock: Lock { holder: 0, choice: 0 },
        tags: [0; WAYS as usize],
        last: [0; WAYS as usize],
        entries: [Entry {
            key: FlowKey::EMPTY,
            client_if: 0,
            server_if: 0,
            ingress_ifindex: 0,
            client_revision: 0,
            server_revision: 0,
            seen: Seen(0),
        }; WAYS as usize],
    };

    /// Looks a connection up; its entry stands in `lookup.flow` then.
    ///
    /// # Safety
    ///
    /// `set` is the connection's, by [`Lookup::place`], and is only written by these functions.
    #[inline(always)]
    pub unsafe fn find(set: *mut Self, lookup: &mut Lookup) -> bool {
        let way = lookup.preferred();
        // SAFETY: the caller's.
        unsafe {
            // Tag and key do not wait for each other when both are far away.
            let before = read_volatile(tag(set, way));
            let is_own = holds(entry(set, way), &lookup.key);
            if is_own && (before ^ lookup.tag) & (HASH | USED | BUSY) == 0 {
                lookup.way = way;
                lookup.copy(set, way);
                if read_volatile(tag(set, way)) == before {
                    return true;
                }
            }
            find_elsewhere(set, lookup)
        }
    }

    /// The entry of a connection; `None` when it is not there, or is being written. Needs no memory but
    /// registers.
    ///
    /// # Safety
    ///
    /// `set` is the connection's, by [`Spot::of`], and is only written by these functions.
    #[inline(always)]
    pub unsafe fn peek(
        set: *mut Self,
        key: &FlowKey,
        spot: &Spot,
        reach: Reach,
    ) -> Option<(FlowSummary, Found)> {
        let is_other = |tag: u32| tag ^ spot.tag > VERSION;
        // SAFETY: the caller's.
        unsafe {
            let mut way = spot.way;
            let mut before = read_volatile(tag(set, way));
            if reach == Reach::Everywhere && is_other(before) {
                way = (1..=WAYS).find(|way| !is_other(read_volatile(tag(set, *way))))?;
                before = read_volatile(tag(set, way));
            }
            let place = entry(set, way);
            if is_other(before) || !holds(place, key) {
                return None;
            }
            let found = Found::of(set, way);
            let known = FlowSummary {
                client_if: read_volatile(&raw const (*place).client_if),
                server_if: read_volatile(&raw const (*place).server_if),
                ingress_ifindex: read_volatile(&raw const (*place).ingress_ifindex),
                seen: read_volatile(&raw const (*place).seen),
                last: read_volatile(found.last),
            };
            (read_volatile(tag(set, way)) == before).then_some((known, found))
        }
    }

    /// A way's tag, after a while if it is being written now.
    ///
    /// # Safety
    ///
    /// As above.
    #[inline(always)]
    unsafe fn settled(set: *mut Self, way: u32) -> u32 {
        // SAFETY: the caller's.
        unsafe {
            for _ in 0..LOOKS {
                let tag = read_volatile(tag(set, way));
                if tag & BUSY == 0 {
                    return tag;
                }
            }
            BUSY
        }
    }

    /// Notes that a connection was used, and what was seen of it.
    ///
    /// # Safety
    ///
    /// `lookup` has found its entry in this set.
    #[inline(always)]
    pub unsafe fn refresh<A: Atomic>(set: *mut Self, lookup: &Lookup, now: u32, seen: Seen) {
        let way = lookup.way();
        // SAFETY: the caller's.
        unsafe {
            let found = Found::of(set, way);
            found.touch(now);
            if seen != lookup.flow.seen {
                found.mark::<A>(seen);
            }
        }
    }

    /// The connections of a set that no one writes to, or a picture of one that somebody does.
    ///
    /// # Safety
    ///
    /// `set` is only written by these functions.
    pub unsafe fn entries(set: *mut Self) -> impl Iterator<Item = (FlowKey, Flow)> {
        // SAFETY: the caller's.
        (1..=WAYS).filter_map(move |way| unsafe { Self::read(set, way) }).map(|(_, key, flow)| (key, flow))
    }

    /// How many connections the set holds.
    ///
    /// # Safety
    ///
    /// `set` is only written by these functions.
    pub unsafe fn len(set: *mut Self) -> usize {
        // SAFETY: the caller's.
        (1..=WAYS).filter(|way| unsafe { read_volatile(tag(set, *way)) } & USED != 0).count()
    }

    /// A way's tag, and the connection that it holds.
    ///
    /// # Safety
    ///
    /// `set` is only written by these functions, and has this way.
    unsafe fn read(set: *mut Self, way: u32) -> Option<(u32, FlowKey, Flow)> {
        for _ in 0..READS {
            // SAFETY: the caller's.
            unsafe {
                let before = Self::settled(set, way);
                if before & (USED | BUSY) != USED {
                    return None;
                }
                let mut lookup = Lookup::of(read_volatile(&raw const (*entry(set, way)).key));
                lookup.copy(set, way);
                if read_volatile(tag(set, way)) == before {
                    return Some((before, lookup.key, lookup.flow));
                }
            }
        }
        None
    }
}

/// Looks at all ways, and waits for one that is being written. In the kernel, a function that the verifier
/// checks once.
///
/// # Safety
///
/// `lookup` can be written, and as for [`FlowSet::find`].
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
unsafe extern "C" fn find_elsewhere(set: *mut FlowSet, lookup: *mut Lookup) -> bool {
    // The verifier insists that this is asked.
    if set.is_null() || lookup.is_null() {
        return false;
    }
    // SAFETY: the caller's.
    unsafe {
        let lookup = &mut *lookup;
        lookup.way = 0;
        for way in 1..=WAYS {
            if (read_volatile(tag(set, way)) ^ lookup.tag) & (HASH | USED) == 0 {
                lookup.way = way;
                break;
            }
        }
        let way = lookup.way();
        if way == 0 {
            return false;
        }
        for _ in 0..READS {
            let before = FlowSet::settled(set, way);
            if (before ^ lookup.tag) & (HASH | USED | BUSY) != 0 || !holds(entry(set, way), &lookup.key) {
                return false;
            }
            lookup.copy(set, way);
            if read_volatile(tag(set, way)) == before {
                return true;
            }
        }
    }
    false
}

/// Whether an entry is this connection's.
///
/// # Safety
///
/// `entry` can be read.
#[inline(always)]
unsafe fn holds(entry: *const Entry, key: &FlowKey) -> bool {
    let [a, b, c, d, ends] = key.words();
    // SAFETY: the key is this many words, and the first field of an entry.
    let differs = |at, word| unsafe { read_volatile(entry.cast::<u64>().add(at)) ^ word };
    let difference = differs(0, a) | differs(4, ends);
    // That it is IPv4 stands in the last word: then all the others are alike.
    if key.is_v4() {
        difference == 0
    } else {
        difference | differs(1, b) | differs(2, c) | differs(3, d) == 0
    }
}

/// # Safety
///
/// `set` is a set, `way` at most [`WAYS`]. For 0 it is the word before the first tag.
#[inline(always)]
unsafe fn tag(set: *mut FlowSet, way: u32) -> *mut u32 {
    // SAFETY: the caller's.
    unsafe { set.cast::<u32>().add(1 + way as usize) }
}

/// # Safety
///
/// As above.
#[inline(always)]
unsafe fn last(set: *mut FlowSet, way: u32) -> *mut u32 {
    // SAFETY: the caller's.
    unsafe { set.cast::<u32>().add(1 + (WAYS + way) as usize) }
}

/// # Safety
///
/// As above. For 0 it is the line before the first entry.
#[inline(always)]
unsafe fn entry(set: *mut FlowSet, way: u32) -> *mut Entry {
    // SAFETY: the caller's.
    unsafe { set.cast::<Entry>().add(way as usize) }
}
