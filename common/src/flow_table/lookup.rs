//! What is looked for in the flow table: the key, where it belongs, and what was found.

use super::{HASH, Seed, USED, WAYS, WayNumber};
use crate::{Flow, FlowKey, Tuple, packet::forget};

/// A look-up: what is looked for, and what was found.
///
/// In the kernel this is memory of a map, of which the verifier remembers nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub key: FlowKey,
    pub(super) tag: u32,
    set: u32,
    /// The way where it is looked for first, and where it goes when that is free.
    pub(super) preferred: u32,
    /// The way where it was found; 0: none.
    pub(super) way: u32,
    /// What was found.
    pub flow: Flow,
    /// Of the packet whose connection it is.
    source_is_low: bool,
}

/// Where a connection belongs in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub(super) tag: u32,
    pub set: u32,
    pub(super) way: WayNumber,
}

/// The lower half of a word.
const HALF: u64 = 0xffff_ffff;

impl Spot {
    /// By the connection's key, in a table of so many sets.
    ///
    /// The hash is NH (UMAC, RFC 4418, 5.2): without the seed no one finds keys that share a value more often
    /// than by chance. Then its bits are mixed.
    #[inline(always)]
    pub fn of(key: &FlowKey, seed: &impl Seed, sets: u32) -> Self {
        let [a, b, c, d, ends] = key.words();
        let pair =
            |word: u64, at| ((word & HALF) + seed.word(at)).wrapping_mul((word >> 32) + seed.word(at + 1));
        let mut hash = pair(a, 0).wrapping_add(pair(ends, 8));
        // The other words of IPv4 are the same for all.
        if !key.is_v4() {
            hash = hash.wrapping_add(pair(b, 2)).wrapping_add(pair(c, 4)).wrapping_add(pair(d, 6));
        }
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The lower bits of a product are of its factors' lower bits alone. The set is of the upper ones, as
        // all memory is waited for until it is known.
        let lower = mixed ^ (mixed >> 29);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half, and upper ones of products")]
        Self {
            tag: lower as u32 & HASH | USED,
            set: (((mixed >> 32) * u64::from(sets)) >> 32) as u32,
            way: WayNumber::of(1 + (((lower & u64::from(!HASH)) * u64::from(WAYS)) >> 8) as u32),
        }
    }
}

impl Lookup {
    pub const EMPTY: Self = Self {
        key: FlowKey::EMPTY,
        tag: 0,
        set: 0,
        preferred: 0,
        way: 0,
        flow: Flow::EMPTY,
        source_is_low: false,
    };

    pub const fn of(key: FlowKey) -> Self {
        Self { key, ..Self::EMPTY }
    }

    /// Turns to the connection of a packet.
    ///
    /// A function of its own in the kernel too, after which the verifier knows neither family nor direction.
    #[inline(never)]
    pub(crate) fn turn_to(&mut self, tuple: &Tuple) {
        (self.key, self.source_is_low) = FlowKey::of(tuple);
    }

    /// Whether that packet's source is the low end.
    #[inline(always)]
    pub(crate) fn source_is_low(&self) -> bool {
        forget(&self.source_is_low)
    }

    /// Finds out where the connection belongs, by its key, in a table of so many sets; the set.
    #[inline(always)]
    pub fn place(&mut self, seed: &impl Seed, sets: u32) -> u32 {
        let Spot { tag, set, way } = Spot::of(&self.key, seed, sets);
        (self.tag, self.set, self.preferred) = (tag, set, way.number());
        set
    }

    /// The set that [`Self::place`] has found.
    #[inline(always)]
    pub const fn set(&self) -> u32 {
        self.set
    }

    #[inline(always)]
    pub(super) fn way(&self) -> WayNumber {
        WayNumber::forgotten(&self.way)
    }

    #[inline(always)]
    pub(super) fn preferred(&self) -> WayNumber {
        WayNumber::forgotten(&self.preferred)
    }
}
