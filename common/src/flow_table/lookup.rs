//! What is looked for in the flow table: the key, where it belongs, and what was found.

use core::ptr::read_volatile;

use super::{Entry, FlowSeed, FlowSet, HASH, KEY_WORDS, USED, WAYS, entry, last};
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
    /// From 1 on; 0: none.
    pub(super) way: u32,
    /// What was found.
    pub flow: Flow,
}

impl Lookup {
    pub const EMPTY: Self = Self { key: FlowKey::EMPTY, tag: 0, set: 0, way: 0, flow: Flow::EMPTY };

    pub const fn of(key: FlowKey) -> Self {
        Self { key, ..Self::EMPTY }
    }

    /// Finds out where the connection belongs, by its key, in a table of so many sets; the set.
    ///
    /// The hash is NH (UMAC, RFC 4418, 5.2): without the seed nobody finds keys that share a value more often than by
    /// chance. Then its bits are mixed.
    #[inline(always)]
    pub fn place(&mut self, seed: &FlowSeed, sets: u32) -> u32 {
        let words = (&raw const self.key).cast::<u32>();
        let seeds = (&raw const seed.0).cast::<u32>();
        // SAFETY: both have this many words. Volatile: the programs' seed is written into their data at loading.
        let sum = |at| unsafe { u64::from(words.add(at).read()) + u64::from(read_volatile(seeds.add(at))) };
        let mut hash = 0_u64;
        for pair in 0..KEY_WORDS / 2 {
            hash = hash.wrapping_add(sum(2 * pair).wrapping_mul(sum(2 * pair + 1)));
        }
        hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half, and a product's upper one")]
        {
            self.tag = hash as u32 & HASH | USED;
            self.set = (((hash >> 32) * u64::from(sets)) >> 32) as u32;
        }
        self.set
    }

    /// The set that [`Self::place`] has found.
    #[inline(always)]
    pub const fn set(&self) -> u32 {
        self.set
    }

    /// Whether an entry is this connection's.
    ///
    /// # Safety
    ///
    /// `entry` can be read.
    #[inline(always)]
    pub(super) unsafe fn is_key_of(&self, entry: *const Entry) -> bool {
        let (own, other) = ((&raw const self.key).cast::<u64>(), entry.cast::<u64>());
        let mut difference = 0;
        for word in 0..size_of::<FlowKey>() / 8 {
            // SAFETY: the key is this many words, and the first field of an entry.
            difference |= unsafe { own.add(word).read() ^ read_volatile(other.add(word)) };
        }
        difference == 0
    }

    /// # Safety
    ///
    /// `set` can be read, and has this way.
    #[inline(always)]
    pub(super) unsafe fn copy(&mut self, set: *const FlowSet, way: u32) {
        // SAFETY: the caller's.
        unsafe {
            let entry = entry(set.cast_mut(), way);
            self.flow = Flow {
                client_if: read_volatile(&raw const (*entry).client_if),
                server_if: read_volatile(&raw const (*entry).server_if),
                via: read_volatile(&raw const (*entry).via),
                client_epoch: read_volatile(&raw const (*entry).client_epoch),
                server_epoch: read_volatile(&raw const (*entry).server_epoch),
                last: read_volatile(last(set.cast_mut(), way)),
                seen: read_volatile(&raw const (*entry).seen),
            };
        }
    }

    /// A way's number, in bounds that the verifier sees.
    #[inline(always)]
    pub(super) fn way(&self) -> u32 {
        // SAFETY: a reference is valid to be read from. Volatile, so that the verifier forgets which one it was.
        unsafe { read_volatile(&raw const self.way) & WAYS }
    }
}
