//! Atomic operations in BPF. `core::sync::atomic` has none for this target; compare-and-exchange and exchange
//! are full barriers in every kernel's BPF (Linux 5.12).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg};

use podgate_common::Atomic;

pub(crate) struct Bpf;

impl Bpf {
    /// Adds one.
    ///
    /// # Safety
    ///
    /// `word` is aligned memory of a map.
    #[inline(always)]
    pub(crate) unsafe fn add_one(word: *mut u32) {
        // SAFETY: the caller's.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(word, 1) };
    }
}

impl Atomic for Bpf {
    #[inline(always)]
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, current, new).0
        }
    }

    #[inline(always)]
    unsafe fn exchange(word: *mut u64, new: u64) {
        // SAFETY: the caller's.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(word, new) };
    }

    #[inline(always)]
    unsafe fn or(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(word, bits) };
    }
}
