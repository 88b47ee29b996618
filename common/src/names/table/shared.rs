//! A set that programs on several CPUs write to and read at once.
//!
//! A set has one writer at a time, who makes the version odd, writes, and makes it even. A writer looks
//! first, at both sets of an address, and then makes the version odd by an exchange that fails if it is not
//! the one that he has looked at: so what he found still holds when he writes. A reader takes what he has
//! read only when the version was even and the same before and after; else he tries again, some times. So no
//! address is ever paired with another one's name.

use super::{Learnt, NEVER, NameEntry, NameSet, WAYS_OF_NAMES, is_alive, memory};
use crate::{
    Address, Atomic, NameId,
    address::{pair, unpair},
    packet::{forget, overwrite},
};

/// A set in memory that others write to. It stands for a promise: see [`SharedNameSet::new`].
#[derive(Clone, Copy, Debug)]
pub struct SharedNameSet(*mut NameSet);

/// How often a writer tries. Each time is a call of its own in the kernel, whose verifier checks one of them.
pub const TRIES_TO_ENTER: u32 = 8;
/// How often a reader reads, and either looks at a set that is being written to.
const READS: u32 = 4;
const LOOKS: u32 = 16;

/// Bits of the number of a way.
const WAY_BITS: u32 = WAYS_OF_NAMES.ilog2();

/// Where an entry goes.
#[derive(Clone, Copy)]
struct WritePlace {
    set: SharedNameSet,
    /// Of the set, when the place was found.
    version: u64,
    way: usize,
    /// The entry stands there; else another one, or none.
    is_own: bool,
}

impl SharedNameSet {
    /// # Safety
    ///
    /// For as long as this or a copy of it is used, `set` points to a set that is accessed through this type
    /// alone, by whomever.
    #[inline(always)]
    pub const unsafe fn new(set: *mut NameSet) -> Self {
        Self(set)
    }

    /// Writes the names of an address that have not ended to some of eight places, and [`NameId::NONE`] to
    /// the others. `longest`: how many ticks an entry has at the most. False: the set is being written to all
    /// the time.
    #[inline(always)]
    pub fn names<A: Atomic>(
        self,
        address: &Address,
        now: u32,
        longest: u32,
        names: &mut [NameId; WAYS_OF_NAMES],
    ) -> bool {
        for _ in 0..READS {
            let before = self.settled::<A>();
            if before & 1 != 0 {
                return false;
            }
            self.order_reads::<A>();
            for (way, name) in names.iter_mut().enumerate() {
                let mut found = NameId::NONE;
                if self.is_of(way, address) {
                    let (of, until) = self.name(way);
                    if is_alive(until, now, longest) {
                        found = of;
                    }
                }
                overwrite(name, found);
            }
            self.order_reads::<A>();
            if self.version() == before {
                return true;
            }
        }
        false
    }

    /// Enters an address and a name until some time into one of the two sets of the address; what is known
    /// already becomes longer, never shorter. `None`: others write to the sets. It is tried again then, up to
    /// [`TRIES_TO_ENTER`] times.
    #[inline(always)]
    pub fn enter<A: Atomic>(sets: [Self; 2], entry: &NameEntry, now: u32, longest: u32) -> Option<Learnt> {
        Self::place::<A>(sets, entry, now, longest)?.enter::<A>(entry, now, longest)
    }

    /// The entry's own place in either set; else one in the set with more room. `None`: others write to one.
    #[inline(always)]
    fn place<A: Atomic>(
        [first, second]: [Self; 2],
        entry: &NameEntry,
        now: u32,
        longest: u32,
    ) -> Option<WritePlace> {
        let (of_first, of_second) = (first.settled::<A>(), second.settled::<A>());
        if (of_first | of_second) & 1 != 0 {
            return None;
        }
        first.order_reads::<A>();
        if let Some(way) = first.way_of(entry) {
            return Some(WritePlace { set: first, version: of_first, way, is_own: true });
        }
        if let Some(way) = second.way_of(entry) {
            return Some(WritePlace { set: second, version: of_second, way, is_own: true });
        }
        let (in_first, in_second) = (first.room(now, longest), second.room(now, longest));
        let (set, version, room) = if in_second.ways() > in_first.ways() {
            (second, of_second, in_second)
        } else {
            (first, of_first, in_first)
        };
        let way = if room.ways() != 0 { room.way() } else { set.ending_first(now) };
        Some(WritePlace { set, version, way, is_own: false })
    }

    /// Where an entry stands. Few others have the same lower half of an address, so that looks at one word of
    /// most.
    #[inline(always)]
    fn way_of(self, entry: &NameEntry) -> Option<usize> {
        (0..WAYS_OF_NAMES).find(|way| self.is_of(*way, &entry.address) && self.name(*way).0 == entry.name)
    }

    /// Which of the ways have ended, or never were. Without a branch: the verifier would follow both sides of
    /// each.
    #[inline(always)]
    fn room(self, now: u32, longest: u32) -> FreeWays {
        let mut room = 0;
        for way in 0..WAYS_OF_NAMES {
            let (_, until) = self.name(way);
            // As `is_alive` has it: below 0 if it never was, or if too many ticks are left or none.
            let never = u64::from(until).wrapping_sub(u64::from(NEVER) + 1);
            let left = u64::from(until.wrapping_sub(now).wrapping_sub(1));
            let has_ended = never | u64::from(longest).wrapping_sub(left + 1);
            // The compiler must not see that it is a comparison.
            let has_ended = forget(&has_ended) >> 63;
            room += (has_ended << FreeWays::WAYS) + (has_ended << way);
        }
        FreeWays(room)
    }

    /// The way that ends first, of a set in which all are alive. Without a branch, too.
    #[inline(always)]
    fn ending_first(self, now: u32) -> usize {
        let mut first = u64::MAX >> 1;
        for way in 0..WAYS_OF_NAMES {
            let left = u64::from(self.name(way).1.wrapping_sub(now));
            let less = (left << WAY_BITS | way as u64).wrapping_sub(first);
            let is_less = forget(&(forget(&less) >> 63));
            first = first.wrapping_add(less.wrapping_mul(is_less));
        }
        const _: () = assert!(WAYS_OF_NAMES == 8);
        (first & 7) as usize
    }

    /// The entries of a set, as far as no one writes to it.
    pub fn entries<A: Atomic>(self) -> Option<[NameEntry; WAYS_OF_NAMES]> {
        (0..READS).find_map(|_| {
            let before = self.settled::<A>();
            self.order_reads::<A>();
            let entries = core::array::from_fn(|way| {
                let (name, until) = self.name(way);
                let [upper, lower] = [0, 1].map(|half| self.word(way, half));
                NameEntry { address: Address::from_halves(upper, lower), name, until }
            });
            self.order_reads::<A>();
            (before & 1 == 0 && self.version() == before).then_some(entries)
        })
    }

    /// The version, after a while if an entry is being written now.
    #[inline(always)]
    fn settled<A: Atomic>(self) -> u64 {
        for _ in 0..LOOKS {
            let version = self.version();
            if version & 1 == 0 {
                return version;
            }
            A::pause();
        }
        1
    }

    #[inline(always)]
    #[cfg_attr(test, track_caller)]
    fn order_reads<A: Atomic>(self) {
        // SAFETY: the first word of a set.
        unsafe { A::order_reads(self.0.cast()) };
    }

    #[inline(always)]
    fn version(self) -> u64 {
        // SAFETY: a word of a set.
        unsafe { memory::read(self.0.cast()) }
    }

    #[inline(always)]
    fn is_of(self, way: usize, address: &Address) -> bool {
        let [upper, lower] = address.halves();
        self.word(way, 1) == lower && self.word(way, 0) == upper
    }

    /// The name of a way, and until when it counts.
    #[inline(always)]
    fn name(self, way: usize) -> (NameId, u32) {
        let [name, until] = unpair(self.word(way, 2));
        (NameId(name), until)
    }

    /// A word of an entry: two of the address, then name and end.
    #[inline(always)]
    fn word(self, way: usize, number: usize) -> u64 {
        // SAFETY: a word of a set.
        unsafe { memory::read(self.entry(way).add(number)) }
    }

    #[inline(always)]
    fn entry(self, way: usize) -> *mut u64 {
        const ENTRY: usize = size_of::<NameEntry>() / 8;
        // SAFETY: behind the first word, within the set.
        unsafe { self.0.cast::<u64>().add(1 + ENTRY * (way % WAYS_OF_NAMES)) }
    }
}

impl WritePlace {
    /// `None`: the set is not as it was when the place was found.
    #[inline(always)]
    fn enter<A: Atomic>(self, entry: &NameEntry, now: u32, longest: u32) -> Option<Learnt> {
        let Self { set, version, way, is_own } = self;
        let (_, before) = set.name(way);
        let lives = is_alive(before, now, longest);
        if is_own && lives && before.wrapping_sub(now) >= entry.until.wrapping_sub(now) {
            set.order_reads::<A>();
            return (set.version() == version).then_some(Learnt::Longer);
        }
        self.write::<A>(entry)?;
        Some(match (is_own, lives) {
            (true, true) => Learnt::Longer,
            (false, true) => Learnt::Instead,
            (_, false) => Learnt::New,
        })
    }

    #[inline(always)]
    fn write<A: Atomic>(self, entry: &NameEntry) -> Option<()> {
        let Self { set, version, way, .. } = self;
        let word = set.0.cast();
        // SAFETY: the first word of a set, which is aligned.
        let found = unsafe { A::compare_exchange(word, version, version.wrapping_add(1)) };
        if found != version {
            return None;
        }
        let [upper, lower] = entry.address.halves();
        let until = if entry.until == NEVER { NEVER + 1 } else { entry.until };
        let to = set.entry(way);
        // SAFETY: words of a set, of which this is the only writer until it frees it.
        unsafe {
            memory::write(to, upper);
            memory::write(to.add(1), lower);
            memory::write(to.add(2), pair(entry.name.0, until));
            A::order_writes(word);
            memory::write(word, version.wrapping_add(2));
        }
        Some(())
    }
}

/// Ways that are free: their count, and below it a bit for each.
#[derive(Clone, Copy)]
struct FreeWays(u64);

impl FreeWays {
    const WAYS: u32 = 16;

    #[inline(always)]
    const fn ways(self) -> u64 {
        self.0 >> Self::WAYS
    }

    /// One of them, if there is any: the number of the lowest bit, of eight. Times a number in which each
    /// three bits in a row are others, that bit leaves those that name it.
    #[inline(always)]
    const fn way(self) -> usize {
        const EACH: u64 = 0b0001_0111;
        const NAMED: u64 = 0x5637_4210;
        let lowest = self.0 & self.0.wrapping_neg() & 0xff;
        let name = ((lowest * EACH) & 0xff) >> 5;
        (NAMED >> (4 * name) & 7) as usize
    }
}
