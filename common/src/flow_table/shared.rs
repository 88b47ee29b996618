//! A set as those who read and write it at the same time see it: every access to its memory, and the order
//! that they rely on.
//!
//! # Memory model
//!
//! Each word is read and written whole: it is aligned, and no access is wider than 8 bytes.
//!
//! A writer, who holds the set's lock, marks a way's tag as busy, writes the entry, and writes a tag that the
//! way has not had before. Three times others must see what it wrote in this order: the mark before the
//! entry, the entry before the new tag, the new tag before the lock is free
//! ([`SharedSet::order_writes`], a release). A reader reads the tag, the entry and the tag again, and must
//! have read them in this order ([`SharedSet::order_reads`], an acquire). When both tags are the same and
//! not busy, no writer was there between them, and what was read is one entry.
//!
//! x86 reorders neither two loads nor two stores (Intel's manual, volume 3, 9.2.2), so nothing is left to do
//! there but to keep the compiler from it: all accesses are volatile. Where the processor reorders them
//! (arm64), each is a full barrier; [`Atomic`] says how.
//!
//! `tests::modelled` runs this code under a checker of the C11 memory model, which is weaker than that of any
//! processor, and shows that it is wrong without any one of the barriers.

use super::{
    Atomic, Entry, FLOW_WORDS, FlowSet, Holder, WAYS,
    memory::{read, write},
};
use crate::{Flow, FlowKey, FlowSummary, Seen, address::pair};

/// A set in memory that others write to. It stands for a promise: see [`SharedSet::new`].
#[derive(Clone, Copy, Debug)]
pub struct SharedSet(*mut FlowSet);

/// A way's number: from 1 to [`WAYS`], or 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WayNumber(u32);

impl WayNumber {
    /// In bounds that the verifier sees.
    #[inline(always)]
    pub(super) const fn of(number: u32) -> Self {
        Self(number & WAYS)
    }

    /// Read again from memory, so that neither the verifier knows which one it is, nor the compiler that it
    /// is in bounds.
    #[inline(always)]
    pub(super) fn forgotten(number: &u32) -> Self {
        Self::of(crate::packet::forget(number))
    }

    #[inline(always)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (1..=WAYS).map(Self)
    }

    #[inline(always)]
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The two words of an entry that change while no one holds the lock.
#[derive(Clone, Copy, Debug)]
pub struct EntryHandle {
    last: *mut u32,
    /// The second half of an aligned pair of words.
    seen: *mut u64,
}

impl EntryHandle {
    /// Writes when it was used last, whether or not the way is still that connection's.
    #[inline(always)]
    pub fn touch(self, now: u32) {
        // SAFETY: words of a set, by the promise of `SharedSet::new`.
        unsafe { write(self.last, now) };
    }

    /// Adds marks, as above. What decides whether a packet passes is written with the entry alone.
    #[inline(always)]
    pub fn mark<A: Atomic>(self, seen: Seen) {
        // SAFETY: as above.
        unsafe { A::or(self.seen, pair(0, seen.marks().0)) };
    }
}

impl SharedSet {
    /// # Safety
    ///
    /// For as long as this, a copy of it or an [`EntryHandle`] of it is used, `set` points to a set that is
    /// accessed through this type alone, by whomever.
    #[inline(always)]
    pub const unsafe fn new(set: *mut FlowSet) -> Self {
        Self(set)
    }

    /// What was read so far was read before what follows.
    #[inline(always)]
    #[cfg_attr(test, track_caller)]
    pub(super) fn order_reads<A: Atomic>(self) {
        // SAFETY: the lock of a set.
        unsafe { A::order_reads(self.lock()) };
    }

    /// Whoever sees what follows sees what was written so far.
    #[inline(always)]
    #[cfg_attr(test, track_caller)]
    pub(super) fn order_writes<A: Atomic>(self) {
        // SAFETY: as above.
        unsafe { A::order_writes(self.lock()) };
    }

    /// Takes the lock if it is free; whether it was.
    #[inline(always)]
    pub(super) fn try_lock<A: Atomic>(self, holder: Holder) -> bool {
        // SAFETY: as above.
        unsafe { A::compare_exchange(self.lock(), 0, pair(holder as u32, 0)) == 0 }
    }

    /// Frees the lock, for its holder.
    #[inline(always)]
    #[cfg_attr(test, track_caller)]
    pub(super) fn unlock<A: Atomic>(self) {
        self.order_writes::<A>();
        // SAFETY: as above.
        unsafe { write(self.lock(), 0) };
    }

    /// Who holds the lock: a [`Holder`], or 0.
    #[inline(always)]
    pub(super) fn holder(self) -> u32 {
        // SAFETY: a word of a set.
        unsafe { read(&raw const (*self.0).lock.holder) }
    }

    /// What the lock's holder has chosen so far.
    #[inline(always)]
    pub(super) fn choice(self) -> u32 {
        // SAFETY: as above.
        unsafe { read(&raw const (*self.0).lock.choice) }
    }

    #[inline(always)]
    pub(super) fn set_choice(self, choice: u32) {
        // SAFETY: as above.
        unsafe { write(&raw mut (*self.0).lock.choice, choice) };
    }

    #[inline(always)]
    pub(super) fn tag(self, way: WayNumber) -> u32 {
        // SAFETY: as above.
        unsafe { read(self.tag_of(way)) }
    }

    #[inline(always)]
    pub(super) fn set_tag(self, way: WayNumber, tag: u32) {
        // SAFETY: as above.
        unsafe { write(self.tag_of(way), tag) };
    }

    /// Puts `new` in the place of a tag; whether it was still there.
    #[cfg(any(test, feature = "user"))]
    pub(super) fn replace_tag(self, way: WayNumber, current: u32, new: u32) -> bool {
        // SAFETY: as above.
        unsafe { super::memory::replace(self.tag_of(way), current, new) }
    }

    /// When a connection was used last, in ticks.
    #[inline(always)]
    pub(super) fn last(self, way: WayNumber) -> u32 {
        // SAFETY: as above.
        unsafe { read(self.last_of(way)) }
    }

    #[inline(always)]
    pub(super) fn seen(self, way: WayNumber) -> Seen {
        // SAFETY: as above.
        unsafe { read(&raw const (*self.entry(way)).seen) }
    }

    /// IP protocol number.
    #[inline(always)]
    pub(super) fn protocol(self, way: WayNumber) -> u32 {
        self.key(way).protocol()
    }

    #[inline(always)]
    pub(super) fn key(self, way: WayNumber) -> FlowKey {
        // SAFETY: as above.
        unsafe { read(&raw const (*self.entry(way)).key) }
    }

    /// Whether an entry is this connection's.
    #[inline(always)]
    pub(super) fn holds(self, way: WayNumber, key: &FlowKey) -> bool {
        let [a, b, c, d, ends] = key.words();
        // SAFETY: the key is this many words, and the first field of an entry.
        let differs = |at, word| unsafe { read(self.entry(way).cast::<u64>().add(at)) ^ word };
        let difference = differs(0, a) | differs(4, ends);
        // That it is IPv4 stands in the last word: then all the others are alike.
        if key.is_v4() {
            difference == 0
        } else {
            difference | differs(1, b) | differs(2, c) | differs(3, d) == 0
        }
    }

    /// Where an entry counts: the veths of the client and of the server.
    #[inline(always)]
    pub(super) fn veths(self, way: WayNumber) -> (u32, u32) {
        let entry = self.entry(way);
        // SAFETY: as above.
        unsafe { (read(&raw const (*entry).client_if), read(&raw const (*entry).server_if)) }
    }

    /// As much of an entry as the fast path reads, and its two words that change.
    #[inline(always)]
    pub(super) fn summary(self, way: WayNumber) -> (FlowSummary, EntryHandle) {
        let (entry, found) = (self.entry(way), self.found(way));
        // SAFETY: as above.
        let known = unsafe {
            FlowSummary {
                client_if: read(&raw const (*entry).client_if),
                server_if: read(&raw const (*entry).server_if),
                ingress_ifindex: read(&raw const (*entry).ingress_ifindex),
                seen: read(&raw const (*entry).seen),
                last: read(found.last),
            }
        };
        (known, found)
    }

    #[inline(always)]
    pub(super) fn found(self, way: WayNumber) -> EntryHandle {
        // SAFETY: the field is one of an entry.
        let seen = unsafe { (&raw mut (*self.entry(way)).server_revision).cast() };
        EntryHandle { last: self.last_of(way), seen }
    }

    /// Copies an entry, all but its key.
    #[inline(always)]
    pub(super) fn copy_to(self, way: WayNumber, flow: &mut Flow) {
        // SAFETY: both begin with these words, and are aligned to 8 bytes.
        unsafe {
            let from = (&raw const (*self.entry(way)).client_if).cast::<u64>();
            let to = (&raw mut *flow).cast::<u64>();
            for word in 0..FLOW_WORDS {
                to.add(word).write(read(from.add(word)));
            }
        }
        flow.last = self.last(way);
    }

    /// Writes an entry, for the lock's holder.
    #[inline(always)]
    pub(super) fn write(self, way: WayNumber, key: &FlowKey, flow: &Flow) {
        let entry = self.entry(way);
        // SAFETY: as above; the key is this many words.
        unsafe {
            let (from, to) = ((&raw const *key).cast::<u64>(), entry.cast::<u64>());
            for word in 0..size_of::<FlowKey>() / 8 {
                write(to.add(word), from.add(word).read());
            }
            write(&raw mut (*entry).client_if, flow.client_if);
            write(&raw mut (*entry).server_if, flow.server_if);
            write(&raw mut (*entry).ingress_ifindex, flow.ingress_ifindex);
            write(&raw mut (*entry).client_revision, flow.client_revision);
            write(&raw mut (*entry).server_revision, flow.server_revision);
            write(&raw mut (*entry).seen, flow.seen);
            write(self.last_of(way), flow.last);
        }
    }

    #[inline(always)]
    fn lock(self) -> *mut u64 {
        // SAFETY: the field is one of a set; it is aligned to 8 bytes.
        unsafe { (&raw mut (*self.0).lock).cast() }
    }

    /// For no way it is the word before the first tag.
    #[inline(always)]
    fn tag_of(self, way: WayNumber) -> *mut u32 {
        // SAFETY: within the set.
        unsafe { self.0.cast::<u32>().add(1 + way.0 as usize) }
    }

    /// For no way it is the last tag.
    #[inline(always)]
    fn last_of(self, way: WayNumber) -> *mut u32 {
        // SAFETY: as above.
        unsafe { self.0.cast::<u32>().add(1 + (WAYS + way.0) as usize) }
    }

    /// For no way it is the line before the first entry.
    #[inline(always)]
    fn entry(self, way: WayNumber) -> *mut Entry {
        // SAFETY: as above.
        unsafe { self.0.cast::<Entry>().add(way.0 as usize) }
    }
}
