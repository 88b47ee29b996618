//! The addresses that one pod has learnt: sets of eight entries, two sets for each address.
//!
//! A new entry goes to the set with more room, so that three quarters of a table can live without a loss.
//! When both are full, the entry goes that ends first. One address has an entry for each name, as rules see
//! it ([`NameId`]).
//!
//! A set has one writer at a time: a program on some CPU, who takes its lock, makes the version odd, writes,
//! and makes it even. A reader takes what it has read only when the version was even and the same before and
//! after; else it tries again, some times. So no address is ever paired with another one's name.

use core::ptr::{read_volatile, write_volatile};

use super::{NameId, Stream};
use crate::{Address, Atomic, Seed, address::pair, packet::forget};

/// Entries of one set.
pub const WAYS_OF_NAMES: usize = 8;

/// One element of a pod's table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct NameSet {
    /// Odd while an entry is written. Compared and exchanged with the next word as one.
    version: u32,
    /// What the writer has chosen so far. It stands here because of a map's memory the verifier remembers
    /// nothing.
    choice: u32,
    entries: [NameEntry; WAYS_OF_NAMES],
}

/// An address, the name that it was learnt for, and until when.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry {
    pub address: Address,
    pub name: NameId,
    /// In ticks ([`crate::JIFFIES_PER_TICK`]).
    pub until: u32,
}

const _: () = assert!(size_of::<NameSet>() == 8 * NameSet::WORDS as usize && size_of::<NameEntry>() == 24);

/// What entering an address did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// It was not known, or had ended.
    New,
    /// It was known and is so for longer, or for as long as before.
    Longer,
    /// A live entry had to go.
    Instead,
}

impl NameSet {
    /// Sets of one pod's table, which has room for 4,096 entries.
    pub const SETS: u32 = 512;
    /// Elements of it, with those behind the sets that hold the words of its streams.
    pub const ELEMENTS: u32 = Self::SETS + Stream::PLACES / Stream::IN_ELEMENT;
    /// Words of 64 bits.
    pub const WORDS: u32 = 25;

    pub const EMPTY: Self = Self {
        version: 0,
        choice: 0,
        entries: [NameEntry { address: Address::UNSPECIFIED, name: NameId::NONE, until: 0 }; WAYS_OF_NAMES],
    };
}

impl NameSet {
    /// Odd while an entry was written; another one after each.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The entries of a copy.
    pub const fn entries(&self) -> [NameEntry; WAYS_OF_NAMES] {
        self.entries
    }
}

impl NameEntry {
    /// For how many ticks it counts. `longest`: as many as any has; 0: it has ended.
    pub const fn left(&self, now: u32, longest: u32) -> u32 {
        if is_alive(self.until, now, longest) { self.until.wrapping_sub(now) } else { 0 }
    }
}

/// The two sets of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameSpots {
    pub first: u32,
    pub second: u32,
}

impl NameSpots {
    /// In a table of so many sets.
    ///
    /// The hash is the flow table's (UMAC's NH): without the seed no one finds addresses that share a set
    /// more often than by chance.
    #[inline(always)]
    pub fn of(address: &Address, seed: &impl Seed, sets: u32) -> Self {
        const HALF: u64 = u32::MAX as u64;
        let [a, b] = address.halves();
        let pair =
            |word: u64, at| ((word & HALF) + seed.word(at)).wrapping_mul((word >> 32) + seed.word(at + 1));
        let hash = pair(a, 0).wrapping_add(pair(b, 2));
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let place = |half: u64| ((half * u64::from(sets)) >> 32) as u32;
        Self { first: place(mixed >> 32), second: place((mixed ^ (mixed >> 32)) & HALF) }
    }
}

/// A set in memory that others write to. It stands for a promise: see [`SharedNameSet::new`].
#[derive(Clone, Copy, Debug)]
pub struct SharedNameSet(*mut NameSet);

/// How often a writer tries to get the lock, and a reader to read a set that no one writes to.
const TRIES: u32 = 64;
const READS: u32 = 4;
const LOOKS: u32 = 16;

/// Names that one address is evaluated by: those that stand in its two sets.
pub const NAMES_OF_ADDRESS: usize = 2 * WAYS_OF_NAMES;

/// The end of a place that was never written to, and of no entry: without it, an empty table would seem alive
/// before the clock begins again.
const NEVER: u32 = 0;

/// Until when at the most, in ticks after now, an entry ends. What seems to end later has ended, before the
/// clock began again.
#[inline(always)]
const fn is_alive(until: u32, now: u32, longest: u32) -> bool {
    let left = until.wrapping_sub(now);
    until != NEVER && left != 0 && left <= longest
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
            let before = self.settled();
            if before & 1 != 0 {
                return false;
            }
            self.order_reads::<A>();
            for (way, name) in names.iter_mut().enumerate() {
                let until = self.until(way);
                let is_its = self.is_of(way, address) && is_alive(until, now, longest);
                let found = if is_its { self.name(way) } else { NameId::NONE };
                crate::packet::overwrite(name, found);
            }
            self.order_reads::<A>();
            if self.version() == before {
                return true;
            }
        }
        false
    }

    /// Whether the set has an entry of an address and a name, and how many of its entries have ended: the
    /// count, and a bit above it.
    #[inline(always)]
    pub fn room(self, address: &Address, name: NameId, now: u32, longest: u32) -> u32 {
        const OWN: u32 = 16;
        const _: () = assert!(WAYS_OF_NAMES < 16);
        let mut room = 0;
        for way in 0..WAYS_OF_NAMES {
            room += u32::from(!is_alive(self.until(way), now, longest));
            if self.is_of(way, address) && self.name(way) == name {
                room |= OWN;
            }
            // Neither compiler nor verifier knows which way it went.
            room = forget(&room);
        }
        room
    }

    /// Enters an address and a name until some time; what is known already becomes longer, never shorter.
    /// `None`: others write to the set.
    #[inline(always)]
    pub fn put<A: Atomic>(self, entry: &NameEntry, now: u32, longest: u32) -> Option<Learnt> {
        let version = self.lock::<A>()?;
        self.choose(&entry.address, entry.name, now, longest);
        let choice = self.choice();
        let way = choice as usize % WAYS_OF_NAMES;
        let before = self.until(way);
        let lives = is_alive(before, now, longest);
        let is_longer = choice >= OWN && lives && before.wrapping_sub(now) >= entry.until.wrapping_sub(now);
        if !is_longer {
            self.write(way, entry);
        }
        self.unlock::<A>(version);
        Some(if choice >= OWN && lives {
            Learnt::Longer
        } else if lives {
            Learnt::Instead
        } else {
            Learnt::New
        })
    }

    /// The way to write to: the entry's own one, else one that has ended, else the one that ends first. The
    /// way stands in the lowest bits, above it how little is left of it.
    #[inline(always)]
    fn choose(self, address: &Address, name: NameId, now: u32, longest: u32) {
        self.set_choice(0);
        for way in 0..WAYS_OF_NAMES {
            let until = self.until(way);
            let left = if is_alive(until, now, longest) { until.wrapping_sub(now) } else { 0 };
            #[expect(clippy::cast_possible_truncation, reason = "less than eight")]
            let way_bits = way as u32;
            let worth = (LONGEST - left.min(LONGEST)) << WAY_BITS | way_bits;
            let worth = match self.is_of(way, address) && self.name(way) == name {
                true => OWN | way_bits,
                false => worth,
            };
            if worth >= self.choice() {
                self.set_choice(worth);
            }
        }
    }

    /// The entries of a set, as far as no one writes to it.
    pub fn entries<A: Atomic>(self) -> Option<[NameEntry; WAYS_OF_NAMES]> {
        (0..READS).find_map(|_| {
            let before = self.settled();
            self.order_reads::<A>();
            let entries = core::array::from_fn(|way| NameEntry {
                address: self.address(way),
                name: self.name(way),
                until: self.until(way),
            });
            self.order_reads::<A>();
            (before & 1 == 0 && self.version() == before).then_some(entries)
        })
    }

    /// Takes the lock: the version before.
    #[inline(always)]
    fn lock<A: Atomic>(self) -> Option<u32> {
        for _ in 0..TRIES {
            let (version, choice) = (self.version(), self.choice());
            if version & 1 != 0 {
                continue;
            }
            let now = pair(version, choice);
            // SAFETY: the first word of a set, which is aligned.
            let before =
                unsafe { A::compare_exchange(self.word(), now, pair(version.wrapping_add(1), choice)) };
            if before == now {
                return Some(version);
            }
        }
        None
    }

    /// Frees it, for its holder.
    #[inline(always)]
    fn unlock<A: Atomic>(self, version: u32) {
        // SAFETY: as above.
        unsafe { A::order_writes(self.word()) };
        // SAFETY: a word of a set.
        unsafe { write_volatile(&raw mut (*self.0).version, version.wrapping_add(2)) };
    }

    /// The version, after a while if an entry is being written now.
    #[inline(always)]
    fn settled(self) -> u32 {
        for _ in 0..LOOKS {
            let version = self.version();
            if version & 1 == 0 {
                return version;
            }
        }
        1
    }

    #[inline(always)]
    fn order_reads<A: Atomic>(self) {
        // SAFETY: the first word of a set.
        unsafe { A::order_reads(self.word()) };
    }

    #[inline(always)]
    fn word(self) -> *mut u64 {
        self.0.cast()
    }

    #[inline(always)]
    fn version(self) -> u32 {
        // SAFETY: a word of a set.
        unsafe { read_volatile(&raw const (*self.0).version) }
    }

    #[inline(always)]
    fn choice(self) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.0).choice) }
    }

    #[inline(always)]
    fn set_choice(self, choice: u32) {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*self.0).choice, choice) };
    }

    /// An entry, as words of 64 bits: two of the address, then name and end.
    #[inline(always)]
    fn entry(self, way: usize) -> *mut u64 {
        const ENTRY: usize = size_of::<NameEntry>() / 8;
        // SAFETY: behind the first word, within the set.
        unsafe { self.0.cast::<u64>().add(1 + ENTRY * (way % WAYS_OF_NAMES)) }
    }

    #[inline(always)]
    fn is_of(self, way: usize, address: &Address) -> bool {
        self.address(way) == *address
    }

    #[inline(always)]
    fn address(self, way: usize) -> Address {
        let entry = self.entry(way);
        // SAFETY: words of an entry.
        unsafe { Address::from_halves(read_volatile(entry), read_volatile(entry.add(1))) }
    }

    #[inline(always)]
    fn name(self, way: usize) -> NameId {
        // SAFETY: as above.
        NameId(unsafe { read_volatile(self.entry(way).add(2).cast()) })
    }

    #[inline(always)]
    fn until(self, way: usize) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(self.entry(way).add(2).cast::<u32>().add(1)) }
    }

    /// Writes an entry, for the lock's holder.
    #[inline(always)]
    fn write(self, way: usize, entry: &NameEntry) {
        let [a, b] = entry.address.halves();
        let to = self.entry(way);
        // SAFETY: as above.
        unsafe {
            write_volatile(to, a);
            write_volatile(to.add(1), b);
            write_volatile(
                to.add(2),
                pair(entry.name.0, if entry.until == NEVER { NEVER + 1 } else { entry.until }),
            );
        }
    }
}

/// A choice: the entry's own way is above all others.
const WAY_BITS: u32 = 3;
const LONGEST: u32 = (1 << (31 - WAY_BITS)) - 1;
const OWN: u32 = 1 << 31;
