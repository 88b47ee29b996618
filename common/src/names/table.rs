//! The addresses that one pod has learnt: sets of eight entries, two sets for each address.
//!
//! A new entry goes to the set with more room, so that three quarters of a table can live without a loss.
//! When both are full, the entry goes that ends first. One address has an entry for each name, as rules see
//! it ([`NameId`]). How a set is shared stands in [`SharedNameSet`].

mod memory;
mod shared;

pub use shared::{SharedNameSet, TRIES_TO_ENTER};

use super::{NameId, Stream};
use crate::{Address, Seed};

/// Entries of one set.
pub const WAYS_OF_NAMES: usize = 8;

/// One element of a pod's table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct NameSet {
    /// Odd while an entry is written, and another one after each.
    version: u64,
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
        entries: [NameEntry { address: Address::UNSPECIFIED, name: NameId::NONE, until: 0 }; WAYS_OF_NAMES],
    };
}

impl NameSet {
    /// Odd while an entry was written; another one after each.
    pub const fn version(&self) -> u64 {
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
