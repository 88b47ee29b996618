//! What is looked for in the flow table: the key, where it belongs, and what was found.

use core::ptr::read_volatile;

use super::{FLOW_WORDS, FlowSeed, FlowSet, HASH, USED, WAYS, entry, last};
use crate::{Flow, FlowKey};

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
}

/// Where a connection belongs in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub(super) tag: u32,
    pub set: u32,
    /// From 1 to [`WAYS`].
    pub(super) way: u32,
}

impl Spot {
    /// By the connection's key, in a table of so many sets.
    ///
    /// The hash is NH (UMAC, RFC 4418, 5.2): without the seed nobody finds keys that share a value more often than by
    /// chance. Then its bits are mixed.
    #[inline(always)]
    pub fn of(key: &FlowKey, seed: &FlowSeed, sets: u32) -> Self {
        let words = (&raw const *key).cast::<u32>();
        let seeds = (&raw const seed.0).cast::<u32>();
        // SAFETY: both have this many words. Volatile: the programs' seed is written into their data at loading.
        let sum = |at| unsafe { u64::from(words.add(at).read()) + u64::from(read_volatile(seeds.add(at))) };
        let product = |one, other| sum(one).wrapping_mul(sum(other));
        let mut hash = product(8, 9);
        if key.low.is_v4() {
            // All other words are the same for all.
            hash = hash.wrapping_add(product(3, 7));
        } else {
            for pair in 0..4 {
                hash = hash.wrapping_add(product(2 * pair, 2 * pair + 1));
            }
        }
        hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half, and a product's upper one")]
        Self {
            tag: hash as u32 & HASH | USED,
            set: (((hash >> 32) * u64::from(sets)) >> 32) as u32,
            way: 1 + (((hash as u32 & !HASH) * WAYS) >> 8),
        }
    }
}

impl Lookup {
    pub const EMPTY: Self =
        Self { key: FlowKey::EMPTY, tag: 0, set: 0, preferred: 0, way: 0, flow: Flow::EMPTY };

    pub const fn of(key: FlowKey) -> Self {
        Self { key, ..Self::EMPTY }
    }

    /// Finds out where the connection belongs, by its key, in a table of so many sets; the set.
    #[inline(always)]
    pub fn place(&mut self, seed: &FlowSeed, sets: u32) -> u32 {
        let Spot { tag, set, way } = Spot::of(&self.key, seed, sets);
        (self.tag, self.set, self.preferred) = (tag, set, way);
        set
    }

    /// The set that [`Self::place`] has found.
    #[inline(always)]
    pub const fn set(&self) -> u32 {
        self.set
    }

    /// # Safety
    ///
    /// `set` can be read, and has this way.
    #[inline(always)]
    pub(super) unsafe fn copy(&mut self, set: *const FlowSet, way: u32) {
        // SAFETY: the caller's; both begin with these words, and are aligned to 8 bytes.
        unsafe {
            let from = (&raw const (*entry(set.cast_mut(), way)).client_if).cast::<u64>();
            let to = (&raw mut self.flow).cast::<u64>();
            for word in 0..FLOW_WORDS {
                to.add(word).write(read_volatile(from.add(word)));
            }
            self.flow.last = read_volatile(last(set.cast_mut(), way));
        }
    }

    #[inline(always)]
    pub(super) fn way(&self) -> u32 {
        way(&self.way)
    }

    #[inline(always)]
    pub(super) fn preferred(&self) -> u32 {
        way(&self.preferred)
    }
}

/// A way's number, in bounds that the verifier sees.
#[inline(always)]
fn way(number: &u32) -> u32 {
    // SAFETY: a reference is valid to be read from. Volatile, so that neither the verifier knows which one it is, nor the
    // compiler that it is in bounds.
    unsafe { read_volatile(number) & WAYS }
}
