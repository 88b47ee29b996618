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
//! In which order others see what a writer does: `shared`, which alone touches the memory.

mod atomic;
mod lookup;
mod memory;
mod share;
mod shared;
#[cfg(any(test, feature = "user"))]
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use core::mem::offset_of;

pub use atomic::Atomic;
#[cfg(any(test, feature = "user"))]
pub use atomic::HostAtomic;
pub use lookup::{Lookup, Spot};
pub use share::{FlowShare, FlowShares};
use shared::WayNumber;
pub use shared::{EntryHandle, SharedSet};
pub use write::{Entered, ReplacementRule};

use crate::{Flow, FlowKey, FlowSummary, Seen};

/// Connections in one set. Ways are counted from 1, so that this is the mask of their numbers too.
pub const WAYS: u32 = 7;

/// Makes the hash of each table another one, so that no one can choose connections that share a set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowSeed(pub [u32; KEY_WORDS]);

const KEY_WORDS: usize = size_of::<FlowKey>() / 4;

#[cfg(test)]
impl FlowSeed {
    /// Digits of pi, for tests.
    pub(crate) const OF_PI: Self = Self([
        0x243f_6a88,
        0x85a3_08d3,
        0x1319_8a2e,
        0x0370_7344,
        0xa409_3822,
        0x299f_31d0,
        0x082e_fa98,
        0xec4e_6c89,
        0x4528_21e6,
        0x38d0_1377,
    ]);
}

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

/// Who writes to a set.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Program = 1,
    /// One that died holds on: its successor frees what it held ([`SharedSet::free`]).
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
}

/// A connection is looked for in its own set, by [`Lookup::place`] or [`Spot::of`].
impl SharedSet {
    /// Looks a connection up; its entry stands in `lookup.flow` then.
    #[inline(always)]
    pub fn find<A: Atomic>(self, lookup: &mut Lookup) -> bool {
        self.find_at_first::<A>(lookup) || self.find_everywhere::<A>(lookup)
    }

    /// The same at the way where it is looked for first: false does not say that it is not there.
    #[inline(always)]
    pub fn find_at_first<A: Atomic>(self, lookup: &mut Lookup) -> bool {
        let way = lookup.preferred();
        // Tag and key do not wait for each other when both are far away.
        let before = self.tag(way);
        self.order_reads::<A>();
        if !self.holds(way, &lookup.key) || (before ^ lookup.tag) & (HASH | USED | BUSY) != 0 {
            return false;
        }
        lookup.way = way.number();
        self.copy_to(way, &mut lookup.flow);
        self.order_reads::<A>();
        self.tag(way) == before
    }

    /// The same at all ways, waiting for one that is being written.
    #[inline(always)]
    pub fn find_everywhere<A: Atomic>(self, lookup: &mut Lookup) -> bool {
        lookup.way = 0;
        for way in WayNumber::all() {
            if (self.tag(way) ^ lookup.tag) & (HASH | USED) == 0 {
                lookup.way = way.number();
                break;
            }
        }
        let way = lookup.way();
        if way.is_none() {
            return false;
        }
        for _ in 0..READS {
            let before = self.settled::<A>(way);
            self.order_reads::<A>();
            if (before ^ lookup.tag) & (HASH | USED | BUSY) != 0 || !self.holds(way, &lookup.key) {
                return false;
            }
            self.copy_to(way, &mut lookup.flow);
            self.order_reads::<A>();
            if self.tag(way) == before {
                return true;
            }
        }
        false
    }

    /// The entry of a connection; `None` when it is not there, or is being written. Needs no memory but
    /// registers.
    #[inline(always)]
    pub fn peek<A: Atomic>(
        self,
        key: &FlowKey,
        spot: &Spot,
        reach: Reach,
    ) -> Option<(FlowSummary, EntryHandle)> {
        let is_other = |tag: u32| tag ^ spot.tag > VERSION;
        let mut way = spot.way;
        let mut before = self.tag(way);
        if reach == Reach::Everywhere && is_other(before) {
            way = WayNumber::all().find(|way| !is_other(self.tag(*way)))?;
            before = self.tag(way);
        }
        self.order_reads::<A>();
        if is_other(before) || !self.holds(way, key) {
            return None;
        }
        let known = self.summary(way);
        self.order_reads::<A>();
        (self.tag(way) == before).then_some(known)
    }

    /// Notes that a connection was used, and what was seen of it. `lookup` has found its entry in this set.
    #[inline(always)]
    pub fn refresh<A: Atomic>(self, lookup: &Lookup, now: u32, seen: Seen) {
        let found = self.found(lookup.way());
        found.touch(now);
        if seen != lookup.flow.seen {
            found.mark::<A>(seen);
        }
    }

    /// A way's tag, after a while if it is being written now.
    #[inline(always)]
    fn settled<A: Atomic>(self, way: WayNumber) -> u32 {
        for _ in 0..LOOKS {
            let tag = self.tag(way);
            if tag & BUSY == 0 {
                return tag;
            }
            A::pause();
        }
        BUSY
    }

    /// The connections of a set that no one writes to, or a picture of one that another does.
    pub fn entries<A: Atomic>(self) -> impl Iterator<Item = (FlowKey, Flow)> {
        WayNumber::all().filter_map(move |way| self.read::<A>(way)).map(|(_, key, flow)| (key, flow))
    }

    /// How many connections the set holds.
    pub fn count(self) -> usize {
        WayNumber::all().filter(|way| self.tag(*way) & USED != 0).count()
    }

    /// A way's tag, and the connection that it holds.
    fn read<A: Atomic>(self, way: WayNumber) -> Option<(u32, FlowKey, Flow)> {
        for _ in 0..READS {
            let before = self.settled::<A>(way);
            if before & (USED | BUSY) != USED {
                return None;
            }
            self.order_reads::<A>();
            let (key, mut flow) = (self.key(way), Flow::EMPTY);
            self.copy_to(way, &mut flow);
            self.order_reads::<A>();
            if self.tag(way) == before {
                return Some((before, key, flow));
            }
        }
        None
    }
}
